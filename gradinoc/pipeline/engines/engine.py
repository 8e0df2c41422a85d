"""What an engine is: it is given steps that can be computed, and gives back those that have been."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gradinoc.pipeline.progress import Progress
from gradinoc.pipeline.steps.step import Step, StepKey
from gradinoc.pipeline.storage.store import Entry

Compute = Callable[[Sequence[Step], Mapping[int, Path]], None]  # steps, and the folder of each by its place


@dataclass(eq=False)
class Job:
    """Steps that one worker computes in one go, nearly always a single one.

    Attributes:
        steps: of one stage.
        entries: where their results go, one each.
        needed: every step whose result they read -> where that is.
        began: when a worker was given it (`time.monotonic`).
    """

    steps: tuple[Step, ...]
    entries: tuple[Entry, ...]
    needed: Mapping[StepKey, Entry]
    began: float = field(default_factory=time.monotonic)


def together(steps: Sequence[Step]) -> str:
    """Return what messages call steps that are computed in one go."""
    first, *others = steps
    return f"{first.label} and {len(others)} more {first.kind}" if others else first.label


class Engine(Protocol):
    """Works on jobs. It alone writes their results into the store, in the process that asks for them.

    A job that is begun is held: no other process computes it until it is given back.

    Attributes:
        in_one_go: whether a job may be of several steps; how many there may be is asked of the model, in this process.
    """

    in_one_go: bool

    @property
    def workers(self) -> int:
        """How many jobs it can work on at a time, as far as it knows by now; at least 1."""

    def room(self, step: Step | None = None) -> int:
        """Return how many more jobs it would begin at once; or would take, if it is this step's."""

    def begin(self, job: Job) -> None:
        """Take a job."""

    def finished(self, seconds: float) -> Iterator[tuple[Job, Exception | None]]:
        """Yield jobs whose results are in the store, or that failed, with why; wait for one, but not much longer.

        Raises:
            GradinocError: what would stop every job.
        """

    def news(self) -> Iterator[Progress]:
        """Yield what its workers told since they were last asked; of those in this process, nothing."""

    def close(self) -> None:
        """Let go of everything; jobs that are under way are given up."""
