"""What one call of the command line knows of itself: how it was typed, where its study is, how it ends."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gradinoc.cli.interruption import interrupted

if TYPE_CHECKING:
    from gradinoc.pipeline.progress import OnProgress, Progress

BROKEN, USAGE, INTERRUPTED = 1, 2, 130  # exit codes


@dataclass
class Session:
    """One call: the words that were typed, the store that it works in, the last that was heard of its study."""

    words: Sequence[str]
    store: Path = Path("store")
    heard: list[Progress] = field(default_factory=list)

    def hearing(self, tell: OnProgress) -> OnProgress:
        """`tell`, with the last word kept for `last_words`."""

        def hear(progress: Progress) -> None:
            self.heard[:] = [progress]
            tell(progress)

        return hear

    def last_words(self) -> str:
        """What is said when the call is interrupted: how much is done, and how to go on."""
        counts = [(progress.steps_done, progress.steps) for progress in self.heard]
        return interrupted(shlex.join(self.words), self.store, *(counts[0] if counts else ()))


def say(lines: Sequence[str]) -> None:
    """Write what accompanies a result, and is no part of it, to stderr."""
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()
