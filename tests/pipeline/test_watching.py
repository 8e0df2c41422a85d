"""Whoever watches a study sees where it is, and everything else that is written as if nobody watched."""

from __future__ import annotations

import codecs
import io
import json
import logging
import math
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fixtures.progress import EVERY_SECONDS, Mailbox, Throttle
from fixtures.small_study import SMALLEST
from gradinoc.claims.finding import Status
from gradinoc.claims.verdict import Judgement, judge
from gradinoc.pipeline import progress as progresses
from gradinoc.pipeline.board import SILENT_SECONDS, Board
from gradinoc.pipeline.progress import WAITING, Pace, Progress, Times, time_left
from gradinoc.pipeline.run import TIMES, Pipeline
from gradinoc.pipeline.screen import ESCAPES, Screen, is_screen
from gradinoc.pipeline.store import Store
from gradinoc.pipeline.watching import LINE_SECONDS, Watch, rows, watching
from gradinoc.power.scenarios import SCENARIOS
from gradinoc.power.simulate import simulate
from gradinoc.report import closing_summary, tinted
from gradinoc.report.summary import WIDTH
from gradinoc.study.loading import load_study
from gradinoc.study.rules import Rules

ROOT = Path(__file__).parents[2]
COLUMNS, LINES = 40, 12  # of the terminal below
RUNNING = Progress(
    "run neutral/0", "step", 5, 14, 90.0, 3600.0, True, "tiny", "training", 12, 30, 1.25, -0.3125, 2.5, 1_500_000_000,
    None, {"directions": (1, 1), "training": (1, 9), "drift": (0, 7)},
)  # fmt: skip
WAITS = Progress(WAITING, "another worker is at directions", 5, 14, study="tiny", memory=500_000_000)


class Terminal(io.StringIO):
    """A terminal, as far as is asked of one here; it keeps what has scrolled out of sight."""

    encoding = "utf-8"

    def __init__(self, text: str = "", columns: int = COLUMNS, lines: int = LINES) -> None:
        super().__init__()
        self.columns, self.lines = columns, lines
        self.cells, self.row, self.column = [[]], 0, 0
        self.write(text)

    def isatty(self) -> bool:
        """It is one."""
        return True

    def write(self, text: str) -> int:
        """Do what `text` says."""
        for code, kind, sign in re.findall(r"\x1b\[([0-9;?]*)([A-Za-z])|([^\x1b])", text):
            self._move(code, kind) if kind else self._sign(sign)
        return len(text)

    def _move(self, code: str, kind: str) -> None:
        line = self.cells[self.row]
        if kind == "A":
            self.row = max(0, len(self.cells) - self.lines, self.row - int(code))
        elif kind == "G":
            self.column = int(code) - 1
        elif kind == "J":
            del self.cells[self.row + 1 :], line[self.column :]
        elif kind == "K":
            line.clear()
        else:
            assert kind in "mhl", f"this terminal knows nothing of {kind}"

    def _sign(self, sign: str) -> None:
        if sign == "\n" or (self.column == self.columns and sign != "\r"):
            self.row, self.column = self.row + 1, 0
            self.cells += [[] for _ in range(self.row + 1 - len(self.cells))]
        if sign == "\r":
            self.column = 0
        elif sign != "\n":
            line = self.cells[self.row]
            line += " " * (self.column + 1 - len(line))
            line[self.column] = sign
            self.column += 1

    @property
    def shown(self) -> str:
        """All that has been written and not been taken away."""
        return "\n".join("".join(line).rstrip() for line in self.cells).rstrip()


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What a terminal of that size tells programs, whatever these tests are run on."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", str(COLUMNS)), ("LINES", str(LINES))):
        monkeypatch.setenv(name, value)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def board_of(*said: Progress) -> Board:
    """A board that has heard a word of each worker."""
    board = Board()
    for place, progress in enumerate(said):
        board.hear(progress, f"gw{place}" if len(said) > 1 else "")
    return board


def drawn(board: Board, columns: int = 120, encoding: str = "utf-8") -> list[str]:
    """A board's panel, without colours."""
    return [ESCAPES.sub("", line) for line in rows(board, columns, 24, encoding)]


def wait_until(seen: Callable[[], bool]) -> None:
    """Wait until there is something to be seen that another thread draws."""
    deadline = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < deadline, "never seen"
        time.sleep(0.01)


# --- a place beneath what others write


@given(
    written=st.lists(
        st.sampled_from([".", "F" * 7, "\x1b[32mPASSED\x1b[0m\n", "a" * 39, "b" * 40 + "\n", "x\n\ny", "\rz\n"])
    ),
    heights=st.lists(st.integers(0, 4), min_size=1),
)
def test_others_write_as_if_there_were_no_panel(written, heights):
    """In lines, parts of lines and longer ones, wherever on the terminal that is, while the panel comes and goes."""
    shared = Terminal()
    screen = Screen(shared)
    others = screen.over(shared)
    for place, text in enumerate(written):
        screen.show(["panel"] * heights[place % len(heights)])
        others.write(text)
    screen.close()
    assert shared.shown == Terminal("".join(written)).shown


def test_panel_stands_beneath_the_last_line(monkeypatch):
    """Beneath one that is not ended too; no more of it is drawn than there is room for; at the end it is gone."""
    monkeypatch.setenv("LINES", "6")
    terminal = Terminal(lines=6)
    screen = Screen(terminal)
    others = screen.over(terminal)
    others.write("one\ntw")
    screen.show(["first", "second"])
    others.write("o")
    assert terminal.shown == "one\ntwo\nfirst\nsecond"
    screen.show([str(row) for row in range(9)])
    assert terminal.shown == "one\ntwo\n0\n1\n2\n3"
    screen.say("said")
    assert terminal.shown == "one\ntwo\nsaid\n0\n1\n2\n3", "an empty line is room enough"
    screen.close()
    screen.show(["late"])
    assert terminal.shown == "one\ntwo\nsaid"


@pytest.mark.parametrize(("term", "live"), [("xterm-256color", True), ("dumb", False), ("", False)])
def test_terminal_on_which_nothing_can_be_moved_gets_lines(monkeypatch, term, live):
    """So does what is no terminal, whatever TERM says."""
    monkeypatch.setenv("TERM", term)
    assert is_screen(Terminal()) is live
    assert not is_screen(io.StringIO())


@pytest.mark.parametrize("begun", ["", "begun"])
def test_key_that_a_terminal_echoes_moves_nothing(begun):
    """^C, for instance: the panel is drawn where it was, and taken away whole."""
    terminal = Terminal()
    screen = Screen(terminal)
    screen.over(terminal).write(begun)
    for _ in range(3):
        screen.show(["x" * COLUMNS, "second"])
        terminal.write("^C")
    screen.show(["x" * COLUMNS, "second"])
    assert terminal.shown.splitlines()[-2:] == ["x" * COLUMNS, "second"]
    terminal.write("^C")
    screen.over(terminal).write("\nInterrupted")
    screen.close()
    assert terminal.shown == f"{begun}\nInterrupted"


# --- what there is to see


@pytest.mark.parametrize("columns", [30, 40, 60, 64, 80, 100, 120, 200])
def test_panel_keeps_to_the_width_of_its_terminal(columns):
    """However long names are; what is done and what is left is said at any width."""
    lines = drawn(board_of(RUNNING, replace(RUNNING, step="x" * 300, study="y" * 300)), columns)
    assert max(map(len, lines)) <= columns
    assert any("run neutr" in line and "12/30" in line for line in lines)
    assert any("1:00:00 left" in line for line in lines)


def test_panel_says_everything_of_every_worker():
    """Stages, runs, loss, alignment, pace, time left, memory; a dash where nothing is known."""
    lines = drawn(board_of(RUNNING, WAITS))
    for said in (
        "gradinoc: tiny", "5 of 14 steps done", "directions 1/1", "training 1/9", "drift 0/7",
        "runs: 1 done, 1 running, 7 waiting", "at least 1:00:00 left", "memory 2.0 GB",
    ):  # fmt: skip
        assert said in "\n".join(lines)
    first, second = (line.strip("│ ").split() for line in lines if " gw" in line)
    assert (first[:3], first[-5:]) == (["gw0", "run", "neutral/0"], ["12/30", "1.250", "-0.3125", "2.5", "0:01:30"])
    assert (second[:2], second[-5:]) == (["gw1", "waiting:"], ["-"] * 5)


def test_line_says_the_same():
    """All workers in one."""
    said = board_of(replace(RUNNING, device_memory=3_000_000_000), WAITS).line()
    assert said == (
        "[5/14] tiny: runs: 1 done, 1 running, 7 waiting; gw0 run neutral/0 step 12/30, loss 1.250, alignment -0.3125, "
        "2.5/s, 0:01:30 left; gw1 waiting: another worker is at directions; at least 1:00:00 left; memory 2.0 GB, "
        "accelerator 3.0 GB"
    )


def test_time_goes_on_between_words_and_silence_is_said(clock):
    """What was left a minute ago is a minute less; a worker that says no more is not shown as if it did."""
    board = board_of(RUNNING)
    clock[0] += 60
    assert "0:00:30 left" in board.line()
    assert "at least 0:59:00 left" in board.line()
    clock[0] += SILENT_SECONDS
    assert "run neutral/0: no word for 0:03:00" in board.line()


def test_nothing_is_said_of_time_where_nothing_is_known():
    """No made-up number, in either form; nor a number that is none."""
    board = board_of(replace(RUNNING, seconds_left=None, study_seconds_left=None, at_least=False, alignment=math.nan))
    assert "left" not in board.line()
    assert "nan" not in "".join([board.line(), *drawn(board)])
    assert "time left not known yet" in "\n".join(drawn(board))


@pytest.mark.parametrize("hostile", ["[bold red]x[/]", "[link=http://x]y[/link]", "\x1b[31mred\x1b[2J", "a\nb\r\t\x07"])
def test_text_from_outside_is_shown_and_not_acted_on(hostile):
    """Names of studies and steps, stages and details, of a panel and of a line."""
    said = replace(RUNNING, study=hostile, step=hostile, stages={hostile: (0, 1)}, detail=hostile)
    board, spelt = board_of(said), "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in hostile)
    lines = rows(board, 120, 24)
    assert board.line().isprintable()
    assert board.line().count(spelt) == 3
    assert sum(line.count(spelt) for line in drawn(board)) == 3
    assert not re.search(r"\x1b(?!\[[0-9;]*m)|\x1b\]8", "".join(lines)), "something but colours"


def test_no_colours_and_no_other_signs_where_there_are_none(monkeypatch):
    """NO_COLOR, and a terminal that knows ASCII alone."""
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", "".join(rows(board_of(RUNNING), 120, 24)))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[(?:[0-9;]*;)?[34][0-9]", "".join(rows(board_of(RUNNING), 120, 24)))
    assert "".join(drawn(board_of(RUNNING), encoding="ascii")).isascii()
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    Screen(narrow).say("naïve")
    assert narrow.buffer.getvalue() == b"na\\xefve\n"


# --- where there is no terminal


def test_line_at_once_and_then_one_a_minute(clock):
    """And one when all is done; that a step was given up is said when it is."""
    written = io.StringIO()
    watch = Watch(Screen(written))

    def looks() -> list[str]:
        """What is written in a look, without the time."""
        before = len(written.getvalue())
        watch.look()
        return [line[10:] for line in written.getvalue()[before:].splitlines()]

    assert looks() == []
    watch.hear(RUNNING)
    assert [line[:6] for line in looks()] == ["[5/14]"]
    clock[0] += LINE_SECONDS - 1
    watch.hear(replace(RUNNING, steps_done=6))
    assert looks() == []
    clock[0] += 1
    assert [line[:6] for line in looks()] == ["[6/14]"]
    watch.hear(Progress("run neutral/0 failed", "no\nnumber", 6, 14, failed=True))
    assert written.getvalue().splitlines()[-1][10:] == r"run neutral/0 failed: no\nnumber"
    watch.hear(Progress("all steps", "in the store", 14, 14, study="tiny"))
    assert [line[:7] for line in looks()] == ["[14/14]"]
    assert looks() == []


def test_watching_shows_a_panel_while_it_lasts_and_says_warnings():
    """Afterwards it is gone, what was said stays, and logs and prints go where they went before."""
    terminal, logger = Terminal(), logging.getLogger("gradinoc")
    before = list(logger.handlers), sys.stdout, sys.stderr
    with watching(terminal) as tell:
        tell(RUNNING)
        wait_until(lambda: "1:00:00 left" in terminal.shown)
        logger.warning("%s too many", "4\x1b")
        said, *panel = terminal.shown.splitlines()
        assert said[8:] == r"  Warning: 4\x1b too many"
        assert "gradinoc: tiny" in panel[0]
    assert terminal.shown == said
    assert (list(logger.handlers), sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_is_printed_while_watching_stands_above_the_panel(monkeypatch, stream):
    """Whichever stream it is printed to, where that is the same terminal."""
    terminal = Terminal()
    monkeypatch.setattr(sys, stream, terminal)
    with watching(terminal) as tell:
        tell(RUNNING)
        wait_until(lambda: "1:00:00 left" in terminal.shown)
        print("printed", file=getattr(sys, stream))
        first, second, *_ = terminal.shown.splitlines()
        assert first == "printed"
        assert "gradinoc: tiny" in second
    assert terminal.shown == "printed"


# --- pytest

SESSION = """
import time
import pytest
from fixtures.progress import Mailbox, WATCH, attend
from gradinoc.pipeline.progress import Progress

TELL = pytest.StashKey()

@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    worker = getattr(config, "workerinput", {}).get("workerid", "")
    mailbox = Mailbox(config.rootpath / "progress.jsonl")
    if not worker:
        mailbox.empty()
    config.stash[TELL] = attend(config, mailbox, worker, warn=True)

@pytest.fixture
def tell(pytestconfig):
    return pytestconfig.stash[TELL]
"""
TESTS = """
import logging
import os
import pytest
import time
from gradinoc.pipeline.progress import Progress

def test_study(tell):
    logging.getLogger("gradinoc").warning("of interest")
    tell(Progress("run neutral/0", "step", 5, 14, study="tiny", stage="training", done=1, total=2))
    begun = time.monotonic()
    while not os.path.exists("go"):  # made by whoever has seen the panel
        assert time.monotonic() - begun < 60, "nobody saw it"
        time.sleep(0.01)
    print("printed")

@pytest.mark.parametrize("number", range(3))
def test_other(number):
    assert number < 2
"""


class Watched:
    """A pytest session on a terminal of its own, and everything that it writes there."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.written, self._decode = "", codecs.getincrementaldecoder("utf-8")().decode
        (folder / "conftest.py").write_text(SESSION)
        (folder / "test_some.py").write_text(TESTS)
        (folder / "pytest.ini").write_text("[pytest]\n")
        self._reads, terminal = pty.openpty()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options], cwd=folder, start_new_session=True,
            env={**environment, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "LINES": "30"},
            stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal,
        )  # fmt: skip
        os.close(terminal)

    def until(self, text: str) -> None:
        """Read until `text` has been written, or to the end."""
        while text not in self.written:
            try:
                self.written += self._decode(os.read(self._reads, 65536))
            except OSError:  # nobody has the other end open
                return

    def end(self) -> str:
        """What is to be seen when the session is over."""
        self.until("what is never written")
        os.close(self._reads)
        self.process.wait()
        return Terminal(self.written, 100, 30).shown


@pytest.mark.parametrize("options", [["-q"], ["-s"], ["-v"], ["-n", "1"]], ids=" ".join)
def test_pytest_writes_as_ever_with_a_panel_beneath(tmp_path, options):
    """The panel shows while a step is at work, and nothing of it is left; a warning stays."""
    session = Watched(tmp_path, *options)
    session.until("5 of 14 steps")
    (tmp_path / "go").touch()
    shown = session.end()
    assert "5 of 14 steps" in session.written
    assert not re.search("[╭╮│╰─]|steps done", shown), shown
    assert re.search("1 failed, 3 passed in [0-9.]+s", shown.splitlines()[-1]), shown
    assert shown.count("Warning: of interest") == 1
    assert shown.count("printed") == (options == ["-s"])
    if options == ["-v"]:
        assert re.search(r"test_other\[0\] PASSED +\[ 50%\]", shown), shown


def test_interrupted_session_leaves_no_panel(tmp_path):
    """It is gone before pytest says what there is to say, after which the process may end at once."""
    session = Watched(tmp_path)
    session.until("5 of 14 steps")
    os.killpg(session.process.pid, signal.SIGINT)
    shown = session.end()
    assert not re.search("[╭╮│╰─]|steps done", shown), shown
    assert "no tests ran in" in shown.splitlines()[-1]
    assert "5 of 14 steps" not in session.written.partition("! KeyboardInterrupt !")[2]


def test_worker_is_heard_at_each_step_and_now_and_then_within_one(clock):
    """A mailbox is no place for every word."""
    passed = []
    tell = Throttle(passed.append)
    for step, seconds in (("a", 0.0), ("a", 0.1), ("b", 0.1), ("b", EVERY_SECONDS - 0.1), ("b", 0.1), ("b", 0.1)):
        clock[0] += seconds
        tell(Progress(step, str(clock[0]), 0, 2))
    assert [progress.step for progress in passed] == ["a", "b", "b"]
    assert float(passed[-1].detail) - float(passed[-2].detail) == pytest.approx(EVERY_SECONDS)


def test_what_workers_post_is_heard_as_it_was_told(tmp_path):
    """Zeros too: before its first step is done a study has done none."""
    told = [replace(RUNNING, steps_done=0, loss=0.0, alignment=0.0, seconds_left=0.0), RUNNING, WAITS]
    mailbox, heard, stop = Mailbox(tmp_path / "progress.jsonl"), [], threading.Event()
    for progress in told:
        mailbox.post(progress, "gw0")
    stop.set()
    mailbox.follow(lambda word, worker: heard.append((word, worker)), stop)
    assert [(replace(word, stages=dict(word.stages)), worker) for word, worker in heard] == [
        (replace(progress, stages={k: list(v) for k, v in progress.stages.items()}), "gw0") for progress in told
    ]


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
        for wrong in ("NaN", "-1", '"x"', "[]", "null"):
            file.write(json.dumps(ours).replace("3.0", wrong) + "\n")
        file.write('[]\n{}\n{"key": "oth\n')
    assert Times(path, 2).of(["step", "other"]) == {"step": 4.0}
    assert Times(path, 1).of(["step", "other"]) == {"step": 5.0}
    assert Times(tmp_path, 1).of(["step"]) == {}
    Times(tmp_path, 1).note("step", 1.0)


def test_session_that_goes_on_expects_what_steps_took(tmp_path):
    """At its first word it knows what is left of kinds of which one was timed, and that it does not know the rest."""
    study, heard = load_study("tiny", SMALLEST), []
    Pipeline(study, Store(tmp_path)).complete(["directions", "unrelated traits", "gradients neutral"])
    (took,) = (line["seconds"] for line in map(json.loads, (tmp_path / TIMES).read_text().splitlines()[-1:]))
    again = Pipeline(study, Store(tmp_path), heard.append)
    conditions = [label for label in again.steps if label.startswith("gradients ")]
    again.complete(["gradients inoculation"])
    assert heard[0].study_seconds_left == pytest.approx((len(conditions) - 1) * took, abs=0.1)
    assert heard[0].at_least
    assert heard[0].stages["gradients"] == (1, len(conditions))
    assert heard[0].memory > 1e7
    assert (heard[-1].step, heard[-1].is_busy) == ("steps asked for", False)
    assert heard[-1].stages["gradients"] == (2, len(conditions))


# --- the closing summary


@pytest.fixture(scope="module", params=["effect", "no_effect"])
def judgement(request) -> Judgement:
    """What the judge makes of a small study."""
    made = simulate(
        replace(SCENARIOS[request.param], further=True), np.random.default_rng(5),
        examples=24, layers=4, seeds=3, steps=10, directions=100,
    )  # fmt: skip
    return judge(made, Rules())


def test_summary_is_a_table_that_fits_its_columns(judgement):
    """One row a gate or claim: status, effect, estimate, interval, p, n; what there is not is a dash."""
    lines = closing_summary(judgement)
    assert max(map(len, lines)) <= WIDTH
    header = lines[0].split()
    assert header == ["effect", "estimate", "95", "%", "interval", "p", "n"]
    rows_of = {line[:2]: line for line in lines if re.match(r"[GC]\d ", line)}
    findings = {finding.key: finding for finding in (*judgement.gates, *judgement.claims)}
    assert list(rows_of) == list(findings)
    contrast = findings["C1"].effects[0]
    expected = f"{contrast.estimate:+.3g} [{contrast.low:+.2g}, {contrast.high:+.2g}] {contrast.p:.2g} 24 examples"
    assert " ".join(rows_of["C1"].split()).endswith(f"{contrast.name} {expected}")
    assert rows_of["G1"].split()[-4:] == ["-", "-", "2", "layers"]
    assert len({line.index(f" {finding.effects[0].n} {finding.effects[0].unit}") + len(str(finding.effects[0].n))
                for finding, line in zip(findings.values(), rows_of.values(), strict=True)}) == 1  # fmt: skip


def test_summary_says_why_a_gate_fails_and_where_all_is(judgement, tmp_path):
    """Its statement in full; paths on lines of their own, spelled out where they hold signs that steer a terminal."""
    broken = replace(judgement.gates[0], status=Status.REFUTED)
    folder = tmp_path / ("long" * 30 + "\x1b")
    lines = closing_summary(replace(judgement, gates=(broken, *judgement.gates[1:])), folder)
    assert "G1 fails:" in "\n".join(lines)
    assert broken.statement in " ".join(" ".join(lines).split())
    spelt = str(folder).replace("\x1b", r"\x1b")
    assert lines[-2:] == [f"Report: {spelt}/report.html", f"Every number: {spelt}/claims.csv"]
    assert max(map(len, lines[:-2])) <= WIDTH


def printed(summary: str, width: int, **terminal: bool) -> str:
    """A summary as rich prints it."""
    page = io.StringIO()
    Console(file=page, width=width, force_jupyter=False, **terminal).print(tinted(summary), soft_wrap=True)
    return page.getvalue()


def test_summary_is_coloured_on_a_terminal_alone(judgement):
    """Where it is none, and in the file, it is the same text without."""
    summary = "\n".join(closing_summary(judgement)) + "\n"
    on_terminal = printed(summary, WIDTH, force_terminal=True)
    assert "\x1b[32m" in on_terminal
    assert ESCAPES.sub("", on_terminal.replace("\n", "|")).replace("|", "\n") == summary
    assert printed(summary, 60) == summary


@pytest.mark.parametrize("columns", [60, 80])
def test_summary_on_a_narrow_terminal_breaks_no_row_amid_numbers(judgement, columns):
    """Numbers stand below their effect; no word is lost."""
    summary = "\n".join(closing_summary(judgement))
    lines = [ESCAPES.sub("", line) for line in printed(summary, columns, force_terminal=True).splitlines()]
    assert max(map(len, lines)) <= columns
    assert " ".join(lines).split() == summary.split()
    (place,) = (place for place, line in enumerate(lines) if line.startswith("C1 "))
    assert lines[place].endswith(judgement.claims[0].effects[0].name)
    assert lines[place + 1].endswith(" 24 examples")
