"""What is left of an effect at equal loss: regression, binned comparison and within-example regression."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import statsmodels.api as sm

from gradinoc.statistics import Array, Effect, bare, finite, from_standard_error


@dataclass(frozen=True)
class Paired:
    """Two conditions on the same examples: `value` and `loss` [examples, 2], columns (other, inoculation)."""

    value: Array
    loss: Array

    def __post_init__(self) -> None:
        """Check shapes and values.

        Raises:
            ValueError: unequal shapes, not two columns, or a value that is not finite.
        """
        for name in ("value", "loss"):
            object.__setattr__(self, name, finite(getattr(self, name), name))
        if self.value.shape != self.loss.shape or self.value.ndim != 2 or self.value.shape[1] != 2:
            raise ValueError(
                f"expected value and loss [examples, 2], received {self.value.shape} and {self.loss.shape}"
            )

    @property
    def common(self) -> npt.NDArray[np.bool_]:
        """Which cells [examples, 2] have a loss in the range that both conditions reach."""
        low, high = self.loss.min(axis=0).max(), self.loss.max(axis=0).min()
        inside: npt.NDArray[np.bool_] = (self.loss >= low) & (self.loss <= high)
        return inside


def clustered_ols(values: Array, design: Array, clusters: npt.ArrayLike, name: str) -> Effect:
    """The first coefficient of OLS of `values` [rows] on `design` [rows, terms] with cluster-robust errors.

    CR1 (G / (G - 1) * (N - 1) / (N - K)) and t with df = G - 1 for G clusters; n counts clusters.
    Source: Cameron and Miller, J. Human Resources 50 (2015), sections II and VI.
    """
    labels = np.unique(np.asarray(clusters), return_inverse=True)[1]
    count = int(labels.max()) + 1
    options: dict[str, Any] = {"groups": labels, "use_correction": True, "df_correction": True}
    effect = bare(name, np.nan, count, "examples", "OLS, example-clustered errors (CR1), t with df = clusters - 1")
    if count < 2 or np.linalg.matrix_rank(design) < design.shape[1]:
        return effect
    fit = sm.OLS(values, design).fit(cov_type="cluster", cov_kwds=options, use_t=True)
    return from_standard_error(replace(effect, estimate=float(fit.params[0])), float(fit.bse[0]), count - 1)


def raw_contrast(pairs: Paired, name: str) -> Effect:
    """Mean value of the other condition minus inoculation, on the cells inside the common range of losses."""
    values, other, _, examples = _long(pairs)
    effect = clustered_ols(values, np.column_stack([other, np.ones(len(values))]), examples, name)
    return replace(effect, method=f"{effect.method}; condition alone, common range of losses")


def ancova(pairs: Paired, name: str) -> Effect:
    """The condition's coefficient in value ~ condition + loss, common range: other minus inoculation.

    One slope on loss for both conditions, fitted within and between examples alike: where hard examples have
    other alignments for reasons beside their loss, that slope is confounded, which `within_example` is not.
    """
    values, other, loss, examples = _long(pairs)
    design = np.column_stack([other, loss - loss.mean(), np.ones(len(values))])
    effect = clustered_ols(values, design, examples, name)
    return replace(effect, method=f"ANCOVA: {effect.method}; condition + loss, common range of losses")


def binned(pairs: Paired, name: str, bins: int = 5) -> Effect:
    """Other minus inoculation within bins of equal loss (quantiles of the common range), averaged over bins.

    A bin weighs n1 n2 / (n1 + n2), so one that holds a single condition says nothing. Five bins take away
    about 90 % of the difference that loss makes (Cochran, Biometrics 24, 1968): what is left is not loss
    alone.
    """
    values, other, loss, examples = _long(pairs)
    inner = np.quantile(loss, np.linspace(0, 1, bins + 1)[1:-1])
    bin_of = np.digitize(loss, inner)
    member = (bin_of[:, None] == np.unique(bin_of)).astype(np.float64)
    effect = clustered_ols(values, np.column_stack([other, member]), examples, name)
    return replace(effect, method=f"{effect.method}; condition + {member.shape[1]} loss bins, common range of losses")


def within_example(pairs: Paired, name: str) -> Effect:
    """The intercept of (value difference) ~ (loss difference), one row an example: the effect at equal loss.

    Whatever an example brings to both conditions cancels. Extrapolates where no example's loss stays equal;
    the interval widens accordingly. HC3 errors, t with df = n - 2.
    """
    value, loss = (column[:, 0] - column[:, 1] for column in (pairs.value, pairs.loss))
    n = len(value)
    effect = bare(name, np.nan, n, "examples", "within-example OLS of differences, HC3 errors, t with df = n - 2")
    if n < 4 or np.ptp(loss) == 0:
        return effect
    fit = sm.OLS(value, np.column_stack([np.ones(n), loss])).fit(cov_type="HC3", use_t=True)
    return from_standard_error(replace(effect, estimate=float(fit.params[0])), float(fit.bse[0]), n - 2)


def _long(pairs: Paired) -> tuple[Array, Array, Array, npt.NDArray[np.int64]]:
    """value, 1 for the other condition, loss, example: one entry a cell inside the common range.

    Raises:
        ValueError: a condition has no cell there.
    """
    keep = pairs.common
    if not keep.any(axis=0).all():
        raise ValueError("the two conditions' losses have no common range: compare their loss distributions first")
    examples, column = np.nonzero(keep)
    return pairs.value[keep], (column == 0).astype(np.float64), pairs.loss[keep], examples
