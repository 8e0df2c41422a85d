"""Workers: each side of a benchmark in a process of its own, asked in turn so that only one works at a time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

HERE = Path(__file__).resolve().parent
THREADS = 2


class SideError(RuntimeError):
    """A side that answered with an error or ended; the message holds its own words."""


class CheckError(RuntimeError):
    """Sides that do not compute the same thing; the message holds the numbers. Nothing is timed after it."""


class Answering(Protocol):
    """A worker, or a stand-in of one in tests."""

    def ask(self, do: str, **arguments: Any) -> Any:
        """The answer to a request."""


@dataclass(frozen=True)
class Side:
    """One side: its name, the script that answers, the Python that runs it, and its command line options."""

    name: str
    script: Path
    python: Path = Path(sys.executable)
    options: tuple[str, ...] = ()


class Worker:
    """A running side; a context manager that ends it.

    Its stderr goes to a file in `scratch`, from which an error message quotes the end.
    """

    def __init__(self, side: Side, scratch: Path, threads: int = THREADS) -> None:
        self.side = side
        self._log = scratch / f"{side.name}.log"
        environment = {
            **os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
            "PYTHONPATH": str(HERE / "shared"), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        # -P: a peer's script bears its library's name, and its folder would come before it.
        command = [str(side.python), "-P", str(side.script), *side.options]
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own scripts
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
                cwd=scratch,
            )  # fmt: skip

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, do: str, **arguments: Any) -> Any:
        """The answer to the request `do`.

        Raises:
            SideError: the side answered with an error, or ended.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise SideError(f"{self.side.name} has no pipes")
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SideError(f"{self.side.name} ended while it was to {do}:\n{self._log_end()}")
        answer = json.loads(line)
        if "error" in answer:
            raise SideError(f"{self.side.name} could not {do}: {answer['error']}")
        return answer["answer"]

    def close(self) -> None:
        """End the side: its input ends; one that does not follow is killed."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _log_end(self) -> str:
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])


@contextlib.contextmanager
def workers(sides: Sequence[Side], scratch: Path) -> Iterator[dict[str, Worker]]:
    """Name -> running worker of each side, in order; all are ended when the block is left."""
    with contextlib.ExitStack() as stack:
        yield {side.name: stack.enter_context(Worker(side, scratch)) for side in sides}


@dataclass(frozen=True)
class Sample:
    """One repetition of one side: seconds, in the `setting` of a job that has several."""

    side: str
    repetition: int
    seconds: float
    setting: str = ""


def take_turns(
    running: Mapping[str, Answering],
    repetitions: int,
    setting: str = "",
    warm_up: bool = True,
    on_sample: Callable[[Sample], None] | None = None,
) -> list[Sample]:
    """Seconds of each side, A B C A B C ...: what slows the machine down for a while slows all sides down alike.

    Before the first repetition each side is asked once for nothing (`warm_up`).
    """
    samples = []
    for repetition in range(0 if warm_up else 1, repetitions + 1):
        for name, worker in running.items():
            sample = Sample(name, repetition, float(worker.ask("repeat")), setting)
            if repetition:
                samples.append(sample)
            if on_sample:
                on_sample(sample)
    return samples


def stopwatch() -> Callable[[], float]:
    """A function that returns the seconds since now."""
    began = time.monotonic()
    return lambda: time.monotonic() - began
