"""The command line `gradinoc`: plan, run, watch, report and compare studies without pytest."""

from __future__ import annotations

import atexit
import gc
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from typer.exceptions import Abort, TyperException

from gradinoc.cli.commands import app
from gradinoc.cli.commands.arguments import DEFAULT_STORE
from gradinoc.errors import GradinocError, printable

if TYPE_CHECKING:
    from gradinoc.pipeline.progress import OnProgress, Progress

__all__ = ["BROKEN", "INTERRUPTED", "USAGE", "Session", "app", "main"]

BROKEN, USAGE, INTERRUPTED = 1, 2, 130  # exit codes


def main(arguments: list[str] | None = None) -> int:
    """Run the command in `arguments` (those of the process if None), and return its exit code.

    0: done, whatever the verdict. 1: `doctor` found something broken, or the reader of a pipe is gone. 2: it cannot be
    done as asked; one line on stderr says why. 130, 143: SIGINT (Ctrl-C), SIGTERM; a line says how to resume.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if arguments is None:  # the process ends with this command: what it holds is not searched for garbage then
        atexit.register(gc.freeze)
    typed = ["python", "-m", "gradinoc"] if Path(sys.argv[0]).name == "__main__.py" else ["gradinoc"]
    session = Session([*typed, *words])
    with session.stoppable():
        try:
            code = int(app(words or ["--help"], prog_name="gradinoc", standalone_mode=False, obj=session) or 0)
        except (GradinocError, TyperException) as error:
            message = error.format_message() if isinstance(error, TyperException) else str(error)
            sys.stderr.write(f"gradinoc: error: {printable(' '.join(message.split()))}\n")
            code = USAGE
        except (Abort, KeyboardInterrupt):
            code = INTERRUPTED
    if session.signal:
        from gradinoc.pipeline.progress import how_to_resume

        sys.stderr.write(f"{how_to_resume(shlex.join(session.words), session.store, session.progress)}\n")
        return 128 + session.signal
    return code


@dataclass
class Session:
    """One call of the command line: the words typed, its store, the study's last event, the signal that ended it."""

    words: Sequence[str]
    store: Path = DEFAULT_STORE
    progress: Progress | None = None
    signal: int = 0

    def noting(self, callback: OnProgress) -> OnProgress:
        """Return `callback`, with the last event stored for the message at a signal."""

        def note(progress: Progress) -> None:
            self.progress = progress
            callback(progress)

        return note

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Inside the block SIGTERM, like SIGINT, raises KeyboardInterrupt, and `signal` says which it was."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _frame: FrameType | None) -> None:
            self.signal = number
            raise KeyboardInterrupt

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
