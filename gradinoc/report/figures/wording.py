"""How captions word numbers: means with their intervals, lists by condition, differences."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.style import shown
from gradinoc.report.figures.summaries import Mean, mean_interval, template_of

NOT_MEASURED = "Not measured in this study."


def words(mean: Mean, unit: str) -> str:
    """A mean with its interval: "0.120 (0.109 to 0.131, n = 96 examples)"."""
    counted = f"n = {mean.n} {unit if mean.n != 1 else unit.removesuffix('s')}"
    if mean.n == 0:
        return "not measured"
    return f"{mean.estimate:.3f} " + (
        f"({mean.low:.3f} to {mean.high:.3f}, {counted})" if math.isfinite(mean.low) else f"({counted})"
    )


def listed(parts: Iterable[tuple[Any, str]]) -> str:
    """Each name with its words, one after the other."""
    return "; ".join(f"{shown(str(name))} {words}" for name, words in parts)


def clustered(evidence: Evidence, examples: Any, values: Any) -> Mean:
    """The mean over `examples`, its interval clustered by what they were made from."""
    return mean_interval(values, template_of(evidence, examples))


def rounded(value: float) -> str:
    """Three significant digits with a true minus sign; in words where there is no number."""
    return f"{value:.3g}".replace("-", "−") if math.isfinite(value) else "not measured"


def between(mean: Mean) -> str:
    """An interval, from end to end."""
    return f"{rounded(mean.low)} to {rounded(mean.high)}"


def by_condition(parts: Iterable[tuple[str, float]]) -> str:
    """A number under each condition, in a list."""
    return ", ".join(f"{rounded(value)} under {shown(name)}" for name, value in parts)


def side(mean: Mean, above: str, below: str, neither: str) -> str:
    """Which of three wordings an interval allows: above zero, below zero, or neither shown."""
    return above if mean.low > 0 else below if mean.high < 0 else neither
