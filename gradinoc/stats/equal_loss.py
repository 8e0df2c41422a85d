"""What is left of an effect at equal loss: regression, binned comparison and within-example regression."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import statsmodels.api as sm

from gradinoc.stats.clustered import Groups, by_template, clustered_ols
from gradinoc.stats.effect import Array, Effect, bare, finite, from_standard_error


@dataclass(frozen=True)
class Paired:
    """Two conditions on the same examples: `value` and `loss` [examples, 2], columns (other, inoculation).

    `groups` [examples] says which examples are not independent; None where each stands by itself.
    """

    value: Array
    loss: Array
    groups: Groups = None

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
        if self.groups is not None and self.groups.shape != self.value.shape[:1]:
            raise ValueError(
                f"expected one group for each of {len(self.value)} examples, received shape {self.groups.shape}"
            )

    @property
    def common(self) -> npt.NDArray[np.bool_]:
        """Which cells [examples, 2] have a loss in the range that both conditions reach."""
        low, high = self.loss.min(axis=0).max(), self.loss.max(axis=0).min()
        inside: npt.NDArray[np.bool_] = (self.loss >= low) & (self.loss <= high)
        return inside


def raw_contrast(pairs: Paired, name: str) -> Effect:
    """Mean value of the other condition minus inoculation, on the cells inside the common range of losses."""
    values, other, _, examples = _long(pairs)
    effect = _fit(pairs, values, np.column_stack([other, np.ones(len(values))]), examples, name)
    return replace(effect, method=f"{effect.method}; condition alone, common range of losses")


def ancova(pairs: Paired, name: str) -> Effect:
    """The condition's coefficient in value ~ condition + loss, common range: other minus inoculation.

    One slope on loss for both conditions, fitted within and between examples alike: where hard examples have
    other alignments for reasons beside their loss, that slope is confounded, which `within_example` is not.
    """
    values, other, loss, examples = _long(pairs)
    design = np.column_stack([other, loss - loss.mean(), np.ones(len(values))])
    effect = _fit(pairs, values, design, examples, name)
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
    effect = _fit(pairs, values, np.column_stack([other, member]), examples, name)
    return replace(effect, method=f"{effect.method}; condition + {member.shape[1]} loss bins, common range of losses")


def within_example(pairs: Paired, name: str) -> Effect:
    """The intercept of (value difference) ~ (loss difference), one row an example: the effect at equal loss.

    Whatever an example brings to both conditions cancels. Extrapolates where no example's loss stays equal;
    the interval widens accordingly. HC3 errors, t with df = n - 2; with groups CR1 errors, t with df = groups - 1.
    """
    value, loss = (column[:, 0] - column[:, 1] for column in (pairs.value, pairs.loss))
    n = len(value)
    effect = bare(name, np.nan, n, "examples", "within-example OLS of differences, HC3 errors, t with df = n - 2")
    if n < 4 or np.ptp(loss) == 0:
        return effect
    design = np.column_stack([np.ones(n), loss])
    if pairs.groups is not None:
        method = f"within-example OLS of differences, {by_template(pairs.groups)}"
        return replace(clustered_ols(value, design, pairs.groups, name), n=n, method=method)
    fit = sm.OLS(value, design).fit(cov_type="HC3", use_t=True)
    return from_standard_error(replace(effect, estimate=float(fit.params[0])), float(fit.bse[0]), n - 2)


def _fit(pairs: Paired, values: Array, design: Array, examples: npt.NDArray[np.int64], name: str) -> Effect:
    """The first coefficient, clustered by example or, where there are any, by group; n counts examples."""
    if pairs.groups is None:
        return clustered_ols(values, design, examples, name)
    groups = pairs.groups[examples]
    effect = clustered_ols(values, design, groups, name)
    return replace(effect, n=len(np.unique(examples)), method=f"OLS, {by_template(groups)}")


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
