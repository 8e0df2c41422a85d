"""Where a study is, from the progress of its workers: a panel for rich to draw, or a line of text."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from statistics import mean

from rich.columns import Columns
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gradinoc.errors import printable
from gradinoc.pipeline.progress import Progress

RUNS = "training"  # the stage whose steps are runs
SILENT_SECONDS = 120.0  # without news of a worker, after which the panel says so
GB = 1e9
COLUMNS = {"done": 0, "loss": 48, "alignment": 60, "left": 72, "per s": 80}  # column -> least width of its terminal
BAR, BAR_FROM = 16, 100  # columns of a progress bar, least width of its terminal
MISSING = "-"


@dataclass(frozen=True)
class Heard:
    """The last progress of a worker, and when it came (`time.monotonic`)."""

    progress: Progress
    at: float

    @property
    def seconds_ago(self) -> float:
        """How long ago it came."""
        return time.monotonic() - self.at

    def now(self, seconds: float | None) -> float | None:
        """What is left now of `seconds` that were left then."""
        return None if seconds is None else max(0.0, seconds - self.seconds_ago)

    @property
    def at_work(self) -> str:
        """The step, and what in it."""
        progress = self.progress
        if self.seconds_ago > SILENT_SECONDS:
            return f"{progress.step}: no news for {clock(self.seconds_ago)}"
        return progress.step if progress.total else f"{progress.step}: {progress.detail}"

    def numbers(self) -> dict[str, str]:
        """Column -> its number as text, for those that are known."""
        progress = self.progress
        values = ((progress.loss, ".3f"), (progress.alignment, "+.4f"), (progress.per_second, ".3g"))
        found = {"done": f"{progress.done}/{progress.total}"} if progress.total else {}
        for name, (value, form) in zip(("loss", "alignment", "per s"), values, strict=True):
            if value is not None and math.isfinite(value):
                found[name] = format(value, form)
        left = self.now(progress.seconds_left)
        return found if left is None else {**found, "left": clock(left)}


class Board:
    """The last progress of every worker of a study."""

    def __init__(self) -> None:
        self._heard: dict[str, Heard] = {}
        self._lock = threading.Lock()

    def hear(self, progress: Progress, worker: str = "") -> None:
        """Note where a worker is; it needs no name where it is alone."""
        with self._lock:
            self._heard[worker] = Heard(progress, time.monotonic())

    @property
    def furthest(self) -> Progress | None:
        """The workers' last progress with the most finished steps; None before there is any."""
        return max((heard.progress for heard in self._all().values()), key=lambda each: each.steps_done, default=None)

    @property
    def is_at_work(self) -> bool:
        """Whether a worker computes a step, or waits for one."""
        return bool(self._busy())

    @property
    def is_done(self) -> bool:
        """Whether every step is in the store."""
        furthest = self.furthest
        return furthest is not None and furthest.steps_done == furthest.steps

    def line(self) -> str:
        """Everything in one line: steps done, study, runs, each worker, time left, memory."""
        furthest = self.furthest
        if furthest is None:
            return "nothing begun"
        parts = [self._runs()]
        for worker, heard in self._busy().items():
            detail = f" {heard.progress.detail}" if heard.progress.total else ""
            numbers = (f"{name} {number}" for name, number in heard.numbers().items())
            parts.append(", ".join([f"{worker} {heard.at_work}{detail}".strip(), *numbers]))
        parts += [self._left(), self._memory()]
        said = "; ".join(filter(None, parts))
        return printable(f"[{furthest.steps_done}/{furthest.steps}] {furthest.study}: {said}")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """A panel: stages with their steps done, a row a worker, runs, time left and memory."""
        furthest = self.furthest or Progress("", "", 0, 0)
        stages = [
            _text(f"{name} {done}/{count}", _style(done, count)) for name, (done, count) in furthest.stages.items()
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
        """A row for each worker, with as many columns as the terminal has room for."""
        columns = [name for name, least in COLUMNS.items() if width >= least]
        table = Table(box=None, expand=True, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("")
        table.add_column("at work", ratio=1, no_wrap=True)
        if has_bars := width >= BAR_FROM:
            table.add_column("", width=BAR)
        for name in columns:
            table.add_column(name, justify="right", no_wrap=True)
        for worker, heard in self._busy().items():
            numbers, progress = heard.numbers(), heard.progress
            bar = [ProgressBar(progress.total or 1, progress.done, BAR, complete_style="cyan")] if has_bars else []
            cells = (numbers.get(name, MISSING) for name in columns)
            table.add_row(_text(worker, "cyan"), _text(heard.at_work), *bar, *cells)
        return table

    def _all(self) -> dict[str, Heard]:
        with self._lock:
            return dict(sorted(self._heard.items()))

    def _busy(self) -> dict[str, Heard]:
        return {worker: heard for worker, heard in self._all().items() if heard.progress.is_busy}

    def _runs(self) -> str:
        """How many runs are done, are trained now, and wait; empty where none are planned."""
        furthest = self.furthest
        if furthest is None or RUNS not in furthest.stages:
            return ""
        done, count = furthest.stages[RUNS]
        running = min(count - done, sum(heard.progress.stage == RUNS for heard in self._busy().values()))
        return f"runs: {done} done, {running} running, {count - done - running} waiting"

    def _left(self) -> str:
        """What the study still takes, as its workers expect; empty where none of them knows."""
        busy = self._busy().values()
        known = [left for heard in busy if (left := heard.now(heard.progress.study_seconds_left)) is not None]
        at_least = any(heard.progress.at_least for heard in busy)
        if not known or (at_least and mean(known) < 1):
            return ""
        return f"{'at least' if at_least else 'about'} {clock(mean(known))} left"

    def _memory(self) -> str:
        """What all processes hold, and what they hold of the accelerator; empty where that is not known."""
        said = [heard.progress for heard in self._all().values()]
        held = {"memory": [each.memory for each in said], "accelerator": [each.device_memory for each in said]}
        known = {name: [number for number in numbers if number is not None] for name, numbers in held.items()}
        return ", ".join(f"{name} {sum(numbers) / GB:.1f} GB" for name, numbers in known.items() if numbers)


def _style(done: int, count: int) -> str:
    return "green" if done == count else "bold" if done else "dim"


def _text(words: str, style: str = "") -> Text:
    """Words as they are, on one line, with nothing in them that a terminal or rich would act on."""
    return Text(printable(words), style)


def clock(seconds: float) -> str:
    """Hours, minutes and seconds, and days where there are any."""
    return str(timedelta(seconds=round(seconds)))
