"""How long a study takes several workers: its steps dealt out as engines deal them, each as long as it is estimated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from math import ceil

from gradinoc.pipeline.steps.step import StepKey
from gradinoc.study.description import Study


@dataclass(frozen=True)
class Timed:
    """A step that is to be dealt out.

    Attributes:
        needs: steps that come before it.
        seconds: how long it takes one worker.
    """

    needs: tuple[StepKey, ...]
    seconds: float


def makespan(steps: Mapping[StepKey, Timed], workers: int | None = None) -> float:
    """Return the seconds until the last step is done; `workers` None: as many as there is ever work for.

    A worker that is free takes the first of the plan that is ready, as engines do. What it takes to hand steps out, and
    to start a worker, is left out.
    """
    order = {key: place for place, key in enumerate(steps)}
    waits = {key: len(set(step.needs)) for key, step in steps.items()}
    freed = defaultdict[StepKey, list[StepKey]](list)
    for key, step in steps.items():
        for need in set(step.needs):
            freed[need].append(key)
    ready: list[tuple[int, StepKey]] = []
    running: list[tuple[float, int, StepKey]] = []
    for key, count in waits.items():
        if not count:
            heappush(ready, (order[key], key))
    now = 0.0
    while ready or running:
        while ready and (workers is None or len(running) < workers):
            place, key = heappop(ready)
            heappush(running, (now + steps[key].seconds, place, key))
        now, _, done = heappop(running)
        for key in freed[done]:
            waits[key] -= 1
            if not waits[key]:
                heappush(ready, (order[key], key))
    return now


def with_runs(study: Study, runs: int) -> Study:
    """Return the study with so many runs, or a few more, by more seeds of its conditions; arms are left out."""
    once = len(study.prompts_trained)
    seeds = max(1, ceil((runs - once) / len(study.conditions)))
    return study.model_copy(update={"seeds": tuple(range(seeds)), "arms": {}})
