"""Where an effect stands among those of other directions, and whether it leads over named ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from gradinoc.stats.clustered import Groups, grouped_mean
from gradinoc.stats.effect import Array, Effect, finite, noisy_null_p
from gradinoc.stats.families import Families, contrast


def place_among(observed: Effect, nulls: npt.ArrayLike, first: npt.ArrayLike) -> Effect:
    """`observed`, a difference of family means, with its upper place among the same difference along other directions.

    `nulls` [directions, prompts] is each prompt's mean along each direction, `first` [prompts] says which prompts are
    of the family that counts positively; the others are of the other. p = (1 + sum of t tails) / (1 + directions),
    with `observed`'s own error (prompts and templates, as `families.compare` gives it) added to every draw. Estimate
    and interval stay as they are. The unit of p is the direction, and n counts directions.

    Raises:
        ValueError: shapes that do not fit, a family without a prompt, or no standard error.
    """
    table, member = finite(nulls, "nulls"), np.asarray(first, dtype=bool)
    if table.ndim != 2 or member.shape != table.shape[1:] or member.all() or not member.any():
        raise ValueError(
            f"expected nulls [directions, prompts] and which prompts are of the first family, "
            f"received {table.shape} and {member.shape} with {int(member.sum())} of the first"
        )
    draws = table[:, member].mean(axis=1) - table[:, ~member].mean(axis=1)
    return _placed(observed, draws)


def leads(
    observed: Families, others: Mapping[str, Families], coefficients: Mapping[str, float], factor: float = 2.0
) -> Effect:
    """How far a contrast exceeds `factor` times its size along each of the `others`, smallest lead first.

    `observed` and each of `others` (name -> tables) hold the same prompts and questions, measured along other
    directions. The estimate is the smallest of T - factor |T(other)|, interval and unit those of that contrast
    (prompts and templates). p is an intersection-union test, one-sided: the largest over others and both signs of
    T(other) of the p that T -+ factor T(other) is not above zero. A part without an interval makes p NaN.

    Raises:
        ValueError: no other direction is named.
    """
    if not others:
        raise ValueError("expected at least one named direction to lead over, received none")
    found: list[Effect] = []
    for key, other in others.items():
        for sign in (1, -1):
            tables = {family: observed.values[family] - sign * factor * other.values[family] for family in coefficients}
            found.append(contrast(Families(tables, observed.groups), coefficients, f"lead over {factor:g} x {key}"))
    p = max((upper_p(effect) for effect in found), key=lambda value: value if math.isfinite(value) else math.inf)
    smallest = min(found, key=lambda effect: effect.estimate)
    method = f"{smallest.method}; p one-sided, largest of {len(found)} (intersection-union)"
    return replace(smallest, p=p, method=method)


def upper_p(effect: Effect) -> float:
    """The one-sided p that `effect`'s truth is not above zero; NaN without a standard error."""
    if not effect.standard_error >= 0:
        return math.nan
    if effect.standard_error == 0:
        return 0.0 if effect.estimate > 0 else 1.0
    return float(stats.t.sf(effect.estimate / effect.standard_error, effect.df))


def slope_on_strength(outcome: npt.ArrayLike, strengths: npt.ArrayLike, groups: Groups, name: str) -> Effect:
    """The mean over questions of the least-squares slope of `outcome` [strengths, questions] on `strengths`.

    Units: of the outcome per unit of strength. The unit is the question, clustered by template (`groups`): the
    interval holds which templates were asked, and nothing of how the direction was found. p two-sided.
    """
    slopes = _slopes(outcome, strengths)
    return replace(grouped_mean(slopes, groups, name), unit="questions")


def slope_among(
    outcome: npt.ArrayLike, others: npt.ArrayLike, strengths: npt.ArrayLike, groups: Groups, name: str
) -> Effect:
    """`slope_on_strength` of `outcome`, p its upper place among the slopes of other directions.

    `others` is [directions, strengths, questions]. p = (1 + sum of t tails) / (1 + directions), the slope's own error
    added to every other slope; n counts directions. Estimate and interval stay those of questions.
    """
    draws = [_slopes(other, strengths).mean() for other in finite(others, "other directions")]
    return _placed(slope_on_strength(outcome, strengths, groups, name), np.array(draws))


def _slopes(outcome: npt.ArrayLike, strengths: npt.ArrayLike) -> Array:
    """Slope of each question [questions]."""
    table, at = finite(outcome, "outcome"), finite(strengths, "strengths")
    if table.ndim != 2 or at.shape != table.shape[:1] or np.ptp(at) == 0:
        raise ValueError(f"expected outcome [strengths, questions] at differing strengths, got {table.shape}, {at}")
    centred = at - at.mean()
    slopes: Array = centred @ table / (centred @ centred)
    return slopes


def _placed(observed: Effect, draws: Array) -> Effect:
    method = f"place among {draws.size} directions with sampling error, one-sided p; interval: {observed.method}"
    return replace(observed, p=noisy_null_p(observed, draws), n=draws.size, unit="directions", method=method)
