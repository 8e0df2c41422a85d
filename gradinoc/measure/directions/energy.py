"""How much of the gradient's energy lies along a direction, and directions at random that hold as much."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradinoc.errors import ModelError
from gradinoc.measure.fast import batched, completion_losses, sharing_order
from gradinoc.measure.passes.finite import fault_in_losses, stop
from gradinoc.measure.passes.hooks import GradientCollector
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.machine.isolation import undisturbed
from gradinoc.models.machine.memory import in_batches

WITHIN = 0.2  # of the energy to be matched
MOST_RANK = 64  # of a subspace in the place of a direction
TRIED = 20  # subspaces drawn for each that is wanted
INDEPENDENT = 1e-4  # length of what a unit row adds to the span of others, at least
SUBSPACE = "subspace"

Moments = Mapping[int, Tensor]  # layer -> second moments of the gradient, `[hidden, hidden]` float64


@undisturbed()
def gradient_moments(
    model: nn.Module,
    examples: Sequence[Encoded],
    layers: Sequence[int],
    pad: int,
    batch_size: int = 4,
    on_batch: Callable[[int, int], None] | None = None,
) -> dict[int, Tensor]:
    """Second moments of the gradient at every token: layer -> sum of g g^T `[hidden, hidden]`, float64, CPU.

    g is the gradient of each example's own mean-token loss with respect to h[l], on the frozen model; tokens of the
    prompt count as those of the answer do, since weights learn from both.

    Raises:
        NumericalError: a loss is not finite.
        OutOfMemoryError: memory does not suffice for a single example.
    """
    order, done = sharing_order(model, [example.ids for example in examples]), 0
    total: dict[int, Tensor] = {}

    def moment(_layer: int, gradient: Tensor) -> Tensor:
        rows = gradient.flatten(0, -2).float()
        return rows.T @ rows

    def measure(rows: Sequence[int]) -> None:
        nonlocal done
        batch = batched(model, [examples[row] for row in rows], pad)
        losses = completion_losses(model, batch)
        losses.sum().backward()
        found = collector.get_gradients()
        if fault := fault_in_losses(losses.detach(), rows):
            stop(fault, model, lambda: completion_losses(model, batch))
        for layer, each in found.items():
            total[layer] = total.get(layer, torch.zeros((), dtype=torch.float64)) + each.cpu().double()
        done += len(rows)
        if on_batch:
            on_batch(done, len(order))

    with GradientCollector(model, layers, moment) as collector:
        in_batches(order, batch_size, measure)
    return total


def energy(moments: Moments, bases: Mapping[int, Tensor]) -> Tensor:
    """Share of the gradient's energy within each subspace, over all layers: sum (g . u)^2 / sum |g|^2, `[n]` float64.

    `bases` is layer -> `[n, rank, hidden]`, orthonormal rows each.
    """
    inside = sum(
        torch.einsum("nrh,hk,nrk->n", rows.double(), moments[layer], rows.double()) for layer, rows in bases.items()
    )
    return torch.as_tensor(inside / sum(moments[layer].trace() for layer in bases))


@dataclass(frozen=True)
class Matched:
    """Directions, or subspaces, that hold as much of the gradient's energy as another one.

    Attributes:
        bases: layer -> orthonormal rows `[count, rank, hidden]` float32.
        kinds: of which kind each was drawn.
        energies: share of the gradient's energy that each holds, `[count]`.
        target: the share that was to be matched.
    """

    bases: dict[int, Tensor]
    kinds: tuple[str, ...]
    energies: tuple[float, ...]
    target: float

    @property
    def rank(self) -> int:
        """Dimensions of each: 1 for directions."""
        return int(next(iter(self.bases.values())).shape[1])


def match_energy(
    moments: Moments,
    target: Mapping[int, Tensor],
    candidates: Mapping[str, Mapping[int, Tensor]],
    count: int,
    seed: int,
) -> Matched:
    """So many candidates whose energy is that of `target` to within a fifth, kinds in turn.

    Where too few directions hold that much, random subspaces of the smallest rank that does, spanned by candidates.

    Args:
        moments: of the gradient, from `gradient_moments`.
        target: layer -> unit vector `[hidden]`.
        candidates: kind -> layer -> unit rows `[n, hidden]`; a row is one draw for all layers.
        count: how many are wanted.
        seed: decides which are taken of those that match.

    Raises:
        ModelError: neither directions nor subspaces match.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = list(target)
    wanted = float(energy(moments, {layer: target[layer][None, None] for layer in layers}))
    fitting: dict[str, list[int]] = {}
    held = {kind: energy(moments, _single(rows, layers)) for kind, rows in candidates.items()}
    for kind, values in held.items():
        inside = ((values - wanted).abs() <= WITHIN * wanted).nonzero().flatten()
        fitting[kind] = inside[torch.randperm(len(inside), generator=generator)].tolist()
    taken = _in_turn(fitting, count)
    if len(taken) == count:
        bases = {
            layer: torch.stack([candidates[kind][layer][row][None] for kind, row in taken]).float() for layer in layers
        }
        energies = tuple(float(held[kind][row]) for kind, row in taken)
        return Matched(bases, tuple(kind for kind, _ in taken), energies, wanted)
    return _subspaces(moments, wanted, {layer: _all(candidates, layer) for layer in layers}, count, generator)


def _single(rows: Mapping[int, Tensor], layers: Sequence[int]) -> dict[int, Tensor]:
    return {layer: rows[layer][:, None] for layer in layers}


def _all(candidates: Mapping[str, Mapping[int, Tensor]], layer: int) -> Tensor:
    return torch.cat([rows[layer] for rows in candidates.values()])


def _in_turn(fitting: Mapping[str, list[int]], count: int) -> list[tuple[str, int]]:
    """Up to `count` (kind, row), the kinds in turn as long as they have any left."""
    places = [(place, kind, row) for kind, rows in fitting.items() for place, row in enumerate(rows)]
    return [(kind, row) for _, kind, row in sorted(places, key=lambda each: each[0])[:count]]


def _subspaces(
    moments: Moments, wanted: float, rows: Mapping[int, Tensor], count: int, generator: torch.Generator
) -> Matched:
    """Random subspaces spanned by rows `[n, hidden]` that hold the energy that is wanted."""
    drawn = min(len(each) for each in rows.values())
    smallest = min(each.shape[-1] for each in rows.values())
    for rank in range(2, min(MOST_RANK, drawn, smallest) + 1):
        chosen = torch.stack([torch.randperm(drawn, generator=generator)[:rank] for _ in range(TRIED * count)])
        factors = {layer: torch.linalg.qr(each[chosen].double().mT) for layer, each in rows.items()}
        if any(float(each.R.diagonal(dim1=-2, dim2=-1).abs().min()) < INDEPENDENT for each in factors.values()):
            break  # no more candidates are independent
        bases = {layer: each.Q.mT for layer, each in factors.items()}
        values = energy(moments, bases)
        if float(values.median()) < (1 - WITHIN) * wanted:
            continue
        inside = ((values - wanted).abs() <= WITHIN * wanted).nonzero().flatten()[:count]
        if len(inside) == count:
            kept = {layer: each[inside].float() for layer, each in bases.items()}
            return Matched(kept, (SUBSPACE,) * count, tuple(values[inside].tolist()), wanted)
    raise ModelError(
        f"No {count} directions or subspaces of random ones hold {100 * wanted:.3g} % of the gradient's energy to "
        f"within {100 * WITHIN:g} %, as the direction does whose component is removed: raise nulls.covariance, or ask "
        "for fewer draws in [arms]"
    )
