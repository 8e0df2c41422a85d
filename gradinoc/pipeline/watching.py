"""Watching a study: a panel beneath what a terminal shows, or a line a minute where there is none; warnings at once."""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TextIO

from rich.console import Console

from gradinoc.errors import printable
from gradinoc.pipeline.board import Board
from gradinoc.pipeline.progress import OnProgress, Progress
from gradinoc.pipeline.screen import Screen

__all__ = ["Aloud", "Board", "Watch", "rows", "watching"]

DRAW_SECONDS = 0.5  # between drawings of the panel
LINE_SECONDS = 60.0  # between lines where there is no terminal


@contextmanager
def watching(stream: TextIO | None = None) -> Iterator[OnProgress]:
    """Inside the block, what hears of a study's progress and shows it on `stream` (stderr if None).

    On a terminal it is a panel beneath everything else that is written there, gone when the block ends; elsewhere a
    line at first and then one every minute. The library's warnings are written as they come.
    """
    screen = Screen(stream or sys.stderr)
    watch, logger = Watch(screen), logging.getLogger("gradinoc")
    aloud = Aloud(watch.say)
    with ExitStack() as stack:
        if screen.is_live:
            for redirect, other in ((redirect_stdout, sys.stdout), (redirect_stderr, sys.stderr)):
                if other.isatty():
                    stack.enter_context(redirect(screen.over(other)))
        logger.addHandler(aloud)
        stack.callback(logger.removeHandler, aloud)
        watch.start()
        stack.callback(watch.stop)
        yield watch.hear


class Watch:
    """Shows on a screen what a board hears while a study is at work."""

    def __init__(self, screen: Screen) -> None:
        self.screen, self.board = screen, Board()
        self._said: float | None = None  # when the last line about progress was written, where there is no terminal
        self._news, self._is_over, self._is_paused = threading.Event(), False, False
        self._thread = threading.Thread(target=self._follow, name="watching", daemon=True)

    def start(self) -> None:
        """Begin to show; until `stop`, or the end of the process."""
        self._thread.start()

    def stop(self) -> None:
        """Take the panel away, for good."""
        self._is_over = True
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()
            self.look()  # a last line, where there is no panel
        self.screen.close()

    def pause(self, *, over: bool = False) -> None:
        """Draw nothing, until that is `over`: somebody is being asked something on the same terminal."""
        self._is_paused = not over
        self.screen.show(())

    def hear(self, progress: Progress, worker: str = "") -> None:
        """Take note of where a worker is; that it gave a step up is said at once."""
        is_first = self.board.furthest is None
        self.board.hear(progress, worker)
        if progress.failed:
            self.say(f"{progress.step}: {progress.detail}", worker)
        if is_first:
            self._news.set()

    def say(self, words: str, worker: str = "") -> None:
        """Write a line that stays, with the time."""
        self.screen.say(printable("  ".join(filter(None, (time.strftime("%H:%M:%S"), worker, words)))))

    def _follow(self) -> None:
        while not self._is_over:
            self._news.wait(DRAW_SECONDS)
            self._news.clear()
            if not self._is_paused:
                self.look()

    def look(self) -> None:
        """Draw the panel anew, or write a line if it is time."""
        board, screen = self.board, self.screen
        if screen.is_live:
            screen.show(rows(board, *screen.size(), screen.stream.encoding) if board.is_at_work else [])
        elif board.is_at_work and (self._said is None or time.monotonic() - self._said >= LINE_SECONDS):
            self._said = time.monotonic()
            self.say(board.line())
        elif self._said is not None and board.is_done:
            self._said = None
            self.say(board.line())


class Aloud(logging.Handler):
    """Says the library's warnings where progress is said: a damaged result computed anew, a batch that did not fit."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say one warning in a line."""
        self._say(f"Warning: {printable(record.getMessage())}")


class Page(io.StringIO):
    """Where a panel is put together, for a terminal of some encoding: signs that it lacks are not drawn with."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._of = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The terminal's."""
        return self._of


def rows(board: Board, columns: int, lines: int, encoding: str | None = None) -> list[str]:
    """A board's panel as the lines of a terminal of that size, colours and all."""
    page = Page(encoding or "utf-8")
    console = Console(
        file=page, width=columns, height=lines, force_terminal=True, force_jupyter=False, legacy_windows=False
    )
    console.print(board)
    return page.getvalue().splitlines()
