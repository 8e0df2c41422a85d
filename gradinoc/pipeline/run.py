"""The steps of a study: what each needs, what decides its result, and that each is computed once, by one worker."""

from __future__ import annotations

import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from statistics import mean
from types import ModuleType
from typing import Any

import pandas as pd
import psutil
import torch

from gradinoc.claims.tables import AFTER, COLUMNS, EARLY, Evidence
from gradinoc.data.export import write_datasets
from gradinoc.data.sources import DATASETS
from gradinoc.data.splits import split
from gradinoc.errors import GradinocError, NumericalError, OutOfMemoryError
from gradinoc.measure.training.tracking import Tracking
from gradinoc.models.device import choose_dtype, precision_overrides
from gradinoc.models.isolation import undisturbed
from gradinoc.models.memory import release
from gradinoc.pipeline.context import Bench, Tell
from gradinoc.pipeline.manifest import MANIFEST
from gradinoc.pipeline.progress import ALL, SOME, WAITING, Pace, Times, time_left
from gradinoc.pipeline.progress import OnProgress as OnProgress
from gradinoc.pipeline.progress import Progress as Progress
from gradinoc.pipeline.provenance import code_version, library_versions
from gradinoc.pipeline.steps import directions, drift, gradients, matched, pool, training, unrelated
from gradinoc.pipeline.steps.training import adapter_after
from gradinoc.pipeline.store import Entry, Store, load_json, load_or_compute, load_table
from gradinoc.study.chat_template import SHIPPED
from gradinoc.study.description import Study
from gradinoc.study.prompts import INOCULATION, MATCHED, NEUTRAL

MACHINE_THREADS = torch.get_num_threads()  # before anything has changed it
POLL_SECONDS = 0.2  # between looks at steps that other workers hold
COUNT_SECONDS = 2.0  # between looks at how many steps are done, while a step is at work
TIMES = "seconds.jsonl"  # in the store: what each step took
# Their values are inputs of the steps that use them; how they are written down, or shown, changes no result.
DESCRIPTION = (
    "gradinoc.study.description", "gradinoc.study.fields", "gradinoc.study.rules", "gradinoc.study.loading",
    "gradinoc.pipeline.store", "gradinoc.pipeline.manifest",
    "gradinoc.pipeline.provenance", "gradinoc.pipeline.environment", "gradinoc.disk", "gradinoc.data.formats",
    "gradinoc.errors", "gradinoc.measure.training.tracking", "gradinoc.models.chat.rendered",
)  # fmt: skip
LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "accelerate")  # whose versions decide every result
# What else a user can mend (a model that is not there, a full disk) would stop every step.
OF_ONE_STEP = (NumericalError, OutOfMemoryError)

Work = Callable[[Path, Tell], None]  # computes a step into a folder, telling how far it is


@dataclass(frozen=True)
class Word:
    """What is told of a step, `spent` seconds into it."""

    step: str
    detail: str
    stage: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)  # of `Progress`
    spent: float = 0.0
    failed: bool = False


@dataclass(frozen=True)
class Step:
    """A step: its label, its place in the store, how it is computed into a folder, and the steps it needs."""

    label: str
    entry: Entry
    compute: Work
    needs: tuple[Step, ...] = ()

    @property
    def kind(self) -> str:
        """What it has in common with steps that take as long: its stage, and of drift what is measured."""
        return self.label.partition(" of seed ")[0] if self.entry.stage == "drift" else self.entry.stage


class Pipeline:
    """A study as steps in a store. Any number of processes may work on one; whoever is free takes the next step.

    Args:
        study: what to do.
        store: where results are kept, under keys of everything that determines them.
        on_progress: told where things stand; no step works for long without it.
        workers: processes that share this machine, among which its CPU threads are divided.
        tracking: where runs are shown while they train, if anywhere; it decides no result.
    """

    def __init__(
        self,
        study: Study,
        store: Store,
        on_progress: OnProgress | None = None,
        workers: int = 1,
        tracking: Tracking | None = None,
    ) -> None:
        self.study, self._store = study, store
        self._on_progress = on_progress or (lambda _progress: None)
        self._workers = workers
        self._failed: dict[str, Exception] = {}  # by step, in the order of failure; a step is tried once
        threads = study.model.threads or max(1, MACHINE_THREADS // workers)
        torch.set_num_threads(threads)
        self._times, self._looked = Times(store.root / TIMES, threads), 0.0
        self.bench = Bench(study, split(study.data), tracking)
        self.steps = {step.label: step for step in self._plan()}
        self._absent = list(self.steps.values())

    def write_datasets(self, directory: Path = DATASETS) -> list[Path]:
        """Paths of the study's training, evaluation and direction questions, written as chat JSONL for other tools."""
        return write_datasets(self.bench.splits, self.bench.trait, self.study.data.source, directory)

    @undisturbed()
    def evidence(self, *stages: str) -> Evidence:
        """The tables of `stages` (modules of `gradinoc.pipeline.steps`; all if none is named).

        What is missing is computed; the tables of other stages are empty.

        Raises:
            NumericalError: a number that is neither measured nor allowed to be missing.
        """
        labels = [label for label, step in self.steps.items() if not stages or step.entry.stage in stages]
        folders = self.complete(labels)
        tables = {name: _gather(folders, name, columns) for name, columns in COLUMNS.items()}
        study = self.study
        evidence = Evidence(
            **tables,
            conditions=tuple(study.conditions),
            seeds=study.seeds,
            untrained=tuple(study.untrained),
            trait=self.bench.trait,
        )
        evidence.ensure_measured()
        return evidence

    @undisturbed()
    def complete(self, labels: Sequence[str]) -> list[Path]:
        """Folders of the steps `labels`, after computing, or waiting for, those that are not there yet.

        A step that another process is computing is left to it, and the next one taken up instead. A step that fails
        for a reason of its own is set aside with all that need it, and raised when everything else is there.

        Raises:
            GradinocError: of the first step that failed, naming it; or, at once, what would stop the others as well.
        """
        needed = list(_with_needs(self.steps[label] for label in labels))
        all_there = True
        while missing := [step for step in needed if not step.entry.complete()]:
            all_there = False
            possible = [step for step in missing if not self._is_lost(step)]
            if not possible:
                raise self._failure(missing)
            if not any(self._attempt(step) for step in possible):
                self._wait_for(possible)
        if not all_there:
            self._say(Word(SOME if self._missing() else ALL, "in the store"))
        return [self.steps[label].entry.path for label in labels]

    def _missing(self, seconds_ago: float = 0.0) -> list[Step]:
        """The steps that are not in the store, or were not at most so many seconds ago."""
        if time.monotonic() - self._looked >= seconds_ago:
            self._absent = [step for step in self.steps.values() if not step.entry.complete()]
            self._looked = time.monotonic()
        return self._absent

    def _attempt(self, step: Step) -> bool:
        """Whether `step` was taken up here: what it needs is there and nobody else is at it."""
        if not _is_ready(step):
            return False
        with step.entry.try_lock() as held:
            if held:
                try:
                    load_or_compute(step.entry, partial(self._compute, step))
                except Exception as error:
                    if isinstance(error, GradinocError | OSError) and not isinstance(error, OF_ONE_STEP):
                        raise
                    self._set_aside(step, error)
            return held

    def _set_aside(self, step: Step, error: Exception) -> None:
        """Remember that `step` failed, but not what it held: on a device that is memory which the others need."""
        self._failed[step.label] = error
        each: BaseException | None = error
        while each is not None:
            traceback.clear_frames(each.__traceback__)
            each = each.__cause__ or each.__context__
        release()
        self._say(Word(f"{step.label} failed", f"{error}; going on with the rest", failed=True))

    def _is_lost(self, step: Step) -> bool:
        """Whether `step` cannot be had here: it failed, or one that it needs did, and nobody else had better luck."""
        if step.entry.complete():
            return False
        return step.label in self._failed or any(self._is_lost(need) for need in step.needs)

    def _failure(self, missing: Sequence[Step]) -> Exception:
        """The first error among the steps that are `missing`, naming its step and the others that failed."""
        absent = {step.label for step in missing}
        first, *others = [label for label in self._failed if label in absent]
        also = f" (failed as well: {', '.join(others)})" if others else ""
        error = self._failed[first]
        if isinstance(error, GradinocError):
            named = type(error)(f"{first}: {error}{also}")
            named.__cause__ = error
            return named
        error.__notes__ = [f"in the step {first!r}{also}"]
        return error

    def _wait_for(self, possible: Sequence[Step]) -> None:
        """Wait a little for other workers, who are at all that is ready, and say so."""
        at_work = next((step for step in possible if _is_ready(step)), possible[0])
        self._say(Word(WAITING, f"another worker is at {at_work.label}"))
        time.sleep(POLL_SECONDS)

    def _compute(self, step: Step, folder: Path) -> None:
        began, pace = time.monotonic(), Pace()

        def tell(
            what: str, done: int = 0, total: int = 0, *, loss: float | None = None, alignment: float | None = None
        ) -> None:
            rate = pace.per_second(what, done, total)
            numbers = {"loss": loss, "alignment": alignment, "per_second": rate, "done": done, "total": total}
            left = (total - done) / rate if rate else None
            spent = time.monotonic() - began
            self._say(Word(step.label, what, step.entry.stage, {**numbers, "seconds_left": left}, spent))

        tell("starting")
        step.compute(folder, tell)
        release()
        self._times.note(step.entry.key, time.monotonic() - began)

    def _say(self, word: Word) -> None:
        """Tell where the study is; within a step, finished steps are counted anew every few seconds only."""
        missing, steps = self._missing(COUNT_SECONDS if word.numbers.get("done") else 0.0), len(self.steps)
        left, at_least = time_left(self._seconds(missing, word), self._workers)
        self._on_progress(
            Progress(
                word.step,
                word.detail,
                steps - len(missing),
                steps,
                study_seconds_left=left,
                at_least=at_least,
                study=self.study.name,
                stage=word.stage,
                memory=psutil.Process().memory_info().rss,
                device_memory=_device_memory(),
                stages=self._stages(missing),
                failed=word.failed,
                **word.numbers,
            )
        )

    def _stages(self, missing: Sequence[Step]) -> dict[str, tuple[int, int]]:
        """Stage -> how many of its steps are done, and how many it has."""
        planned = Counter(step.entry.stage for step in self.steps.values())
        absent = Counter(step.entry.stage for step in missing)
        return {stage: (count - absent[stage], count) for stage, count in planned.items()}

    def _seconds(self, missing: Sequence[Step], word: Word) -> list[float | None]:
        """What each of the `missing` steps still takes, as steps of its kind took; None where none has been timed."""
        kinds = {step.entry.key: step.kind for step in self.steps.values()}
        took = defaultdict[str, list[float]](list)
        for key, seconds in self._times.of(kinds).items():
            took[kinds[key]].append(seconds)
        left: list[float | None] = []
        for step in missing:
            usual, at_work = took[step.kind], step.label == word.step
            if usual:
                left.append(max(0.0, mean(usual) - word.spent) if at_work else mean(usual))
            else:
                left.append(None)
                if at_work and (soon := word.numbers.get("seconds_left")) is not None:
                    left.append(soon)  # its present part; what comes after it is not known
        return left

    def _plan(self) -> list[Step]:
        """Every step of the study, each after those it needs; what needs little comes first."""
        study, bench, trait = self.study, self.bench, self.bench.trait
        wanted = study.model.extraction_dtype
        # "auto" is the dtype of all else, which decides every step.
        found_in = {"extraction_dtype": wanted if wanted == "auto" else str(choose_dtype(wanted, bench.device))}
        asked = {"promote": trait.promote_system, "suppress": trait.suppress_system, **found_in}
        first = self._step("directions", directions, asked, partial(directions.compute, bench))
        few = {"questions": study.nulls.unrelated_questions, **found_in}
        others = self._step("unrelated traits", unrelated, few, partial(unrelated.compute, bench))
        found = first.entry.path
        steps, pool_step, frozen = [first, others], self._pool(), {}
        steps += [pool_step] if pool_step else []
        for condition in study.conditions:
            system, folder, needs = self._prompt(condition, pool_step)
            inputs = {"system": system, "nulls": study.nulls.model_dump()}
            work = partial(gradients.compute, bench, condition, (found, others.entry.path), folder)
            frozen[condition] = self._step(f"gradients {condition}", gradients, inputs, work, first, others, *needs)
        steps += frozen.values()
        steps.append(self._drift("drift of the base model", [drift.BASE_MODEL], first))
        runs: dict[tuple[str, int], Step] = {}
        for condition, seed in study.runs:
            system, folder, needs = self._prompt(condition, pool_step)
            decides = {
                "seed": seed,
                "system": system,
                "training": study.training.model_dump(),
                "nulls": study.nulls.model_dump(include={"training", "seed"}),
                "early": study.drift.early,
            }
            work = partial(training.compute, bench, (condition, seed), found, folder)
            run = self._step(f"run {condition}/{seed}", training, decides, work, first, *needs)
            runs[condition, seed] = run
            steps.append(run)
            if condition == NEUTRAL:
                steps.append(self._matched(seed, first, run, frozen))
        amid = training.early_step(study)
        for seed in study.seeds:
            of_seed = {condition: run for (condition, other), run in runs.items() if other == seed}
            for phase, label in ((AFTER, "drift"), (EARLY, "early drift")):
                subjects = [
                    drift.Subject(
                        condition,
                        seed,
                        phase,
                        run.entry.path / "adapter" if phase == AFTER else adapter_after(run.entry.path, amid),
                    )
                    for condition, run in of_seed.items()
                ]
                steps.append(self._drift(f"{label} of seed {seed}", subjects, first, *of_seed.values()))
        return steps

    def _drift(self, label: str, subjects: Sequence[drift.Subject], first: Step, *runs: Step) -> Step:
        """The step that measures the base model, or every adapter of a seed in one pass."""
        measured = {"drift": self.study.drift.model_dump(), "system": self.bench.system(NEUTRAL)}
        work = partial(drift.compute, self.bench, subjects, first.entry.path)
        return self._step(label, drift, measured, work, first, *runs)

    def _pool(self) -> Step | None:
        """The step that chooses a prompt by its loss; None where no condition asks for one."""
        study, bench = self.study, self.bench
        if MATCHED not in study.conditions.values():
            return None
        own = {name: bench.system(name) for name in study.conditions}
        return self._step("prompt pool", pool, {"systems": own}, partial(pool.compute, bench))

    def _prompt(self, condition: str, pool_step: Step | None) -> tuple[str | None, Path | None, list[Step]]:
        """What decides a condition's prompt: the prompt itself, or the folder and the step in which it is chosen."""
        if self.study.conditions[condition] == MATCHED and pool_step:
            return MATCHED, pool_step.entry.path, [pool_step]
        return self.bench.system(condition), None, []

    def _matched(self, seed: int, first: Step, run: Step, frozen: Mapping[str, Step]) -> Step:
        """The step that looks for a neutral run's checkpoint at inoculation's loss."""
        needs = (first, run, frozen[NEUTRAL], frozen[INOCULATION])
        sources = matched.Sources(
            first.entry.path, frozen[NEUTRAL].entry.path, frozen[INOCULATION].entry.path, run.entry.path
        )
        work = partial(matched.compute, self.bench, seed, sources)
        return self._step(f"matched checkpoint {seed}", matched, {"seed": seed}, work, *needs)

    def _step(self, label: str, stage: ModuleType, inputs: Mapping[str, Any], compute: Work, *needs: Step) -> Step:
        determined_by = {
            **self._common_inputs,
            **inputs,
            "label": label,
            "needs": [need.entry.key for need in needs],
            "code": code_version(stage.__name__, without=DESCRIPTION),
        }
        return Step(label, self._store.entry(stage.__name__.rpartition(".")[2], determined_by), compute, needs)

    @cached_property
    def _common_inputs(self) -> dict[str, Any]:
        """What decides the result of every step."""
        model = self.study.model
        overrides = precision_overrides(self.bench.device)
        return {
            "model": self.bench.fingerprint,
            "device": self.bench.device.type,
            "dtype": str(self.bench.dtype),
            **({"overrides": overrides} if overrides else {}),
            "kernels": model.kernels,
            "chat_template": model.chat_template and SHIPPED.get(model.chat_template, model.chat_template),
            "date": model.date.isoformat(),
            "libraries": library_versions(*LIBRARIES, *self.bench.trait.libraries),
            "data": self.bench.splits.digest,
            "trait": self.bench.trait.identity or self.bench.trait.name,
        }


def _device_memory() -> int | None:
    """Bytes that this process holds of an accelerator's memory; None while it holds none. Nothing is waited for."""
    if torch.cuda.is_initialized():
        return torch.cuda.memory_reserved()
    if torch.backends.mps.is_available():
        return torch.mps.driver_allocated_memory()
    return None


def _is_ready(step: Step) -> bool:
    """Whether all that `step` needs is there."""
    return all(need.entry.complete() for need in step.needs)


def _with_needs(steps: Iterable[Step]) -> Iterator[Step]:
    """The steps after all that they need, each once."""
    seen: set[str] = set()
    for step in steps:
        for each in (*_with_needs(step.needs), step):
            if each.label not in seen:
                seen.add(each.label)
                yield each


def _gather(folders: Sequence[Path], name: str, columns: Sequence[str]) -> pd.DataFrame:
    """The table `name` of every folder that has one, one below the other; empty if none has."""
    file = f"{name}.parquet"
    frames = [load_table(folder / file) for folder in folders if file in load_json(folder / MANIFEST)["files"]]
    if not frames:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(frames, ignore_index=True)
