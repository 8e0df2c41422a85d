"""Show a study's progress: a live panel on a terminal, elsewhere a line a step; warnings as they come."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from statistics import mean
from typing import TextIO

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.control import Control
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gradinoc.errors import printable
from gradinoc.pipeline.progress import WAITING, OnProgress, Progress, warnings_to

RUNS = "training"  # the stage whose steps are runs
REFRESHES = 2.0  # of the panel in a second
LINE_SECONDS = 60.0  # between lines within a step, where there is no terminal
SILENT_SECONDS = 120.0  # without events of a worker, after which the display says so
GB = 1e9
COLUMNS = {"done": 0, "loss": 48, "alignment": 60, "left": 72, "per s": 80}  # column -> least width of its terminal
BAR, BAR_FROM = 16, 100  # columns of a progress bar, least width of its terminal
MISSING = "-"


@dataclass(frozen=True)
class _Latest:
    """The last event of a worker, and when it came (`time.monotonic`)."""

    progress: Progress
    at: float

    @property
    def seconds_ago(self) -> float:
        return time.monotonic() - self.at

    def remaining(self, seconds: float | None) -> float | None:
        """Return what is left now of `seconds` that were left when the event came."""
        return None if seconds is None else max(0.0, seconds - self.seconds_ago)

    @property
    def activity(self) -> str:
        """The step, and its part where units are not counted."""
        progress = self.progress
        if self.seconds_ago > SILENT_SECONDS:
            return f"{progress.step}: no news for {clock(self.seconds_ago)}"
        return progress.step if progress.total else f"{progress.step}: {progress.detail}"

    def numbers(self) -> dict[str, str]:
        """Return column -> number as text, for those that are known."""
        progress = self.progress
        columns = {"loss": (progress.loss, ".3f"), "alignment": (progress.alignment, "+.4f")}
        columns["per s"] = progress.per_second, ".3g"
        known = {"done": f"{progress.done}/{progress.total}"} if progress.total else {}
        for name, (value, form) in columns.items():
            if value is not None and math.isfinite(value):
                known[name] = format(value, form)
        left = self.remaining(progress.seconds_left)
        return known if left is None else {**known, "left": clock(left)}


class Board:
    """The last event of every worker of a study, as a line of text or a panel for rich."""

    def __init__(self) -> None:
        self._latest: dict[str, _Latest] = {}

    def update(self, progress: Progress, worker: str = "") -> None:
        """Store a worker's event."""
        self._latest[worker] = _Latest(progress, time.monotonic())

    @property
    def furthest(self) -> Progress | None:
        """The last event with the most finished steps; None before there is any."""
        return max((each.progress for each in self._all().values()), key=lambda each: each.steps_done, default=None)

    def busy(self) -> dict[str, _Latest]:
        """Return the last event of each worker that computes a step, or waits for one."""
        return {worker: latest for worker, latest in self._all().items() if latest.progress.is_busy}

    @property
    def is_done(self) -> bool:
        """Whether every step is in the store."""
        furthest = self.furthest
        return furthest is not None and furthest.steps_done == furthest.steps

    def line(self) -> str:
        """Return everything in one line: steps done, study, runs, each worker, time left, memory."""
        furthest = self.furthest
        if furthest is None:
            return "nothing begun"
        parts = [self._runs()]
        for worker, latest in self.busy().items():
            detail = f" {latest.progress.detail}" if latest.progress.total else ""
            numbers = (f"{name} {number}" for name, number in latest.numbers().items())
            parts.append(", ".join([f"{worker} {latest.activity}{detail}".strip(), *numbers]))
        state = "; ".join(filter(None, [*parts, self._left(), self._memory()]))
        return printable(f"[{furthest.steps_done}/{furthest.steps}] {furthest.study}: {state}")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a panel: stages with their steps done, a row a worker, runs, time left and memory."""
        furthest = self.furthest or Progress("", "", 0, 0)
        stages = [
            _text(f"{name} {done}/{count}", "green" if done == count else "bold" if done else "dim")
            for name, (done, count) in furthest.stages.items()
        ]
        left = ", ".join(filter(None, (self._left() or "time left not known yet", self._memory())))
        lines = [_text(line) for line in (self._runs(), left) if line]
        yield Panel(
            Group(Columns(stages, padding=(0, 2)), self._workers(options.max_width), *lines),
            title=_text(f"gradinoc: {furthest.study}", "bold default"),
            title_align="left",
            subtitle=_text(f"{furthest.steps_done} of {furthest.steps} steps done", "default"),
            subtitle_align="right",
            border_style="bright_black",
        )

    def _workers(self, width: int) -> Table:
        """Return a row for each worker, with as many columns as the terminal has room for."""
        columns = [name for name, least in COLUMNS.items() if width >= least]
        table = Table(box=None, expand=True, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("")
        table.add_column("at work", ratio=1, no_wrap=True)
        if has_bars := width >= BAR_FROM:
            table.add_column("", width=BAR)
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        for worker, latest in self.busy().items():
            numbers, progress = latest.numbers(), latest.progress
            bar = [ProgressBar(progress.total or 1, progress.done, BAR, complete_style="cyan")] if has_bars else []
            cells = (numbers.get(name, MISSING) for name in columns)
            table.add_row(_text(worker, "cyan"), _text(latest.activity), *bar, *cells)
        return table

    def _all(self) -> dict[str, _Latest]:
        return dict(sorted(self._latest.copy().items()))  # a copy: rich draws in a thread of its own

    def _runs(self) -> str:
        """Return how many runs are done, running and waiting; empty where none are planned."""
        furthest = self.furthest
        if furthest is None or RUNS not in furthest.stages:
            return ""
        done, count = furthest.stages[RUNS]
        running = min(count - done, sum(latest.progress.stage == RUNS for latest in self.busy().values()))
        return f"runs: {done} done, {running} running, {count - done - running} waiting"

    def _left(self) -> str:
        """Return the study's time left, the mean of what its workers expect; empty where none knows."""
        busy = self.busy().values()
        known = [left for latest in busy if (left := latest.remaining(latest.progress.study_seconds_left)) is not None]
        at_least = any(latest.progress.at_least for latest in busy)
        if not known or (at_least and mean(known) < 1):
            return ""
        return f"{'at least' if at_least else 'about'} {clock(mean(known))} left"

    def _memory(self) -> str:
        """Return what all processes hold in memory and on the accelerator; empty where that is not known."""
        events = [latest.progress for latest in self._all().values()]
        held = {"memory": [each.memory for each in events], "accelerator": [each.device_memory for each in events]}
        known = {name: [number for number in numbers if number is not None] for name, numbers in held.items()}
        return ", ".join(f"{name} {sum(numbers) / GB:.1f} GB" for name, numbers in known.items() if numbers)


def _text(words: str, style: str = "") -> Text:
    """Return `words` without markup or control characters."""
    return Text(printable(words), style)


def clock(seconds: float) -> str:
    """Return hours, minutes and seconds, and days where there are any."""
    return str(timedelta(seconds=round(seconds)))


class Display:
    """Shows a board on a console while it is open.

    Args:
        console: the panel is drawn if it is an interactive terminal.
        column: returns the column in which another writer (pytest) has left the cursor; the panel goes beneath that
            line, and the cursor back when the panel is taken away.
    """

    def __init__(self, console: Console, column: Callable[[], int] = lambda: 0) -> None:
        self.board = Board()
        self._console, self._column = console, column
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._is_open = False
        self._return_to = 0  # column of the line above the panel
        self._ended = 0  # column of the other writer's line that `log` ended last
        self._logged: dict[str, str] = {}  # worker -> the last of its steps that has a line
        self._logged_at = 0.0  # when the last such line was written

    @contextmanager
    def open(self) -> Iterator[None]:
        """Show the board inside the block."""
        self._is_open = True
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """Take the panel away for good; lines can still be written."""
        with self._lock:
            self._is_open = False
            self._hide()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hide the panel inside the block, for another writer."""
        with self._lock:
            self._hide()
            try:
                yield
            finally:
                self._show()

    def update(self, progress: Progress | str, worker: str = "") -> None:
        """Show an event, or log a warning; a step that failed gets a line at once."""
        with self._lock:
            if isinstance(progress, str):
                self.log(progress, worker)
                return
            worker = progress.worker or worker
            self.board.update(progress, worker)
            if progress.failed:
                self.log(f"{progress.step}: {progress.detail}", worker)
            if not self._console.is_interactive:
                self._log_step(progress, worker)
            elif self.board.busy():
                self._show()
            else:
                self._hide()

    def log(self, words: str, worker: str = "") -> None:
        """Write a line that stays, with the time, above the panel."""
        line = printable("  ".join(filter(None, (time.strftime("%H:%M:%S"), worker, words))))
        with self._lock:
            column = self._column()
            if self._live is None and column not in (0, self._ended):
                self._console.line()
            self._return_to, self._ended = 0, column
            self._console.print(Text(line), soft_wrap=True)

    def _log_step(self, progress: Progress, worker: str) -> None:
        now = time.monotonic()
        is_new = progress.step not in (self._logged.get(worker), WAITING) and not progress.failed
        if self._is_open and (is_new or now - self._logged_at >= LINE_SECONDS):
            self._logged[worker], self._logged_at = progress.step, now
            self.log(self.board.line())

    def _show(self) -> None:
        if self._live is None and self._is_open and self._console.is_interactive and self.board.busy():
            self._return_to = self._column()
            if self._return_to:
                self._console.line()
            self._live = Live(
                get_renderable=lambda: self.board,
                console=self._console,
                refresh_per_second=REFRESHES,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
                redirect_stderr=sys.stderr.isatty(),
            )
            self._live.start(refresh=True)

    def _hide(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
            if self._return_to:
                self._console.control(Control.move_to_column(self._return_to, -1))


@contextmanager
def show_progress(stream: TextIO | None = None) -> Iterator[OnProgress]:
    """Yield a callback that shows a study's progress on `stream` (stderr if None); warnings are shown there too.

    On a terminal it is a panel beneath everything else that is written, gone when the block ends; elsewhere a line for
    each step, and one a minute within a step.
    """
    display = Display(Console(file=stream or sys.stderr, force_jupyter=False))
    with display.open(), warnings_to(display.log):
        yield display.update
