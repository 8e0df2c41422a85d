"""Inference where questions come in groups: examples made from one template are not independent.

`groups` is the group of each example [n], or None where each stands by itself. Groups may depend within in any
way; errors are cluster-robust (CR1: G / (G - 1) * (N - 1) / (N - K)) with t on G - 1 degrees of freedom for G groups.
Source: Cameron and Miller, J. Human Resources 50 (2015), sections II and VI.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import statsmodels.api as sm

from gradinoc.stats.effect import Array, Effect, bare, finite, from_standard_error, mean_effect, paired_effect

Groups = npt.NDArray[np.int64] | None


def by_template(groups: npt.NDArray[np.int64]) -> str:
    """The words that a method's name gets where errors are clustered by `groups` [n]."""
    return f"clustered by template, {len(np.unique(groups))} groups (CR1, df = groups - 1)"


def clustered_ols(values: Array, design: Array, clusters: npt.ArrayLike, name: str) -> Effect:
    """The first coefficient of OLS of `values` [rows] on `design` [rows, terms] with cluster-robust errors.

    CR1 and t with df = G - 1 for G clusters; n counts clusters.
    """
    labels = np.unique(np.asarray(clusters), return_inverse=True)[1]
    count = int(labels.max()) + 1
    options: dict[str, Any] = {"groups": labels, "use_correction": True, "df_correction": True}
    effect = bare(name, np.nan, count, "examples", "OLS, example-clustered errors (CR1), t with df = clusters - 1")
    if count < 2 or np.linalg.matrix_rank(design) < design.shape[1]:
        return effect
    fit = sm.OLS(values, design).fit(cov_type="cluster", cov_kwds=options, use_t=True)
    variance = max(0.0, float(fit.cov_params()[0, 0]))  # rounding may leave a variance of zero a little below it
    return from_standard_error(replace(effect, estimate=float(fit.params[0])), math.sqrt(variance), count - 1)


def grouped_mean(values: npt.ArrayLike, groups: Groups, name: str, level: float = 0.95) -> Effect:
    """The mean of `values` [examples], which weigh the same, with an interval that allows for groups.

    CR1 of a regression on a constant: with every example its own group it is the one-sample t to the last digit.
    n counts examples, df is groups - 1; one group has no interval (NaN).

    Raises:
        ValueError: a value is not finite, or not one group a value.
    """
    effect = mean_effect(values, name, "examples", level)
    if groups is None:
        return effect
    array, labels = finite(values, name).ravel(), np.asarray(groups).ravel()
    if array.shape != labels.shape:
        raise ValueError(f"{name}: expected one group a value, received {labels.size} groups of {array.size} values")
    sums = np.bincount(np.unique(labels, return_inverse=True)[1], array - array.mean())
    count = len(sums)
    error = math.sqrt(float(sums @ sums) * count / (count - 1)) / array.size if count > 1 else math.nan
    effect = replace(effect, low=math.nan, high=math.nan, p=math.nan, standard_error=error, df=count - 1)
    return replace(from_standard_error(effect, error, count - 1), method=f"t, {by_template(labels)}, two-sided p")


def grouped_pairs(
    first: npt.ArrayLike, second: npt.ArrayLike, groups: Groups, name: str, level: float = 0.95
) -> Effect:
    """The mean of `first - second`, both [examples] and paired, with an interval that allows for groups.

    Without groups the paired t.

    Raises:
        ValueError: unequal shapes, or a value that is not finite.
    """
    effect = paired_effect(first, second, name, "examples", level)
    if groups is None:
        return effect
    clustered = grouped_mean(np.asarray(first) - np.asarray(second), groups, name, level)
    return replace(clustered, method=f"paired {clustered.method}")
