"""Runs of a study that are trained together: the same steps in the store, and no run falls with another."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, contextmanager

import pandas as pd
import pytest
from filelock import FileLock

from fixtures.smallest import smallest
from gradinoc.errors import NumericalError, OutOfMemoryError
from gradinoc.measure.training.tracking import Tracking
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps import training
from gradinoc.pipeline.storage.store import Store


@pytest.fixture
def without_runs(finished, tmp_path):
    """A store that has everything but the runs and what follows from them."""
    store = shutil.copytree(finished.store, tmp_path / "store")
    for key, entry in smallest(store).entries.items():
        if key.stage in ("training", "drift", "checkpoints", "matrix") and key.phase != "before":
            entry.discard()
    return store


@pytest.fixture
def groups(monkeypatch):
    """How many runs were trained in each go; `fail`, called with them before, may raise."""
    seen, train = [], training.train_runs

    def noted(model, runs, recipe, on_step):
        seen.append(len(runs))
        noted.fail(runs)
        return train(model, runs, recipe, on_step)

    noted.fail = lambda _runs: None
    noted.seen = seen
    monkeypatch.setattr(training, "train_runs", noted)
    return noted


def run_keys(pipeline):
    """The keys of the runs."""
    return [key for key in pipeline.steps if key.stage == "training"]


def test_runs_together_are_the_steps_that_they_are_alone(finished, without_runs, groups):
    """The same keys, files and, but for rounding, tables; drift finds its adapters."""
    pipeline, alone = smallest(without_runs, "training.together=4"), smallest(finished.store)
    pipeline.complete()
    count = len(run_keys(pipeline))
    assert groups.seen == [min(4, count - done) for done in range(0, count, 4)]
    for key in pipeline.steps:
        mine, theirs = pipeline.entries[key], alone.entries[key]
        assert mine.key == theirs.key
        assert mine.manifest()["files"].keys() == theirs.manifest()["files"].keys()
    for key in run_keys(pipeline):
        for file in alone.entries[key].path.glob("*.parquet"):
            expected, found = (pd.read_parquet(each.entries[key].path / file.name) for each in (alone, pipeline))
            for column in expected.columns.drop("seconds", errors="ignore"):
                pd.testing.assert_series_equal(found[column], expected[column], rtol=1e-4, atol=1e-5)


def test_worker_leaves_the_others_their_share(without_runs, groups):
    """Of two workers each takes half of the runs, though one could train all of them together."""
    pipeline = smallest(without_runs, "training.together=99")
    workers = Pipeline(pipeline.study, Store(without_runs), workers=2)
    workers.complete(run_keys(workers))
    count = len(run_keys(workers))
    assert groups.seen[0] == -(-count // 2)
    assert sum(groups.seen) == count


def test_second_worker_takes_its_share_of_what_the_first_left(without_runs, groups):
    """Runs that another holds are passed over; otherwise it would train the rest one at a time."""
    pipeline = smallest(without_runs, "training.together=99")
    workers, runs = Pipeline(pipeline.study, Store(without_runs), workers=2), run_keys(pipeline)

    def release_first(_runs):
        locks.close()  # as the first worker would in the end

    groups.fail = release_first
    with ExitStack() as locks:
        locks.enter_context(held_elsewhere(pipeline.entries[runs[0]]))
        workers.complete(runs)
    assert groups.seen[0] == -(-len(runs) // 2)
    assert sum(groups.seen) == len(runs)


@contextmanager
def held_elsewhere(entry):
    """Inside the block the entry is locked, as by another process."""
    with FileLock(entry.path.parent / f"{entry.key}.lock", is_singleton=False):
        yield


def test_no_run_is_trained_that_was_not_asked_for(without_runs, groups):
    """Those that are trained together are some of those that are wanted."""
    pipeline = smallest(without_runs, "training.together=99")
    wanted = run_keys(pipeline)[:2]
    pipeline.complete(wanted)
    assert groups.seen == [2]
    assert [key for key in run_keys(pipeline) if pipeline.entries[key].complete()] == wanted


@pytest.mark.parametrize("reason", ["plain", "shown"])
def test_runs_that_follow_one_another_are_stored_one_by_one(without_runs, groups, reason, tmp_path, monkeypatch):
    """Where the model takes one adapter at a time, or each run is shown by itself: what is over is not lost."""
    study = smallest(without_runs, "training.together=99").study
    tracking = Tracking("tensorboard", tmp_path / "shown", "smallest") if reason == "shown" else None
    if reason == "plain":
        monkeypatch.setattr(training, "takes_several", lambda _model: False)
    pipeline = Pipeline(study, Store(without_runs), tracking=tracking)
    runs = run_keys(pipeline)

    def stop(_runs):
        if len(groups.seen) == 3:
            raise KeyboardInterrupt

    groups.fail = stop
    with pytest.raises(KeyboardInterrupt):
        pipeline.complete(runs)
    assert groups.seen == [1, 1, 1]
    assert [pipeline.entries[key].complete() for key in runs[:3]] == [True, True, False]


def test_lack_of_memory_halves_the_number_of_runs(without_runs, groups):
    """Until they fit; all of them are there in the end."""

    def fail(runs):
        if len(runs) > 2:
            raise OutOfMemoryError("too many")

    groups.fail = fail
    pipeline = smallest(without_runs, "training.together=99")
    pipeline.complete(run_keys(pipeline))
    assert groups.seen[0] == len(run_keys(pipeline)) > 2
    assert sum(size for size in groups.seen if size <= 2) == len(run_keys(pipeline))


def test_run_that_fails_takes_no_other_with_it(without_runs, groups):
    """It is found among those that it was trained with, and named; the others are stored."""
    pipeline = smallest(without_runs, "training.together=99")
    faulty = run_keys(pipeline)[1]

    def fail(runs):
        if any(pipeline.entries[faulty].key in str(run.adapter_dir) for run in runs):
            raise NumericalError("Step 2 of 4: the loss of example 1 is nan")

    groups.fail = fail
    with pytest.raises(NumericalError, match=f"run {faulty.condition}/{faulty.seed}: Step 2 of 4"):
        pipeline.complete(run_keys(pipeline))
    assert [key for key in run_keys(pipeline) if not pipeline.entries[key].complete()] == [faulty]
