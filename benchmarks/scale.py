"""What a cluster costs: `python -m benchmarks.scale`, on nodes of Ray's that are processes of this machine.

Each figure stands beside its goal; the exit code is 1 if one is missed. Steps that sleep stand in for compute where
scheduling is measured, and only there.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

from benchmarks.sleeping import SleepingWorker
from fixtures.small_study import SMALLEST
from gradinoc.pipeline.engines.ray_engine import RayEngine
from gradinoc.pipeline.engines.shards import shard
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps.step import Step, StepKey
from gradinoc.pipeline.storage.store import Store
from gradinoc.pipeline.storage.transfer import Became, differences, merge
from gradinoc.study.loading import load_study

NODES, SLEEPERS, SECONDS = 4, 32, 0.5
OVERHEAD, WALL, GROWTH_MB = 1.10, 1.05, 10.0  # to be reached, at most
ON_TWO = ["model.threads=1", "engine.workers=2"]


@dataclass(frozen=True)
class Row:
    """A figure: what it is of, itself in words, its goal, and whether that is reached."""

    what: str
    figure: str
    goal: str
    reached: bool


@contextmanager
def cluster(nodes: int, processors: int) -> Iterator[str]:
    """Address of a cluster of logical nodes on this machine, each with so many logical processors."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": processors, "include_dashboard": False})
    for _ in range(nodes - 1):
        made.add_node(num_cpus=processors)
    try:
        ray.init(address=made.address, namespace="gradinoc", log_to_driver=False, configure_logging=False)
        yield made.address
    finally:
        ray.shutdown()
        made.shutdown()


def scheduling(steps: int, folder: Path) -> Iterator[Row]:
    """Steps that sleep, beside the time that they would take if scheduling took none; and the driver's memory."""
    study = load_study("tiny", ["model.threads=1", f"engine.workers={SLEEPERS}"])
    sleeping = {
        key: Step(key, f"nap {place}", "naps", _nothing, _no_work, {"seconds": SECONDS, "nap": place})
        for place in range(steps)
        if (key := StepKey("training", f"nap{place}"))
    }
    memory: list[float] = []
    with cluster(NODES, SLEEPERS // NODES) as address:
        store = Store(folder)
        engine = RayEngine(study, store, address, SleepingWorker)
        while engine.room() < SLEEPERS:
            list(engine.finished(0.2))
        pipeline = Pipeline(
            study, store, lambda _: memory.append(psutil.Process().memory_info().rss / 1e6),
            planned=lambda _: sleeping, engine=engine,
        )  # fmt: skip
        with closing(pipeline):
            began = time.perf_counter()
            pipeline.complete()
            took = time.perf_counter() - began
    share = took * SLEEPERS / (steps * SECONDS)
    what = f"{steps:,} steps of {SECONDS * 1000:.0f} ms on {SLEEPERS} logical workers, of the ideal time"
    yield Row(what, f"{share:.2f} ({took:.0f} s)", f"<= {OVERHEAD:.2f}", share <= OVERHEAD)
    tenth = max(1, len(memory) // 10)
    growth = median(memory[-tenth:]) - median(memory[tenth : 2 * tenth])
    what = "driver's memory: last tenth of the events, less the second"
    yield Row(what, f"{growth:+.0f} MB", f"<= {GROWTH_MB:.0f} MB", growth <= GROWTH_MB)


def beside_local(study: str, settings: Sequence[str], folder: Path) -> Iterator[Row]:
    """A study on two workers of a cluster, beside two processes on one store; and whether both come to the same."""
    words = [word for setting in [*ON_TWO, *settings] for word in ("--set", setting)]
    command = [sys.executable, "-m", "gradinoc", "run", study, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def timed(name: str, processes: int, *further: str) -> float:
        places = ["--store", str(folder / name), "--artifacts", str(folder / f"artifacts-{name}"), *further]
        began, silent = time.perf_counter(), subprocess.DEVNULL
        running = [
            subprocess.Popen([*command, *places], env=environment, stderr=silent, stdout=silent)  # noqa: S603
            for _ in range(processes)
        ]
        if any(process.wait() for process in running):
            raise RuntimeError(f"the study on engine {name} failed")
        return time.perf_counter() - began

    local, on_ray = timed("local", 2), timed("ray", 1, "--engine", "ray")
    ratio = on_ray / local
    what = f"{study}, engine ray with 2 workers / local with 2 processes, wall time"
    yield Row(what, f"{ratio:.2f} ({on_ray:.0f} s / {local:.0f} s)", f"<= {WALL:.2f}", ratio <= WALL)
    loaded = load_study(study, [*ON_TWO, *settings])
    one, other = (Pipeline(loaded, Store(folder / name)).complete() for name in ("local", "ray"))
    differing = sum(bool([*differences(*pair)]) for pair in zip(one, other, strict=True))
    yield Row("results that differ, bit for bit", f"{differing} of {len(one)}", "0", not differing)


def halves(folder: Path) -> Iterator[Row]:
    """Two halves of a small study, each in a store of its own, merged and ended, beside the whole in one store."""
    loaded = load_study("tiny", [*SMALLEST, "model.threads=1"])
    whole = Pipeline(loaded, Store(folder / "whole"))
    merged = Pipeline(loaded, Store(folder / "merged"))
    refused = 0
    for number in (1, 2):
        half = Pipeline(loaded, Store(folder / f"half-{number}"))
        half.complete(shard(half.steps, number, 2))
        arrivals = [*merge(Store(folder / "merged"), folder / f"half-{number}")]
        refused += sum(arrival.became not in (Became.TAKEN, Became.KNOWN) for arrival in arrivals)
    pairs = zip(whole.complete(), merged.complete(), strict=True)
    differing = sum(bool([*differences(*pair)]) for pair in pairs) + refused
    what = "a small study in two halves, merged: results that differ from the whole's, bit for bit"
    yield Row(what, f"{differing} of {len(whole.steps)}", "0", not differing)


def kills(folder: Path) -> Iterator[Row]:
    """What the test of a cluster that is killed at counted."""
    report = folder / "kills.xml"
    command = [sys.executable, "-m", "pytest", "-q", "--exhaustive", "tests/robustness/test_cluster.py"]
    command.append(f"--junitxml={report}")
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own
    found = re.search(r'name="killed" value="([^"]*)"', report.read_text(encoding="utf-8"))
    ended = found[1] if found and not done.returncode else done.stdout.strip().splitlines()[-1]
    what = "kills at random moments, of workers, nodes and drivers: studies that did not end right"
    yield Row(what, f"{'0' if not done.returncode else 'some'} ({ended})", "0", not done.returncode)


def _nothing(*_: Any) -> None:
    raise AssertionError("a step that sleeps elsewhere is not computed here")


def _no_work(_counting: Any) -> tuple[()]:
    return ()


def main() -> int:
    """Measure, and print a row for each figure as it comes."""
    parser = argparse.ArgumentParser(prog="benchmarks.scale", description=__doc__)
    parser.add_argument("--steps", type=int, default=5000, help="that sleep (default: 5000)")
    parser.add_argument("--study", default="smollm2", help="to be run on both engines (default: smollm2)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the study")
    parser.add_argument("--part", choices=["scheduling", "engines", "halves", "kills"], help="measure this alone")
    options = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        parts = {
            "scheduling": scheduling(options.steps, Path(folder, "sleeping")),
            "engines": beside_local(options.study, options.set, Path(folder)),
            "halves": halves(Path(folder, "halves")),
            "kills": kills(Path(folder)),
        }
        chosen = [options.part] if options.part else [*parts]
        for row in (row for part in chosen for row in parts[part]):
            missed += not row.reached
            word = "" if row.reached else "  MISSED"
            sys.stdout.write(f"| {row.what} | {row.figure} | {row.goal} |{word}\n")
            sys.stdout.flush()
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
