"""Progress as it is shown: a panel, lines, pytest's own output above it."""

from __future__ import annotations

import codecs
import io
import logging
import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fixtures.small_study import SMALLEST, as_options
from gradinoc.pipeline.display import LINE_SECONDS, SILENT_SECONDS, Board, Display, show_progress
from gradinoc.pipeline.progress import WAITING, Progress

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
