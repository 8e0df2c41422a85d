"""The engine that is this process: jobs are computed one after the other, and other processes compute beside it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from gradinoc.pipeline.engines.engine import Compute, Job
from gradinoc.pipeline.progress import Progress
from gradinoc.pipeline.steps.step import Step
from gradinoc.pipeline.storage.store import load_or_compute_all


class LocalEngine:
    """Computes a job when it is asked for finished ones (see `Engine`).

    Args:
        compute: computes steps into folders.
        workers: processes that work on the study, this one included.
    """

    in_one_go = True

    def __init__(self, compute: Compute, workers: int = 1) -> None:
        self._compute, self.workers = compute, workers
        self._jobs: list[Job] = []

    def room(self, _step: Step | None = None) -> int:
        """One job at a time."""
        return 1 - len(self._jobs)

    def begin(self, job: Job) -> None:
        """Take a job."""
        self._jobs.append(job)

    def finished(self, seconds: float) -> Iterator[tuple[Job, Exception | None]]:
        """Compute what was begun, in this thread, however long it takes."""
        del seconds
        while self._jobs:
            job = self._jobs.pop()
            try:
                load_or_compute_all(job.entries, partial(self._compute, job.steps))
            except Exception as error:
                yield job, error
            else:
                yield job, None

    def news(self) -> Iterator[Progress]:
        """Nothing: steps tell for themselves."""
        yield from ()

    def close(self) -> None:
        """Give up what was not computed."""
        self._jobs.clear()
