"""Simulated studies over processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Portion = TypeVar("Portion")
Result = TypeVar("Result")


def each(judge: Callable[[Portion], Result], portions: Sequence[Portion], jobs: int = 0) -> Iterator[Result]:
    """`judge` of every portion, in order; in so many processes (`jobs` 0: one a core, 1: this one).

    Workers are spawned, since a fork would copy running threads, and ignore Ctrl-C, which the parent acts on.
    """
    if (jobs or os.cpu_count() or 1) == 1:
        yield from map(judge, portions)
        return
    ignore = (signal.SIGINT, signal.SIG_IGN)
    context = get_context("spawn")
    with ProcessPoolExecutor(jobs or None, mp_context=context, initializer=signal.signal, initargs=ignore) as pool:
        yield from pool.map(judge, portions)
