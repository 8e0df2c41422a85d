"""Numbers of figures and tables are those that decide, and tolerate what a claim would refuse."""

from __future__ import annotations

import numpy as np
import pytest

from gradinoc.claims.measures import null_contrasts, per_example
from gradinoc.claims.tables import NULLS
from gradinoc.power.simulate import simulate
from gradinoc.report.numbers import contrasts, correlation, mean_interval, minus_inoculation


def test_contrasts_are_those_from_which_claims_are_judged():
    """Of the trait's direction by example, and of every random direction."""
    study = simulate("effect", np.random.default_rng(7), examples=24, layers=4, seeds=2, steps=10, directions=100)
    means = per_example(study)
    assert np.allclose(contrasts(study)["neutral"], means["neutral"] - means["inoculation"])
    nulls = minus_inoculation(study, "nulls", ["null", "draw"])["loss_matched"]
    for kind in NULLS:
        assert np.allclose(nulls.loc[kind], null_contrasts(study, kind, "loss_matched"))


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
