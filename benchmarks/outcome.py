"""What a job hands back: its samples, other values, what was checked, and the comparisons to judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.workers import CheckError, Sample


class Comparison(NamedTuple):
    """`ours` against `theirs`: the ratio ours / theirs is to be at most `goal` (None: shown, not judged).

    Attributes:
        setting: which of a job's settings, "" where it has one.
        value: name of the value to compare instead of seconds.
        note: how the row differs from a plain timing.
    """

    ours: str
    theirs: str
    goal: float | None = None
    setting: str = ""
    value: str = ""
    note: str = ""


class Value(NamedTuple):
    """A figure of a side that is not a time: a deviation, bytes."""

    side: str
    name: str
    value: float
    setting: str = ""


@dataclass
class Outcome:
    """A job's result. `missing` names peers that could not be installed, with the reason."""

    job: str
    samples: list[Sample] = field(default_factory=list)
    figures: list[Value] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    checks: list[str] = field(default_factory=list)
    failure: str = ""

    def check(self, side: str, name: str, deviation: float, limit: float) -> None:
        """Keep `deviation` as a value, and stop the job if it exceeds `limit` or is not a number.

        Raises:
            CheckError: it does.
        """
        self.figures.append(Value(side, name, deviation))
        if not deviation <= limit:
            raise CheckError(f"{side}, {name}: {deviation:.3g}, expected at most {limit:g}")
        self.checks.append(f"{side}, {name}: {deviation:.2g} (at most {limit:g})")


def largest_difference(found: Any, expected: Any) -> float:
    """Largest absolute difference where `found` holds a number; NaN where it holds none or `expected` is not finite."""
    both = np.abs(np.asarray(found, dtype=float) - np.asarray(expected, dtype=float))[~np.isnan(found)]
    return float(both.max()) if both.size else float("nan")


def load(path: Path) -> Any:
    """The array in the file `path`, which a side wrote; none of them may hold Python objects."""
    return np.load(path, allow_pickle=False)


def seconds(number: float) -> str:
    """A number of seconds with three digits, or all before the point."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:#.3g}".rstrip(".")
