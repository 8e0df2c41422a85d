"""The file of progress that workers share, and how long what remains will take."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import pytest

from fixtures.small_study import SMALLEST
from gradinoc.pipeline import progress as progresses
from gradinoc.pipeline.progress import POST_SECONDS, Pace, Progress, ProgressFile, Times, follow, time_left
from gradinoc.pipeline.run import TIMES, Pipeline
from gradinoc.pipeline.steps.step import DIRECTIONS, UNRELATED, StepKey
from gradinoc.pipeline.storage.store import Store
from gradinoc.study.loading import load_study

RUNNING = Progress(
    "run neutral/0", "step", 5, 14, 90.0, 3600.0, True, "tiny", "training", 12, 30, 1.25, -0.3125, 2.5, 1_500_000_000,
    None, {"directions": (1, 1), "training": (1, 9), "drift": (0, 7)},
)  # fmt: skip


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


# --- a file of progress, for other processes


def test_progress_is_read_as_it_was_posted(tmp_path, clock):
    """Zeros too; one message a step, and then one every few seconds; half a message is passed over."""
    file = ProgressFile(tmp_path, "gw0")
    file.clear()
    begun = replace(RUNNING, steps_done=0, loss=0.0, alignment=0.0, seconds_left=0.0, stages={})
    for progress, seconds in ((begun, 0.0), (replace(begun, done=13), 0.1), (replace(begun, done=14), POST_SECONDS)):
        clock[0] += seconds
        file.post(progress)
    with (tmp_path / "progress.jsonl").open("a") as other:
        other.write('{"step": "run neu\n[]\n"text"\n')
    file.warn("a warning")
    stop = threading.Event()
    stop.set()
    found = list(follow(tmp_path / "progress.jsonl", stop))
    assert found == [(begun, "gw0"), (replace(begun, done=14), "gw0"), ("a warning", "gw0")]


def test_new_session_is_followed_from_its_beginning(tmp_path):
    """Its first event replaces those of the session before, also for who follows the file already."""
    earlier, stop = replace(RUNNING, stages={}), threading.Event()
    ProgressFile(tmp_path, "an earlier worker").post(earlier)
    found = follow(tmp_path / "progress.jsonl", stop)
    assert next(found) == (earlier, "an earlier worker")
    later = Progress("all steps", "", 14, 14)
    ProgressFile(tmp_path, "gw0", replaces=True).post(later)
    stop.set()
    assert list(found) == list(follow(tmp_path / "progress.jsonl", stop)) == [(later, "gw0")]


def test_progress_that_cannot_be_written_stops_nothing(tmp_path):
    """What is shown matters less than what is computed."""
    (tmp_path / "progress.jsonl").mkdir()
    ProgressFile(tmp_path, "gw0").clear()
    ProgressFile(tmp_path, "gw0").post(RUNNING)
    stop = threading.Event()
    stop.set()
    assert list(follow(tmp_path / "progress.jsonl", stop)) == []


# --- how long it takes


def test_pace_is_that_of_the_parts_since_the_first_word(clock):
    """None until one is done; other parts, another count of them or the first once more begin anew."""
    pace = Pace()
    assert pace.per_second("step", 0, 30) is None
    clock[0] += 4
    assert pace.per_second("step", 2, 30) == 0.5
    clock[0] += 1
    assert pace.per_second("step", 10, 30) == 2
    for what, done, total in (("step", 0, 30), ("step", 2, 96), ("example", 2, 96)):
        assert pace.per_second(what, done, total) is None
        clock[0] += 1
        assert pace.per_second(what, done + 8, total) == 8


def test_time_left_leaves_out_what_is_not_known_and_says_so():
    """Shared among workers, but no step among several; nothing known is nothing said."""
    assert time_left([10.0, 30.0, 20.0], 2) == (30.0, False)
    assert time_left([10.0, 30.0, 20.0, None], 1) == (60.0, True)
    assert time_left([5.0, 30.0], 8) == (30.0, False)
    assert time_left([None, None], 2) == (None, False)
    assert time_left([], 2) == (0.0, False)


def test_times_are_those_of_this_machine_and_as_many_threads(tmp_path, monkeypatch):
    """The last of a step counts; lines that are no times, and a file that cannot be read, count for nothing."""
    path = tmp_path / "store" / "seconds.jsonl"
    for threads, seconds in ((1, 5.0), (2, 3.0), (2, 4.0)):
        Times(path, threads).note("step", seconds)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(progresses.socket, "gethostname", lambda: "elsewhere")
        Times(path, 2).note("step", 9.0)
    with path.open("a") as file:
        ours = {**json.loads(path.read_text().splitlines()[1]), "key": "other"}
        for wrong in ('"x"', "[]", "null"):
            file.write(json.dumps(ours).replace("3.0", wrong) + "\n")
        file.write('[]\n{}\n{"key": "oth\n')
    assert Times(path, 2).of(["step", "other"]) == {"step": 4.0}
    assert Times(path, 1).of(["step", "other"]) == {"step": 5.0}
    assert Times(tmp_path, 1).of(["step"]) == {}
    Times(tmp_path, 1).note("step", 1.0)


def test_times_are_read_on(tmp_path):
    """Lines that are added, those that come in halves, and a file that was begun anew."""
    path = tmp_path / "seconds.jsonl"
    times = Times(path, 1)
    times.note("one", 1.0)
    assert times.of(["one", "two"]) == {"one": 1.0}
    line = path.read_bytes().replace(b"one", b"two")
    with path.open("ab") as file:
        file.write(line[:20])
    assert times.of(["one", "two"]) == {"one": 1.0}
    with path.open("ab") as file:
        file.write(line[20:])
    assert times.of(["one", "two"]) == {"one": 1.0, "two": 1.0}
    path.write_bytes(line)
    assert times.of(["one", "two"]) == {"two": 1.0}


def test_session_that_goes_on_expects_what_steps_took(tmp_path):
    """At its first word it knows what is left of kinds of which one was timed, and that it does not know the rest."""
    study, heard = load_study("tiny", SMALLEST), []
    Pipeline(study, Store(tmp_path)).complete([DIRECTIONS, UNRELATED, StepKey("gradients", "neutral")])
    (took,) = (line["seconds"] for line in map(json.loads, (tmp_path / TIMES).read_text().splitlines()[-1:]))
    again = Pipeline(study, Store(tmp_path), heard.append)
    timed = again.steps[StepKey("gradients", "neutral")].kind
    alike = sum(step.kind == timed for step in again.steps.values())
    again.complete([StepKey("gradients", "inoculation")])
    assert heard[0].study_seconds_left == pytest.approx((alike - 1) * took, abs=0.1)
    assert heard[0].at_least
    assert heard[0].stages["gradients"] == (1, sum(key.stage == "gradients" for key in again.steps))
    assert heard[0].memory > 1e7
    assert (heard[-1].step, heard[-1].is_busy) == ("steps asked for", False)
    assert heard[-1].stages["gradients"] == (2, heard[0].stages["gradients"][1])
