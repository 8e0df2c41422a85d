"""Where a study is, from what its workers say of it: for rich to draw, or as a line of text."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from statistics import mean

from gradinoc.errors import printable
from gradinoc.pipeline.panel import Glance, Row, clock
from gradinoc.pipeline.progress import Progress

RUNS = "training"  # the stage whose steps are runs
SILENT_SECONDS = 120.0  # without a word, after which that is said
GB = 1e9


@dataclass(frozen=True)
class Heard:
    """What a worker said last, and when (`time.monotonic`)."""

    progress: Progress
    at: float

    @property
    def seconds_ago(self) -> float:
        """How long ago that was."""
        return time.monotonic() - self.at

    def now(self, seconds: float | None) -> float | None:
        """What is left now of `seconds` that were left then."""
        return None if seconds is None else max(0.0, seconds - self.seconds_ago)

    def row(self, worker: str) -> Row:
        """What a panel shows of it."""
        said = self.progress
        at_work = said.step if said.total else f"{said.step}: {said.detail}"
        if self.seconds_ago > SILENT_SECONDS:
            at_work = f"{said.step}: no word for {clock(self.seconds_ago)}"
        numbers = (said.loss, said.alignment, said.per_second, self.now(said.seconds_left))
        known = (number if number is not None and math.isfinite(number) else None for number in numbers)
        return Row(worker, at_work, said.done, said.total, *known)

    def words(self, worker: str) -> str:
        """The same in words."""
        row = self.row(worker)
        parts = [
            f"{worker} {row.at_work}".strip()
            + (f" {self.progress.detail} {row.done}/{row.total}" if row.total else ""),
            "" if row.loss is None else f"loss {row.loss:.3f}",
            "" if row.alignment is None else f"alignment {row.alignment:+.4f}",
            "" if row.per_second is None else f"{row.per_second:.3g}/s",
            "" if row.left is None else f"{clock(row.left)} left",
        ]
        return ", ".join(filter(None, parts))


class Board:
    """Where a study is, from what its workers say of it."""

    def __init__(self) -> None:
        self._heard: dict[str, Heard] = {}
        self._lock = threading.Lock()

    def hear(self, progress: Progress, worker: str = "") -> None:
        """Take note of where a worker is; it needs no name where it is alone."""
        with self._lock:
            self._heard[worker] = Heard(progress, time.monotonic())

    @property
    def furthest(self) -> Progress | None:
        """Of what the workers said last, the one that knows of most finished steps; None before any spoke."""
        heard = [heard.progress for heard in self._all().values()]
        return max(heard, key=lambda progress: progress.steps_done, default=None)

    @property
    def is_at_work(self) -> bool:
        """Whether a worker is at a step, or waits for one."""
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
        at_work = [heard.words(worker) for worker, heard in self._busy().items()]
        said = "; ".join(filter(None, (self._runs(), *at_work, self._left(), self._memory())))
        return printable(f"[{furthest.steps_done}/{furthest.steps}] {furthest.study}: {said}")

    def __rich__(self) -> Glance:
        """What there is to see, as a panel."""
        furthest = self.furthest or Progress("", "", 0, 0)
        rows = [heard.row(worker) for worker, heard in self._busy().items()]
        lines = [self._runs(), ", ".join(filter(None, (self._left() or "time left not known yet", self._memory())))]
        counted = f"{furthest.steps_done} of {furthest.steps} steps done"
        return Glance(f"gradinoc: {furthest.study}", counted, furthest.stages, rows, lines)

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
        own = [each.memory for each in said if each.memory is not None]
        device = [each.device_memory for each in said if each.device_memory is not None]
        parts = [f"memory {sum(own) / GB:.1f} GB"] if own else []
        parts += [f"accelerator {sum(device) / GB:.1f} GB"] if device else []
        return ", ".join(parts)
