"""The command line `gradinoc`: plan, run, report, compare and inspect studies without pytest."""

from __future__ import annotations

import sys
from pathlib import Path

from typer.exceptions import Abort, TyperException

from gradinoc.cli.commands import app
from gradinoc.cli.interruption import ending_at_once
from gradinoc.cli.session import BROKEN, INTERRUPTED, USAGE, Session
from gradinoc.errors import GradinocError, printable

__all__ = ["BROKEN", "INTERRUPTED", "USAGE", "app", "main"]


def main(arguments: list[str] | None = None) -> int:
    """Exit code of the command in `arguments` (those of the process if None), after doing what it says.

    0: done, whatever the verdict. 1: `doctor` found something broken, or nobody reads what is written. 2: it cannot be
    done as asked, in one line on stderr. SIGINT (Ctrl-C) and SIGTERM end the process at once, with 130 and 143 and a
    line that says how to go on.
    """
    words = sys.argv[1:] if arguments is None else arguments
    typed = ["python", "-m", "gradinoc"] if Path(sys.argv[0]).name == "__main__.py" else ["gradinoc"]
    session = Session([*typed, *words])
    with ending_at_once(session.last_words):
        try:
            return int(app(words or ["--help"], prog_name="gradinoc", standalone_mode=False, obj=session) or 0)
        except (GradinocError, TyperException) as error:
            said = error.format_message() if isinstance(error, TyperException) else str(error)
            sys.stderr.write(f"gradinoc: error: {printable(' '.join(said.split()))}\n")
            return USAGE
        except (Abort, KeyboardInterrupt):
            return INTERRUPTED
