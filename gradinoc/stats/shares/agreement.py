"""Whether several measures of drift say the same: of the share that is removed, and of the order of runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from gradinoc.stats.effect import Effect, bare
from gradinoc.stats.families import Families, contrast
from gradinoc.stats.regression.correlation import spearman


def shares_apart(measures: Mapping[str, Families], removed_by: str, baseline: str) -> list[Effect]:
    """Of each pair of measures, the difference of the shares of `baseline` that `removed_by` removes, widest first.

    `measures`: measure -> its table of the same prompts (or runs) and the same questions. The unit is the row of the
    table; the interval holds rows and question templates, which the measures share, to first order (delta method: the
    difference of two ratios is a contrast of tables weighted by one over the baseline and by mean over baseline
    squared). p is two-sided against zero. NaN, with the reason, where a baseline may be zero; such a pair comes first.

    Raises:
        ValueError: fewer than two measures, or tables of unequal shape.
    """
    if len(measures) < 2:
        raise ValueError(f"expected two measures or more, received {list(measures)}")
    pairs = [_apart(measures, pair, removed_by, baseline) for pair in itertools.combinations(measures, 2)]
    return sorted(pairs, key=lambda effect: -abs(effect.estimate) if math.isfinite(effect.estimate) else -math.inf)


def _apart(measures: Mapping[str, Families], pair: tuple[str, str], removed_by: str, baseline: str) -> Effect:
    """The first measure's share less the second's."""
    name = f"share removed, {pair[0]} - {pair[1]}"
    tables = [measures[key] for key in pair]
    shapes = {key: [table.values[key].shape for table in tables] for key in (removed_by, baseline)}
    if any(len(set(each)) > 1 for each in shapes.values()):
        raise ValueError(f"{name}: expected the same prompts and questions in both measures, received {shapes}")
    apart, linear = 0.0, {removed_by: np.zeros(1), baseline: np.zeros(1)}
    for key, table, sign in zip(pair, tables, (1, -1), strict=True):
        under = contrast(table, {baseline: 1.0}, f"{baseline} in {key}")
        if not under.low > 0:
            return bare(name, math.nan, under.n, "prompts", f"no interval: {under.name} may be zero ({under})")
        over, base = table.values[removed_by], table.values[baseline]
        apart += sign * (1 - over.mean() / base.mean())
        linear[removed_by] = linear[removed_by] - sign * over / base.mean()
        linear[baseline] = linear[baseline] + sign * base * over.mean() / base.mean() ** 2
    effect = contrast(Families(linear, tables[0].groups), {removed_by: 1.0, baseline: 1.0}, name)
    half = (effect.high - effect.low) / 2  # of its error only: the linear table's own mean is zero
    p = float(2 * stats.t.sf(abs(apart) / effect.standard_error, effect.df)) if effect.standard_error > 0 else math.nan
    method = f"delta method, {effect.method}"
    return replace(effect, estimate=apart, low=apart - half, high=apart + half, p=p, method=method)


def ranks_agree(measures: Mapping[str, npt.ArrayLike]) -> Effect:
    """The smallest of the pairwise Spearman correlations of measures of the same runs, ties at mean rank.

    `measures`: measure -> [runs]. n counts runs. The interval is that of the one pair, from Fisher's z with the error
    sqrt((1 + r^2 / 2) / (n - 3)), as if runs were independent and the pair had not been picked; runs of one prompt are
    not independent, so it is a lower bound on the width. A measure that is the same in all runs ranks nothing: NaN.
    Source: Bonett and Wright, Psychometrika 65 (2000).

    Raises:
        ValueError: fewer than two measures, fewer than three runs, or a value that is not finite.
    """
    if len(measures) < 2:
        raise ValueError(f"expected two measures or more, received {list(measures)}")
    found = {pair: spearman(*(measures[key] for key in pair)) for pair in itertools.combinations(measures, 2)}
    constant = [pair for pair, r in found.items() if not math.isfinite(r)]
    pair = constant[0] if constant else min(found, key=lambda each: found[each])
    r, n = found[pair], np.size(next(iter(measures.values())))
    method = "Spearman, smallest pair, Bonett-Wright interval"
    if constant:
        method = "no rank correlation: a measure is the same everywhere"
    effect = bare(f"rank correlation of runs, {pair[0]} with {pair[1]}", r, n, "runs", method)
    if not math.isfinite(r) or n <= 3 or abs(r) == 1:
        return effect
    half = float(stats.norm.ppf(0.975)) * math.sqrt((1 + r * r / 2) / (n - 3))
    return replace(effect, low=math.tanh(math.atanh(r) - half), high=math.tanh(math.atanh(r) + half))
