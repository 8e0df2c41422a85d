"""What steering a frozen model does to its decisions: along the trait's direction, and along others of equal length."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradinoc.measure.behaviour.decisions import Decision, either_losses_of
from gradinoc.measure.directions.nulls import covariance_directions
from gradinoc.measure.fast import Common, logits_of, resumed, variants
from gradinoc.measure.passes.batches import Batch
from gradinoc.measure.passes.finite import fault_in_values, stop
from gradinoc.measure.steering.steered import increments, steered
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.machine.isolation import undisturbed
from gradinoc.models.machine.memory import in_batches

STRENGTHS = (-1.0, 0.0, 1.0, 2.0)  # times half the distance between the promoting and the suppressing prompt
TOKENS = 2048  # a pass: results do not depend on it
TRUSTED, ROUNDED = 1e-3, 0.2  # nats that results may be from those of whole passes: in float32, in half precision
OnDone = Callable[[int, int], None]

logger = logging.getLogger(__name__)


def half_distances(
    promote: Mapping[int, Tensor], suppress: Mapping[int, Tensor], directions: Mapping[int, Tensor]
) -> dict[int, float]:
    """Half the distance from the suppressing to the promoting prompt along each layer's direction, hidden-state units.

    Args:
        promote: layer -> activations `[questions, hidden]` under the promoting prompt; `suppress` alike.
        directions: layer -> unit vector `[hidden]`.

    Raises:
        ValueError: a distance is not above zero: the direction does not point from `suppress` to `promote`.
    """
    halves = {
        layer: float((promote[layer].double().mean(0) - suppress[layer].double().mean(0)) @ direction.double()) / 2
        for layer, direction in directions.items()
    }
    if backwards := {layer: half for layer, half in halves.items() if not half > 0}:
        raise ValueError(
            f"Half distances {backwards}: expected directions from the suppressing to the promoting prompt"
        )
    return halves


def with_matched(
    directions: Mapping[int, Tensor],
    promote: Mapping[int, Tensor],
    suppress: Mapping[int, Tensor],
    draws: int,
    seed: int,
) -> dict[int, Tensor]:
    """Each layer's direction and `draws` random ones with the stream's covariance: layer -> `[1 + draws, hidden]`.

    Unit vectors, float32; see `gradinoc.measure.directions.nulls.covariance_directions`.
    """
    one, other = ({layer: side[layer] for layer in directions} for side in (promote, suppress))
    drawn = covariance_directions(one, other, draws, seed)
    return {layer: torch.cat([direction[None], drawn[layer]]) for layer, direction in directions.items()}


@undisturbed()
@torch.no_grad()
def steering_effects(
    model: nn.Module,
    decisions: Sequence[Decision],
    directions: Mapping[int, Tensor],
    scales: Mapping[int, float],
    strengths: Sequence[float] = STRENGTHS,
    *,
    losses: bool = True,
    on_done: OnDone = lambda _done, _all: None,
) -> pd.DataFrame:
    """Decision log-odds of a frozen model whose stream `h[l]` is moved by `strength * scales[l] * directions[l]`.

    From each prompt's last token on, in all layers of `directions` at once, by what each adds to the one below it (see
    `gradinoc.measure.steering.steered.increments`). What is the same for all vectors is
    computed once a question, where a trial on the longest one shows the same numbers: the tokens before, the blocks up
    to the lowest steered one, and strength 0.

    Args:
        model: a decoder-only model, PEFT-wrapped or not.
        decisions: of `gradinoc.measure.behaviour.decisions.decisions`, under the neutral prompt.
        directions: layer -> unit rows `[directions, hidden]`, the trait's first.
        scales: layer -> how far strength 1 moves the stream, in hidden-state units; see `half_distances`.
        strengths: multiples of it.
        losses: whether those of either form are measured too.
        on_done: called with (examples done, all of them) after each, first for their log-odds, then for their losses.

    Returns:
        Columns direction (0 is the trait's), strength, example, log_odds (nats, mean over the example's places; NaN
        without a place) and loss (of either form, nats, see `either_losses_of`; NaN but for direction 0). A row each of
        directions x strengths x examples, in this order.

    Raises:
        ValueError: no directions, or other layers in `scales`.
        NumericalError: a number is not finite; the message names the examples.
        OutOfMemoryError: memory does not suffice for a single row.
    """
    if not directions or set(scales) != set(directions):
        raise ValueError(f"Expected scales of the layers {sorted(directions)}, received {sorted(scales)}")
    shifts = increments({layer: scales[layer] * rows.float() for layer, rows in directions.items()})
    count = len(next(iter(shifts.values())))
    decided = [row for row, each in enumerate(decisions) if each.places]
    kept = [decisions[row] for row in decided]

    def odds(batch: Batch, row: int) -> Tensor:
        chosen = kept[row]
        before = torch.tensor([place - chosen.prompt_length for place in chosen.places], device=batch.owner.device)
        pairs = torch.tensor([chosen.trait, chosen.ordinary], device=before.device).T.repeat(len(batch), 1)
        logits = logits_of(model, batch, (batch.last_prompt[:, None] + before).flatten(), pairs)
        return (logits[:, 0] - logits[:, 1]).view(len(batch), -1).mean(1)

    def either(batch: Batch, row: int) -> Tensor:
        return either_losses_of(model, batch, [kept[row]] * len(batch))

    sweep = _Sweep(model, shifts, tuple(strengths), on_done)
    values = {name: np.full((count, len(strengths), len(decisions)), np.nan) for name in ("log_odds", "loss")}
    values["log_odds"][..., decided] = sweep.values([_read_from(each) for each in kept], count, odds, "the log-odds")
    if losses:
        values["loss"][:1, :, decided] = sweep.values([each.encoded for each in kept], 1, either, "the loss")
    direction, strength, example = (axis.ravel() for axis in np.indices(values["loss"].shape))
    found = {name: value.ravel() for name, value in values.items()}
    return pd.DataFrame(
        {"direction": direction, "strength": np.asarray(strengths, dtype=float)[strength], "example": example, **found}
    )


def _read_from(decision: Decision) -> Encoded:
    """The tokens from which all is predicted that is decided: the last token itself predicts nothing."""
    needed = max(decision.prompt_length + 1, decision.places[-1])  # a batch takes no example without a completion
    return Encoded(decision.ids[:needed], decision.prompt_length)


Read = Callable[[Batch, int], Tensor]  # a batch of one example's variants, and which it is -> a number a row


@dataclass
class _Sweep:
    """Passes with every vector: `shifts` `[directions, hidden]` by layer, times each of `strengths`."""

    model: nn.Module
    shifts: Mapping[int, Tensor]
    strengths: tuple[float, ...]
    on_done: OnDone

    def values(self, examples: Sequence[Encoded], directions: int, read: Read, what: str) -> NDArray[np.float64]:
        """What `read` finds, `[directions, strengths, examples]`, of the first so many directions."""
        found = np.full((directions, len(self.strengths), len(examples)), np.nan)
        still = [place for place, strength in enumerate(self.strengths) if not strength]
        moving = [place for place, strength in enumerate(self.strengths) if strength]
        jobs = [*((0, place) for place in still[:1]), *product(range(directions), moving)]
        common = self._common(examples, read) if examples else Common(False, 0)

        def measure(row: int, own: Common, chosen: Sequence[int]) -> None:
            which, places = map(list, zip(*(jobs[job] for job in chosen), strict=True))
            amounts = torch.tensor([self.strengths[place] for place in places])

            def received() -> Tensor:
                return self._read(examples[row], (which, amounts), lambda batch: read(batch, row), own)

            values = received()
            if fault := fault_in_values(values, [row] * len(chosen), what):
                stop(fault, self.model, received)
            found[which, places, row] = values.cpu().double().numpy()

        for row, example in enumerate(examples):
            own = common._replace(beginning=common.beginning and example.prompt_length > 1)
            in_batches(range(len(jobs)), self._size(example, len(jobs), own), partial(measure, row, own))
            self.on_done(row + 1, len(examples))
        found[:, still] = found[:1, still[:1]]
        return found

    def _size(self, example: Encoded, jobs: int, common: Common) -> int:
        """Rows a pass: as many passes as `TOKENS` asks for, all of nearly as many rows."""
        tokens = len(example.ids) - (example.prompt_length - 1 if common.beginning else 0)
        return -(-jobs // max(1, round(jobs * tokens / TOKENS)))

    def _read(
        self, example: Encoded, vectors: tuple[list[int], Tensor], read: Callable[[Batch], Tensor], common: Common
    ) -> Tensor:
        which, amounts = vectors
        shifts = {layer: rows[which] for layer, rows in self.shifts.items()}
        batch, output = variants(self.model, example, len(which), common)
        with resumed(self.model, output, common.blocks), steered(self.model, shifts, amounts):
            return read(batch)

    def _common(self, examples: Sequence[Encoded], read: Read) -> Common:
        """What variants may share: all before the first steered token and block, where a trial shows the same."""
        row = max(range(len(examples)), key=lambda place: len(examples[place].ids))
        example = examples[row]
        lowest = min(self.shifts) + 1  # the lowest steered block's own output is the same for all
        vectors = [0, 0], torch.tensor([-1.0, 1.0])
        whole = self._read(example, vectors, lambda batch: read(batch, row), Common(False, 0)).float()
        exact = next(self.model.parameters()).dtype in (torch.float32, torch.float64)
        for common in (Common(True, lowest), Common(True, 0), Common(False, lowest)):
            try:
                ours = self._read(example, vectors, lambda batch: read(batch, row), common).float()
            except Exception as error:  # whatever a model's own code needs of what is left out
                logger.debug("%s: %s", common, error)
                continue
            if float((ours - whole).abs().max()) <= (TRUSTED if exact else ROUNDED):
                return common
        return Common(False, 0)
