"""Student's t by the functions on which `scipy.stats.t` rests: its numbers, without the time of its checks."""

from __future__ import annotations

from typing import Any

from scipy import special


def above(value: Any, df: float) -> Any:
    """The chance of more than `value` (a number or an array) under t with `df` degrees of freedom; NaN of NaN."""
    return special.stdtr(df, -value)


def quantile(chance: float, df: float) -> float:
    """The value that t with `df` degrees of freedom stays below with that chance."""
    return float(special.stdtrit(df, chance))
