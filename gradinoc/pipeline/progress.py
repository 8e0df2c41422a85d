"""Progress of a study as events, the file in which workers share them, and how long the remaining steps will take."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean

from gradinoc.errors import printable

WAITING, ALL, SOME, IDLE = "waiting", "all steps", "steps asked for", "idle"  # in place of a step's name
PROGRESS = "progress.jsonl"  # in a study's artifacts
POST_SECONDS = 2.0  # between events of a worker within a step
POLL_SECONDS = 0.2  # between looks for new events


@dataclass(frozen=True)
class Progress:
    """An event: the step that a worker computes, how far it is, and how many steps of the study are done.

    Attributes:
        step: the step's label; `WAITING` where other workers compute all that is ready, `ALL` at the end.
        detail: the part of the step.
        steps_done: steps in the store.
        steps: steps of the study.
        seconds_left: of the present part of the step; None while unknown.
        study_seconds_left: of the study, with every worker; None while unknown.
        at_least: whether that leaves out steps of kinds of which none has been timed.
        study: the study's name.
        stage: the step's stage; empty for none.
        done: finished units (steps of a run, examples, prompts) of `total`; 0 of 0 where they are not counted.
        loss: of the run's last logged step, nats/token.
        alignment: of the run so far, at the primary position, mean over examples and the band.
        per_second: units a second.
        memory: bytes that this process holds.
        device_memory: bytes that it holds on the accelerator; None where there is none.
        stages: stage -> (steps done, steps), in the order of the plan.
        failed: whether the step was given up; `detail` says why.
        worker: who computes it, where that is not who tells; empty for the process itself.
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
    worker: str = ""

    @property
    def is_busy(self) -> bool:
        """Whether this worker computes a step, or waits for one."""
        return bool(self.stage) or self.step == WAITING


OnProgress = Callable[[Progress], None]


class ProgressFile:
    """A study's `progress.jsonl`, to which every worker appends its events; `follow` reads it.

    Args:
        folder: the study's artifacts.
        worker: the name of this one.
        replaces: whether its first event replaces those of an earlier session.
    """

    def __init__(self, folder: Path, worker: str, *, replaces: bool = False) -> None:
        self._path, self._worker, self._replaces = folder / PROGRESS, worker, replaces
        self._posted = dict[str, tuple[str, float]]()  # worker -> the step that it was at last, and when

    def clear(self) -> None:
        """Remove the events of an earlier session."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def post(self, progress: Progress) -> None:
        """Append an event if its step is new, or some seconds have passed."""
        now, worker = time.monotonic(), progress.worker or self._worker
        step, posted = self._posted.get(worker, ("", 0.0))
        if progress.step != step or now - posted >= POST_SECONDS:
            self._posted[worker] = progress.step, now
            self._append({**asdict(progress), "worker": worker})

    def warn(self, warning: str) -> None:
        """Append a warning."""
        self._append({"warning": warning, "worker": self._worker})

    def _append(self, event: dict[str, object]) -> None:
        if self._replaces:
            self.clear()
            self._replaces = False
        append_line(self._path, event)


def append_line(path: Path, record: Mapping[str, object]) -> None:
    """Append a line of JSON in one write; a full disk is no reason to stop computing."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            file.write(f"{json.dumps(record)}\n".encode())


def follow(path: Path, stop: threading.Event) -> Iterator[tuple[Progress | str, str]]:
    """Yield each event or warning of a progress file with its worker, as they come, until `stop` is set."""
    rest, place, is_last = b"", 0, False
    while not is_last:
        is_last = stop.is_set()
        with suppress(OSError), path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < place:  # another session has begun
                rest, place = b"", 0
            file.seek(place)
            read = file.read()
            place += len(read)
            *lines, rest = (rest + read).split(b"\n")
            yield from filter(None, map(_parse, lines))
        if not is_last:
            stop.wait(POLL_SECONDS)


def _parse(line: bytes) -> tuple[Progress | str, str] | None:
    """Return an event or warning and its worker; None for half a line, which a killed worker leaves."""
    try:
        fields = json.loads(line)
        worker = fields.pop("worker")
        return fields["warning"] if "warning" in fields else Progress(**fields), worker
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


@contextmanager
def warnings_to(callback: Callable[[str], None]) -> Iterator[None]:
    """Pass the library's warnings (a damaged result, a batch that did not fit) to `callback` inside the block."""
    handler, logger = _WarningHandler(callback), logging.getLogger("gradinoc")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _WarningHandler(logging.Handler):
    def __init__(self, callback: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._callback = callback

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one warning on as a line."""
        self._callback(f"Warning: {printable(record.getMessage())}")


class Pace:
    """How many units of a step are done in a second."""

    def __init__(self) -> None:
        self._of, self._began, self._first, self._last = ("", 0), 0.0, 0, 0

    def per_second(self, part: str, done: int, total: int) -> float | None:
        """Return units a second since the first call with this part and total; None until one is done."""
        now = time.monotonic()
        if (part, total) != self._of or done < self._last:
            self._of, self._began, self._first = (part, total), now, done
        self._last = done
        if done == self._first or now == self._began:
            return None
        return (done - self._first) / (now - self._began)


class Times:
    """Seconds that steps took on this machine with so many threads, in a file that all workers of a store share.

    The file decides no result and may be deleted.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._path, self._where = path, {"host": socket.gethostname(), "threads": threads}
        self._read, self._seconds = 0, dict[str, float]()

    def note(self, key: str, seconds: float) -> None:
        """Append what the step of `key` took."""
        append_line(self._path, {"key": key, "seconds": round(seconds, 3), **self._where})

    def of(self, keys: Iterable[str]) -> dict[str, float]:
        """Return key -> seconds, for those of `keys` that were timed."""
        with suppress(OSError):
            self._read_on()
        return {key: self._seconds[key] for key in keys if key in self._seconds}

    def _read_on(self) -> None:
        """Read the lines that were added since the last time; all of a file that has become another."""
        size = self._path.stat().st_size
        if size < self._read:
            self._read, self._seconds = 0, {}
        if size > self._read:
            with self._path.open("rb") as file:
                file.seek(self._read)
                added = file.read()
            whole = added.rfind(b"\n") + 1  # of a line that is being written the rest comes later
            self._read += whole
            self._seconds |= dict(filter(None, map(self._parse, added[:whole].splitlines())))

    def _parse(self, line: bytes) -> tuple[str, float] | None:
        """Return key and seconds; None for half a line, or another machine's."""
        try:
            record = json.loads(line)
            here = all(record[name] == value for name, value in self._where.items())
            return (record["key"], float(record["seconds"])) if here else None
        except (ValueError, TypeError, KeyError):
            return None


def seconds_left(
    kinds: Mapping[str, str], times: Times, missing: Iterable[str], current: Collection[str], spent: float
) -> list[float | None]:
    """Return what each `missing` step still takes, as steps of its kind took; None where none was timed.

    Those under way count as one.

    Args:
        kinds: key in the store -> kind, of every step.
        times: what steps took.
        missing: keys of the steps that are not done.
        current: keys of those that are under way, in one go, since `spent` seconds.
    """
    took = defaultdict[str, list[float]](list)
    for key, seconds in times.of(kinds).items():
        took[kinds[key]].append(seconds)
    means = {kind: mean(seconds) for kind, seconds in took.items()}
    usual = {key: means.get(kinds[key]) for key in missing}
    left = [seconds for key, seconds in usual.items() if key not in current]
    under_way = [seconds for key, seconds in usual.items() if key in current]
    if not under_way:
        return left
    known = [seconds for seconds in under_way if seconds is not None]
    return [*left, max(0.0, sum(known) - spent) if len(known) == len(under_way) else None]


def time_left(seconds: Iterable[float | None], workers: int) -> tuple[float | None, bool]:
    """Return the seconds until steps that take so many are done by so many workers, and whether that is a lower bound.

    Unknown steps (None) are left out; where no step is known the first value is None.
    """
    steps = list(seconds)
    known = [step for step in steps if step is not None]
    if steps and not known:
        return None, False
    return max(sum(known) / workers, max(known, default=0.0)), len(known) < len(steps)


def how_to_resume(command: str, store: Path, progress: Progress | None) -> str:
    """Return the last line of an interrupted study: steps done, if known, and the command that resumes."""
    done = f"{progress.steps_done} of {progress.steps} steps are in {store}{os.sep}, nothing" if progress else "nothing"
    return f"Interrupted: {done} finished is lost. Go on with: {command}"
