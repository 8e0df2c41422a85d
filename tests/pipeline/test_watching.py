"""Whoever watches a study sees where it is, and pytest writes as ever above it."""

from __future__ import annotations

import codecs
import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fixtures.small_study import SMALLEST, as_options
from gradinoc.pipeline import progress as progresses
from gradinoc.pipeline.display import LINE_SECONDS, SILENT_SECONDS, Board, Display, show_progress
from gradinoc.pipeline.progress import POST_SECONDS, WAITING, Pace, Progress, ProgressFile, Times, follow, time_left
from gradinoc.pipeline.run import TIMES, Pipeline
from gradinoc.pipeline.steps.step import DIRECTIONS, UNRELATED, StepKey
from gradinoc.pipeline.store import Store
from gradinoc.study.loading import load_study

ROOT = Path(__file__).parents[2]
STYLE = re.compile(r"\x1b\[[0-9;]*m")
RUNNING = Progress(
    "run neutral/0", "step", 5, 14, 90.0, 3600.0, True, "tiny", "training", 12, 30, 1.25, -0.3125, 2.5, 1_500_000_000,
    None, {"directions": (1, 1), "training": (1, 9), "drift": (0, 7)},
)  # fmt: skip
WAITS = Progress(WAITING, "another worker is at directions", 5, 14, study="tiny", memory=500_000_000)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def board_of(*heard: Progress) -> Board:
    """A board with the progress of each worker."""
    board = Board()
    for place, progress in enumerate(heard):
        board.update(progress, f"gw{place}" if len(heard) > 1 else "")
    return board


def drawn(board: Board, columns: int = 120) -> str:
    """A board's panel as rich draws it on a terminal with colours."""
    page = io.StringIO()
    Console(file=page, width=columns, height=24, force_terminal=True, force_jupyter=False, no_color=False).print(board)
    return page.getvalue()


# --- what there is to see


@pytest.mark.parametrize("columns", [30, 120])
def test_panel_keeps_to_the_width_of_its_terminal(columns):
    """However long names are; what is done and what is left is there at any width."""
    panel = STYLE.sub("", drawn(board_of(RUNNING, replace(RUNNING, step="x" * 300, study="y" * 300)), columns))
    assert max(map(len, panel.splitlines())) <= columns
    assert "12/30" in panel
    assert "1:00:00 left" in panel


def test_panel_shows_everything_of_every_worker():
    """Stages, runs, loss, alignment, pace, time left, memory; a dash where nothing is known."""
    panel = STYLE.sub("", drawn(board_of(RUNNING, WAITS)))
    for shown in (
        "gradinoc: tiny", "5 of 14 steps done", "directions 1/1", "training 1/9", "drift 0/7",
        "runs: 1 done, 1 running, 7 waiting", "at least 1:00:00 left", "memory 2.0 GB",
    ):  # fmt: skip
        assert shown in panel
    first, second = (line.strip("│ ").split() for line in panel.splitlines() if " gw" in line)
    assert (first[:3], first[-5:]) == (["gw0", "run", "neutral/0"], ["12/30", "1.250", "-0.3125", "0:01:30", "2.5"])
    assert (second[:2], second[-5:]) == (["gw1", "waiting:"], ["-"] * 5)


def test_time_goes_on_between_news_and_silence_is_shown(clock):
    """What was left a minute ago is a minute less; a worker without news is not shown as if it had some."""
    board = board_of(RUNNING)
    clock[0] += 60
    assert "left 0:00:30" in board.line()
    assert "at least 0:59:00 left" in board.line()
    clock[0] += SILENT_SECONDS
    assert "run neutral/0: no news for 0:03:00" in board.line()


@pytest.mark.parametrize("hostile", ["[bold red]x[/]", "[link=http://x]y[/link]", "\x1b[31mred\x1b[2J", "a\nb\r\t\x07"])
def test_foreign_text_is_shown_and_not_acted_on(hostile):
    """Names of studies, steps and stages, in a panel and in a line."""
    board = board_of(replace(RUNNING, study=hostile, step=hostile, stages={hostile: (0, 1)}, detail=hostile))
    escaped = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in hostile)
    assert board.line().isprintable()
    assert board.line().count(escaped) == 3
    assert STYLE.sub("", drawn(board)).count(escaped) == 3
    assert "\x1b" not in STYLE.sub("", drawn(board))


# --- where there is no terminal


def test_line_for_each_step_and_one_a_minute_within(clock):
    """A step that failed has its line; waiting has none; the end has one."""
    written = io.StringIO()
    display = Display(Console(file=written, force_terminal=False, width=80))

    def lines(progress: Progress) -> list[str]:
        before = len(written.getvalue())
        display.update(progress)
        return [line[10:] for line in written.getvalue()[before:].splitlines()]

    with display.open():
        assert [line[:6] for line in lines(RUNNING)] == ["[5/14]"]
        assert lines(replace(RUNNING, done=13)) == []
        assert lines(WAITS) == []
        clock[0] += LINE_SECONDS
        assert [line[:6] for line in lines(replace(RUNNING, steps_done=6))] == ["[6/14]"]
        assert lines(Progress("run neutral/0 failed", "no\nnumber", 6, 14, failed=True)) == [
            r"run neutral/0 failed: no\nnumber"
        ]
        assert [line[:7] for line in lines(Progress("all steps", "in the store", 14, 14, study="tiny"))] == ["[14/14]"]


def test_workers_that_take_turns_have_a_line_a_step_each(clock):
    """What one of them does is no news after the other's."""
    written = io.StringIO()
    display = Display(Console(file=written, force_terminal=False, width=80))
    with display.open():
        for done in range(5):
            for worker, step in (("gw0", "run neutral/0"), ("gw1", "run inoculation/0")):
                display.update(replace(RUNNING, step=step, done=done), worker)
    assert len(written.getvalue().splitlines()) == 2


def test_warnings_are_shown_inside_the_block_alone():
    """As they come, escaped; the logger is as it was afterwards."""
    written, logger = io.StringIO(), logging.getLogger("gradinoc")
    before = list(logger.handlers)
    with show_progress(written):
        logger.warning("%s too many", "4\x1b")
        logger.info("not of interest")
    assert [line[10:] for line in written.getvalue().splitlines()] == [r"Warning: 4\x1b too many"]
    assert list(logger.handlers) == before


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


# --- pytest

TESTS = """
import os
import time
import pytest
from gradinoc.pipeline.progress import Progress
from gradinoc.pytest_plugin.session import SESSION

def test_study(pytestconfig):
    pytestconfig.stash[SESSION].on_progress(
        Progress("run neutral/0", "step", 5, 14, study="tiny", stage="training", done=1, total=2)
    )
    begun = time.monotonic()
    while not os.path.exists("go"):  # made when the panel has been seen
        assert time.monotonic() - begun < 60
        time.sleep(0.01)

@pytest.mark.parametrize("number", range(3))
def test_other(number):
    assert number < 2
"""


class Watched:
    """A pytest session on a terminal of its own, and everything that it writes there."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.written, self._decode = "", codecs.getincrementaldecoder("utf-8")().decode
        (folder / "test_some.py").write_text(TESTS)
        (folder / "pytest.ini").write_text("[pytest]\n")
        self._reads, terminal = pty.openpty()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        plugin = ["-p", "gradinoc.pytest_plugin", "-p", "no:cacheprovider", "--study", "tiny", *as_options(SMALLEST)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *plugin, *options], cwd=folder, start_new_session=True,
            env={**environment, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
            stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
        )  # fmt: skip
        os.close(terminal)

    def until(self, text: str) -> None:
        """Read until `text` has been written, or to the end."""
        while text not in self.written:
            try:
                self.written += self._decode(os.read(self._reads, 65536))
            except OSError:  # the other end is closed
                return

    def end(self) -> str:
        """What is to be seen when the session is over."""
        self.until("what is never written")
        os.close(self._reads)
        self.process.wait()
        return shown(self.written)


def shown(written: str) -> str:
    """What a terminal shows after all that is `written`: lines, and the cursor moved up, to a column, and erased."""
    lines, row, column = [""], 0, 0
    for code, kind, sign in re.findall(r"\x1b\[([0-9;?]*)([A-Za-z])|([^\x1b])", written):
        if kind == "A":
            row -= int(code)
        elif kind == "G":
            column = int(code) - 1
        elif kind == "K":
            lines[row] = ""
        elif sign == "\r":
            column = 0
        elif sign == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif sign:
            lines[row] = f"{lines[row][:column]:<{column}}{sign}{lines[row][column + 1 :]}"
            column += 1
    return "\n".join(line.rstrip() for line in lines).rstrip()


@pytest.mark.parametrize(
    "options",
    [["-q"], *(pytest.param(each, marks=pytest.mark.exhaustive) for each in (["-v"], ["-n", "1"]))],
    ids=" ".join,
)
def test_pytest_writes_as_ever_with_a_panel_beneath(tmp_path, options):
    """The panel shows while a step is computed, and nothing of it is left."""
    session = Watched(tmp_path, *options)
    session.until("5 of 14 steps")
    (tmp_path / "go").touch()
    left = session.end()
    assert "5 of 14 steps" in session.written
    assert not re.search("[╭╮│╰]|steps done", left), left
    assert re.search("1 failed, 3 passed in [0-9.]+s", left.splitlines()[-1]), left
    expected = r"test_other\[0\] PASSED +\[ 50%\]" if options == ["-v"] else r"^\.\.\.F +\[100%\]$"
    assert re.search(expected, left, re.MULTILINE), left


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
