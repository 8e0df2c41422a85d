"""Regular expressions from outside: compiled and run under limits, so that none can hang or flood a study."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable
from functools import lru_cache

import regex  # type: ignore[import-untyped]  # it brings no types

from gradinoc.errors import StudyError, reason, shown

LONGEST_PATTERN = 500  # characters
SECONDS = 2.0  # that the matches in one text may take together: ordinary patterns take microseconds
REPEAT = re.compile(r"\{([^{}]*)\}")
MOST_REPEATS = 100_000  # of all counted repeats, one in the other: some are unrolled when a pattern is compiled
LONGEST_RESULT = 1_000_000  # characters that a replacement may come to


@lru_cache
def compiled(pattern: str) -> regex.Pattern[str]:
    """`pattern`, in the syntax of the package `regex` (that of Python's `re`, and more).

    Raises:
        ValueError: no regular expression, or one whose counted repeats could take all memory.
    """
    repeats = math.prod(max([1, *map(int, re.findall(r"\d{1,18}", each))]) for each in REPEAT.findall(pattern))
    if repeats > MOST_REPEATS:
        raise ValueError(f"repeats that come to {repeats:,}, expected at most {MOST_REPEATS:,}: {shown(pattern)}")
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise ValueError(f"no regular expression ({reason(error)}): {shown(pattern)}") from error


def share_matching(pattern: str, pieces: Iterable[str], *, whole: bool = False) -> float:
    """Share of `pieces` in which `pattern` is found (or, if `whole`, that it matches as a whole); 0.0 of none.

    Raises:
        StudyError: it takes longer than a pattern may.
    """
    counted = list(pieces)
    expression, clock = compiled(pattern), _Clock(pattern)
    look = expression.fullmatch if whole else expression.search
    known: dict[str, bool] = {}
    for piece in counted:
        if piece not in known:
            with clock:
                known[piece] = look(piece, timeout=clock.left()) is not None
    return sum(known[piece] for piece in counted) / len(counted) if counted else 0.0


def replaced(pattern: str, text: str, new: str) -> str:
    """`text` with `new`, as it stands, in every place that `pattern` matches.

    Raises:
        StudyError: it takes longer than a pattern may, or the result would be too long.
    """
    expression, clock, length = compiled(pattern), _Clock(pattern), 0

    def put(_: object) -> str:
        nonlocal length
        length += len(new)
        if length > LONGEST_RESULT:
            raise StudyError(
                f"trait: the pattern {shown(pattern)} puts in more than {LONGEST_RESULT:,} characters; shorten `with`, "
                "or match less"
            )
        return new

    with clock:
        result: str = expression.sub(put, text, timeout=clock.left())
    return result


class _Clock:
    """The time that is left for a pattern in one text; what runs out of it becomes a `StudyError`."""

    def __init__(self, pattern: str) -> None:
        self.pattern, self.end = pattern, time.monotonic() + SECONDS

    def left(self) -> float:
        return max(self.end - time.monotonic(), 1e-3)

    def __enter__(self) -> _Clock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, TimeoutError | MemoryError):
            raise StudyError(
                f"trait: the pattern {shown(self.pattern)} took more than {SECONDS:g} s on one text, or too much "
                "memory; expected one that is found or not at once; reword it (nested repeats such as (a+)+ are the "
                "usual cause)"
            ) from error
