"""Numbers of figures and tables tolerate what a claim would refuse."""

from __future__ import annotations

import numpy as np

from gradinoc.report.numbers import mean_interval


def test_mean_of_one_value_has_no_interval():
    """One seed says where, not how surely; none says nothing."""
    mean = mean_interval([0.5, float("nan")])
    assert (mean.estimate, mean.n) == (0.5, 1)
    assert np.isnan(mean.low)
    assert mean_interval([]).n == 0
