"""The harness of the benchmarks, tried on stand-ins: nothing here is timed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import environments, summary
from benchmarks.__main__ import main, publish, run_jobs
from benchmarks.environments import PEERS, NotInstalledError, environment
from benchmarks.figure import plot_benchmarks
from benchmarks.inputs import Setting
from benchmarks.jobs import JOBS, find, present
from benchmarks.outcome import Comparison, Outcome, Value, largest_difference
from benchmarks.workers import CheckError, Sample, Side, SideError, Worker, take_turns

SECONDS = {"ours": [1.0, 2.0, 9.0], "theirs": [2.0, 3.0, 6.0]}


class Clock:
    """A side that takes the times it is told to, and writes its name down."""

    def __init__(self, name, times, said):
        self.name, self.times, self.said = name, iter(times), said

    def ask(self, do, **_):
        """The next time."""
        self.said.append((self.name, do))
        return next(self.times)


def measured(goal=None, job="job"):
    """An outcome with the times of `SECONDS`."""
    samples = [Sample(side, at + 1, each) for side, times in SECONDS.items() for at, each in enumerate(times)]
    return Outcome(job, samples, comparisons=[Comparison("ours", "theirs", goal)])


def test_sides_take_turns_and_warm_up_once():
    """A B A B A B, the first round uncounted: what slows the machine down for a while meets every side."""
    said = []
    sides = {"a": Clock("a", [9, 1, 2], said), "b": Clock("b", [9, 3, 4], said)}
    samples = take_turns(sides, 2)
    assert [name for name, _ in said] == ["a", "b", "a", "b", "a", "b"]
    assert [(s.side, s.repetition, s.seconds) for s in samples] == [
        ("a", 1, 1.0), ("b", 1, 3.0), ("a", 2, 2.0), ("b", 2, 4.0),
    ]  # fmt: skip


def test_ratio_is_that_of_the_medians_and_its_spread_that_of_the_repetitions():
    """Medians 2 and 3; the repetitions' own ratios are 1/2, 2/3 and 3/2."""
    row = summary.summarised([measured()]).iloc[0]
    assert (row["ours_median"], row["theirs_median"], row["n"]) == (2.0, 3.0, 3)
    assert row[["ratio", "low", "high"]].tolist() == pytest.approx([2 / 3, 0.5, 1.5])
    assert np.isnan(row["met"])


@pytest.mark.parametrize(("goal", "met"), [(0.7, 1.0), (2 / 3, 1.0), (0.66, 0.0)])
def test_goal_is_met_at_or_below_it(goal, met):
    """The ratio 2/3 is judged before it is rounded."""
    table = summary.summarised([measured(goal)])
    assert table["met"].tolist() == [met]
    assert summary.failed(table, []) == (met == 0)


def test_values_are_compared_like_times():
    """Memory is a value of a side: one figure, no spread."""
    values = [Value("ours", "peak memory", 2.0**30, "memory"), Value("theirs", "peak memory", 2.0**31, "memory")]
    comparison = Comparison("ours", "theirs", 1.0, "memory", "peak memory")
    outcome = Outcome("training", figures=values, comparisons=[comparison])
    table = summary.summarised([outcome])
    assert table["ratio"].tolist() == [0.5]
    assert "1024 MiB" in summary.text(table, [outcome])


def test_comparison_with_a_side_that_was_not_measured_is_an_error():
    """Silence about a side would pass for a goal met."""
    outcome = Outcome("job", comparisons=[Comparison("ours", "theirs", 1.0)])
    with pytest.raises(ValueError, match="nothing measured of seconds of ours"):
        summary.summarised([outcome])


def test_failed_check_stops_its_job_before_any_timing(tmp_path):
    """The message holds the numbers; the next job still runs."""
    timed = []

    def wrong(_setting, outcome):
        outcome.check("captum", "deviation", 0.25, 1e-3)
        timed.append("wrong")

    def right(_setting, outcome):
        outcome.check("captum", "deviation", 1e-4, 1e-3)
        outcome.samples += measured().samples
        outcome.comparisons += measured(1.0).comparisons

    outcomes = run_jobs({"wrong": wrong, "right": right}, Setting(tmp_path))
    assert timed == []
    assert outcomes[0].failure == "wrong: wrong: captum, deviation: 0.25, expected at most 0.001"
    assert outcomes[1].failure == ""
    table = summary.summarised(outcomes)
    assert summary.failed(table, outcomes)
    assert "Stopped: wrong" in summary.text(table, outcomes)
    assert outcomes[0].figures == [Value("captum", "deviation", 0.25)]


def test_check_of_no_number_fails():
    """NaN is below no limit."""
    with pytest.raises(CheckError, match="nan"):
        Outcome("job").check("ours", "deviation", float("nan"), 1.0)
    assert np.isnan(largest_difference(np.array([np.nan]), np.array([1.0])))
    assert largest_difference(np.array([np.nan, 1.0]), np.array([0.0, 3.0])) == 2.0


def test_table_says_ratio_spread_goal_and_who_is_missing():
    """One line a comparison; a peer that could not be installed is named with its reason."""
    outcome = measured(0.7)
    outcome.missing["peer"] = "no such version"
    lines = summary.text(summary.summarised([outcome]), [outcome]).splitlines()
    assert lines[0].split() == [
        "job",
        "ours",
        "against",
        "ours",
        "s",
        "theirs",
        "s",
        "ratio",
        "(spread)",
        "goal",
        "met?",
    ]
    assert lines[1].split() == ["job", "ours", "theirs", "2", "3", "0.67", "(0.50..1.50)", "<=", "0.70", "yes"]
    assert "Not measured: peer: no such version" in lines


def test_files_keep_the_rows_of_jobs_that_did_not_run(tmp_path, capsys):
    """`make bench JOB=one` replaces its own rows alone; missing settings stay text, missing goals stay numbers."""
    assert publish([measured(0.7, "one"), measured(None, "two")], tmp_path) == 0
    assert publish([measured(0.1, "one")], tmp_path) == 1
    assert "one" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "summary.csv")
    assert sorted(table["job"]) == ["one", "two"]
    assert table.set_index("job")["goal"].round(2).to_dict() == {"one": 0.1, "two": pytest.approx(np.nan, nan_ok=True)}
    long = pd.read_csv(tmp_path / "measurements.csv")
    assert list(long.columns) == ["job", "setting", "side", "quantity", "repetition", "value"]
    assert long.groupby("job").size().to_dict() == {"one": 6, "two": 6}
    assert (tmp_path / "benchmarks.png").is_file()


def test_figure_has_a_panel_a_job_and_one_of_growth():
    """Growth is drawn as a ratio by setting, the others relative to ours."""
    growth = Outcome("growth", [Sample(s.side.replace("theirs", "ours_unlogged"), s.repetition, s.seconds, "layers 1")
                                for s in measured().samples])  # fmt: skip
    figure = plot_benchmarks(summary.measurements([measured(), growth]))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["job", "growth: logged over unlogged step"]


ANSWERING = """
from serving import serve
def prepare(size):
    print("noise of a library")
    return 2 * size
def fail():
    raise ValueError("these are the numbers: 7")
serve({"prepare": prepare, "repeat": lambda: 0.25, "fail": fail, "end": lambda: __import__("os")._exit(3)})
"""


def test_worker_answers_hands_on_errors_and_ends(tmp_path):
    """Noise on stdout disturbs no answer; an error carries the side's own words, and so does an end."""
    script = tmp_path / "side.py"
    script.write_text(ANSWERING, encoding="utf-8")
    with Worker(Side("side", script), tmp_path, threads=1) as worker:
        assert worker.ask("prepare", size=4) == 8
        assert worker.ask("repeat") == 0.25
        with pytest.raises(SideError, match="could not fail: ValueError: these are the numbers: 7"):
            worker.ask("fail")
        with pytest.raises(SideError, match="side ended while it was to end"):
            worker.ask("end")


def test_environment_is_made_once_and_again_when_its_pins_change(tmp_path, monkeypatch):
    """The stamp is written last; a failed installation leaves none and gives pip's last line as the reason."""
    commands, code = [], 0

    def run(command, **_):
        commands.append(command)
        if "venv" in command:
            (tmp_path / "env" / "bin").mkdir(parents=True, exist_ok=True)
            (tmp_path / "env" / "bin" / "python").touch()
        return subprocess.CompletedProcess(command, code if "pip" in command else 0, "", "first\nno such version\n")

    monkeypatch.setattr(environments.subprocess, "run", run)
    pins, folder = tmp_path / "peer.txt", tmp_path / "env"
    pins.write_text("a==1\n", encoding="utf-8")
    environment(pins, folder)
    environment(pins, folder)
    assert len(commands) == 2
    pins.write_text("a==2\n", encoding="utf-8")
    environment(pins, folder)
    assert len(commands) == 4
    code = 1
    pins.write_text("a==3\n", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(NotInstalledError, match="no such version"):
            environment(pins, folder)


@pytest.mark.parametrize("path", sorted(PEERS.glob("*.txt")), ids=lambda path: path.stem)
def test_peer_is_pinned_in_full(path):
    """Every line a version; torch the one whose wheel needs no CUDA; a script of the same name, without gradinoc."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    loose = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line)]
    assert loose == []
    assert "torch==2.13.0" in lines
    names = [re.sub(r"[._]", "-", line.partition("==")[0]).lower() for line in lines]
    assert path.stem.replace("_", "-") in names
    assert len(set(names)) == len(names)
    assert not re.search(r"^\s*(from|import) gradinoc", path.with_suffix(".py").read_text(encoding="utf-8"), re.M)


def test_jobs_are_known_by_name():
    """Each job that is present can be found; another name says which there are."""
    assert set(present()) <= set(JOBS)
    assert {"alignment", "directions", "training", "growth"} <= set(present())
    with pytest.raises(KeyError, match="No job 'speed'"):
        find("speed")


def test_readings_are_descent_cosines_at_three_positions(tmp_path, monkeypatch):
    """What peers read off their gradients, against the definition, on a gradient made by hand."""
    monkeypatch.syspath_prepend(str(Path(environments.HERE) / "shared"))
    import reading

    gradient = np.zeros((2, 4, 3), dtype=np.float32)
    gradient[1, 1], gradient[1, 2], gradient[1, 3] = (0, -1, 0), (-2, 0, 0), (-1, 3, 0)
    gradient[0] = 1.0
    examples = [([5, 6, 7], 1), ([5, 6, 7, 8], 2)]
    (tmp_path / "examples.json").write_text(json.dumps({"examples": examples, "pad": 0}), encoding="utf-8")
    np.save(tmp_path / "directions.npy", np.eye(3, dtype=np.float32)[None])
    work = reading.read_work(str(tmp_path))
    (batch,) = work.batches()
    readings = reading.Readings(work)
    readings.take(batch, [reading.torch.from_numpy(gradient)])
    found = readings.alignments[:, 0, 1]
    assert found[0].tolist() == [0, 1, 0]
    assert found[1].tolist() == [1, 0, 0]
    assert found[2].tolist() == pytest.approx([2**-0.5, -(2**-0.5), 0])


def test_command_line_lists_its_jobs(capsys):
    """An unknown job is refused before anything runs."""
    with pytest.raises(SystemExit, match="2"):
        main(["speed"])
    assert "no job speed; there are alignment" in capsys.readouterr().err
