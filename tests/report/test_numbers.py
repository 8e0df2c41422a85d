"""Numbers of figures and tables tolerate what a claim would refuse."""

from __future__ import annotations

import numpy as np
import pytest

from gradinoc.report.numbers import correlation, mean_interval


def test_correlation_leaves_out_missing_pairs():
    """Pearson's r as NumPy has it; NaN where a side does not vary."""
    x = np.random.default_rng(3).normal(size=12)
    y = x**2 + x
    assert correlation([*x, np.nan], [*y, 1.0]) == (pytest.approx(np.corrcoef(x, y)[0, 1]), 12)
    assert np.isnan(correlation([1, 1, 1], [1, 2, 3])[0])


def test_mean_of_one_value_has_no_interval():
    """One seed says where, not how surely; none says nothing."""
    mean = mean_interval([0.5, float("nan")])
    assert (mean.estimate, mean.n) == (0.5, 1)
    assert np.isnan(mean.low)
    assert mean_interval([]).n == 0
