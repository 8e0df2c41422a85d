"""How far the gradient of an example's loss pushes the residual stream along a direction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.linalg import vector_norm  # on Apple's GPU `Tensor.norm` takes a way that warns

from gradinoc.measure.fast import completion_losses, frozen_batch, scored_batch, sharing_order
from gradinoc.measure.passes.batches import Batch
from gradinoc.measure.passes.finite import fault_in_gradients, fault_in_losses, stop
from gradinoc.measure.passes.hooks import GradientCollector
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.machine.isolation import undisturbed
from gradinoc.models.machine.memory import in_batches
from gradinoc.study.description import POSITIONS

ALIGNMENT_COLUMNS = ("example", "layer", "position", "loss", "alignment", "projection", "grad_norm")


def compute_gradient_alignment(gradient: Tensor, direction: Tensor) -> dict[str, Tensor]:
    """Cosine, projection and norm of `gradient` relative to `direction`, float32; no sign is flipped here.

    Args:
        gradient: `[..., hidden]`.
        direction: `[..., hidden]`, of any length > 0; leading dimensions broadcast against the gradient's.

    Returns:
        `cosine` (NaN for a zero gradient), `projection` on the unit direction and `grad_norm`, both in the gradient's
        units.

    Raises:
        ValueError: the last dimensions differ, or a direction is zero.
    """
    if gradient.shape[-1] != direction.shape[-1]:
        raise ValueError(
            f"Expected equal hidden sizes, received gradient {tuple(gradient.shape)} "
            f"and direction {tuple(direction.shape)}"
        )
    gradient, direction = gradient.float(), direction.float()
    length = vector_norm(direction, dim=-1, keepdim=True)
    if not bool((length > 0).all()):
        raise ValueError("A direction is zero or NaN; expected vectors of positive length")
    projection = (gradient * (direction / length)).sum(-1)
    grad_norm = vector_norm(gradient, dim=-1).expand_as(projection)
    return {"cosine": projection / grad_norm, "projection": projection, "grad_norm": grad_norm}


@undisturbed()
@torch.no_grad()
def answer_losses(
    model: nn.Module, examples: Sequence[Encoded], pad: int, batch_size: int, copies: int = 1
) -> NDArray[np.float64]:
    """Each example's mean-token loss, nats/token, in the order of `examples`.

    With several `copies` `[copies, examples]`: each batch is put once for each adapter of a stack, see
    `gradinoc.measure.fast.stacked_adapters`. A batch that does not fit into memory is halved.

    Raises:
        NumericalError: a loss is not finite; the message names the examples, and where in the model it arose.
        OutOfMemoryError: memory does not suffice for a single example.
    """
    order = sharing_order(model, [example.ids for example in examples])
    losses = np.full((copies, len(examples)), np.nan)

    def score(rows: Sequence[int]) -> None:
        batch = scored_batch(model, [examples[row] for row in rows], pad, copies)
        found = completion_losses(model, batch)
        if fault := fault_in_losses(found, [*rows] * copies):
            stop(fault, model, lambda: completion_losses(model, batch))
        losses[:, rows] = found.cpu().double().numpy().reshape(copies, -1)

    in_batches(order, batch_size, score)
    return losses if copies > 1 else losses[0]


@dataclass(frozen=True)
class Reading:
    """One backward pass, read: `alignment` `[layers, positions, batch, directions]`, the others without directions.

    Direction 0 is the trait's; `projection` is on it. All float32, on the model's device.
    """

    alignment: Tensor
    projection: Tensor
    grad_norm: Tensor


class _AsReceived(GradientCollector):
    """Reads gradients behind whatever changes them at the block, no matter which of the two was entered first."""

    _before_others = True


class GradientLogger:
    """Reads alignments off a backward pass that happens anyway; wrap the forward and backward passes in it.

    The gradient of each layer is reduced inside its hook to three positions and one matrix product with all directions,
    on the model's device: no second pass, and nothing sequence-long is kept. It is the one that the block's weights
    receive, behind whatever changes it there.

    Args:
        model: a decoder-only model, PEFT-wrapped or not.
        directions: layer -> unit rows `[directions, hidden]`, the trait's first.
    """

    def __init__(self, model: nn.Module, directions: Mapping[int, Tensor]) -> None:
        device = next(model.parameters()).device
        self.layers = sorted(directions)
        self._directions = {layer: directions[layer].to(device, torch.float32) for layer in self.layers}
        self._collector = _AsReceived(model, self.layers, self._reduce)
        self._batch: Batch | None = None
        self._scale, self._runs = 1.0, 1
        self._sums: dict[int, Tensor] = {}

    def __enter__(self) -> Self:
        self._collector.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._collector.__exit__(kind, error, trace)

    def expect(self, batch: Batch, scale: float, runs: int = 1) -> None:
        """Announce the next backward pass: of `batch`, with each example's own loss divided by `scale`.

        The batch holds the examples of several `runs`, run by run, as many of each.
        """
        self._batch, self._scale, self._runs = batch, scale, runs

    def read(self) -> Reading:
        """What the last backward pass showed.

        Raises:
            RuntimeError: no backward pass since the last call.
        """
        found = self._collector.get_gradients()
        stacked = torch.stack([found[layer] for layer in self.layers])  # (L, P, B, directions + 1)
        projections, norm = stacked[..., :-1], stacked[..., -1]
        return Reading(projections / norm[..., None], projections[..., 0], norm)

    def summed(self) -> Tensor:
        """Minus the gradients of the pass that was read last, summed over each run's examples.

        `[layers, positions, runs, hidden]` float32, on the model's device: what a step of gradient descent goes along.
        """
        return torch.stack([self._sums[layer] for layer in self.layers])

    def _reduce(self, layer: int, gradient: Tensor) -> Tensor:
        if self._batch is None:
            raise RuntimeError("A backward pass that was not announced: call expect(batch, scale) before it")
        at_positions = gradient_at_positions(gradient, self._batch)  # (P, B, hidden)
        descent = at_positions * -self._scale  # the one place where the sign flips: a descent step goes along -g
        self._sums[layer] = descent.unflatten(1, (self._runs, -1)).sum(2)
        projections = descent @ self._directions[layer].T
        return torch.cat([projections, vector_norm(descent, dim=-1, keepdim=True)], dim=-1)


def gradient_at_positions(gradient: Tensor, batch: Batch) -> Tensor:
    """Gradients `[positions, batch, hidden]`, float32, at the three positions of `study.description.POSITIONS`.

    `gradient` is of the shape of the batch's ids and `[hidden]`; `completion_sum` is summed over completion tokens.
    """
    rows = gradient.flatten(0, 1)
    ends = rows[torch.cat([batch.last_prompt, batch.last_prompt + 1])].float()
    summed = torch.zeros(len(batch), rows.shape[-1], device=rows.device)
    summed.index_add_(0, batch.owner, rows[batch.completion].float())
    return torch.cat([ends, summed]).view(len(POSITIONS), len(batch), -1)


class Measured(NamedTuple):
    """Alignments of a frozen model.

    Attributes:
        table: columns example, layer, position, loss, alignment, projection, grad_norm, of the first direction.
        means: mean alignment over examples at the primary position, `[layers, directions]` float64, CPU.
        by_example: alignment of the first directions by example, primary position, `[layers, examples, kept]`
            float64, CPU.
        at_positions: mean alignment of these at every position, `[layers, positions, kept]` float64, CPU.
        descent: minus the mean gradient over examples, `[layers, positions, hidden]` float64, CPU; see
            `gradinoc.measure.gradients.pooled`.
    """

    table: pd.DataFrame
    means: Tensor
    by_example: Tensor
    at_positions: Tensor
    descent: Tensor


@undisturbed()
def measure_alignments(
    model: nn.Module,
    examples: Sequence[Encoded],
    directions: Mapping[int, Tensor],
    pad: int,
    batch_size: int = 8,
    on_batch: Callable[[int, int], None] | None = None,
    kept: int = 1,
) -> Measured:
    """Alignments of a frozen model with every direction, at the price of one backward pass an example.

    Examples keep their number in `examples`.

    Args:
        directions: layer -> rows `[directions, hidden]`, the trait's first, as unit vector. An alignment is
            `cos(-g, u)` times the length of a row u: 1 for all but sign-flipped contrasts.
        pad: id of the padding token.
        on_batch: called with (examples done, examples in all) after each batch.
        kept: how many of the directions are kept by example.

    Raises:
        NumericalError: a loss or gradient is not finite, or a gradient is zero; the message names layer and examples.
        OutOfMemoryError: memory does not suffice for a single example.
    """
    order = sharing_order(model, [example.ids for example in examples])
    frames: list[pd.DataFrame] = []
    total = torch.zeros(len(directions), len(next(iter(directions.values()))), dtype=torch.float64)
    by_example = torch.full((len(directions), len(examples), kept), torch.nan, dtype=torch.float64)
    size = next(iter(directions.values())).shape[-1]
    descent = torch.zeros(len(directions), len(POSITIONS), size, dtype=torch.float64)
    at_positions = torch.zeros(len(directions), len(POSITIONS), kept, dtype=torch.float64)
    measured: list[int] = []

    def measure(rows: Sequence[int]) -> None:
        batch = frozen_batch(model, [examples[row] for row in rows], pad)
        gradients.expect(batch, scale=1.0)
        losses = completion_losses(model, batch)
        losses.sum().backward()
        reading = gradients.read()
        if fault := fault_in(losses.detach(), reading, gradients.layers, rows):
            stop(fault, model, lambda: completion_losses(model, batch))
        primary = reading.alignment[:, 0].cpu().double()  # (L, B, directions)
        summed = gradients.summed()[:, :, 0].cpu().double()
        first = reading.alignment[..., :kept].cpu().double().sum(2)
        frame = alignment_frame(reading, losses.detach(), rows, gradients.layers)
        # Only now, when nothing more can fail for want of memory: a batch is tried again in halves.
        frames.append(frame)
        total.add_(primary.sum(1))
        descent.add_(summed)
        at_positions.add_(first)
        by_example[:, rows] = primary[..., :kept]
        measured.extend(rows)
        if on_batch:
            on_batch(len(measured), len(order))

    with GradientLogger(model, directions) as gradients:
        in_batches(order, batch_size, measure)
    table = pd.concat(frames, ignore_index=True).sort_values(["example", "layer"], kind="stable")
    count = len(examples)
    return Measured(table.reset_index(drop=True), total / count, by_example, at_positions / count, descent / count)


def wide(values: Tensor) -> Tensor:
    """`values` on their device, in float64 where it has that: Apple's MPS has not, and sums there are of float32."""
    return values if values.device.type == "mps" else values.double()


def fault_in(losses: Tensor, reading: Reading, layers: Sequence[int], examples: Sequence[int]) -> str | None:
    """What is wrong with a batch's losses `[batch]` or its reading, in words; None if nothing is."""
    return fault_in_losses(losses, examples) or fault_in_gradients(
        reading.grad_norm, reading.alignment, layers, examples
    )


def alignment_frame(reading: Reading, losses: Tensor, examples: Sequence[int], layers: Sequence[int]) -> pd.DataFrame:
    """A reading as rows: example, layer, position, loss, and the trait's alignment, projection, grad_norm."""
    trait = reading.alignment[..., 0].cpu().double().numpy()  # (L, P, B)
    shape = trait.shape
    layer, position, row = (axis.ravel() for axis in np.indices(shape))
    return pd.DataFrame(
        {
            "example": np.asarray(examples)[row],
            "layer": np.asarray(layers)[layer],
            "position": np.asarray(POSITIONS)[position],
            "loss": np.broadcast_to(losses.cpu().double().numpy(), shape).ravel(),
            "alignment": trait.ravel(),
            "projection": reading.projection.cpu().double().numpy().ravel(),
            "grad_norm": reading.grad_norm.cpu().double().numpy().ravel(),
        }
    )


def direction_means(means: Tensor, layers: Sequence[int]) -> pd.DataFrame:
    """Mean alignments `[layers, draws]` of random directions, as rows draw, layer, alignment.

    `layers` are the numbers of those that the rows of `means` are of.
    """
    random = means.numpy()
    place, draw = (axis.ravel() for axis in np.indices(random.shape))
    return pd.DataFrame({"draw": draw, "layer": np.asarray(layers)[place], "alignment": random.ravel()})
