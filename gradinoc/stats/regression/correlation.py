"""How a run's alignment goes with its drift: correlations for runs that come in groups."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from gradinoc.stats.effect import Array, Effect, bare, finite

EXACT_LIMIT = 2_000_000  # arrangements; the sums over strata add, so this many take 0.1 s
MONTE_CARLO = 99_999


def pearson(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Pearson's r of `x` and `y`, both [n]; NaN where one of them is constant.

    Raises:
        ValueError: unequal shapes, fewer than three points, or a value that is not finite.
    """
    one, other = _pair(x, y)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return math.nan
    one, other = one - one.mean(), other - other.mean()
    return float(np.clip(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)), -1, 1))


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Spearman's rank correlation of `x` and `y`, both [n], ties at mean rank; NaN if one is constant."""
    one, other = _pair(x, y)
    return pearson(stats.rankdata(one), stats.rankdata(other))


def stratified_p(
    x: npt.ArrayLike, y: npt.ArrayLike, strata: npt.ArrayLike, rng: np.random.Generator, tail: str = "greater"
) -> tuple[float, str]:
    """The one-sided p of the correlation of `x` and `y`, permuting `y` within strata, and how it was found.

    Every arrangement is counted where there are at most `EXACT_LIMIT` of them, the observed one among them;
    otherwise (1 + count) / (1 + N) over N random ones. For Spearman, pass ranks. `tail` is "greater" or
    "less".

    Raises:
        ValueError: unequal shapes, a value that is not finite, or an unknown tail.
    """
    if tail not in ("greater", "less"):
        raise ValueError(f"expected the tail 'greater' or 'less', received {tail!r}")
    one, other = _pair(x, y)
    one = (one - one.mean()) * (1 if tail == "greater" else -1)
    other = other - other.mean()
    labels = np.asarray(strata).ravel()
    parts = [(one[labels == label], other[labels == label]) for label in np.unique(labels)]
    # r is monotone in the sum of products: means and variances do not change when y is permuted.
    observed = float(one @ other) - 1e-9 * math.sqrt(float(one @ one) * float(other @ other))
    arrangements = math.prod(math.factorial(len(part)) for part, _ in parts)
    if arrangements <= EXACT_LIMIT:
        sums = np.zeros(1)
        for a, b in parts:
            options = np.array([a @ b[list(order)] for order in itertools.permutations(range(len(b)))])
            sums = np.add.outer(sums, options).ravel()
        return float(np.mean(sums >= observed)), f"exact permutation within strata, {arrangements} arrangements"
    sums = np.zeros(MONTE_CARLO)
    for a, b in parts:
        sums += rng.permuted(np.tile(b, (MONTE_CARLO, 1)), axis=1) @ a
    count = int(np.count_nonzero(sums >= observed))
    return (1 + count) / (1 + MONTE_CARLO), f"permutation within strata, {MONTE_CARLO} random arrangements"


def fisher_interval(r: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """The Fisher-z interval of a correlation of `n` independent points; NaN where n <= 3 or r is NaN."""
    if not math.isfinite(r) or n <= 3:
        return math.nan, math.nan
    if abs(r) == 1:
        return r, r
    half = float(stats.norm.ppf(0.5 + level / 2)) / math.sqrt(n - 3)
    return math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)


def stratified_correlation(
    x: npt.ArrayLike, y: npt.ArrayLike, strata: npt.ArrayLike, rng: np.random.Generator, name: str
) -> tuple[Effect, Effect]:
    """Pearson's and Spearman's correlation of runs, p by permutation within strata (upper tail).

    Pearson's interval is Fisher's, as if the points were independent, which the method's name says.
    """
    one, other = _pair(x, y)
    r = pearson(one, other)
    low, high = fisher_interval(r, one.size)
    p, how = stratified_p(one, other, strata, rng)
    first = Effect(
        name,
        r,
        low,
        high,
        p,
        one.size,
        "runs",
        f"Pearson, {how}, one-sided; Fisher-z interval as if independent",
    )
    p, how = stratified_p(stats.rankdata(one), stats.rankdata(other), strata, rng)
    rank = bare(f"{name}, ranks", spearman(one, other), one.size, "runs", f"Spearman, {how}, one-sided")
    return first, replace(rank, p=p)


def repeated_measures(x: npt.ArrayLike, y: npt.ArrayLike, groups: npt.ArrayLike, name: str) -> Effect:
    """The common within-group correlation: means of the groups taken out, df = points - groups - 1.

    p is the two-sided t test's, the interval Fisher's with df + 2 points. NaN where nothing varies within
    groups. Source: Bakdash and Marusich, Front. Psychol. 8:456 (2017).
    """
    one, other = _pair(x, y)
    labels = np.unique(np.asarray(groups).ravel(), return_inverse=True)[1]
    count = int(labels.max()) + 1
    df = one.size - count - 1
    r = pearson(*(_centred(values, labels) for values in (one, other)))
    low, high = fisher_interval(r, df + 2)
    p = math.nan
    if math.isfinite(r) and df > 0:
        p = float(2 * stats.t.sf(abs(r) * math.sqrt(df / (1 - r * r)), df)) if abs(r) < 1 else 0.0
    method = f"repeated-measures correlation within {count} groups, df {df}, two-sided p"
    return Effect(name, r, low, high, p, one.size, "runs", method)


def _centred(values: Array, labels: npt.NDArray[np.int64]) -> Array:
    """`values` less the mean of their group, rounding taken for what it is: 0."""
    rest = values - (np.bincount(labels, values) / np.bincount(labels))[labels]
    return np.where(np.abs(rest) <= 1e-12 * np.abs(values).max(), 0.0, rest)


def _pair(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Array]:
    one, other = finite(x, "x of a correlation").ravel(), finite(y, "y of a correlation").ravel()
    if one.shape != other.shape or one.size < 3:
        raise ValueError(f"correlation: expected three pairs or more, received {one.size} x and {other.size} y")
    return one, other
