"""A worker of a cluster, without one: what it computes, keeps and says, and what it leaves to others."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile

import pytest
import ray
from ray.exceptions import (
    ObjectLostError,
)

from gradinoc.errors import ModelError, NumericalError, StoreError
from gradinoc.pipeline.engines import ray_worker
from gradinoc.pipeline.engines.ray_worker import FOLDERS, StepWorker, Unread, described, folders_here
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps.step import StepKey, run_key
from gradinoc.pipeline.storage.store import Store
from gradinoc.pipeline.storage.transfer import pack, receive


@pytest.fixture
def worker(alone):
    """A worker of that study."""
    made = StepWorker(described(alone.study), 1)
    yield made
    made.leave()


def test_a_worker_computes_what_it_is_asked_for_alone(alone, worker, monkeypatch):
    """What a step reads is sent to it; what that was made of is not there, and is not made again."""
    key, need = StepKey("learned"), run_key("neutral", 0)
    assert alone.steps[key].needs == (need,)
    assert alone.steps[need].needs
    alone.complete([key])
    computed, compute = [], Pipeline._compute
    monkeypatch.setattr(
        Pipeline, "_compute",
        lambda self, steps, folders: (computed.extend(step.key for step in steps), compute(self, steps, folders))[1],
    )  # fmt: skip
    monkeypatch.setattr(ray, "get", lambda packed: packed)
    (packed,) = worker.compute({key: alone.entries[key].inputs}, {need: [pack(alone.entries[need])]})
    assert computed == [key]
    assert packed


def test_a_worker_keeps_what_it_used_last(alone, worker, tmp_path, monkeypatch):
    """Its disk does not fill: what was used longest ago goes first, and is sent anew where it is needed again."""
    key = StepKey("gradients", "neutral")
    alone.complete([key])
    needed = {need: [pack(alone.entries[need])] for need in alone.steps[key].needs}
    monkeypatch.setattr(ray_worker, "KEPT_BYTES", 1)
    monkeypatch.setattr(ray, "get", lambda packed: packed)
    for _ in range(2):
        (made,) = worker.compute({key: alone.entries[key].inputs}, needed)
        assert len([*worker._store.stored()]) == 1
        assert receive(Store(tmp_path), made).key == alone.entries[key].key


def test_a_worker_does_not_wait_for_what_nobody_sent(alone, worker):
    """In its store nobody else writes."""
    key = StepKey("gradients", "neutral")
    found = worker.compute({key: alone.entries[key].inputs}, {})
    assert "reads what was not sent: directions" in str(found.error)


@pytest.mark.fault("Cluster", "an input that arrives damaged")
def test_an_input_that_arrives_damaged_is_no_result(alone, worker, monkeypatch):
    """Nor an error of the study's: it is told, so that it is sent anew."""
    key = StepKey("gradients", "neutral")
    needs = alone.steps[key].needs
    alone.complete(needs)
    needed = {need: [pack(alone.entries[need])] for need in needs}
    (packed,) = needed[StepKey("directions")]
    monkeypatch.setattr(ray, "get", lambda packed: packed)
    for damaged in (packed[: len(packed) // 2], packed[:5000] + b"x" + packed[5001:]):
        found = worker.compute({key: alone.entries[key].inputs}, {**needed, StepKey("directions"): [damaged]})
        assert isinstance(found, Unread)
        assert found.what.startswith("directions arrived damaged: ")
    (made,) = worker.compute({key: alone.entries[key].inputs}, needed)
    assert made


def test_what_is_wrong_with_one_machine_names_it(alone, worker, monkeypatch):
    """An error that would stop the study says on which worker it arose; that of a step is a step's anywhere."""

    def fail(error):
        monkeypatch.setattr(Pipeline, "complete", lambda *_, **__: (_ for _ in ()).throw(error))
        return str(worker.compute({key: alone.entries[key].inputs}, {}).error)

    key = StepKey("directions")
    assert fail(ModelError("no such device")) == f"worker {ray_worker.here()}: no such device"
    assert fail(NumericalError("not finite")) == "not finite"


@pytest.mark.fault("Cluster", "folders of workers of another machine")
def test_folders_of_other_machines_are_left_alone(alone, tmp_path, monkeypatch):
    """Several may have one disk for what is temporary, and a process of one means nothing on another."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = socket.gethostname()
    names = [f"{FOLDERS}{machine}-{dead.pid}-a_0" for machine in (here, f"{here}-2", "elsewhere")]
    for name in (*names, f"{FOLDERS}{here}-{os.getpid()}-a_0", FOLDERS, f"{FOLDERS}{here}"):
        (tmp_path / name).mkdir()
    made = StepWorker(described(alone.study), 1)
    assert names[0] not in {path.name for path in tmp_path.iterdir()}
    assert {*names[1:], FOLDERS, f"{FOLDERS}{here}"} < {path.name for path in tmp_path.iterdir()}
    assert {process for _, process in folders_here()} == {os.getpid()}
    made.leave()


@pytest.mark.parametrize("error", [StoreError("no space"), ObjectLostError(b"0" * 28, b"0" * 28, "")])
def test_what_is_wrong_with_a_node_is_no_fault_of_the_step(alone, worker, monkeypatch, error):
    """It is raised, as another worker is to try, and not given back as what became of the step."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Pipeline, "complete", fail)
    with pytest.raises(type(error)):
        worker.compute({StepKey("directions"): alone.entries[StepKey("directions")].inputs}, {})
