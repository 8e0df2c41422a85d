"""Studies on a Ray cluster: what comes out is what one process computes, whatever happens to workers on the way."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
import ray

from fixtures.dying_worker import DEADLY, DyingWorker, StillbornWorker
from fixtures.smallest import SMALLEST
from gradinoc.errors import EngineError, LostWorkerError, NumericalError
from gradinoc.pipeline.engines import ray_engine
from gradinoc.pipeline.engines.chosen import engine_for
from gradinoc.pipeline.engines.ray_engine import RayEngine
from gradinoc.pipeline.engines.ray_worker import FOLDERS, StepWorker, ensure_same
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps.step import StepKey, run_key
from gradinoc.pipeline.storage.store import Store
from gradinoc.pipeline.storage.transfer import differences
from gradinoc.study.loading import load_study

FEW = [StepKey("directions"), StepKey("gradients", "neutral"), run_key("neutral", 0), run_key("inoculation", 0)]
ON_TWO = [*SMALLEST, "model.threads=1", "engine.workers=2"]


@pytest.fixture(scope="module")
def cluster():
    """A cluster of this machine, with room for two workers."""
    context = ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, namespace="gradinoc")
    yield context
    ray.shutdown()


def on_cluster(folder, changes=(), on_progress=None, keys=None, kind=StepWorker):
    """The study's pipeline after the steps (all if none is named) were computed by workers of the cluster."""
    study, store = load_study("tiny", [*ON_TWO, *changes]), Store(folder)
    with closing(Pipeline(study, store, on_progress, engine=RayEngine(study, store, "local", kind))) as pipeline:
        pipeline.complete(keys)
    return pipeline


def assert_same(alone, other, keys=None):
    """What one process computes of the steps is there, the same bit for bit, but for the time that things took."""
    keys = keys or [*other.steps]
    for key, folder in zip(keys, alone.complete(keys), strict=True):
        assert other.entries[key].complete(), key
        assert [*differences(folder, other.entries[key].path)] == [], key


def kill_at_work():
    """A callback that kills the worker that is first heard of at its work, and whom it has killed.

    At whatever work: workers are asked for news every second, and a short step may be over before.
    """
    killed = []

    def hear(event):
        if event.stage and event.worker and not killed:
            killed.append(int(event.worker.rpartition("/")[2]))
            os.kill(killed[0], signal.SIGKILL)

    return hear, killed


@pytest.mark.parametrize("keys", [FEW, pytest.param(None, marks=pytest.mark.exhaustive)], ids=["few", "all"])
def test_workers_of_a_cluster_compute_what_one_process_does(cluster, alone, tmp_path, keys):
    """Bit for bit; both had work, told of it, and have left nothing on disk."""
    heard = []
    pipeline = on_cluster(tmp_path, on_progress=heard.append, keys=keys)
    assert_same(alone, pipeline, keys)
    workers = {event.worker for event in heard if event.worker}
    assert len(workers) == 2
    assert heard[-1].steps_done == len([*Store(tmp_path).stored()]) >= len(keys or pipeline.steps)
    assert heard[-1].steps == len(pipeline.steps)
    made = {pipeline.entries[key].manifest()["provenance"]["threads"] for key in keys or pipeline.steps}
    assert made == {1}
    processes = [worker.rpartition("/")[2] for worker in workers]
    assert not [left for process in processes for left in Path(tempfile.gettempdir()).glob(f"{FOLDERS}{process}-*")]


@pytest.mark.fault("Cluster", "a worker killed at its work")
def test_a_worker_killed_at_its_work_costs_that_work_alone(cluster, alone, tmp_path):
    """The step that it was at is computed again by another; all is as it would have been."""
    hear, killed = kill_at_work()
    pipeline = on_cluster(tmp_path, on_progress=hear, keys=FEW)
    assert killed
    assert_same(alone, pipeline, FEW)


@pytest.mark.fault("Cluster", "a step that kills its workers")
def test_a_step_that_kills_its_workers_is_given_up(cluster, tmp_path, monkeypatch):
    """The error names it and says how often; what does not need it is computed."""
    monkeypatch.setattr(ray_engine, "TRIES", 2)
    with pytest.raises(LostWorkerError, match="unrelated prompts: given up after 2 workers"):
        on_cluster(tmp_path, keys=[StepKey("directions"), DEADLY], kind=DyingWorker)
    assert Pipeline(load_study("tiny", ON_TWO), Store(tmp_path)).entry("directions").complete()


@pytest.mark.fault("Cluster", "workers that cannot be begun")
def test_workers_that_cannot_be_begun_are_not_tried_for_ever(cluster, tmp_path):
    """As where a node has not what the driver has: the error says how often, and why."""
    with pytest.raises(EngineError, match=r"no worker can be begun on the cluster, 4 failed; .*not on this node"):
        on_cluster(tmp_path, keys=[StepKey("directions")], kind=StillbornWorker)


@pytest.mark.exhaustive
@pytest.mark.fault("Cluster", "a result that arrives damaged")
def test_a_result_that_arrives_damaged_is_computed_again(cluster, alone, tmp_path, monkeypatch, caplog):
    """Once; the one that is kept is whole."""
    received, times = ray_engine.receive, []

    def damaging(store, packed):
        times.append(len(packed))
        return received(store, packed[: len(packed) // 2] if len(times) == 1 else packed)

    monkeypatch.setattr(ray_engine, "receive", damaging)
    pipeline = on_cluster(tmp_path, keys=[StepKey("directions")])
    assert len(times) == 2
    assert "is computed again: it arrived damaged" in caplog.text
    assert_same(alone, pipeline, [StepKey("directions")])


@pytest.mark.exhaustive
def test_what_fails_on_a_worker_fails_here(cluster, tmp_path):
    """With the error that it was there; the rest of what was asked for is there."""
    keys = [StepKey("directions"), run_key("neutral", 0), StepKey("unrelated")]
    with pytest.raises(NumericalError, match=r"run neutral/0: .*step"):
        on_cluster(tmp_path, ["training.lr=1.0", "training.steps=40", "training.lora_alpha=4096"], keys=keys)
    assert len([*Store(tmp_path).stored()]) == 2


@pytest.mark.exhaustive
@pytest.mark.fault("Cluster", "workers that would compute another thing")
def test_workers_that_would_compute_another_thing_are_refused(cluster, tmp_path, monkeypatch):
    """What differs is named: code and libraries of driver and workers are to be the same."""
    monkeypatch.setattr("gradinoc.pipeline.steps.plan.library_versions", lambda *names: dict.fromkeys(names, "0.1"))
    with pytest.raises(EngineError, match=r"would compute another thing than was asked for \(libraries: .*0\.1"):
        on_cluster(tmp_path, keys=[StepKey("directions")])


def test_a_cluster_without_room_says_so(cluster, tmp_path):
    """What a worker is to have, what the nodes have, and what to change."""
    with pytest.raises(EngineError, match=r"is to have \(CPU 1, GPU 1\); they have \(CPU 2"):
        on_cluster(tmp_path, ["engine.gpus_per_worker=1.0"], keys=[StepKey("directions")])


def test_what_differs_is_named(alone):
    """Of two machines that would compute different things under one name; of one machine nothing does."""
    entry = alone.entry("directions")
    ensure_same(entry, entry.inputs)
    with pytest.raises(EngineError, match=r"\(libraries: \{'torch': '0.1'\}, here .*; model: None, here"):
        ensure_same(entry, {**entry.inputs, "libraries": {"torch": "0.1"}, "model": None})


@pytest.mark.parametrize("asked", ["slurm", "rayed", "ray/"])
def test_unknown_engines_are_refused(tmp_path, asked):
    """With those that there are."""
    with pytest.raises(EngineError, match="expected local, ray"):
        engine_for(asked, load_study("tiny"), Store(tmp_path))


@pytest.mark.parametrize(("mode", "told"), [(None, True), ("token", False), ("disabled", False)])
def test_a_cluster_that_is_not_reached_may_ask_for_a_token(tmp_path, monkeypatch, mode, told):
    """Ray's own error says that it failed to connect, and no more; whoever chose a mode knows of it."""

    def refuse(**_):
        raise ConnectionError("failed to connect")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    if mode is None:
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    else:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(EngineError, match=r"no Ray cluster at '127.0.0.1:1': failed to connect") as caught:
        RayEngine(load_study("tiny", SMALLEST), Store(tmp_path), "127.0.0.1:1").room()
    assert ("RAY_AUTH_MODE=token" in str(caught.value)) is told
