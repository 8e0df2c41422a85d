"""How captions word numbers: means with their intervals, lists by condition, differences."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from gradinoc.analysis.style import shown
from gradinoc.analysis.summaries import Mean, mean_interval, template_of
from gradinoc.evidence import Evidence

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
