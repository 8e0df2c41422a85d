"""Show the progress of a study: a live panel on a terminal, elsewhere a line a step; warnings as they come."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.control import Control
from rich.live import Live
from rich.text import Text

from gradinoc.errors import printable
from gradinoc.pipeline.board import Board
from gradinoc.pipeline.progress import WAITING, OnProgress, Progress

DRAWINGS = 2.0  # of the panel in a second
LINE_SECONDS = 60.0  # between lines within a step, where there is no terminal
POST_SECONDS = 2.0  # between messages of a worker within a step
LOOK_SECONDS = 0.2  # between looks for new messages
PROGRESS = "progress.jsonl"  # in a study's artifacts


@contextmanager
def watching(stream: TextIO | None = None) -> Iterator[OnProgress]:
    """Inside the block, a callback that shows a study's progress on `stream` (stderr if None), and the warnings.

    On a terminal it is a panel beneath everything else that is written, gone when the block ends; elsewhere a line for
    each step, and one a minute within a step.
    """
    display = Display(Console(file=stream or sys.stderr, force_jupyter=False))
    with display.open(), warnings_to(display.say):
        yield display.hear


@contextmanager
def warnings_to(callback: Callable[[str], None]) -> Iterator[None]:
    """Inside the block, the library's warnings (a damaged result, a batch that did not fit) go to `callback` too."""
    handler, logger = _Warnings(callback), logging.getLogger("gradinoc")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Warnings(logging.Handler):
    def __init__(self, callback: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._callback = callback

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one warning on as a line."""
        self._callback(f"Warning: {printable(record.getMessage())}")


class Display:
    """Shows a board on a console, from `open` on.

    Args:
        console: where to; the panel is drawn if it is an interactive terminal.
        column: the column in which a writer beside this one (pytest) has left the cursor; the panel goes beneath that
            line, and `pause` brings the cursor back.
    """

    def __init__(self, console: Console, column: Callable[[], int] = lambda: 0) -> None:
        self.board = Board()
        self._console, self._column = console, column
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._begun = 0  # columns of the line above the panel that `pause` goes back to
        self._ended = 0  # columns of the line that the last `say` ended
        self._is_open = False
        self._said: tuple[object, float] = (None, 0.0)  # what the last line was about, and when it was written

    @contextmanager
    def open(self) -> Iterator[None]:
        """Show the board inside the block."""
        self._is_open = True
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """Take the panel away, for good; lines can still be written."""
        with self._lock:
            self._is_open = False
            self._pause()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside the block there is no panel, and others may write."""
        with self._lock:
            self._pause()
            try:
                yield
            finally:
                self._resume()

    def hear(self, progress: Progress, worker: str = "") -> None:
        """Note and show where a worker is; a step that failed gets a line at once."""
        with self._lock:
            self.board.hear(progress, worker)
            if progress.failed:
                self.say(f"{progress.step}: {progress.detail}", worker)
            if not self._console.is_interactive:
                self._say_line(progress, worker)
            elif self.board.is_at_work:
                self._resume()
            else:
                self._pause()

    def take(self, message: Progress | str, worker: str) -> None:
        """Hear a progress, or say a warning, of a progress file."""
        if isinstance(message, str):
            self.say(message, worker)
        else:
            self.hear(message, worker)

    def say(self, words: str, worker: str = "") -> None:
        """Write a line that stays, with the time, above the panel."""
        line = printable("  ".join(filter(None, (time.strftime("%H:%M:%S"), worker, words))))
        with self._lock:
            column = self._column()
            if self._live is None and column not in (0, self._ended):
                self._console.line()
            self._begun, self._ended = 0, column
            self._console.print(Text(line), soft_wrap=True)

    def _say_line(self, progress: Progress, worker: str) -> None:
        about, now = (worker, progress.step), time.monotonic()
        is_new = about != self._said[0] and progress.step != WAITING and not progress.failed
        if self._is_open and (is_new or now - self._said[1] >= LINE_SECONDS):
            self._said = about, now
            self.say(self.board.line())

    def _resume(self) -> None:
        if self._live is None and self._is_open and self._console.is_interactive and self.board.is_at_work:
            self._begun = self._column()
            if self._begun:
                self._console.line()
            self._live = Live(
                get_renderable=lambda: self.board,
                console=self._console,
                refresh_per_second=DRAWINGS,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),
                redirect_stderr=sys.stderr.isatty(),
            )
            self._live.start(refresh=True)

    def _pause(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
            if self._begun:
                self._console.control(Control.move_to_column(self._begun, -1))


class ProgressFile:
    """A study's `progress.jsonl`, to which every worker appends; those who show progress follow it.

    Args:
        folder: the study's artifacts.
        worker: the name of this one.
        alone: whether the first message replaces what an earlier session left.
    """

    def __init__(self, folder: Path, worker: str, *, alone: bool = False) -> None:
        self._path, self._worker = folder / PROGRESS, worker
        self._mode = "wb" if alone else "ab"
        self._step, self._posted = "", 0.0

    def clear(self) -> None:
        """Remove what an earlier session left."""
        with suppress(OSError):
            self._path.write_bytes(b"")

    def post(self, progress: Progress) -> None:
        """Append the progress if its step is new, or some seconds have passed."""
        now = time.monotonic()
        if progress.step != self._step or now - self._posted >= POST_SECONDS:
            self._step, self._posted = progress.step, now
            self._append(progress.to_json())

    def warn(self, warning: str) -> None:
        """Append a warning."""
        self._append({"warning": warning})

    def _append(self, message: dict[str, object]) -> None:
        """Append one message in one piece; a full disk is no reason to stop computing."""
        line = json.dumps({**message, "worker": self._worker})
        with suppress(OSError), self._path.open(self._mode, buffering=0) as file:
            file.write(f"{line}\n".encode())
        self._mode = "ab"


def posted(path: Path, stop: threading.Event) -> Iterator[tuple[Progress | str, str]]:
    """Each progress or warning in a progress file, and its worker, as they come, until `stop` is set."""
    rest, place, is_last = "", 0, False
    while not is_last:
        is_last = stop.is_set()
        with suppress(OSError), path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < place:  # another session has begun
                rest, place = "", 0
            file.seek(place)
            read = file.read()
            place += len(read)
            *whole, rest = (rest + read.decode(errors="replace")).split("\n")
            yield from filter(None, map(_read, whole))
        if not is_last:
            stop.wait(LOOK_SECONDS)


def _read(message: str) -> tuple[Progress | str, str] | None:
    """A message and its worker; None for a line that is none: a worker may be killed while it writes one."""
    try:
        fields = json.loads(message)
        worker = str(fields.pop("worker"))
        return (str(fields["warning"]) if "warning" in fields else Progress(**fields)), worker
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
