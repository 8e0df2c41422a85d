"""Criteria: one condition on one effect each, with its rule in words and how far the estimate is from flipping it.

A claim decides over criteria (`decide` in `c1` to `c4` and `gates`); the report, calibration and power take them from
there, so no rule is written twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats

from gradinoc.stats.effect import Effect, tost


@dataclass(frozen=True)
class Criterion:
    """A condition on an effect; true where it holds.

    Attributes:
        key: of the effect.
        rule: the condition in words.
        holds: whether it is met.
        slack: how far the estimate may move towards the other side before `holds` changes, spread and everything else
            as they are: positive where the criterion holds, negative where it does not; in the effect's units, or of p
            where the rule is about p; NaN where no interval or no test exists.
    """

    key: str
    rule: str
    holds: bool
    slack: float

    def __bool__(self) -> bool:
        """Whether it holds."""
        return bool(self.holds)

    def __str__(self) -> str:
        """The rule, whether it holds, and by how much."""
        if not math.isfinite(self.slack):
            return f"{self.rule}: {'holds' if self.holds else 'fails'}"
        return f"{self.rule}: {'holds, with' if self.holds else 'fails by'} {abs(self.slack):.3g}" + (
            " to spare" if self.holds else ""
        )


def above_zero(effect: Effect) -> Criterion:
    """The interval lies above zero."""
    rule = f"{interval(effect)} of {effect.name} above zero"
    return Criterion(effect.key, rule, effect.low > 0, effect.low)


def at_or_below_zero(effect: Effect) -> Criterion:
    """The interval lies at or below zero."""
    rule = f"{interval(effect)} of {effect.name} at or below zero"
    return Criterion(effect.key, rule, effect.high <= 0, -effect.high)


def above(effect: Effect, bar: float) -> Criterion:
    """The interval lies above `bar`."""
    rule = f"{interval(effect)} of {effect.name} above {bar:.3g}"
    return Criterion(effect.key, rule, effect.low > bar, effect.low - bar)


def equivalent(effect: Effect, margin: float, alpha: float) -> Criterion:
    """The effect is equivalent to zero: two one-sided t tests within `margin` (see `stats.effect.tost`)."""
    rule = f"{effect.name} equivalent to zero within {margin:.3g} (p at most {alpha:g})"
    reach = margin - float(stats.t.ppf(1 - alpha, effect.df)) * effect.standard_error
    return Criterion(effect.key, rule, tost(effect, margin, alpha).p <= alpha, reach - abs(effect.estimate))


def p_at_most(effect: Effect, alpha: float) -> Criterion:
    """The p of the effect's own test is at most `alpha`; its slack is of p."""
    return Criterion(effect.key, f"p of {effect.name} at most {alpha:g}", effect.p <= alpha, alpha - effect.p)


def at_least(effect: Effect, bar: float) -> Criterion:
    """The estimate reaches `bar`."""
    return Criterion(effect.key, f"{effect.name} at least {bar:g}", effect.estimate >= bar, effect.estimate - bar)


def interval_below(effect: Effect, bar: float) -> Criterion:
    """The interval lies below `bar`."""
    rule = f"{interval(effect)} of {effect.name} below {bar:.3g}"
    return Criterion(effect.key, rule, effect.high < bar, bar - effect.high)


def below(effect: Effect, bar: float) -> Criterion:
    """The estimate is below `bar`."""
    return Criterion(effect.key, f"{effect.name} below {bar:g}", effect.estimate < bar, bar - effect.estimate)


def positive(effect: Effect) -> Criterion:
    """The estimate is above zero."""
    return Criterion(effect.key, f"{effect.name} above zero", effect.estimate > 0, effect.estimate)


def interval(effect: Effect) -> str:
    """The name of the effect's interval, such as "95 % interval"."""
    return f"{100 * effect.level:.4g} % interval"
