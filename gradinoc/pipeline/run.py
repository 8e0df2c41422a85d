"""Compute the steps of a study, each once, in any number of processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from gradinoc.claims.evidence.tables import COLUMNS, OF_STUDY, Evidence
from gradinoc.data.export import write_datasets
from gradinoc.data.splits import split
from gradinoc.errors import GradinocError, LostWorkerError, NumericalError, OutOfMemoryError, in_step
from gradinoc.measure.training.tracking import Tracking
from gradinoc.models.machine.isolation import undisturbed
from gradinoc.models.machine.memory import forget, release
from gradinoc.pipeline.context import StudyContext, arm_table, prompt_table
from gradinoc.pipeline.engines.engine import Engine, Job, together
from gradinoc.pipeline.engines.local import LocalEngine
from gradinoc.pipeline.engines.telling import Teller
from gradinoc.pipeline.progress import ALL, SOME, WAITING, OnProgress, Pace, Times
from gradinoc.pipeline.steps.plan import entries, plan
from gradinoc.pipeline.steps.present import LOOKING, Present
from gradinoc.pipeline.steps.step import Share, Step, StepKey
from gradinoc.pipeline.storage.contents import load_tables
from gradinoc.pipeline.storage.store import Entry, Store
from gradinoc.study.description import Study

MACHINE_THREADS = torch.get_num_threads()  # before anything has changed it
POLL_SECONDS = 0.2  # between looks at steps that other workers hold
TIMES = "seconds.jsonl"  # in the store: what each step took
# Errors after which other steps go on; others that a user can mend (a missing model, a full disk) stop every step.
STEP_ERRORS = (NumericalError, OutOfMemoryError, LostWorkerError)
logger = logging.getLogger(__name__)
Planned = Callable[[StudyContext], dict[StepKey, Step]]


class Pipeline:
    """A study as steps in a store. Any number of processes may work on one; each takes the next step that is free.

    Args:
        study: what to compute.
        store: holds results, under keys of everything that determines them.
        on_progress: called with each event.
        workers: processes that share this machine, among which its CPU threads are divided.
        tracking: shows runs while they train; it decides no result.
        planned: gives the steps of a study, each after those it needs.
        engine: computes them; this process, if none is given.

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
        planned: Planned = plan,
        engine: Engine | None = None,
    ) -> None:
        self.study = study
        self._on_progress = on_progress or (lambda _progress: None)
        self._engine: Engine = engine or LocalEngine(self._compute, workers)
        self._at_work: dict[Job, ExitStack] = {}  # what was begun here -> its locks
        self._most: dict[StepKey, int] = {}  # how many a step may be computed with, where more have failed
        self._failed: dict[StepKey, Exception] = {}  # in the order of failure; a step is tried once
        threads = study.model.threads or max(1, MACHINE_THREADS // workers)
        torch.set_num_threads(threads)
        self._times = Times(store.root / TIMES, threads)
        self.context = StudyContext(study, split(study.data), tracking)
        self.steps = planned(self.context)
        self.entries = entries(self.context, self.steps, store)
        self._present, self._tell_after = Present(self.entries), 0.0
        self._teller = Teller(study.name, self.steps, self.entries, self._times)

    def close(self) -> None:
        """Let go of the engine; the next step to be computed calls it again."""
        self._engine.close()

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
        tables = {
            name: load_tables(folders, name, columns) for name, columns in COLUMNS.items() if name not in OF_STUDY
        }
        evidence = Evidence(
            **tables,
            prompts=prompt_table(self.context),
            arms=arm_table(self.context),
            planned_runs=(*self.study.runs, *self.study.arm_runs),
            trait=self.context.trait,
            caveats=tuple(self.context.caveats),
        )
        evidence.ensure_measured()
        return evidence.without_arms()

    @undisturbed()
    def complete(self, keys: Sequence[StepKey] | None = None, *, with_needs: bool = True) -> list[Path]:
        """Return the folders of steps (all if none is named), computing or waiting for what is not there yet.

        What they need comes first, and what that needs; without `with_needs` they are computed alone, from what is in
        the store. A step that another process is computing is left to it, and the next one taken up instead. A step
        that fails for a reason of its own is set aside with all that need it, and raised when all else is there.

        Raises:
            GradinocError: of the first step that failed, naming it; or, at once, what would stop the others as well.
        """
        keys = list(self.steps) if keys is None else keys
        needed, worked = self._with_needs(keys) if with_needs else [self.steps[key] for key in keys], False
        self._present.forget()
        self._present.missing(self.steps.values())  # what is told counts all of them
        idle = False
        try:
            while missing := self._present.missing(needed, at_once=idle):
                worked = True
                possible = [step for step in missing if not self._is_blocked(step.key)]
                if not possible and not self._at_work:
                    raise self._failure(missing)
                self._begin(possible)
                idle = not self._at_work and self._engine.room() > 0
                self._end_finished()
                if idle:
                    self._wait_for(possible)
        except BaseException:
            self._engine.close()
            raise
        finally:
            for job in [*self._at_work]:
                self._let_go(job)
        if worked:
            missing = self._present.missing(self.steps.values(), at_once=True)
            self._notify(SOME if missing else ALL, "in the store")
        return [self.entries[key].path for key in keys]

    def _with_needs(self, keys: Sequence[StepKey]) -> list[Step]:
        """Return the steps and all that they need, in the order of the plan."""
        wanted = set(keys)
        for key in reversed(self.steps):  # each is after those that it needs
            if key in wanted:
                wanted.update(self.steps[key].needs)
        return [step for key, step in self.steps.items() if key in wanted]

    def _is_ready(self, step: Step) -> bool:
        return all(need in self._present for need in step.needs)

    def _begin(self, possible: Sequence[Step]) -> None:
        """Have the engine begin as many jobs as it has room for, of steps that are ready and that nobody is at."""
        for step in possible:
            if self._engine.room(step) < 1:
                return
            if self._is_ready(step):
                self._begin_with(step, possible)

    def _begin_with(self, step: Step, possible: Sequence[Step]) -> None:
        """Begin a step, if it is free; in one go with it, where it can be, others of the `possible` that are free."""
        begun = {each.key for job in self._at_work for each in job.steps}
        with ExitStack() as stack:

            def hold(each: Step) -> bool:
                if each.key in begun or not stack.enter_context(self.entries[each.key].lock(wait=False)):
                    return False
                return not self._present.found(each.key)  # another process may have computed it just now

            if hold(step):
                steps = (step, *self._company(step, possible, hold))
                needed = {need: self.entries[need] for each in steps for need in each.needs}
                job = Job(steps, tuple(self.entries[each.key] for each in steps), needed)
                self._at_work[job] = stack.pop_all()
                self._engine.begin(job)

    def _company(self, step: Step, possible: Sequence[Step], hold: Callable[[Step], bool]) -> list[Step]:
        """Return those that are computed in one go with `step`, all held: with it no more than a worker's share."""
        alike = [each for each in possible if each.key.stage == step.key.stage and each is not step]
        if step.compute_all is None or not alike or not self._engine.in_one_go:
            return []
        try:
            most = min(step.most(), self._most.get(step.key, step.most()))
        except Exception:  # it fails by itself as well, and that is told
            return []
        ready = list(filter(self._is_ready, alike)) if most > 1 else []
        share = min(most, -(-(len(ready) + 1) // self._engine.workers))
        return list(islice(filter(hold, ready), share - 1))

    def _end_finished(self) -> None:
        """Note what the engine has finished, and pass on what its workers tell.

        Several steps that failed in one go are free again, for half as many at a time: one of them may be at fault, or
        memory too small for all.

        Raises:
            GradinocError: what would stop other steps as well.
        """
        for job, error in self._engine.finished(POLL_SECONDS):
            self._let_go(job)
            if error is None:
                self._present.note(step.key for step in job.steps)
                for entry in job.entries:
                    self._times.note(entry.key, (time.monotonic() - job.began) / len(job.entries))
                continue
            if isinstance(error, GradinocError | OSError) and not isinstance(error, STEP_ERRORS):
                raise error
            if len(job.steps) == 1:
                self._note_failure(job.steps[0], error)
                continue
            forget(error)
            half = -(-len(job.steps) // 2)
            self._most |= dict.fromkeys((step.key for step in job.steps), half)
            logger.warning("%d steps in one go failed (%s): trying %d at a time", len(job.steps), error, half)
        if (began := time.monotonic()) < self._tell_after:
            return
        last = {event.worker: event for event in self._engine.news()}
        missing = self._present.missing(self.steps.values())
        for event in self._teller.completed([*last.values()], missing, self._engine.workers):
            self._on_progress(event)
        self._tell_after = time.monotonic() + (time.monotonic() - began) / LOOKING  # what is told counts every step

    def _let_go(self, job: Job) -> None:
        self._at_work.pop(job).close()

    def _note_failure(self, step: Step, error: Exception) -> None:
        """Remember that `step` failed."""
        self._failed[step.key] = error
        forget(error)
        self._notify(f"{step.label} failed", f"{error}; going on with the rest", failed=True)

    def _is_blocked(self, key: StepKey) -> bool:
        """Return whether a step or one that it needs failed here, and no other process has computed it."""
        if not self._failed or key in self._present:
            return False
        return key in self._failed or any(map(self._is_blocked, self.steps[key].needs))

    def _failure(self, missing: Sequence[Step]) -> Exception:
        """Return the first error among the `missing` steps, naming its step and the others that failed."""
        absent = {step.key for step in missing}
        first, *others = [key for key in self._failed if key in absent]
        return in_step(self._failed[first], self.steps[first].label, [self.steps[key].label for key in others])

    def _wait_for(self, possible: Sequence[Step]) -> None:
        """Wait a little for other workers, which compute all that is ready."""
        at_work = next(filter(self._is_ready, possible), possible[0])
        self._notify(WAITING, f"another worker is at {at_work.label}")
        time.sleep(POLL_SECONDS)

    def _compute(self, steps: Sequence[Step], folders: Mapping[int, Path]) -> None:
        """Compute steps, by their place, into folders."""
        began, pace = time.monotonic(), Pace()
        shares = [
            Share(steps[place].key, {need: self.entries[need].path for need in steps[place].needs}, folder)
            for place, folder in folders.items()
        ]
        current = [self.steps[share.key] for share in shares]
        first, label = current[0], together(current)

        def callback(
            part: str, done: int = 0, total: int = 0, *, loss: float | None = None, alignment: float | None = None
        ) -> None:
            rate = pace.per_second(part, done, total)
            numbers = {"loss": loss, "alignment": alignment, "per_second": rate, "done": done, "total": total}
            left = (total - done) / rate if rate else None
            self._notify(label, part, current, time.monotonic() - began, seconds_left=left, **numbers)

        callback("starting")
        if len(shares) > 1 and first.compute_all:
            first.compute_all(shares, callback)
        else:
            for step, share in zip(current, shares, strict=True):
                step.compute(share.needed, share.folder, callback)
        release()

    def _notify(
        self, label: str, detail: str, current: Sequence[Step] = (), spent: float = 0.0, **numbers: Any
    ) -> None:
        """Send an event, `spent` seconds into steps."""
        missing = self._present.missing(self.steps.values())
        self._on_progress(self._teller.event(label, detail, missing, self._engine.workers, current, spent, **numbers))
