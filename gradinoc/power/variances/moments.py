"""Method of moments: mean squares are set equal to what they are expected to be; a negative variance is 0."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from gradinoc.stats.clustered import Groups
from gradinoc.stats.effect import Array


@dataclass(frozen=True)
class Parts:
    """A variance between templates and the one within them."""

    between: float
    within: float


def root(variance: float) -> float:
    """The standard deviation of an estimated variance, 0 for one that came out negative."""
    return math.sqrt(max(0.0, variance))


def interaction(table: Array) -> Array:
    """`table` [rows, columns] less the means of its rows and columns."""
    rest: Array = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return rest


def interaction_square(table: Array) -> float:
    """The mean square of what is left of `table` [rows, columns] beyond its rows and columns."""
    rows, columns = table.shape
    return float(np.sum(interaction(table) ** 2) / ((rows - 1) * (columns - 1)))


def pooled(families: Iterable[Array], slopes: int = 0) -> float:
    """The variance within families of one number a prompt, over all families: [prompts] each; `slopes` were fitted."""
    tables = [np.asarray(each) for each in families]
    squares = sum(float(np.sum((each - each.mean()) ** 2)) for each in tables)
    return squares / max(1, sum(len(each) - 1 for each in tables) - slopes)


def pooled_slope(
    y: Sequence[Array], x: Sequence[Array], other: Sequence[Array] | None = None, error: float = 0.0
) -> float:
    """The slope of y on x, at equal `other`, within families, one number a prompt: [prompts] each.

    `error` is the variance with which x was measured, which would flatten the slope; 0 where x does not vary by more.
    """
    given = [x] if other is None else [x, other]
    products, along = np.zeros((len(given), len(given))), np.zeros(len(given))
    for place, family in enumerate(y):
        columns = np.stack([each[place] - each[place].mean() for each in given])
        products += columns @ columns.T
        along += columns @ (family - family.mean())
        products[0, 0] -= (len(family) - 1) * error
    if np.linalg.eigvalsh(products).min() <= 1e-12 * np.trace(products):
        return 0.0
    return float(np.linalg.solve(products, along)[0])


def nested(table: Array, groups: Groups) -> Parts:
    """The variance of `table` [rows, questions] within templates and that between them, each row about its own mean.

    One-way analysis of variance, unequal sizes, mean squares pooled over rows. Source: Searle, Casella and McCulloch,
    Variance Components (1992), section 3.6.
    """
    if groups is None:
        return Parts(0.0, float(table.var(axis=1, ddof=1).mean()))
    sizes = np.bincount(groups)
    n, count = table.shape[1], len(sizes)
    means = np.stack([np.bincount(groups, row) / sizes for row in table])
    within = float(np.sum((table - means[:, groups]) ** 2)) / (n - count) / len(table)
    if count < 2:
        return Parts(0.0, within)
    among = float(np.sum(sizes * (means - table.mean(axis=1, keepdims=True)) ** 2)) / (count - 1) / len(table)
    typical = (n - float(sizes @ sizes) / n) / (count - 1)
    return Parts((among - within) / typical, within)


def by_template(table: Array, groups: Groups) -> tuple[Array, float]:
    """Means over each template [rows, templates] of `table` [rows, questions]; the mean of 1 / their questions."""
    if groups is None:
        return table, 1.0
    sizes = np.bincount(groups)
    means: Array = np.stack([np.bincount(groups, row) / sizes for row in table])
    return means, float(np.mean(1 / sizes))


def templates_behind(examples: int, met: int) -> int:
    """How many equally likely templates a source has, if so many `examples` came from `met`; 0 where none repeats."""
    if met >= examples:
        return 0
    if met <= 1:
        return 1
    return round(float(optimize.brentq(lambda count: templates_met(count, examples) - met, met, 1e7 * met)))


def templates_met(templates: float, examples: int) -> float:
    """From how many of `templates` equally likely ones so many `examples` come, on average."""
    return -templates * math.expm1(examples * math.log1p(-1 / templates)) if templates > 1 else templates
