"""The benchmarks start, take turns, stop at a failed check, and publish; nothing here is timed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks import environments, summary
from benchmarks.__main__ import main, run_jobs
from benchmarks.environments import PEERS
from benchmarks.former import pinned
from benchmarks.inputs import Setting
from benchmarks.jobs import JOBS, find
from benchmarks.jobs.study import furthest
from benchmarks.outcome import Comparison
from benchmarks.usage import measure
from benchmarks.workers import CheckError, Sample, SideError, take_turns

pytestmark = pytest.mark.exhaustive

ROOT = Path(__file__).parents[1]

SECONDS = {"ours": [1.0, 2.0, 9.0], "theirs": [2.0, 3.0, 6.0]}


class Clock:
    """A side that takes the times it is given, and writes its name down."""

    def __init__(self, name, times, asked):
        self.name, self.times, self.asked = name, iter(times), asked

    def ask(self, *_, **__):
        """The next time."""
        self.asked.append(self.name)
        return next(self.times)


def passing(_setting, outcome):
    """A job that passes its check, and meets its goal of 0.7 with a ratio of 2/3."""
    outcome.check("captum", "deviation", 1e-4, 1e-3)
    outcome.samples += [Sample(side, n + 1, each) for side, times in SECONDS.items() for n, each in enumerate(times)]
    outcome.comparisons.append(Comparison("ours", "theirs", 0.7))


def failing(_setting, outcome):
    """A job whose sides do not compute the same thing."""
    outcome.check("captum", "deviation", 0.25, 1e-3)


@pytest.mark.parametrize("name", JOBS)
def test_job_is_a_module_that_imports(name):
    """It is found by its name, and what it imports of gradinoc is there."""
    assert find(name).__module__ == f"benchmarks.jobs.{name}"


def test_jobs_have_a_study_to_take_examples_from(tmp_path):
    """Its budgets fit the questions that jobs ask for, and they come as tokens."""
    setting = Setting(tmp_path)
    (found,) = setting.encoded(setting.context.splits.train[:1], "Answer directly.")
    assert len(found[0]) > found[1] > 10


def test_command_runs_a_job(tmp_path, capsys):
    """The one that needs no other library and, without a GPU, times nothing: table, figure and exit code."""
    assert main(["cuda", "--out", str(tmp_path)]) == 0
    assert "cuda" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} >= {"table.txt", "summary.csv", "benchmarks.png"}


def rehearsed(*parts):
    """What the GPU check says on a processor: name -> value."""
    environment = {**os.environ, "PYTHON": sys.executable, "DEVICE": "cpu"}
    command = ["sh", "benchmarks/gpu.sh", *parts]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {line["name"]: line["value"] for line in map(json.loads, done.stdout.splitlines())}


def test_gpu_check_is_rehearsed_on_a_processor():
    """Parts that do not time: lines of JSON, float32 as the plain modules have it, a size in bytes."""
    lines = rehearsed("environment", "exact", "memory")
    assert lines["torch"] == torch.__version__
    assert lines["rehearsal, alignments, float32"] < 1e-5 < lines["rehearsal, alignments, bfloat16"] < 0.05
    assert lines["rehearsal, computed"] > 1e6


@pytest.mark.exhaustive
def test_parts_of_the_gpu_check_that_time_are_rehearsed_too():
    """Every ratio is there, and runs together lose what one of them alone does."""
    lines = rehearsed("waits", "small", "large", "together")
    assert {"rehearsal, logged / unlogged", "rehearsal, 9 one after another / together"} <= lines.keys()
    assert lines["rehearsal, losses apart, relative, bfloat16"] < 0.01


def test_sides_take_turns_and_warm_up_once():
    """A B A B A B, the first round uncounted: what slows the machine down for a while meets every side."""
    asked = []
    sides = {"a": Clock("a", [9, 1, 2], asked), "b": Clock("b", [9, 3, 4], asked)}
    samples = take_turns(sides, 2)
    assert asked == ["a", "b", "a", "b", "a", "b"]
    assert [(s.side, s.repetition, s.seconds) for s in samples] == [
        ("a", 1, 1.0), ("b", 1, 3.0), ("a", 2, 2.0), ("b", 2, 4.0),
    ]  # fmt: skip


def test_failed_check_stops_its_job_alone_and_is_published(tmp_path):
    """The other job's ratio is that of the medians, 2/3; its spread that of the repetitions."""
    outcomes = run_jobs({"growth": failing, "training": passing}, Setting(tmp_path), tmp_path)
    assert outcomes[0].failure == "CheckError: captum, deviation: 0.25, expected at most 0.001"
    table = pd.read_csv(tmp_path / "summary.csv")
    assert table["job"].tolist() == ["training"]
    assert table.loc[0, ["ratio", "low", "high", "met"]].tolist() == pytest.approx([2 / 3, 0.5, 1.5, 1.0], abs=1e-5)
    assert summary.failed(table, outcomes)
    assert not summary.failed(table, outcomes[1:])
    assert "Stopped: growth: CheckError" in (tmp_path / "table.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted(PEERS.glob("*.txt")), ids=lambda path: path.stem)
def test_peer_is_pinned_in_full(path):
    """Every line a version; torch this project's own; a script of the same name, without gradinoc."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line)] == []
    assert environments.torch_pin() in lines
    assert not re.search(r"^\s*(from|import) gradinoc", path.with_suffix(".py").read_text(encoding="utf-8"), re.M)


def test_tables_are_compared_by_row_whatever_their_order():
    """The largest difference of a number; one that is missing in one table only is infinitely far."""
    table = pd.DataFrame({"layer": [0, 1, 2], "position": ["a", "b", "c"], "loss": [1.0, 2.0, float("nan")]})
    assert furthest(table[::-1], table) == 0
    assert furthest(table.assign(loss=[1.0, 2.25, float("nan")]), table) == pytest.approx(0.25)
    assert furthest(table.assign(loss=[1.0, 2.0, 3.0]), table) == float("inf")
    with pytest.raises(CheckError, match="other rows"):
        furthest(table.assign(layer=[0, 1, 3]), table)
    with pytest.raises(CheckError, match="columns"):
        furthest(table.drop(columns="loss"), table)


def test_use_of_a_command_counts_the_processes_that_it_starts(tmp_path):
    """A child that computes for a second and holds 200 MB, which its parent does not wait for, is in the sums."""
    busy = "while time.process_time() < 1.2: pass"
    child = f"import time; held = b'x' * 200_000_000\n{busy}\nprint(flush=True); time.sleep(3)"
    start = f"subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)"
    parent = f"import subprocess, sys, time; {start}.stdout.readline(); time.sleep(2)"
    used = measure([sys.executable, "-c", parent], tmp_path, os.environ, tmp_path / "log")
    assert 1.2 <= used.cpu < 3
    assert 2e8 < used.memory < 3e8
    assert used.wall > 2
    with pytest.raises(SideError, match="ended with 3:\nbroken"):
        measure([sys.executable, "-c", "print('broken'); exit(3)"], tmp_path, os.environ, tmp_path / "log")


def test_former_version_gets_its_pins_without_hashes():
    """Hashes of torch are those of the package index, and a CPU-only build is another file."""
    assert pinned("# a note: a==1\ntorch==2.13.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\nrich==14.0\n") == [
        "torch==2.13.0", "rich==14.0",
    ]  # fmt: skip
