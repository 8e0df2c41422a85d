"""The statistics once more, against published worked examples and by roads that the project does not take itself.

Where `test_statistics` has an oracle of the same making (statsmodels' own sandwich for a sandwich), another stands
here: sums over all pairs, refits without one example, generalised estimating equations, every arrangement of a table.
"""

import itertools
import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import integrate, stats

from gradinoc.stats import clustered as clustering
from gradinoc.stats import effect as statistics
from gradinoc.stats.regression import equal_loss as adjustment
from gradinoc.stats.regression.equal_loss import Paired

# Hours of sleep gained with two drugs, ten patients:
# Student, "The probable error of a mean", Biometrika 6 (1908), p. 20.
SLEEP = np.array(
    [[0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]]
)
# CT images by rating, 1 (definitely normal) to 5 (definitely abnormal):
# Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 143 (1982), table 1.
RATED_NORMAL, RATED_ABNORMAL = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)


def grouped_pairs(seed, n=40, groups=9):
    """Two conditions on n examples that come in unequal groups, whose losses overlap in part."""
    rng = np.random.default_rng(seed)
    loss = 2 + rng.normal(0, 0.3, (n, 1)) + rng.normal(0, 0.1, (n, 2)) - np.array([0.0, 0.2])
    member = rng.integers(0, groups, n)
    value = 0.3 + 0.2 * (loss - 2) + rng.normal(0, 0.1, groups)[member, None] + rng.normal(0, 0.05, (n, 2))
    return Paired(value, loss, member)


def by_estimating_equations(values, design, clusters):
    """First coefficient and its CR1 error: statsmodels' GEE sandwich, times the small-sample factor it leaves out."""
    fit = sm.GEE(values, design, groups=clusters).fit()
    g, (n, k) = len(np.unique(clusters)), design.shape
    return fit.params[0], fit.bse[0] * math.sqrt(g / (g - 1) * (n - 1) / (n - k))


def assert_is(effect, estimate, error, df):
    """Estimate, error, 95 % interval and p of a t with df degrees of freedom."""
    assert (effect.estimate, effect.standard_error, effect.df) == pytest.approx((estimate, error, df), rel=1e-6)
    law = stats.t(df, loc=estimate, scale=error)
    assert (effect.low, effect.high) == pytest.approx(law.interval(0.95), rel=1e-6)
    assert effect.p == pytest.approx(2 * min(law.cdf(0), law.sf(0)), rel=1e-5)


def test_null_p_is_scipys_monte_carlo_test():
    """The same draws, handed to SciPy as the null's."""
    draws = np.random.default_rng(2).normal(0, 1, 39)
    for observed in (-3.0, 0.1, draws[7], 3.0):
        oracle = stats.monte_carlo_test(
            [observed], lambda size: draws[: size[0], None], np.mean, n_resamples=39, alternative="greater"
        )
        assert statistics.null_p(observed, draws) == pytest.approx(oracle.pvalue)


def test_noisy_null_p_adds_tails_found_by_quadrature():
    """Every draw's share is the area of the t density beyond the observed value."""
    effect = statistics.mean_effect(SLEEP[1] - SLEEP[0], "sleep", "patients")
    draws = (-0.5, 0.2, 1.0, 1.9)
    tails = [
        integrate.quad(stats.t(effect.df, loc=draw, scale=effect.standard_error).pdf, effect.estimate, np.inf)[0]
        for draw in draws
    ]
    assert statistics.noisy_null_p(effect, draws) == pytest.approx((1 + sum(tails)) / 5, abs=1e-8)
    exact = statistics.mean_effect([0.5, 0.5], "T(v)", "examples")  # without an error it is the plain count
    assert statistics.noisy_null_p(exact, draws) == statistics.null_p(0.5, draws)


def test_auc_gives_the_published_area_of_hanley_and_mcneil():
    """It is 0.893, ties counting half."""
    normal, abnormal = (np.repeat(range(1, 6), counts) for counts in (RATED_NORMAL, RATED_ABNORMAL))
    assert statistics.auc(abnormal, normal) == pytest.approx(0.893, abs=5e-4)
    assert statistics.auc(normal, abnormal) == pytest.approx(1 - statistics.auc(abnormal, normal))


def test_cohens_d_of_the_sleep_data_is_the_one_that_r_gives():
    """Both drugs as independent groups: -0.8321811 by cohens_d of R's effectsize."""
    assert statistics.cohens_d(*SLEEP) == pytest.approx(-0.8321811, abs=5e-8)


def test_grouped_mean_is_a_sum_over_every_pair_of_one_group():
    """The variance written as a double loop over examples, and by estimating equations."""
    pairs = grouped_pairs(4)
    values, groups, n = pairs.value[:, 0], pairs.groups, 40
    rest = values - values.mean()
    total = sum(rest[i] * rest[j] for i in range(n) for j in range(n) if groups[i] == groups[j])
    g = len(np.unique(groups))
    effect = clustering.grouped_mean(values, groups, "x")
    assert_is(effect, values.mean(), math.sqrt(total * g / (g - 1)) / n, g - 1)
    assert_is(effect, *by_estimating_equations(values, np.ones((n, 1)), groups), g - 1)
    both = clustering.grouped_pairs(values, pairs.value[:, 1], groups, "x")
    assert_is(both, *by_estimating_equations(values - pairs.value[:, 1], np.ones((n, 1)), groups), g - 1)


def test_within_example_errors_are_refits_without_one_example():
    """HC3 is the sum of squared changes of the intercept as each example is left out; with groups, GEE."""
    pairs = grouped_pairs(5, n=15, groups=6)
    y, x = pairs.value[:, 0] - pairs.value[:, 1], pairs.loss[:, 0] - pairs.loss[:, 1]
    whole = stats.linregress(x, y).intercept
    changes = [stats.linregress(np.delete(x, i), np.delete(y, i)).intercept - whole for i in range(15)]
    assert_is(adjustment.within_example(Paired(pairs.value, pairs.loss), "x"), whole, math.hypot(*changes), 13)
    g = len(np.unique(pairs.groups))
    design = np.column_stack([np.ones(15), x])
    assert_is(adjustment.within_example(pairs, "x"), *by_estimating_equations(y, design, pairs.groups), g - 1)


def test_what_a_regression_cannot_tell_is_missing():
    """A collinear design, one cluster, fewer than four examples, a loss difference that never changes: NaN."""
    value, ones = np.array([1.0, 2.0, 4.0, 3.0]), np.ones(4)
    for design, clusters in ((np.column_stack([ones, ones]), range(4)), (ones[:, None], np.zeros(4))):
        assert math.isnan(clustering.clustered_ols(value, design, clusters, "x").estimate)
    assert math.isnan(clustering.grouped_mean(value, np.zeros(4), "x").low)
    few, level = np.arange(6.0).reshape(3, 2), np.column_stack([value, value + 0.5])
    for pairs in (Paired(few, few**2), Paired(level, level)):
        assert math.isnan(adjustment.within_example(pairs, "x").estimate)


@pytest.mark.parametrize("questions", [2, 7])
def test_split_half_cosine_is_the_mean_over_every_split(questions):
    """Of a few questions every split can be listed; 20,000 random ones are within their Monte-Carlo error."""
    rows = np.random.default_rng(7).normal(0.5, 1, (questions, 6))
    every = []
    for half in itertools.combinations(range(questions), questions // 2):
        one, other = rows[list(half)].mean(axis=0), np.delete(rows, half, axis=0).mean(axis=0)
        every.append(one @ other / np.sqrt((one @ one) * (other @ other)))
    found = statistics.split_half_cosine(rows, np.random.default_rng(8), 20_000)
    assert found == pytest.approx(np.mean(every), abs=4 * np.std(every) / math.sqrt(20_000) + 1e-12)
