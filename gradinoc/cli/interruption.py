"""What becomes of a process that is told to end: it does, at once, with a line that says how to go on.

Nothing has to be put in order first: what is finished is whole in the store, what is not is not there, and a lock goes
with the process that holds it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C, and what batch systems send before they kill
Handler = Callable[[int, FrameType | None], None]


def interrupted(command: str, store: Path, done: int = 0, steps: int = 0) -> str:
    """What is said at the end: how many of the study's `steps` are `done`, if that is known, and how to go on."""
    kept = f"{done} of {steps} steps are in {store}{os.sep}, nothing" if steps else "nothing"
    return f"Interrupted: {kept} finished is lost. Go on with: {command}"


@contextmanager
def ending_at_once(last_words: Callable[[], str]) -> Iterator[None]:
    """Inside the block, SIGINT and SIGTERM end the process: with last words, and with 128 + the signal's number."""

    def end(number: int) -> None:
        try:
            for child in multiprocessing.active_children():
                child.kill()
            sys.stderr.write(f"{last_words()}\n")
            sys.stderr.flush()
        finally:
            os._exit(128 + number)

    with hearing_signals(end):
        yield


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Handle a signal by doing nothing: what is to be done, the thread that hears of it does."""


@contextmanager
def hearing_signals(hear: Callable[[int], None], handler: Handler = _nothing) -> Iterator[None]:
    """Inside the block, `hear` is called with the number of the first SIGINT or SIGTERM, whatever the process is at.

    It is called in a thread of its own. Python runs `handler` in the main thread, between two of its instructions, and
    one of these may be a product of matrices that takes seconds. Outside the main thread the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handlers = {number: signal.signal(number, handler) for number in SIGNALS}
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(reading, hear), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        for number, before in handlers.items():
            signal.signal(number, before)
        os.write(writing, bytes([0]))
        thread.join()
        os.close(reading)
        os.close(writing)


def _listen(reading: int, hear: Callable[[int], None]) -> None:
    """Wait for the first signal that is of interest, or the end of the block, which is 0."""
    while number := os.read(reading, 1)[0]:
        if number in SIGNALS:
            hear(number)
            return
