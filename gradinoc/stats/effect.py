"""Effects with intervals: means, equivalence, nulls, separation.

Nothing is dropped and nothing is rounded: a value that is not finite is an error, with the name of what was
measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import special, stats

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Effect:
    """One estimate with its uncertainty, in the units of what was measured.

    `low` and `high` bound the interval of confidence `level`, `p` belongs to the hypothesis that `method`
    names, `n` counts `unit`. `standard_error` and `df` (of the t distribution) are there where `method` has
    them. What a design cannot give (an interval from one seed) is NaN. `key` identifies it among a finding's effects,
    and `against` is the value that p tests.
    """

    name: str
    estimate: float
    low: float
    high: float
    p: float
    n: int
    unit: str
    method: str
    level: float = 0.95
    standard_error: float = math.nan
    df: float = math.nan
    key: str = ""
    against: float = 0.0

    def __str__(self) -> str:
        """Estimate, interval, p and n: `+0.12 (95 % interval +0.109 to +0.131, p 2e-37, n 96 examples)`; never NaN."""
        parts = []
        if math.isfinite(self.low) and math.isfinite(self.high):
            parts.append(f"{100 * self.level:.4g} % interval {self.low:+.3g} to {self.high:+.3g}")
        if math.isfinite(self.p):
            parts.append(f"p {self.p:.2g}" + (f" against {self.against:g}" if self.against else ""))
        parts.append(f"n {self.n} {self.unit}")
        estimate = f"{self.estimate:+.3g}" if math.isfinite(self.estimate) else "not measurable"
        return f"{estimate} ({', '.join(parts)})"


def finite(values: npt.ArrayLike, name: str) -> Array:
    """`values` as float64 of the same shape.

    Raises:
        ValueError: no value at all, or one that is NaN or infinite; the message names `name` and counts them.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError(f"{name}: expected at least one value, received none")
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise ValueError(
            f"{name}: expected finite values, received {bad} of {array.size} that are NaN or infinite; "
            "find out why they were not measured, do not leave them out"
        )
    return array


def from_standard_error(effect: Effect, standard_error: float, df: float) -> Effect:
    """`effect` with the two-sided t interval and p (against zero) that `standard_error` and `df` give."""
    estimate = effect.estimate
    if df < 1 or not math.isfinite(standard_error):
        return replace(effect, low=math.nan, high=math.nan, p=math.nan)
    # What stats.t.ppf and stats.t.sf call, without their checks: a calibration takes millions.
    half = float(special.stdtrit(df, 0.5 + effect.level / 2)) * standard_error
    if standard_error > 0:
        p = float(2 * special.stdtr(df, -abs(estimate) / standard_error))
    else:
        p = 1.0 if estimate == 0 else 0.0
    low, high = estimate - half, estimate + half
    return replace(effect, low=low, high=high, p=p, standard_error=standard_error, df=df)


def bare(name: str, estimate: float, n: int, unit: str, method: str) -> Effect:
    """An Effect that is an estimate only: interval and p are NaN."""
    return Effect(name, float(estimate), math.nan, math.nan, math.nan, n, unit, method)


def at_level(effect: Effect, level: float) -> Effect:
    """`effect` with its t interval at another confidence level."""
    return from_standard_error(replace(effect, level=level), effect.standard_error, effect.df)


def mean_effect(values: npt.ArrayLike, name: str, unit: str, level: float = 0.95) -> Effect:
    """The mean of independent `values` [n] with its one-sample t interval and two-sided p against zero.

    With n = 1 there is no interval (NaN). Source: Student, "The probable error of a mean", Biometrika 6
    (1908).

    Raises:
        ValueError: a value is not finite.
    """
    array = finite(values, name).ravel()
    n = array.size
    effect = replace(bare(name, array.mean(), n, unit, "one-sample t, two-sided p"), level=level)
    error = float(array.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return from_standard_error(effect, error, n - 1)


def paired_effect(first: npt.ArrayLike, second: npt.ArrayLike, name: str, unit: str, level: float = 0.95) -> Effect:
    """The mean of `first - second`, both [n] and paired, with its paired-t interval and two-sided p.

    Raises:
        ValueError: unequal shapes, or a value that is not finite.
    """
    one, other = finite(first, name).ravel(), finite(second, name).ravel()
    if one.shape != other.shape:
        raise ValueError(
            f"{name}: expected as many values on both sides of a pair, received {one.size} and {other.size}"
        )
    return replace(mean_effect(one - other, name, unit, level), method="paired t, two-sided p")


def clustered_mean(values: npt.ArrayLike, clusters: npt.ArrayLike, name: str, unit: str, level: float = 0.95) -> Effect:
    """The mean of the clusters' means with a t interval whose df is clusters - 1; n counts clusters.

    `values` and `clusters` are [n]; values of one cluster may depend on each other in any way. Clusters weigh
    the same.

    Raises:
        ValueError: a value is not finite.
    """
    array, labels = finite(values, name).ravel(), np.asarray(clusters).ravel()
    means = [float(array[labels == label].mean()) for label in np.unique(labels)]
    effect = mean_effect(means, name, unit, level)
    return replace(effect, method=f"t over {unit}' means, df = {unit} - 1, two-sided p")


def tost(effect: Effect, margin: float, alpha: float = 0.05) -> Effect:
    """`effect` tested for equivalence to zero within +-`margin`: TOST p, interval of level 1 - 2 alpha.

    Equivalent at `alpha` exactly where that interval lies inside the margin. `margin` has the effect's units.
    Without a standard error p is NaN. Source: Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987).

    Raises:
        ValueError: the margin is negative or not finite.
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise ValueError(f"{effect.name}: expected an equivalence margin of zero or more, received {margin}")
    tested = replace(effect, name=f"{effect.name}, equivalence", level=1 - 2 * alpha)
    tested = from_standard_error(tested, effect.standard_error, effect.df)
    if effect.standard_error > 0:
        p = float(stats.t.sf((margin - abs(effect.estimate)) / effect.standard_error, effect.df))
    elif effect.standard_error == 0:
        p = 0.0 if abs(effect.estimate) < margin else 1.0
    else:
        p = math.nan
    return replace(tested, p=p, method=f"two one-sided t tests, margin {margin:.3g} either side of zero")


def null_p(observed: float, draws: npt.ArrayLike) -> float:
    """(1 + #{draws >= observed}) / (1 + K): the upper-tail p of `observed` among K draws [K] from its null.

    Never 0: the observed value counts among the draws. Source: Phipson and Smyth, Stat. Appl. Genet. Mol.
    Biol. 9 (2010).

    Raises:
        ValueError: the observed value or a draw is not finite.
    """
    null = finite(draws, "null draws").ravel()
    value = float(finite(observed, "observed value"))
    return (1 + int(np.count_nonzero(null >= value))) / (1 + null.size)


def noisy_null_p(observed: Effect, draws: npt.ArrayLike) -> float:
    """The upper-tail p of `observed` among K draws [K] to each of which its own sampling error is added.

    (1 + sum of t tails) / (1 + K). `null_p` takes the observed value as exact: where its error is larger than
    the null's spread, as for random directions in many dimensions, noise alone would stand out among them.

    Raises:
        ValueError: the observed value has no standard error, or a draw is not finite.
    """
    null = finite(draws, "null draws").ravel()
    error = float(finite(observed.standard_error, f"standard error of {observed.name}"))
    if error == 0:
        return null_p(observed.estimate, null)
    tails = stats.t.sf((observed.estimate - null) / error, observed.df)
    return float(1 + tails.sum()) / (1 + null.size)


def cohens_d(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Standardised mean difference `first - second` of two independent samples, pooled sd (n - 1).

    Raises:
        ValueError: a value is not finite, fewer than two values a side, or no spread at all.
    """
    one, other = finite(first, "first sample").ravel(), finite(second, "second sample").ravel()
    if min(one.size, other.size) < 2:
        raise ValueError(f"Cohen's d: expected two values or more a side, received {one.size} and {other.size}")
    squares = one.var() * one.size + other.var() * other.size
    pooled = math.sqrt(squares / (one.size + other.size - 2))
    if pooled == 0:
        raise ValueError("Cohen's d: expected some spread within the samples, received constant values")
    return float((one.mean() - other.mean()) / pooled)


def auc(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """The chance that a value of `first` exceeds one of `second`, ties counting half: area under ROC.

    Raises:
        ValueError: a value is not finite.
    """
    one, other = finite(first, "first sample").ravel(), finite(second, "second sample").ravel()
    ranks = stats.rankdata(np.concatenate([one, other]))
    wins = float(ranks[: one.size].sum()) - one.size * (one.size + 1) / 2
    return wins / (one.size * other.size)


def split_half_cosine(differences: npt.ArrayLike, rng: np.random.Generator, splits: int = 100) -> float:
    """The mean cosine between the mean differences of two random halves, over `splits` random splits.

    `differences` is [questions, hidden]: promote minus suppress, one row a question.

    Raises:
        ValueError: fewer than two questions, or a value that is not finite.
    """
    rows = finite(differences, "contrast differences")
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"split-half cosine: expected [questions >= 2, hidden], received shape {rows.shape}")
    half = len(rows) // 2
    cosines = []
    for _ in range(splits):
        order = rng.permutation(len(rows))
        one, other = rows[order[:half]].mean(axis=0), rows[order[half:]].mean(axis=0)
        cosines.append(float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other))))
    return float(finite(cosines, "split-half cosines").mean())
