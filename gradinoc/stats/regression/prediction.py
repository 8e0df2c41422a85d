"""How well a number known beforehand predicts an outcome over prompts: each is predicted from all others."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gradinoc.stats.effect import Array, Effect, bare, finite

FEWEST = 4  # rows: a line through the others, and one to spare


def left_out_r2(predictor: npt.ArrayLike, outcome: npt.ArrayLike) -> float:
    """Leave-one-out R^2 of a straight line, `1 - sum of squared prediction errors / that of the others' mean`.

    Both are [n], or [n, columns]: then a row is left out as a whole, each column has its own mean, and all share a
    slope. Each row is predicted by the line through all others, and compared with their mean: 1 where it is predicted
    exactly, 0 where the line is no better, negative where it is worse. Source: Allen, Technometrics 16 (1974), PRESS.
    NaN for fewer than four rows, or where the predictor or the outcome does not vary.

    Raises:
        ValueError: unequal shapes, or a value that is not finite.
    """
    x, y = (each - each.mean(axis=0) for each in _pair(predictor, outcome))
    return float(_press(x, y[None])[0])


def prediction(
    predictor: npt.ArrayLike, outcome: npt.ArrayLike, name: str, rng: np.random.Generator, draws: int = 9999
) -> Effect:
    """`left_out_r2` with a one-sided p by permutation over prompts; there is no interval.

    p is the share of permutations (itself among them) whose R^2 is as large *and* whose line rises: a predictor that
    foretells the opposite is no predictor. Source of the p: Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010).

    Raises:
        ValueError: unequal shapes, or a value that is not finite.
    """
    x, y = _pair(predictor, outcome)
    found = left_out_r2(x, y)
    effect = bare(name, found, len(x), "prompts", "leave-one-out R2, permutation over prompts, one-sided")
    if math.isnan(found):
        return effect
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    orders = rng.permuted(np.tile(np.arange(len(y)), (draws, 1)), axis=1)
    reached = int((_rising(x, y[orders]) >= _rising(x, y[None])[0] - 1e-12).sum())
    return replace(effect, p=(1 + reached) / (1 + draws))


def _rising(x: Array, outcomes: Array) -> Array:
    """The left-out R^2 of each outcome whose line rises; minus infinity where it does not."""
    return np.where((x * outcomes).sum(axis=(1, 2)) > 0, _press(x, outcomes), -np.inf)


def _press(x: Array, outcomes: Array) -> Array:
    """Left-out R^2 of `outcomes` [outcomes, rows, columns] by `x` [rows, columns], all of mean zero in each column."""
    n, squares = len(x), (x * x).sum(axis=1)
    total = float(squares.sum())
    if n < FEWEST or not total or not outcomes.any():
        return np.full(len(outcomes), math.nan)
    grown = n / (n - 1)  # without a row the others' mean is so much farther from it
    rest = total - grown * squares
    if np.any(rest <= 1e-9 * total):  # all others are alike: there is no line through them
        return np.full(len(outcomes), math.nan)
    products = (x * outcomes).sum(axis=2)
    slopes = (products.sum(axis=1, keepdims=True) - grown * products) / rest
    errors = outcomes - slopes[..., None] * x
    found: Array = 1 - (errors * errors).sum(axis=(1, 2)) / (outcomes * outcomes).sum(axis=(1, 2))
    return found


def _pair(predictor: npt.ArrayLike, outcome: npt.ArrayLike) -> tuple[Array, Array]:
    x, y = finite(predictor, "predictor"), finite(outcome, "outcome")
    if x.shape != y.shape:
        raise ValueError(f"Prediction: expected an outcome for each value, received {x.shape} and {y.shape}")
    rows = (x.shape[0], -1) if x.ndim else (1, 1)
    return x.reshape(rows), y.reshape(rows)
