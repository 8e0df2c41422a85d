"""Where a study is, as data: what a worker is at, how far, how fast; and how long what is left will take."""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

WAITING, ALL, SOME = "waiting", "all steps", "steps asked for"  # in place of a step's name


@dataclass(frozen=True)
class Progress:
    """Where a study is: the step that this worker is at and what in it, and how many steps are done.

    Attributes:
        step: the step at work; `WAITING` where other workers are at all that is ready, `ALL` at the end.
        detail: what in it.
        steps_done: how many steps are in the store.
        steps: how many there are.
        seconds_left: what the parts of the step still take; None while unknown.
        study_seconds_left: what the whole study takes with every worker at it; None while nothing is known of it.
        at_least: whether that leaves out steps of kinds of which none has been timed.
        study: the study's name.
        stage: the stage to which the step belongs, empty for none.
        done: how many parts of it are done (steps of a run, examples, prompts), of `total`; 0 of 0 where it has none.
        loss: of the run's last step that was looked at, nats/token.
        alignment: the run's so far, at the primary position, mean over examples and the band.
        per_second: parts done in a second.
        memory: bytes that this process holds.
        device_memory: bytes that it holds of the accelerator; None where there is none.
        stages: stage -> how many of its steps are done, and how many it has, in the order of the plan.
        failed: whether the step was given up, as `detail` says.
    """

    step: str
    detail: str
    steps_done: int
    steps: int
    seconds_left: float | None = None
    study_seconds_left: float | None = None
    at_least: bool = False
    study: str = ""
    stage: str = ""
    done: int = 0
    total: int = 0
    loss: float | None = None
    alignment: float | None = None
    per_second: float | None = None
    memory: int | None = None
    device_memory: int | None = None
    stages: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    failed: bool = False

    @property
    def is_busy(self) -> bool:
        """Whether this worker is at a step, or waits for one."""
        return bool(self.stage) or self.step == WAITING

    def to_json(self) -> dict[str, Any]:
        """The fields that say something; a number that is zero does."""
        fields = asdict(self).items()
        return {
            name: value for name, value in fields if value is not None and value is not False and value not in ("", {})
        }


OnProgress = Callable[[Progress], None]


class Pace:
    """How fast the parts of a step go, from what is told of them."""

    def __init__(self) -> None:
        self._of, self._began, self._first, self._last = ("", 0), 0.0, 0, 0

    def per_second(self, what: str, done: int, total: int) -> float | None:
        """Parts a second since the first word on so many of `what`; None until one is done: others take longer."""
        now = time.monotonic()
        if (what, total) != self._of or done < self._last:
            self._of, self._began, self._first = (what, total), now, done
        self._last = done
        if done == self._first or now == self._began:
            return None
        return (done - self._first) / (now - self._began)


class Times:
    """How many seconds steps took on this machine, with so many threads, in a file that all workers of a store share.

    It is beside the results, not of them: it may be deleted, and a line in it that is none is passed over.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._where = path, {"host": socket.gethostname(), "threads": threads}
        self._size, self._found = -1, dict[str, float]()

    def note(self, key: str, seconds: float) -> None:
        """Append what the step of `key` took; a disk that is full is no reason to stop working."""
        record = {"key": key, "seconds": round(seconds, 3), **self._where}
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                file.write(f"{json.dumps(record)}\n".encode())

    def of(self, keys: Iterable[str]) -> dict[str, float]:
        """Key -> seconds, for those of `keys` of which they are known."""
        with suppress(OSError):
            size = self._path.stat().st_size
            if size != self._size:
                lines = self._path.read_bytes().splitlines()
                self._found, self._size = dict(filter(None, map(self._read, lines))), size
        return {key: self._found[key] for key in keys if key in self._found}

    def _read(self, line: bytes) -> tuple[str, float] | None:
        """Key and seconds of a line; None for one that is no record, or another machine's."""
        try:
            record = json.loads(line)
            key, seconds = record["key"], float(record["seconds"])
            here = all(record[name] == value for name, value in self._where.items())
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        return (key, seconds) if here and isinstance(key, str) and math.isfinite(seconds) and seconds >= 0 else None


def time_left(seconds: Iterable[float | None], workers: int) -> tuple[float | None, bool]:
    """Seconds until steps that take so many `seconds` are done by so many workers, and whether it is at least so many.

    None stands for what is not known: of it nothing is guessed, and where no step is known nothing is.
    """
    steps = list(seconds)
    known = [step for step in steps if step is not None]
    if steps and not known:
        return None, False
    return max(sum(known) / workers, max(known, default=0.0)), len(known) < len(steps)


def how_to_go_on(command: str, store: Path, progress: Progress | None) -> str:
    """What an interrupted study says: how many of its steps are done, if that is known, and how to continue."""
    done = f"{progress.steps_done} of {progress.steps} steps are in {store}{os.sep}, nothing" if progress else "nothing"
    return f"Interrupted: {done} finished is lost. Go on with: {command}"
