"""Any number of processes work on one study: each step is done once, and what befalls one stops none of the others."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fixtures.small_study import SMALL, SMALLEST, as_options, assert_same, tables
from fixtures.smallest import smallest
from fixtures.survivors import BAD_NEWS, Worker, first_to
from gradinoc.errors import NumericalError, OutOfMemoryError, StoreError
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps.step import Step, StepKey
from gradinoc.pipeline.storage.store import Store
from gradinoc.study.loading import load_study

pytestmark = pytest.mark.usefixtures("nobody_left")
ROOT = Path(__file__).parents[2]
STEPS = len(smallest(Path("unused")).steps)
# What can be had when the neutral run cannot: all but the run, and what is measured of all runs of its seed.
BESIDE = {
    "run neutral/0", "direction of the neutral drift", "drift of seed 0", "drift during training of seed 0",
    "matrix of seed 0", "attribution of seed 0",
}  # fmt: skip


def begun(workers: Sequence[Worker]) -> Counter[str]:
    """How often each step was begun, by whichever worker."""
    return Counter(step for worker in workers for step in worker.begun)


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.exhaustive)])
@pytest.mark.fault("Concurrency", "2, 4 and 8 processes on one store")
def test_workers_share_the_steps(finished, tmp_path, count):
    """Each step is begun once in all, everybody ends, and the tables are those of one worker."""
    workers = [Worker(tmp_path) for _ in range(count)]
    assert [worker.end() for worker in workers] == [0] * count, [worker.error for worker in workers]
    assert begun(workers) == dict.fromkeys(begun(workers), 1)
    assert len(begun(workers)) == STEPS
    assert sum(bool(worker.begun) for worker in workers) > 1, "one did all the work"
    assert_same(tables(tmp_path, SMALLEST), tables(finished.store, SMALLEST))


@pytest.mark.exhaustive
@pytest.mark.parametrize("step", ["directions", "run neutral/0"])
@pytest.mark.fault("Concurrency", "a process killed at its work beside others")
def test_others_finish_what_a_dead_worker_was_at(finished, tmp_path, step):
    """Only the step that it was at is begun again."""
    workers = [Worker(tmp_path) for _ in range(3)]
    dead = first_to(workers, lambda word: word.step == step)
    assert dead.end(signal.SIGKILL) == -signal.SIGKILL
    others = [worker for worker in workers if worker is not dead]
    assert [worker.end() for worker in others] == [0] * len(others), [worker.error for worker in others]
    again = {each: times for each, times in begun(workers).items() if times > 1}
    assert set(again) <= {dead.begun[-1]}, f"begun more than once: {again}"
    assert len(begun(workers)) == STEPS
    assert list(tmp_path.rglob(".*")) == [], "scratch folders were left behind"
    assert_same(tables(tmp_path, SMALLEST), tables(finished.store, SMALLEST))


@pytest.mark.fault("Concurrency", "a run whose numbers fail, in every process")
def test_all_that_can_be_computed_is_computed_when_a_run_fails(finished, tmp_path):
    """Each worker tries the run once, all else gets done by one of them, and the error names the run.

    The next session has nothing else to do; that training broke off has left no trace in the model.
    """
    workers = [Worker(tmp_path, breaks_at="run neutral/0") for _ in range(2)]
    assert [worker.end() for worker in workers] == [1, 1]
    assert [worker.error for worker in workers] == [f"NumericalError: run neutral/0: {BAD_NEWS}"] * 2
    times = begun(workers)
    assert times.pop("run neutral/0") == 2
    assert set(times.values()) == {1}
    assert len(times) == STEPS - len(BESIDE)
    said = [word.detail for word in workers[0].words if word.step == "run neutral/0 failed"]
    assert said == [f"{BAD_NEWS}; going on with the rest"]
    last = Worker(tmp_path)
    assert last.end() == 0, last.error
    assert set(last.begun) == BESIDE
    assert_same(tables(tmp_path, SMALLEST), tables(finished.store, SMALLEST))


@pytest.mark.exhaustive
@pytest.mark.fault("Concurrency", "a step that fails in one process of three")
def test_failure_of_one_worker_is_made_good_by_others(finished, tmp_path):
    """Those who fail at nothing finish the study."""
    workers = [Worker(tmp_path, breaks_at="run inoculation/0"), Worker(tmp_path), Worker(tmp_path)]
    codes = [worker.end() for worker in workers]
    assert codes[1:] == [0, 0], [worker.error for worker in workers]
    assert codes[0] in (0, 1)  # it may have seen the others succeed
    assert_same(tables(tmp_path, SMALLEST), tables(finished.store, SMALLEST))


# --- what is set aside, and what is not


A, B, C, D = (StepKey("directions", each) for each in "abcd")


@pytest.fixture
def study(tmp_path):
    """Four steps of a word each: c needs a, d needs c, b needs nothing; `tried` lists which were begun."""
    tried: list[str] = []

    def make(key: StepKey, *needs: StepKey) -> Step:
        def compute(_folders, folder, _callback):
            tried.append(key.condition)
            (folder / "word.txt").write_text(key.condition)

        return Step(key, key.condition, "words", compute, lambda _counting: [], {"label": key.condition}, needs)

    steps = {step.key: step for step in (make(A), make(C, A), make(D, C), make(B))}
    pipeline = Pipeline(load_study("tiny", SMALLEST), Store(tmp_path), planned=lambda _context: steps)
    gc.freeze()  # else every step looks through all that pytest has in memory
    yield pipeline, tried
    gc.unfreeze()


def fail_at(pipeline: Pipeline, key: StepKey, tried: list[str], error: BaseException) -> None:
    """Make a step raise."""

    def compute(_folders, folder, _callback):
        tried.append(key.condition)
        (folder / "half.txt").write_text("half")
        raise error

    pipeline.steps[key] = replace(pipeline.steps[key], compute=compute)


@pytest.mark.parametrize("kind", [OutOfMemoryError, ZeroDivisionError])
@pytest.mark.fault("Concurrency", "a step that fails for a reason of its own")
def test_step_that_fails_is_set_aside(study, kind):
    """What does not need it is computed; it is tried once, however often it is asked for."""
    pipeline, tried = study
    fail_at(pipeline, C, tried, kind("no luck"))
    for _ in range(2):
        with pytest.raises(kind, match="no luck") as caught:
            pipeline.complete()
        assert tried == ["a", "c", "b"]
    notes = getattr(caught.value, "__notes__", [])
    assert (str(caught.value), notes) in [("c: no luck", []), ("no luck", ["in the step 'c'"])]
    assert not pipeline.entries[C].path.exists()
    assert len(pipeline.complete([A, B])) == 2


def test_error_names_every_step_that_failed(study):
    """The first in full, the others by name."""
    pipeline, tried = study
    fail_at(pipeline, C, tried, NumericalError("no luck"))
    fail_at(pipeline, B, tried, NumericalError("nor here"))
    with pytest.raises(NumericalError, match=r"^c: no luck \(failed as well: b\)$"):
        pipeline.complete([D, B])


@pytest.mark.parametrize("kind", [StoreError, OSError, KeyboardInterrupt])
@pytest.mark.fault("Concurrency", "an error that would stop every step")
def test_what_would_stop_every_step_is_raised_at_once(study, kind):
    """A full disk, a model that is not there, Ctrl-C."""
    pipeline, tried = study
    fail_at(pipeline, C, tried, kind("no luck"))
    with pytest.raises(kind, match="no luck"):
        pipeline.complete()
    assert tried == ["a", "c"]


def test_step_that_another_process_had_more_luck_with_is_no_failure(study):
    """What failed here and is there all the same is taken from the store."""
    pipeline, tried = study
    fail_at(pipeline, C, tried, OutOfMemoryError("no luck"))
    with pytest.raises(OutOfMemoryError):
        pipeline.complete([C])
    with pipeline.entries[C].write() as folder:
        (folder / "word.txt").write_text("c")
    assert len(pipeline.complete([D])) == 1


def test_failed_step_lets_go_of_what_it_held(study):
    """The memory is what the next step needs, though the error is kept."""
    pipeline, _tried = study
    kept = []

    def compute(_folders, _folder, _callback):
        held = torch.ones(3)
        kept.append(weakref.ref(held))
        raise OutOfMemoryError("no room") from RuntimeError("deeper")

    def look(_folders, folder, _callback):
        assert kept[0]() is None, "the tensor of the failed step is still there"
        (folder / "word.txt").write_text("b")

    gc.disable()  # it is not left to chance
    try:
        for key, work in ((A, compute), (B, look)):
            pipeline.steps[key] = replace(pipeline.steps[key], compute=work)
        with pytest.raises(OutOfMemoryError, match=r"^a: no room$"):
            pipeline.complete([A, B])
    finally:
        gc.enable()


# --- pytest


def session(folder: Path, *options: str) -> Path:
    """The artifacts of the small study, done by a pytest session with a store of its own in `folder`."""
    places = [f"--{place}={folder / place}" for place in ("store", "artifacts", "datasets")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "claims", "--study", "tiny", *as_options(SMALL), "--refuted", "report"]
    done = subprocess.run(
        [*command, *places, "-p", "no:cacheprovider", *options],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "artifacts" / "small"


@pytest.mark.exhaustive
@pytest.mark.fault("Concurrency", "pytest with no, one and two workers")
def test_sessions_of_any_size_come_to_the_same(tmp_path, faults_tried):
    """Tables to the last bit, and what is written for readers byte for byte."""
    sizes = {"none": [], "one": ["-n", "1"], "two": ["-n", "2"]}
    left = {name: session(tmp_path / name, *options) for name, options in sizes.items()}
    for name in ("one", "two"):
        assert_same(tables(tmp_path / name / "store"), tables(tmp_path / "none" / "store"))
        for file in ("claims.csv", "metrics.csv"):
            assert (left[name] / file).read_bytes() == (left["none"] / file).read_bytes(), file
    faults_tried(len(sizes))
