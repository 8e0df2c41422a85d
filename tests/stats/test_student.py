"""Student's t by special functions is that of `scipy.stats`, to the last bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from gradinoc.stats import student


@pytest.mark.parametrize("df", [1.0, 2.5, 40.0, math.inf, math.nan])
def test_tails_and_quantiles_are_those_of_scipy(df):
    """Zeros, infinities and NaN included."""
    values = np.array([0.0, -0.0, 1e-300, 1.3, -2.2, 50.0, math.inf, -math.inf, math.nan])
    np.testing.assert_array_equal(student.above(values, df), stats.t.sf(values, df))
    for chance in (0.5, 0.9, 0.975):
        np.testing.assert_array_equal(student.quantile(chance, df), stats.t.ppf(chance, df))
