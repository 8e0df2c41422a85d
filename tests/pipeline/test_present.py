"""What is in the store is looked up as often as that is cheap; a study of many steps is no slower a step."""

from __future__ import annotations

from collections import Counter
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any

import pytest

from gradinoc.pipeline.engines.engine import Job
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps import present as module
from gradinoc.pipeline.steps.present import LOOKING, Present
from gradinoc.pipeline.steps.step import Step, StepKey
from gradinoc.pipeline.storage.contents import save_json
from gradinoc.pipeline.storage.store import Store
from gradinoc.study.loading import load_study

KEYS = [StepKey("training", f"c{place}") for place in range(4)]
STEPS: list[Any] = [SimpleNamespace(key=key) for key in KEYS]


class Shelf:
    """Entries of which some are complete; every look at one is counted, and takes a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.there, self.looks, self.now = set[StepKey](), Counter[StepKey](), 0.0
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))

    def entry(self, key: StepKey) -> Any:
        """The entry of a step."""

        def complete() -> bool:
            self.looks[key] += 1
            self.now += 1
            return key in self.there

        return SimpleNamespace(complete=complete)


def missing(present: Present, **how: bool) -> list[StepKey]:
    """Keys of what is missing."""
    return [step.key for step in present.missing(STEPS, **how)]


def test_looks_take_a_share_of_the_time(monkeypatch):
    """What others add is found by the next look, which comes when the last one is a tenth of the time."""
    shelf = Shelf(monkeypatch)
    present = Present({key: shelf.entry(key) for key in KEYS})
    assert missing(present) == KEYS  # four seconds
    shelf.there.update(KEYS[:2])
    shelf.now += 4 / LOOKING - 1
    assert missing(present) == KEYS
    assert set(shelf.looks.values()) == {1}
    shelf.now += 1
    assert missing(present) == KEYS[2:]


def test_a_look_at_once_is_one(monkeypatch):
    """And what was there is not looked at again, until all is forgotten."""
    shelf = Shelf(monkeypatch)
    present = Present({key: shelf.entry(key) for key in KEYS})
    assert missing(present) == KEYS
    shelf.there.update(KEYS[:1])
    assert missing(present, at_once=True) == KEYS[1:]
    present.note(KEYS[1:2])
    assert present.found(KEYS[1])
    assert KEYS[0] in present
    assert missing(present, at_once=True) == KEYS[2:]
    assert (shelf.looks[KEYS[0]], shelf.looks[KEYS[1]]) == (2, 2)
    present.forget()
    assert missing(present) == KEYS[1:]  # it was noted, and is not there


class Instant:
    """An engine whose every job is done when it is asked; `stranger` computes some steps as another process would."""

    in_one_go = False

    def __init__(self, stranger: Any = lambda: None) -> None:
        self.jobs, self.begun, self._stranger, self.workers = list[Job](), list[StepKey](), stranger, 8

    def room(self, _step=None) -> int:
        """As many as there are workers."""
        return self.workers - len(self.jobs)

    def begin(self, job: Job) -> None:
        """Take it."""
        self.jobs.append(job)
        self.begun += [step.key for step in job.steps]

    def finished(self, _seconds: float) -> Any:
        """All."""
        self._stranger()
        while self.jobs:
            job = self.jobs.pop()
            for entry in job.entries:
                store(entry)
            yield job, None

    def news(self) -> Any:
        """None."""
        yield from ()

    def close(self) -> None:
        """Nothing."""


def store(entry: Any) -> None:
    """Put a result into its place."""
    with entry.write() as folder:
        save_json({}, folder / "nothing.json")


def instant(folder: Any, count: int, engine: Instant) -> Pipeline:
    """A study of so many steps, each after the one before it in its row of four."""
    keys = [StepKey("training", f"c{place}") for place in range(count)]
    before = [tuple(keys[place - 1 : place]) if place % 4 else () for place in range(count)]
    steps = {
        key: Step(key, f"step {place}", "steps", None, None, {"place": place}, before[place])
        for place, key in enumerate(keys)
    }
    study = load_study("tiny", ["model.threads=1"])
    return Pipeline(study, Store(folder), planned=lambda _: steps, engine=engine)


def test_many_steps_are_looked_at_a_few_times_each(tmp_path, monkeypatch):
    """Not each of them after each of them; a clock that ticks with each look makes that a number."""
    engine, looks = Instant(), []
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: len(looks)))
    pipeline = instant(tmp_path, 100, engine)
    kind = type(pipeline.entries[KEYS[0]])
    complete = kind.complete
    monkeypatch.setattr(kind, "complete", lambda entry: looks.append(entry.key) or complete(entry))
    pipeline.complete()
    assert sorted(engine.begun, key=str) == sorted(pipeline.steps, key=str)
    assert len(looks) <= 3 * 100


def test_what_another_process_computed_is_not_computed_again(tmp_path, monkeypatch):
    """It is seen before a step is begun, however long ago the store was looked at as a whole: here, once."""
    clock = chain([0.0, 100.0], repeat(101.0))  # that look took so long that the next is far off
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    strange = [StepKey("training", f"c{place}") for place in (20, 24, 28)]

    def stranger() -> None:
        for key in strange:
            if not pipeline.entries[key].complete():
                store(pipeline.entries[key])

    engine = Instant(stranger)
    engine.workers = 2
    pipeline = instant(tmp_path, 32, engine)
    pipeline.complete()
    assert not {*strange} & {*engine.begun}
    assert len(engine.begun) == 32 - len(strange)
