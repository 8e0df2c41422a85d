"""A study on a cluster whose workers, nodes and driver are killed: it ends, and is what one process computes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from fixtures.smallest import SMALLEST
from gradinoc.pipeline.engines.ray_worker import folders_here
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.storage.store import Store
from gradinoc.pipeline.storage.transfer import differences
from gradinoc.study.loading import load_study

KILLS = 30
PAUSE = (6.0, 16.0)  # seconds between them: a worker takes some to begin
NODES = 4
ON_NODES = [*SMALLEST, "model.threads=1", "engine.workers=2"]


class Driver:
    """`gradinoc run` on a cluster, begun again whenever it was killed."""

    def __init__(self, address: str, store: Path) -> None:
        settings = [word for setting in ON_NODES for word in ("--set", setting)]
        places = ["--store", str(store), "--artifacts", str(store.parent / "artifacts")]
        self._command = [
            sys.executable, "-m", "gradinoc", "run", "tiny", *settings, *places, "--engine", f"ray:{address}",
        ]  # fmt: skip
        self._log = store.parent / "driver.log"
        self.begin()

    def begin(self) -> None:
        """Begin it."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        """Kill it without warning, and begin again."""
        self.process.kill()
        self.process.wait()
        self.begin()


def workers() -> list[int]:
    """Processes of workers that are there."""
    found = [process for _, process in folders_here() if psutil.pid_exists(process)]
    return [process for process in found if "ray::" in " ".join(psutil.Process(process).cmdline())]


@pytest.mark.exhaustive
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
@pytest.mark.fault("Cluster", "30 kills at random moments, of workers, nodes and drivers")
def test_every_study_ends_right_whatever_is_killed(tmp_path, record_property, faults_tried):
    """Study after study until so many kills are done: each ends with exit code 0 and the tables of one process."""
    rng, counted, studies = random.Random(0), dict.fromkeys(("worker", "node", "driver"), 0), 0
    alone = Pipeline(load_study("tiny", ON_NODES), Store(tmp_path / "alone"))
    expected = dict(zip(alone.steps, alone.complete(), strict=True))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(NODES)]
    try:
        while sum(counted.values()) < KILLS:
            studies += 1
            store = tmp_path / str(studies) / "store"
            store.mkdir(parents=True)
            driver, until = Driver(cluster.address, store), time.monotonic() + 900
            while driver.process.poll() is None and time.monotonic() < until:
                with suppress(subprocess.TimeoutExpired):
                    driver.process.wait(rng.uniform(*PAUSE))
                    break
                kind = rng.choice([*counted])
                if kind == "worker" and (there := workers()):
                    os.kill(rng.choice(there), signal.SIGKILL)
                elif kind == "node":
                    cluster.remove_node(nodes.pop(rng.randrange(len(nodes))), allow_graceful=False)
                    nodes.append(cluster.add_node(num_cpus=1))
                elif kind == "driver":
                    driver.kill()
                else:
                    continue
                counted[kind] += 1
            said = (store.parent / "driver.log").read_text(encoding="utf-8", errors="replace")
            assert driver.process.poll() == 0, said[-3000:]
            after = Pipeline(load_study("tiny", ON_NODES), Store(store))
            for key, folder in expected.items():
                assert after.entries[key].complete(), (key, counted)
                assert [*differences(folder, after.entries[key].path)] == [], (key, counted)
    finally:
        cluster.shutdown()
    assert min(counted.values()) > 0, counted
    faults_tried(sum(counted.values()))
    record_property("killed", f"{studies} studies: {counted}")
