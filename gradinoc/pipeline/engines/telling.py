"""What is told of a study while it is computed: how many of its steps are done, and how long the others will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import psutil

from gradinoc.models.machine.memory import device_memory
from gradinoc.pipeline.progress import Progress, Times, seconds_left, time_left
from gradinoc.pipeline.steps.step import Step, StepKey
from gradinoc.pipeline.storage.store import Entry


class Teller:
    """Makes the events of a study from what is missing of it."""

    def __init__(
        self, study: str, steps: Mapping[StepKey, Step], entries: Mapping[StepKey, Entry], times: Times
    ) -> None:
        self._study, self._steps, self._times = study, steps, times
        self._kept = {key: entry.key for key, entry in entries.items()}
        self._kinds = {self._kept[key]: step.kind for key, step in steps.items()}

    def event(
        self, label: str, detail: str, missing: Sequence[Step], workers: int, current: Sequence[Step] = (),
        spent: float = 0.0, **numbers: Any,
    ) -> Progress:  # fmt: skip
        """Return what this process tells, `spent` seconds into the `current` steps; `numbers` are of their part."""
        absent, now = ([self._kept[step.key] for step in steps] for steps in (missing, current))
        left = seconds_left(self._kinds, self._times, absent, now, spent)
        if left and left[-1] is None and numbers.get("seconds_left") and current:
            left.append(numbers["seconds_left"])  # of the present part; what comes after it is not known
        told = Progress(
            label, detail, 0, 0, stage=current[0].key.stage if current else "",
            memory=psutil.Process().memory_info().rss, device_memory=device_memory(), **numbers,
        )  # fmt: skip
        return replace(told, **self._of_study(missing, workers, left))

    def completed(self, told: Sequence[Progress], missing: Sequence[Step], workers: int) -> list[Progress]:
        """Return what workers elsewhere told of their steps, with what this process knows of the study."""
        if not told:
            return []
        absent = [self._kept[step.key] for step in missing]
        of_study = self._of_study(missing, workers, seconds_left(self._kinds, self._times, absent, (), 0.0))
        return [replace(each, **of_study) for each in told]

    def _of_study(self, missing: Sequence[Step], workers: int, left: Sequence[float | None]) -> dict[str, Any]:
        seconds, at_least = time_left(left, workers)
        return {
            "study": self._study, "steps_done": len(self._steps) - len(missing), "steps": len(self._steps),
            "study_seconds_left": seconds, "at_least": at_least, "stages": self._stages(missing),
        }  # fmt: skip

    def _stages(self, missing: Sequence[Step]) -> dict[str, tuple[int, int]]:
        """Return stage -> how many of its steps are done, and how many it has."""
        planned = Counter(key.stage for key in self._steps)
        absent = Counter(step.key.stage for step in missing)
        return {stage: (count - absent[stage], count) for stage, count in planned.items()}
