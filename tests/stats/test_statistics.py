"""The statistics against published examples, independent libraries, brute force and identities."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from gradinoc.stats import clustered as clustering
from gradinoc.stats import effect as statistics
from gradinoc.stats.regression import correlation
from gradinoc.stats.regression import equal_loss as adjustment
from gradinoc.stats.regression.equal_loss import Paired

# Hours of sleep gained with two drugs, ten patients:
# Student, "The probable error of a mean", Biometrika 6 (1908), p. 20.
SLEEP = np.array(
    [[0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]]
)
FEW = settings(max_examples=40, deadline=None)
NUMBER = st.floats(-100, 100).map(lambda value: round(value, 3))
SAMPLE = st.lists(NUMBER, min_size=3, max_size=20).filter(lambda values: np.ptp(values) > 0.01)


REFUSING = {
    "mean": lambda x: statistics.mean_effect(x, "x", "examples"),
    "pair": lambda x: statistics.paired_effect([1, 2, 3], x, "x", "examples"),
    "templates": lambda x: clustering.grouped_mean(x, np.array([0, 0, 1]), "x"),
    "clusters": lambda x: statistics.clustered_mean(x, [0, 0, 1], "x", "seeds"),
    "draws": lambda x: statistics.null_p(0.0, x),
    "observed": lambda x: statistics.null_p(x[1], [0.0]),
    "auc": lambda x: statistics.auc([1, 2], x),
    "d": lambda x: statistics.cohens_d([1, 2], x),
    "pearson": lambda x: correlation.pearson([1, 2, 3], x),
    "groups": lambda x: correlation.repeated_measures(x, [1, 2, 3], [0, 0, 1], "r"),
    "examples": lambda x: Paired(np.ones((3, 2)), np.column_stack([x, x])),
}


def paired(rng, n=60, between=0.0, slope=0.0, effect=0.1, gap=0.15):
    """Two conditions on n examples: `between` is what difficulty does to alignment, `slope` what loss itself does."""
    difficulty = rng.normal(0, 0.25, n)
    loss = 2 + difficulty[:, None] - np.array([0.0, gap]) + rng.normal(0, 0.05, (n, 2))
    value = 0.3 + between * difficulty[:, None] + slope * (loss - 2 - difficulty[:, None])
    value = value + np.array([effect, 0.0]) + rng.normal(0, 0.03, (n, 2))
    return Paired(value, loss)


def test_paired_effect_gives_the_published_numbers_of_students_sleep_data():
    """Mean 1.58, t 4.0621, p 0.002833, interval 0.7001 to 2.4599 (as in R's documentation of t.test)."""
    effect = statistics.paired_effect(SLEEP[1], SLEEP[0], "sleep", "patients")
    assert effect.estimate == pytest.approx(1.58)
    assert effect.estimate / effect.standard_error == pytest.approx(4.0621, abs=5e-5)
    assert (effect.low, effect.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)
    assert effect.p == pytest.approx(0.002833, abs=5e-7)
    assert (effect.n, effect.df) == (10, 9)


@FEW
@given(SAMPLE, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_mean_effect_is_scipys_one_sample_t(values, level):
    """Estimate, interval and p at any level."""
    effect = statistics.mean_effect(values, "x", "examples", level)
    oracle = stats.ttest_1samp(values, 0)
    interval = oracle.confidence_interval(level)
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert effect.p == pytest.approx(oracle.pvalue, abs=1e-12)


def test_one_value_has_no_interval():
    """Missing is NaN: the interval and p of a single seed, and its equivalence."""
    effect = statistics.mean_effect([0.4], "x", "seeds")
    assert effect.estimate == 0.4
    assert all(math.isnan(number) for number in (effect.low, effect.high, effect.p))
    assert math.isnan(statistics.tost(effect, 0.1).p)


def test_clustered_mean_is_a_t_test_of_cluster_means():
    """Repeating every value of a cluster ten times must not narrow the interval."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(4), 5)
    values = rng.normal(0.5, 1, 20)
    effect = statistics.clustered_mean(values, clusters, "x", "seeds")
    means = values.reshape(4, 5).mean(axis=1)
    interval = stats.ttest_1samp(means, 0).confidence_interval()
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high))
    again = statistics.clustered_mean(np.repeat(values, 10), np.repeat(clusters, 10), "x", "seeds")
    assert (again.low, again.high, again.n, again.df) == pytest.approx((effect.low, effect.high, 4, 3))


@FEW
@given(SAMPLE)
def test_a_grouped_mean_of_singletons_is_the_paired_t(values):
    """Estimate, error, interval, p and df, whatever the groups are called; and without groups."""
    rng = np.random.default_rng(0)
    plain = statistics.paired_effect(values, np.zeros(len(values)), "x", "examples")
    for groups in (None, rng.permutation(len(values)) * 3):
        effect = clustering.grouped_pairs(values, np.zeros(len(values)), groups, "x")
        for field in ("estimate", "standard_error", "low", "high", "p", "df", "n"):
            assert getattr(effect, field) == pytest.approx(getattr(plain, field), rel=1e-9, abs=1e-12)


@FEW
@given(SAMPLE, st.floats(0.01, 50))
def test_tost_is_statsmodels_and_agrees_with_its_interval(values, margin):
    """The larger p of both one-sided tests; equivalent where the 90 % interval is inside."""
    tested = statistics.tost(statistics.mean_effect(values, "x", "examples"), margin)
    assert tested.p == pytest.approx(DescrStatsW(values).ttost_mean(-margin, margin)[0], abs=1e-9)
    inside = -margin < tested.low and tested.high < margin
    assert inside == (tested.p < 0.05) or tested.p == pytest.approx(0.05, abs=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("use", list(REFUSING.values()), ids=list(REFUSING))
def test_what_is_not_finite_is_refused_and_named(use, bad):
    """No row is left out in silence: the message says how many values are NaN or infinite."""
    with pytest.raises(ValueError, match=r"expected finite values, received [12] of .* NaN or infinite"):
        use(np.array([1.0, bad, 2.0]))


def test_what_is_left_within_examples_is_the_planted_effect_at_equal_loss():
    """Alignment falls by 0.1 itself and by 0.5 a nat/token of loss: 0.1 is what is left, where means differ by more."""
    pairs = paired(np.random.default_rng(8), n=400, between=0.5, slope=0.5, effect=0.1)
    assert np.subtract(*pairs.value.mean(axis=0)) > 0.14
    effect = adjustment.within_example(pairs, "adjusted")
    assert effect.low < 0.1 < effect.high, str(effect)


def test_a_constant_has_no_correlation():
    """NaN, not 0: it was not measured."""
    assert math.isnan(correlation.pearson([1, 2, 3], [0.1, 0.1, 0.1]))
    within = correlation.repeated_measures([0.1, 0.1, 0.7, 0.7], [1, 2, 3, 5], [0, 0, 1, 1], "within")
    assert math.isnan(within.estimate)
    assert math.isnan(within.p)


@pytest.mark.parametrize("tail", ["greater", "less"])
def test_stratified_p_is_a_count_over_every_arrangement(tail):
    """Three conditions in three seeds: 216 correlations by brute force."""
    rng = np.random.default_rng(0)
    x, y, strata = rng.normal(size=9), rng.normal(size=9), np.repeat([0, 1, 2], 3)
    observed = np.corrcoef(x, y)[0, 1]
    count = 0
    for orders in itertools.product(itertools.permutations(range(3)), repeat=3):
        index = np.concatenate([3 * block + np.array(order) for block, order in enumerate(orders)])
        r = np.corrcoef(x, y[index])[0, 1]
        count += r >= observed - 1e-12 if tail == "greater" else r <= observed + 1e-12
    p, how = correlation.stratified_p(x, y, strata, rng, tail)
    assert p == pytest.approx(count / 216)
    assert "216 arrangements" in how


def test_random_arrangements_agree_with_all_of_them(monkeypatch):
    """Monte Carlo within three errors of the exact p, and never zero."""
    rng = np.random.default_rng(10)
    x = np.arange(12.0)
    y, strata = x + rng.normal(0, 6, 12), np.tile([0, 1, 2], 4)
    exact, _ = correlation.stratified_p(x, y, strata, rng)
    monkeypatch.setattr(correlation, "EXACT_LIMIT", 10)
    p, how = correlation.stratified_p(x, y, strata, rng)
    assert p == pytest.approx(exact, abs=3 * math.sqrt(exact / correlation.MONTE_CARLO) + 1e-5)
    assert "random" in how
    monkeypatch.setattr(correlation, "MONTE_CARLO", 50)
    assert correlation.stratified_p(x, x, strata, rng)[0] >= 1 / 51
