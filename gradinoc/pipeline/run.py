"""Compute the steps of a study, each once, in any number of processes."""

from __future__ import annotations

import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import pandas as pd
import psutil
import torch

from gradinoc.claims.tables import COLUMNS, Evidence
from gradinoc.data.export import write_datasets
from gradinoc.data.splits import split
from gradinoc.errors import GradinocError, NumericalError, OutOfMemoryError
from gradinoc.measure.training.tracking import Tracking
from gradinoc.models.isolation import undisturbed
from gradinoc.models.memory import release
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.progress import ALL, SOME, WAITING, OnProgress, Pace, Progress, Times, time_left
from gradinoc.pipeline.steps.plan import entries, plan
from gradinoc.pipeline.steps.step import Step, StepKey
from gradinoc.pipeline.store import MANIFEST, Entry, Store, load_json, load_or_compute, load_table
from gradinoc.study.description import Study

MACHINE_THREADS = torch.get_num_threads()  # before anything has changed it
POLL_SECONDS = 0.2  # between looks at steps that other workers hold
COUNT_SECONDS = 2.0  # between looks at how many steps are done, while a step is at work
TIMES = "seconds.jsonl"  # in the store: what each step took
# Errors after which other steps go on; others that a user can mend (a missing model, a full disk) stop every step.
STEP_ERRORS = (NumericalError, OutOfMemoryError)


class Pipeline:
    """A study as steps in a store. Any number of processes may work on one; each takes the next step that is free.

    Args:
        study: what to compute.
        store: holds results, under keys of everything that determines them.
        on_progress: called with each event.
        workers: processes that share this machine, among which its CPU threads are divided.
        tracking: shows runs while they train; it decides no result.

    Attributes:
        context: the study with its questions and model.
        steps: every step, by key.
        entries: each step's place in the store.
    """

    def __init__(
        self,
        study: Study,
        store: Store,
        on_progress: OnProgress | None = None,
        workers: int = 1,
        tracking: Tracking | None = None,
    ) -> None:
        self.study = study
        self._on_progress = on_progress or (lambda _progress: None)
        self._workers = workers
        self._failed: dict[StepKey, Exception] = {}  # in the order of failure; a step is tried once
        threads = study.model.threads or max(1, MACHINE_THREADS // workers)
        torch.set_num_threads(threads)
        self._times, self._counted = Times(store.root / TIMES, threads), 0.0
        self.context = StudyContext(study, split(study.data), tracking)
        self.steps = plan(self.context)
        self.entries = entries(self.context, self.steps, store)
        self._absent = list(self.steps.values())

    def entry(self, stage: str, condition: str = "", seed: int | None = None, phase: str = "") -> Entry:
        """Return a step's place in the store."""
        return self.entries[StepKey(stage, condition, seed, phase)]

    def write_datasets(self, directory: Path) -> list[Path]:
        """Write the training, evaluation and direction questions as chat JSONL for other tools; return the paths."""
        return write_datasets(self.context.splits, self.context.trait, self.study.data.source, directory)

    @undisturbed()
    def evidence(self, *stages: str) -> Evidence:
        """Return the tables of `stages` (all if none is named), computing what is missing; other tables are empty.

        Raises:
            NumericalError: a number that is neither measured nor allowed to be missing.
        """
        folders = self.complete([key for key in self.steps if not stages or key.stage in stages])
        tables = {name: _gather(folders, name, columns) for name, columns in COLUMNS.items()}
        evidence = Evidence(
            **tables,
            conditions=tuple(self.study.conditions),
            seeds=self.study.seeds,
            untrained=tuple(self.study.untrained),
            trait=self.context.trait,
        )
        evidence.ensure_measured()
        return evidence

    @undisturbed()
    def complete(self, keys: Sequence[StepKey] | None = None) -> list[Path]:
        """Return the folders of steps (all if none is named), computing or waiting for what is not there yet.

        A step that another process is computing is left to it, and the next one taken up instead. A step that fails
        for a reason of its own is set aside with all that need it, and raised when everything else is there.

        Raises:
            GradinocError: of the first step that failed, naming it; or, at once, what would stop the others as well.
        """
        keys = list(self.steps) if keys is None else keys
        needed, worked = self._with_needs(keys), False
        while missing := [step for step in needed if not self._is_done(step.key)]:
            worked = True
            possible = [step for step in missing if not self._is_blocked(step.key)]
            if not possible:
                raise self._failure(missing)
            if not any(self._attempt(step) for step in possible):
                self._wait_for(possible)
        if worked:
            self._notify(SOME if self._missing() else ALL, "in the store")
        return [self.entries[key].path for key in keys]

    def _with_needs(self, keys: Sequence[StepKey]) -> list[Step]:
        """Return the steps and all that they need, in the order of the plan."""
        wanted = set(keys)
        for key in reversed(self.steps):  # each is after those that it needs
            if key in wanted:
                wanted.update(self.steps[key].needs)
        return [step for key, step in self.steps.items() if key in wanted]

    def _is_done(self, key: StepKey) -> bool:
        return self.entries[key].complete()

    def _is_ready(self, step: Step) -> bool:
        """Return whether all that `step` needs is there."""
        return all(map(self._is_done, step.needs))

    def _missing(self, seconds_ago: float = 0.0) -> list[Step]:
        """Return the steps that are not in the store, as of at most so many seconds ago."""
        if time.monotonic() - self._counted >= seconds_ago:
            self._absent = [step for key, step in self.steps.items() if not self._is_done(key)]
            self._counted = time.monotonic()
        return self._absent

    def _attempt(self, step: Step) -> bool:
        """Compute `step` and return True if all that it needs is there and no other process is at it."""
        if not self._is_ready(step):
            return False
        entry = self.entries[step.key]
        with entry.lock(wait=False) as held:
            if held:
                try:
                    load_or_compute(entry, partial(self._compute, step))
                except Exception as error:
                    if isinstance(error, GradinocError | OSError) and not isinstance(error, STEP_ERRORS):
                        raise
                    self._note_failure(step, error)
            return held

    def _note_failure(self, step: Step, error: Exception) -> None:
        """Remember that `step` failed, and free what its frames hold: on a device, memory which other steps need."""
        self._failed[step.key] = error
        each: BaseException | None = error
        while each is not None:
            traceback.clear_frames(each.__traceback__)
            each = each.__cause__ or each.__context__
        release()
        self._notify(f"{step.label} failed", f"{error}; going on with the rest", failed=True)

    def _is_blocked(self, key: StepKey) -> bool:
        """Return whether a step or one that it needs failed here, and no other process has computed it."""
        if self._is_done(key):
            return False
        return key in self._failed or any(map(self._is_blocked, self.steps[key].needs))

    def _failure(self, missing: Sequence[Step]) -> Exception:
        """Return the first error among the `missing` steps, naming its step and the others that failed."""
        absent = {step.key for step in missing}
        first, *others = [key for key in self._failed if key in absent]
        label, error = self.steps[first].label, self._failed[first]
        also = f" (failed as well: {', '.join(self.steps[key].label for key in others)})" if others else ""
        if isinstance(error, GradinocError):
            named = type(error)(f"{label}: {error}{also}")
            named.__cause__ = error
            return named
        error.__notes__ = [f"in the step {label!r}{also}"]
        return error

    def _wait_for(self, possible: Sequence[Step]) -> None:
        """Wait a little for other workers, which compute all that is ready."""
        at_work = next(filter(self._is_ready, possible), possible[0])
        self._notify(WAITING, f"another worker is at {at_work.label}")
        time.sleep(POLL_SECONDS)

    def _compute(self, step: Step, folder: Path) -> None:
        began, pace = time.monotonic(), Pace()

        def callback(
            part: str, done: int = 0, total: int = 0, *, loss: float | None = None, alignment: float | None = None
        ) -> None:
            rate = pace.per_second(part, done, total)
            numbers = {"loss": loss, "alignment": alignment, "per_second": rate, "done": done, "total": total}
            left = (total - done) / rate if rate else None
            self._notify(step.label, part, step, time.monotonic() - began, seconds_left=left, **numbers)

        callback("starting")
        step.compute({need: self.entries[need].path for need in step.needs}, folder, callback)
        release()
        self._times.note(self.entries[step.key].key, time.monotonic() - began)

    def _notify(self, label: str, detail: str, step: Step | None = None, spent: float = 0.0, **numbers: Any) -> None:
        """Send an event, `spent` seconds into a step; within it, finished steps are counted every few seconds only."""
        missing, steps = self._missing(COUNT_SECONDS if numbers.get("done") else 0.0), len(self.steps)
        left, at_least = time_left(self._seconds(missing, step, spent, numbers.get("seconds_left")), self._workers)
        self._on_progress(
            Progress(
                label,
                detail,
                steps - len(missing),
                steps,
                study_seconds_left=left,
                at_least=at_least,
                study=self.study.name,
                stage=step.key.stage if step else "",
                memory=psutil.Process().memory_info().rss,
                device_memory=_device_memory(),
                stages=self._stages(missing),
                **numbers,
            )
        )

    def _stages(self, missing: Sequence[Step]) -> dict[str, tuple[int, int]]:
        """Return stage -> how many of its steps are done, and how many it has."""
        planned = Counter(key.stage for key in self.steps)
        absent = Counter(step.key.stage for step in missing)
        return {stage: (count - absent[stage], count) for stage, count in planned.items()}

    def _seconds(
        self, missing: Sequence[Step], current: Step | None, spent: float, part_left: float | None
    ) -> list[float | None]:
        """Return what each of the `missing` steps still takes, as steps of its kind took; None where none was timed.

        The `current` step began `spent` seconds ago, and its present part takes another `part_left`.
        """
        kinds = {self.entries[key].key: step.kind for key, step in self.steps.items()}
        took = defaultdict[str, list[float]](list)
        for key, seconds in self._times.of(kinds).items():
            took[kinds[key]].append(seconds)
        left: list[float | None] = []
        for step in missing:
            usual = mean(took[step.kind]) if took[step.kind] else None
            if step != current:
                left.append(usual)
            elif usual is not None:
                left.append(max(0.0, usual - spent))
            else:
                left += [part_left, None]  # what comes after its present part is not known
        return left


def _device_memory() -> int | None:
    """Return the bytes that this process holds of an accelerator's memory; None while it holds none."""
    if torch.cuda.is_initialized():
        return torch.cuda.memory_reserved()
    if torch.backends.mps.is_available():
        return torch.mps.driver_allocated_memory()
    return None


def _gather(folders: Sequence[Path], name: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return the table `name` of every folder that has one, one below the other; empty if none has."""
    file = f"{name}.parquet"
    frames = [load_table(folder / file) for folder in folders if file in load_json(folder / MANIFEST)["files"]]
    if not frames:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(frames, ignore_index=True)
