"""Which row the tokens of a forward pass belong to, for hooks that see nothing but the pass itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from gradinoc.measure.passes.batches import Batch


@dataclass(frozen=True)
class Ends:
    """The tokens of a pass from each row's last prompt token on.

    Attributes:
        places: index of each among the tokens of the pass, one row after the other, `[tokens]`.
        rows: number of the row that it belongs to, `[tokens]`.
        positions: its index in that row, `[tokens]`.
        last_prompt: index in its row of each row's last prompt token, `[rows]`.
        parts: tokens of each run's rows, where those of several runs are packed run by run.
    """

    places: Tensor
    rows: Tensor
    positions: Tensor
    last_prompt: Tensor
    parts: tuple[int, ...] = ()

    @staticmethod
    def of(batch: Batch) -> Ends:
        """Those of a batch of examples, in their order."""
        places = torch.cat([batch.last_prompt, batch.completion])
        rows = torch.cat([torch.arange(len(batch), device=batch.owner.device), batch.owner])
        positions = batch.position_ids.flatten()
        return Ends(places, rows, positions[places], positions[batch.last_prompt], batch.parts)

    @property
    def before(self) -> Ends:
        """None at all: of a pass over what comes before the last prompt tokens of these rows."""
        return Ends(self.places[:0], self.rows[:0], self.positions[:0], self.last_prompt)


# Makes those of the passes to come, for a hook that asks.
announced: ContextVar[Callable[[], Ends] | None] = ContextVar("announced", default=None)


@contextmanager
def announcing(ends: Callable[[], Ends]) -> Iterator[None]:
    """Inside the block passes are of the rows whose ends this makes."""
    token = announced.set(ends)
    try:
        yield
    finally:
        announced.reset(token)
