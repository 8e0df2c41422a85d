"""Ratios of contrasts whose denominator has error too, and whether several measures give the same ratio.

A share such as (mean of harmless - mean of inoculation) / neutral is judged by Fieller's method: a value r is in the
interval where numerator - r x denominator, a contrast like any other (`families.contrast`), does not differ from zero.
So a bound against a bar is the test of one contrast, and numerator and denominator may share families and questions. A
denominator that may be zero gives no interval: NaN, and `method` says so. A bootstrap over prompts and templates was
the alternative: with 3 against 5 prompts its 95 % interval covers 92 to 93 %, because so few prompts, drawn again, vary
too little, and of shares that are exactly at a bar it puts 5 % below, twice what it should.

Source: Fieller, "Some problems in interval estimation", J. R. Stat. Soc. B 16 (1954).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from scipy import optimize, special

from gradinoc.stats.effect import Effect, bare
from gradinoc.stats.families import Families, Sources, contrast

Coefficients = Mapping[str, float]  # of a contrast: family -> its weight


def ratio(
    families: Families,
    numerator: Coefficients,
    denominator: Coefficients,
    name: str,
    bar: float = 0.0,
    unit: str = "prompts",
) -> Effect:
    """Contrast `numerator` over contrast `denominator`, with Fieller's interval; p two-sided against `bar`.

    The unit is the prompt, or what `unit` says that rows are, and the interval holds prompts and question
    templates in both contrasts. The interval lies above `bar` exactly where numerator - bar x denominator does lie
    above zero. NaN, with the reason as method: a family with a single row, and a denominator whose own interval reaches
    zero or below.

    In simulations (3 v 5 and 6 v 6 prompts over 3 runs, 10 v 10 over 5; 26 templates) it covers 94 to 97 %; with
    denominators near zero, where 14 to 85 % of studies have an interval, 92 to 98 % of these.
    """
    over = contrast(families, numerator, name, unit=unit)
    under = contrast(families, denominator, f"denominator of {name}", unit=unit)
    rows = sum(len(families.values[key]) for key in {**numerator, **denominator})
    estimate = over.estimate / under.estimate if under.estimate else math.nan
    how = f"Fieller, {unit} and question templates, two-sided p"
    effect = replace(bare(name, estimate, rows, unit, how), against=bar)
    for part in (over, under):
        if not math.isfinite(part.low):
            return replace(effect, method=f"{part.method} ({part.name})" if part.method else "no interval")
    if not under.low > 0:
        return replace(effect, method=f"no interval: the denominator may be zero ({under})")

    sources = Sources.of(families, list(combine(numerator, denominator, 0.0)))

    def away(value: float) -> float:
        """How far numerator - value x denominator is from zero, less half its interval."""
        weights = np.array(list(combine(numerator, denominator, value).values()))
        error, df = sources.error(weights)
        return abs(float(weights @ sources.means)) - float(special.stdtrit(df, 0.975)) * error

    p = contrast(families, combine(numerator, denominator, bar), name).p
    return replace(effect, low=_edge(away, estimate, -1), high=_edge(away, estimate, 1), p=p)


def part_of(part: Families, whole: Families, coefficients: Coefficients, name: str, bar: float = 0.0) -> Effect:
    """Which share of a contrast is a part's: the same contrast of two numbers of every prompt and question.

    Fieller's method as in `ratio`: a value r is in the interval where the contrast of part - r x whole, of each prompt
    and question, does not differ from zero. So part and whole of a prompt err together.

    Raises:
        ValueError: part and whole are not of the same families, prompts and questions.
    """
    shapes = [{key: each.values[key].shape for key in coefficients} for each in (part, whole)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"Part and whole: expected the same prompts and questions, received {shapes}")

    def apart(value: float) -> Effect:
        tables = {key: part.values[key] - value * whole.values[key] for key in coefficients}
        return contrast(Families(tables, part.groups), coefficients, name)

    over, under = apart(0.0), contrast(whole, coefficients, f"denominator of {name}")
    estimate = over.estimate / under.estimate if under.estimate else math.nan
    how = "Fieller, prompts and question templates, two-sided p"
    effect = replace(bare(name, estimate, over.n, "prompts", how), against=bar)
    if not math.isfinite(under.low):
        return replace(effect, method=under.method)
    if not under.low > 0:
        return replace(effect, method=f"no interval: the denominator may be zero ({under})")

    def away(value: float) -> float:
        """How far part - value x whole is from zero, less half its interval."""
        found = apart(value)
        return abs(found.estimate) - float(special.stdtrit(found.df, 0.975)) * found.standard_error

    return replace(effect, low=_edge(away, estimate, -1), high=_edge(away, estimate, 1), p=apart(bar).p)


def share_removed(families: Families, removed_by: str, baseline: str, name: str, bar: float = 0.0) -> Effect:
    """The share of `baseline`'s mean that family `removed_by` does not have: 1 - mean / mean; see `ratio`."""
    return ratio(families, {baseline: 1.0, removed_by: -1.0}, {baseline: 1.0}, name, bar)


def combine(numerator: Coefficients, denominator: Coefficients, value: float) -> dict[str, float]:
    """Coefficients of numerator - value x denominator."""
    keys = dict.fromkeys([*numerator, *denominator])
    return {key: numerator.get(key, 0.0) - value * denominator.get(key, 0.0) for key in keys}


def _edge(away: Callable[[float], float], inside: float, side: int) -> float:
    """The value nearest to `inside` on one side where `away` turns positive.

    It turns: far out `away` is that of the denominator, whose interval lies above zero.
    """
    if away(inside) >= 0:  # no error at all: the interval is the point
        return inside
    near, step = inside, max(abs(inside), 1.0) / 8
    while away(inside + side * step) < 0:
        near, step = inside + side * step, 2 * step
    return float(optimize.brentq(away, near, inside + side * step, xtol=1e-10))
