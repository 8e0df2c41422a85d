"""What a command and all processes that it starts use: wall time, processor time, memory."""

from __future__ import annotations

import resource
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.workers import SideError

EVERY = 0.5  # seconds between looks at memory


@dataclass(frozen=True)
class Usage:
    """Wall seconds, processor seconds (user and system, of all processes), the largest memory of one process, bytes.

    Memory is PSS where the system tells it: a page that several processes map counts in each as its share.
    """

    wall: float
    cpu: float
    memory: float


def measure(command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> Usage:
    """Run `command` in `folder` to its end; what it prints goes to the file `log`.

    Raises:
        SideError: it ended with another code than 0 or 1 (pytest's for a test that fails, which a refuted claim's
            does); the message quotes the end of the log.
    """
    before, began = _children(), time.monotonic()
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            command, cwd=folder, env=dict(environment), stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        with _Watched(process.pid) as watched:
            code = process.wait()
    wall, cpu = time.monotonic() - began, _children() - before
    if code not in (0, 1):
        end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
        raise SideError(f"{' '.join(command[:4])} ended with {code}:\n{end}")
    # Processes that their parent did not wait for are not in the system's sum.
    return Usage(wall, max(cpu, sum(watched.seconds.values())), max(watched.memory.values(), default=0.0))


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass
class _Watched:
    """A process and its descendants while the block runs: processor seconds and largest memory of each."""

    pid: int
    seconds: dict[int, float] = field(default_factory=dict)
    memory: dict[int, float] = field(default_factory=dict)
    _end: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> _Watched:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        with suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.pid)
            while not self._end.wait(EVERY):
                for process in (root, *root.children(recursive=True)):
                    with suppress(psutil.Error, FileNotFoundError):
                        self._look(process)

    def _look(self, process: psutil.Process) -> None:
        times, held = process.cpu_times(), process.memory_full_info()
        self.seconds[process.pid] = times.user + times.system
        now = getattr(held, "pss", held.uss)  # macOS knows no PSS
        self.memory[process.pid] = max(self.memory.get(process.pid, 0.0), float(now))
