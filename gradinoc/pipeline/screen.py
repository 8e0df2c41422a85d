"""A place beneath what is written to a terminal: lines that stand there, and are gone whenever something is written."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TextIO

from rich.cells import cell_len

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x09\x0b\x0c\x0e-\x1f]")
ESCAPE = "\x1b["
CLEAR, LINE = f"{ESCAPE}J", f"{ESCAPE}2K"  # from the cursor to the end of the screen; the line that it is in
HIDE, SHOW = f"{ESCAPE}?25l", f"{ESCAPE}?25h"  # the cursor, while it is moved


def is_screen(stream: TextIO) -> bool:
    """Whether `stream` is a terminal on which the cursor can be moved."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown", "")


class Screen:
    """Lines beneath what others write to a terminal through `over`, or lines among it where there is no terminal.

    The cursor is always left where those others left it, so that they need not know of it.

    Args:
        stream: where to write; of a terminal, its own file, which nobody captures.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.is_live = stream, is_screen(stream)
        self._lock = threading.RLock()
        self._rows: Sequence[str] = ()
        self._column = 0  # cells that the last line which others wrote takes
        self._at_edge = (
            False  # the cursor was brought back to the end of a full line, where it does not go on by itself
        )
        self._is_over = False

    def size(self) -> tuple[int, int]:
        """Columns and lines; 80 x 24 where they are not known."""
        with suppress(OSError, ValueError):
            found = os.get_terminal_size(self.stream.fileno())
            if found.columns and found.lines:
                return found.columns, found.lines
        fallback = shutil.get_terminal_size()
        return fallback.columns, fallback.lines

    def show(self, rows: Sequence[str]) -> None:
        """Have `rows` stand beneath the last line; none takes away those that do. On a terminal only."""
        with self._lock:
            if self.is_live and not self._is_over and (rows or self._rows):
                self._rows = rows[: max(0, self.size()[1] - 2)]
                self._draw()

    def say(self, line: str) -> None:
        """Write a line that stays, after ending the one that others have begun."""
        with self._lock:
            self.write(f"\n{line}\n" if self._column else f"{line}\n", self.stream)

    def close(self) -> None:
        """Take away what stands beneath, for good; lines can still be said."""
        with self._lock:
            self.show(())
            self._is_over = True

    def over(self, stream: TextIO) -> TextIO:
        """`stream`, of the same terminal or file, for others to write to."""
        return Over(self, stream)  # type: ignore[return-value]

    def write(self, text: str, stream: TextIO) -> None:
        """Write `text` to `stream`, of the same terminal, above what stands beneath."""
        with self._lock:
            if self._rows:
                self._put(self._erasing())
            bare = ESCAPES.sub("", text)
            if self._at_edge and bare[:1] not in ("", "\r", "\n"):
                self._put("\r\n")  # there the terminal would have gone on, had the cursor not been moved
            self._at_edge = self._at_edge and not bare
            self._safely(stream, text)
            _, begun, last = bare.replace("\r", "\n").rpartition("\n")
            self._column = (0 if begun else self._column) + cell_len(last)
            if self._rows:
                self._draw()

    def _draw(self) -> None:
        """Draw the rows beneath the line that others are in, and bring the cursor back."""
        if not self._rows:
            self._put(self._erasing())
            return
        here, below = self._here(), 1 if self._column else 0  # an empty line has room for the first row
        beneath = "\r\n" * below + "\r\n".join(f"{LINE}{row}" for row in self._rows)
        up = len(self._rows) - 1 + below
        self._put(f"{HIDE}{here}{beneath}{CLEAR}{f'{ESCAPE}{up}A' if up else ''}{here}{SHOW}")

    def _erasing(self) -> str:
        """What takes away all that stands behind and beneath what others have written."""
        here = self._here()
        return f"{here}\r\n{CLEAR}{ESCAPE}1A{here}" if self._at_edge else f"{here}{CLEAR}"

    def _here(self) -> str:
        """What brings the cursor to the end of what others have written in its line; a key may have moved it.

        At the end of a full line it stays on the last sign.
        """
        columns = self.size()[0]
        self._at_edge = self._column > 0 and self._column % columns == 0
        return f"{ESCAPE}{columns if self._at_edge else self._column % columns + 1}G"

    def _put(self, text: str) -> None:
        self._safely(self.stream, text)

    @staticmethod
    def _safely(stream: TextIO, text: str) -> None:
        """Write at once, signs that the stream's encoding lacks spelled out."""
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()


class Over:
    """A text stream that is written to above what stands at the foot of its screen."""

    def __init__(self, screen: Screen, stream: TextIO) -> None:
        self._screen, self._stream = screen, stream

    def write(self, text: str) -> int:
        """Write `text` at once."""
        self._screen.write(text, self._stream)
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        """Write `lines` one after the other."""
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's own."""
        return getattr(self._stream, name)
