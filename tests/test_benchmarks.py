"""The harness of the benchmarks, tried on stand-ins: nothing here is timed."""

from __future__ import annotations

import inspect
import json
import pkgutil
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import environments, summary
from benchmarks.__main__ import main, publish, run_jobs
from benchmarks.environments import PEERS, NotInstalledError, environment
from benchmarks.figure import NAMES, SETTINGS, TITLES, grown, named, plot_benchmarks
from benchmarks.inputs import Setting
from benchmarks.jobs import JOBS, alignment, cuda, directions, evaluation, find, growth, training
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


def said_of(*outcomes):
    """The table of outcomes, as text."""
    return summary.text(summary.summarised(outcomes), summary.remarks(outcomes))


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
    assert summary.summarised([outcome])["ratio"].tolist() == [0.5]
    assert "1024 MiB" in said_of(outcome)


def test_comparison_with_a_side_that_was_not_measured_is_an_error():
    """Silence about a side would pass for a goal met."""
    outcome = Outcome("job", comparisons=[Comparison("ours", "theirs", 1.0)])
    with pytest.raises(ValueError, match="nothing measured of seconds of ours"):
        summary.summarised([outcome])


def right(_setting, outcome):
    """A job that passes its check and meets its goal."""
    outcome.check("captum", "deviation", 1e-4, 1e-3)
    outcome.samples += measured().samples
    outcome.comparisons += measured(1.0).comparisons


def test_failed_check_stops_its_job_before_any_timing(tmp_path):
    """The message holds the numbers; the next job still runs."""
    timed = []

    def wrong(_setting, outcome):
        outcome.check("captum", "deviation", 0.25, 1e-3)
        timed.append("wrong")

    outcomes = run_jobs({"wrong": wrong, "right": right}, Setting(tmp_path), tmp_path)
    assert timed == []
    assert outcomes[0].failure == "CheckError: captum, deviation: 0.25, expected at most 0.001"
    assert outcomes[0].figures == [Value("captum", "deviation", 0.25)]
    assert outcomes[1].failure == ""
    assert summary.failed(summary.summarised(outcomes), outcomes)
    assert not summary.failed(summary.summarised(outcomes[1:]), outcomes[1:])
    assert "Checked before timing, right:\n  captum, deviation: 0.0001 (at most 0.001)\n" in said_of(*outcomes)


def divided(_setting, outcome):
    """A job that measures something and then breaks."""
    right(_setting, outcome)
    raise ZeroDivisionError("division by zero")


def unmeasured(_setting, outcome):
    """A job that compares what it never measured."""
    outcome.comparisons.append(Comparison("ours", "theirs"))


@pytest.mark.parametrize(
    ("broken", "said"),
    [(divided, "ZeroDivisionError: division by zero"), (unmeasured, "ValueError: broken: nothing measured of seconds")],
)
def test_job_that_raises_keeps_the_others_and_is_published_as_stopped(tmp_path, broken, said):
    """Whatever it raises: those before and after it are in the files, and of its own no time is."""
    lines = []
    jobs = {"before": right, "broken": broken, "after": right}
    outcomes = run_jobs(jobs, Setting(tmp_path, say=lines.append), tmp_path)
    assert [bool(outcome.failure) for outcome in outcomes] == [False, True, False]
    assert outcomes[1].failure.startswith(said)
    assert pd.read_csv(tmp_path / "summary.csv")["job"].tolist() == ["before", "after"]
    assert set(pd.read_csv(tmp_path / "measurements.csv").query("quantity == 'seconds'")["job"]) == {"before", "after"}
    published = (tmp_path / "table.txt").read_text(encoding="utf-8")
    assert f"Stopped: broken: {outcomes[1].failure}\n" in published
    assert ["broken", "stopped", "no"] in [line.split() for line in published.splitlines()]
    assert any("Traceback" in line for line in lines), "an error that no check foresaw says where it came from"


@pytest.mark.parametrize(("jobs", "code"), [(["training"], 0), (["training", "growth"], 1)])
def test_command_fails_if_a_job_stopped(tmp_path, monkeypatch, capsys, jobs, code):
    """The exit status is that of all jobs asked for, and the table is printed either way."""
    monkeypatch.setattr("benchmarks.__main__.find", {"training": right, "growth": divided}.__getitem__)
    assert main([*jobs, "--out", str(tmp_path)]) == code
    assert "0.67 (0.50..1.50)" in capsys.readouterr().out


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
    lines = said_of(outcome).splitlines()
    header = ["job", "ours", "against", "ours s", "theirs s", "ratio (spread)", "goal", "met?"]
    assert re.split(r"  +", lines[0]) == header
    assert lines[1].split() == ["job", "ours", "theirs", "2", "3", "0.67", "(0.50..1.50)", "<=", "0.70", "yes"]
    assert lines[2].split() == ["job", "peer", "not", "measured"]
    assert "Not measured: job, peer: no such version" in lines


def test_partial_run_replaces_its_own_rows_alone(tmp_path):
    """`make bench JOB=one`: missing settings stay text, missing goals stay numbers, rows stay in the jobs' order."""
    earlier = measured(0.7, "alignment")
    earlier.missing["captum"] = "no such version"
    for outcome in (measured(None, "evaluation"), earlier, Outcome("cuda", failure="SideError: ended")):
        publish(outcome, tmp_path)
    publish(measured(0.1, "training"), tmp_path)
    publish(measured(0.2, "training"), tmp_path)
    table = pd.read_csv(tmp_path / "summary.csv")
    assert table["job"].tolist() == ["alignment", "training", "evaluation"]
    assert table["goal"].tolist() == pytest.approx([0.7, 0.2, np.nan], nan_ok=True)
    long = pd.read_csv(tmp_path / "measurements.csv")
    assert list(long.columns) == ["job", "setting", "side", "quantity", "repetition", "value"]
    assert long.groupby("job").size().to_dict() == {"alignment": 6, "training": 6, "evaluation": 6}
    assert (tmp_path / "benchmarks.png").is_file()
    lines = (tmp_path / "table.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines[1 : lines.index("")]]
    assert [(row[0], row[-1]) for row in rows] == [
        ("alignment", "yes"), ("alignment", "measured"), ("training", "no"),
        ("evaluation", "(0.50..1.50)"), ("cuda", "no"),
    ]  # fmt: skip
    assert "nan" not in "".join(lines)
    assert {"Not measured: alignment, captum: no such version", "Stopped: cuda: SideError: ended"} <= set(lines)
    publish(measured(None, "cuda"), tmp_path)
    assert "Stopped" not in (tmp_path / "table.txt").read_text(encoding="utf-8"), "a job that ran is stopped no more"


def test_figure_has_a_panel_a_job_and_one_of_growth():
    """Growth is drawn as a ratio by setting, the others relative to ours, with a tick where the goal would be met."""
    growing = Outcome("growth", [Sample(s.side.replace("theirs", "ours_unlogged"), s.repetition, s.seconds, "layers 1")
                                 for s in measured().samples])  # fmt: skip
    outcomes = [measured(0.5), growing]
    figure = plot_benchmarks(summary.measurements(outcomes), summary.summarised(outcomes))
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["job", TITLES["growth"]]
    assert [label.get_text() for label in first.get_yticklabels()] == ["ours", "theirs"]
    assert [text.get_text() for text in first.texts] == ["2.00 s", "3.00 s"]
    ticks = [segment[:, 0].tolist() for lines in first.collections for segment in lines.get_segments()]
    assert [2.0, 2.0] in ticks, "the goal 0.5 asks twice our time of theirs"
    assert [text.get_text() for text in second.texts] == ["0.67"]
    assert [label.get_text() for label in second.get_yticklabels()] == ["1 layer"]


def test_figure_says_in_words_what_every_side_is():
    """No side of any job is shown under the name that the code has for it."""
    sides = {
        "alignment": [*alignment.PEERS, "each_direction"], "directions": [*directions.GOALS, "floor"],
        "training": training.SIDES, "evaluation": evaluation.SIDES, "cuda": cuda.SIDES,
    }  # fmt: skip
    assert {side for names in sides.values() for side in names} <= {key.rpartition(" ")[2] for key in NAMES}
    assert set(TITLES) == set(JOBS)
    assert set(SETTINGS) == set(cuda.ROUNDS)
    for job, names in sides.items():
        shown = [named(job, side) for side in names]
        assert len(set(shown)) == len(shown)
        assert not any("_" in name for name in shown)
    assert grown("directions 1001") == "1,001 directions"
    assert grown("batch 4") == "batch of 4"


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
    assert environments.torch_pin() in commands[1], "pip is told which torch, whatever the file pins"
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
    """Every line a version; torch this project's own; a script of the same name, without gradinoc."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    loose = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line)]
    assert loose == []
    assert [line for line in lines if line.startswith("torch==")] == [environments.torch_pin()]
    names = [re.sub(r"[._]", "-", line.partition("==")[0]).lower() for line in lines]
    assert path.stem.replace("_", "-") in names
    assert len(set(names)) == len(names)
    assert not re.search(r"^\s*(from|import) gradinoc", path.with_suffix(".py").read_text(encoding="utf-8"), re.M)


def test_pin_of_torch_is_the_projects(tmp_path, monkeypatch):
    """It is what this environment runs; without one no peer's environment is made."""
    assert environments.torch_pin() == f"torch=={version('torch').partition('+')[0]}"
    constraints = tmp_path / "constraints.txt"
    monkeypatch.setattr(environments, "CONSTRAINTS", constraints)
    constraints.write_text("torchvision==0.1\n torch==1.0\ntorch==9.9.9\n", encoding="utf-8")
    assert environments.torch_pin() == "torch==9.9.9"
    constraints.write_text("numpy==2.0\n", encoding="utf-8")
    with pytest.raises(ValueError, match="Expected a line torch=="):
        environments.torch_pin()


@pytest.mark.parametrize("name", JOBS)
def test_job_is_a_module_that_runs(name):
    """Found by its name alone; its `run` takes the setting and the outcome to fill."""
    run = find(name)
    assert run.__module__ == f"benchmarks.jobs.{name}"
    assert list(inspect.signature(run).parameters) == ["setting", "outcome"]


def test_every_job_has_a_name():
    """A module that is in no list would never be measured; another name says which jobs there are."""
    assert sorted(JOBS) == sorted(found.name for found in pkgutil.iter_modules([environments.HERE / "jobs"]))
    with pytest.raises(KeyError, match=f"No job 'speed'; there are {', '.join(JOBS)}"):
        find("speed")


@pytest.mark.parametrize(("short", "long"), [(0, 0), (0, 10), (-5, -5), (1000, 1001)])
def test_growth_refuses_nothing_held_and_more_held(short, long):
    """No bytes would mean that nothing was logged, and more of them that logging grows with the sequence."""
    with pytest.raises(CheckError, match="held for logging"):
        growth.check(Outcome("growth"), short, long)


@pytest.mark.parametrize("long", [1000, 900])
def test_growth_keeps_how_much_is_held(long):
    """As many bytes at 1,024 tokens as at 128, or fewer, pass."""
    outcome = Outcome("growth")
    growth.check(outcome, 1000, long)
    assert [value.value for value in outcome.figures] == [long / 1000]
    assert len(outcome.checks) == 1


@pytest.mark.parametrize(
    ("name", "away"),
    [("ours", [2e-4, 0, 0]), ("ours", [0, 0, 2e-4]), ("saklas", [0, 2e-3, 0]), ("saklas", [0, 0, 2e-3]),
     ("repeng", [2e-3, 0, 0]), ("ours", [0, 0, np.nan])],
)  # fmt: skip
def test_directions_are_judged_in_float32_and_only_kept_in_bfloat16(name, away):
    """Ours within 1e-4 of brute force, a peer within 1e-3, at every layer."""
    with pytest.raises(CheckError, match=f"{name}, 1 - .*, float32: "):
        directions.check(Outcome("directions"), name, "float32", np.array(away))
    outcome = Outcome("directions")
    directions.check(outcome, name, "bfloat16", np.array(away))
    assert [value.value for value in outcome.figures] == pytest.approx([max(away[:2]), away[2]], nan_ok=True)
    assert outcome.checks == []


def test_directions_of_peers_are_given_room_and_a_normed_layer_is_not_judged():
    """A peer may be ten times as far as ours; repeng's last hidden state was normed, which is no error."""
    for name, away, judged in (("ours", [9e-5] * 3, 2), ("saklas", [9e-4] * 3, 2), ("repeng", [9e-4, 0, 0.5], 1)):
        outcome = Outcome("directions")
        directions.check(outcome, name, "float32", np.array(away))
        assert len(outcome.checks) == judged, name
        assert [value.value for value in outcome.figures] == [max(away[:2]), away[2]]


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
