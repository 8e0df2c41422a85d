"""How large the trait's effect T(v) would have to be to stand out among other directions, in each of C2's ways."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, stats

from gradinoc.claims.c1 import inoculation_contrast
from gradinoc.claims.measures import example_groups, null_contrasts, per_example, unrelated_contrasts
from gradinoc.claims.tables import NULLS, Evidence
from gradinoc.stats.clustered import grouped_mean
from gradinoc.stats.effect import Array, Effect
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules


def strictest(evidence: Evidence, rules: Rules, isotropic: Effect) -> tuple[str, float]:
    """What asks most of T(v), and the T(v) from which on C2 would be supported; infinite where no T(v) is enough.

    The other directions and the spread of T(v) stay as they are.
    """
    observed = inoculation_contrast(evidence, rules, NEUTRAL)
    needed = {"being above zero": 0.0}
    for null in NULLS:
        draws, name = null_contrasts(evidence, null, NEUTRAL), null.replace("_", "-")
        needed[f"its place among {name} directions"] = place(draws, rules.alpha)
        needed[f"the same with its sampling error, {name} directions"] = noisy_place(observed, draws, rules.alpha)
    needed["every unrelated trait"] = _beyond_unrelated(evidence, observed.estimate, rules)
    needed["the isotropic mean, which has to be small beside it"] = beside_mean(isotropic, rules)
    name = max(needed, key=lambda each: needed[each])
    return name, needed[name]


def place(draws: Array, alpha: float) -> float:
    """The value above which no more of the K `draws` lie than (1 + number) / (1 + K) <= alpha allows."""
    allowed = sum((1 + count) / (1 + draws.size) <= alpha for count in range(draws.size + 1))
    return float(np.sort(draws)[::-1][allowed - 1]) if 0 < allowed <= draws.size else math.inf


def noisy_place(observed: Effect, draws: Array, alpha: float) -> float:
    """The same with the sampling error of T(v) added to each draw."""
    error = observed.standard_error
    if not error > 0:
        return place(draws, alpha)
    if 1 / (1 + draws.size) > alpha:
        return math.inf

    def excess(value: float) -> float:
        tails = stats.t.sf((value - draws) / error, observed.df)
        return float(1 + tails.sum()) / (1 + draws.size) - alpha

    return _root(excess, float(draws.min()), float(np.ptp(draws)) + error)


def _root(falling: Callable[[float], float], start: float, step: float) -> float:
    """Where a function that falls with its argument crosses zero, looked for in ever longer steps."""
    low = high = start
    while falling(low) < 0:
        low, step = low - step, 2 * step
    while falling(high) > 0:
        high, step = high + step, 2 * step
        if not math.isfinite(high):
            return math.inf
    return float(optimize.brentq(falling, low, high, xtol=1e-15)) if high > low else low


def _beyond_unrelated(evidence: Evidence, value: float, rules: Rules) -> float:
    """The T(v) whose one-sided p against the closest unrelated trait, of either sign, is alpha."""
    differences, means = unrelated_contrasts(evidence, NEUTRAL), per_example(evidence)
    groups, trait = example_groups(evidence, "alignments", differences.index), means[NEUTRAL] - means[INOCULATION]
    needed = []
    for values in differences.to_numpy().T:
        for sign in (1, -1):
            lead = grouped_mean(trait - sign * values, groups, "lead")
            needed.append(value - lead.estimate + float(stats.t.isf(rules.alpha, lead.df)) * lead.standard_error)
    return max(needed)


def beside_mean(isotropic: Effect, rules: Rules) -> float:
    """The T(v) beside which the isotropic mean is equivalent to zero, the margin being a share of T(v)."""
    far = abs(isotropic.estimate) + float(stats.t.isf(rules.alpha, isotropic.df)) * isotropic.standard_error
    return far / rules.null_margin if rules.null_margin > 0 else math.inf
