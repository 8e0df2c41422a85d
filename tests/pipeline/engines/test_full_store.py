"""A cluster whose memory is smaller than what a study sends: steps wait for room, and none is lost."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing

import pytest
import ray

from fixtures.bulky_worker import BYTES, BulkyWorker
from gradinoc.pipeline.engines.ray_engine import RayEngine
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps.step import Step, StepKey
from gradinoc.pipeline.storage.store import Store
from gradinoc.study.loading import load_study

MEMORY = 80 * 2**20  # of the cluster's object store, about the least that Ray begins with
COUNT = 12


@pytest.fixture
def small_cluster(tmp_path):
    """A cluster of this machine with little memory for what travels."""
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, namespace="gradinoc",
        object_store_memory=MEMORY,
    )  # fmt: skip
    yield
    ray.shutdown()


def nothing(*_):
    """What this process would compute by itself: not called."""
    raise AssertionError("computed here")


@pytest.mark.exhaustive
@pytest.mark.usefixtures("small_cluster")
@pytest.mark.fault("Cluster", "the cluster's memory full, both ways")
def test_more_than_the_memory_of_a_cluster_travels_both_ways(tmp_path):
    """Results of five times its memory come back, and as much is read by steps that need all of them."""
    assert COUNT * BYTES > 4 * MEMORY
    made = {key: Step(key, f"make {n}", "make", nothing, lambda _: (), {"n": n}) for n in range(COUNT)
            if (key := StepKey("training", f"made{n}"))}  # fmt: skip
    read = {key: Step(key, f"read {n}", "read", nothing, lambda _: (), {"n": n}, needs=(*made,)) for n in range(4)
            if (key := StepKey("drift", f"read{n}"))}  # fmt: skip
    study, store = load_study("tiny", ["model.threads=1", "engine.workers=2"]), Store(tmp_path)
    engine = RayEngine(study, store, "local", BulkyWorker)
    with closing(Pipeline(study, store, planned=lambda _: made | read, engine=engine)) as pipeline:
        pipeline.complete()
    wanted = {f"made{n}": hashlib.sha256(bytes([n]) * BYTES).hexdigest() for n in range(COUNT)}
    for key in read:
        told = json.loads((pipeline.entries[key].path / "content").read_bytes())
        assert told == wanted
