"""Prediction over prompts, left out one at a time: against fits by hand, and honest where there is nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gradinoc.stats.regression.prediction import left_out_r2, prediction


@pytest.mark.parametrize("seed", range(4))
def test_each_value_is_predicted_from_the_others(seed):
    """Against a line that is fitted anew without it, by NumPy."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=9)
    y = 0.7 * x + rng.normal(size=9)
    errors, means = [], []
    for place in range(9):
        rest = np.arange(9) != place
        slope, start = np.polyfit(x[rest], y[rest], 1)
        errors.append(y[place] - start - slope * x[place])
        means.append(y[place] - y[rest].mean())
    assert left_out_r2(x, y) == pytest.approx(1 - np.square(errors).sum() / np.square(means).sum())


def test_a_line_predicts_exactly_and_noise_worse_than_the_mean():
    """1 on a line; below 0 where nothing is related, which an R^2 within the sample never shows."""
    x = np.arange(8.0)
    assert left_out_r2(x, 3 - 2 * x) == pytest.approx(1)
    rng = np.random.default_rng(0)
    assert np.mean([left_out_r2(rng.normal(size=12), rng.normal(size=12)) for _ in range(200)]) < 0


def test_what_cannot_be_left_out_has_no_r2():
    """Three values, one that does not vary, one point that makes the line alone."""
    assert math.isnan(left_out_r2([1, 2, 3], [1, 2, 3]))
    assert math.isnan(left_out_r2([1, 1, 1, 1], [1, 2, 3, 4]))
    assert math.isnan(left_out_r2([1, 2, 3, 4], [1, 1, 1, 1]))
    assert math.isnan(left_out_r2([0, 0, 0, 1], [1, 2, 3, 4]))
    assert math.isnan(prediction([1, 2, 3], [1, 2, 3], "x", np.random.default_rng(0)).p)


def test_p_is_uniform_where_nothing_is_related():
    """In 5 % of data sets it is at most 0.05, within the error of 400."""
    rng = np.random.default_rng(1)
    ps = [prediction(rng.normal(size=8), rng.normal(size=8), "x", rng, draws=99).p for _ in range(400)]
    assert 0.02 <= np.mean(np.asarray(ps) <= 0.05) <= 0.085


def test_a_predictor_of_the_opposite_is_none():
    """A falling line predicts well, and its p says that it does not rise."""
    x = np.arange(10.0)
    rising, falling = (prediction(x, sign * x, "x", np.random.default_rng(0), draws=199) for sign in (1, -1))
    assert rising.estimate == pytest.approx(1)
    assert rising.p == pytest.approx(1 / 200)
    assert falling.p == 1.0


def test_unequal_lengths_are_refused():
    """Each outcome has its predictor."""
    with pytest.raises(ValueError, match=r"received \(3,\) and \(4,\)"):
        left_out_r2([1, 2, 3], [1, 2, 3, 4])
