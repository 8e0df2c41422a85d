"""The statistics against published examples, independent libraries, brute force and identities."""

import itertools
import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from gradinoc.stats import clustered as clustering
from gradinoc.stats import correlation
from gradinoc.stats import effect as statistics
from gradinoc.stats import equal_loss as adjustment
from gradinoc.stats.equal_loss import Paired

# Hours of sleep gained with two drugs, ten patients:
# Student, "The probable error of a mean", Biometrika 6 (1908), p. 20.
SLEEP = np.array(
    [[0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0], [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]]
)
# Crossed minus self-fertilised maize, eighths of an inch:
# Darwin's data in Fisher, "The Design of Experiments" (1935), III.
MAIZE = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48])
# Anscombe, "Graphs in statistical analysis", American Statistician 27 (1973), data set 1.
ANSCOMBE = np.array(
    [[10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5], [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]]
)

FEW = settings(max_examples=40, deadline=None)
NUMBER = st.floats(-100, 100).map(lambda value: round(value, 3))
SAMPLE = st.lists(NUMBER, min_size=3, max_size=20).filter(lambda values: np.ptp(values) > 0.01)


REFUSING = {
    "mean": lambda x: statistics.mean_effect(x, "x", "examples"),
    "pair": lambda x: statistics.paired_effect([1, 2, 3], x, "x", "examples"),
    "templates": lambda x: clustering.grouped_mean(x, np.array([0, 0, 1]), "x"),
    "clusters": lambda x: statistics.clustered_mean(x, [0, 0, 1], "x", "seeds"),
    "series": lambda x: statistics.serial_mean(x, "x", "steps"),
    "draws": lambda x: statistics.null_p(0.0, x),
    "observed": lambda x: statistics.null_p(x[1], [0.0]),
    "auc": lambda x: statistics.auc([1, 2], x),
    "d": lambda x: statistics.cohens_d([1, 2], x),
    "overlap": lambda x: statistics.overlap([1, 2], x),
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


def test_mean_effect_gives_fishers_t_for_darwins_maize():
    """The t is 2.148 with 14 degrees of freedom, mean 314 / 15."""
    effect = statistics.mean_effect(MAIZE, "height", "pairs")
    assert effect.estimate == pytest.approx(314 / 15)
    assert effect.estimate / effect.standard_error == pytest.approx(2.148, abs=5e-4)
    assert effect.p == pytest.approx(stats.ttest_1samp(MAIZE, 0).pvalue)


@FEW
@given(SAMPLE, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_mean_effect_is_scipys_one_sample_t(values, level):
    """Estimate, interval and p at any level."""
    effect = statistics.mean_effect(values, "x", "examples", level)
    oracle = stats.ttest_1samp(values, 0)
    interval = oracle.confidence_interval(level)
    assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert effect.p == pytest.approx(oracle.pvalue, abs=1e-12)


@FEW
@given(SAMPLE, NUMBER, st.floats(0.1, 10))
def test_a_mean_moves_and_stretches_with_its_values(values, shift, scale):
    """Adding a number moves estimate and interval by it; a factor multiplies them; p is free of the factor."""
    plain = statistics.mean_effect(values, "x", "examples")
    moved = statistics.mean_effect(scale * np.array(values) + shift, "x", "examples")
    expected = [scale * number + shift for number in (plain.estimate, plain.low, plain.high)]
    assert (moved.estimate, moved.low, moved.high) == pytest.approx(tuple(expected), abs=1e-6)
    assert statistics.mean_effect(scale * np.array(values), "x", "examples").p == pytest.approx(plain.p, abs=1e-9)


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


def test_a_grouped_mean_is_statsmodels_regression_on_a_constant():
    """Unequal groups; cov_type="cluster" with its corrections, t with groups - 1; one group has no interval."""
    rng = np.random.default_rng(13)
    groups = rng.integers(0, 9, 50)
    values = rng.normal(0.3, 1, 50) + rng.normal(0, 1, 9)[groups]
    effect = clustering.grouped_mean(values, groups, "x")
    fit = sm.OLS(values, np.ones(50)).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    assert (effect.estimate, effect.standard_error) == pytest.approx((fit.params[0], fit.bse[0]))
    assert (effect.low, effect.high) == pytest.approx(tuple(fit.conf_int()[0]))
    assert (effect.p, effect.df, effect.n) == (pytest.approx(fit.pvalues[0]), 8, 50)
    assert "clustered by template, 9 groups" in effect.method
    alone = clustering.grouped_mean(values, np.zeros(50), "x")
    assert math.isnan(alone.low)
    assert math.isnan(statistics.tost(alone, 0.1).p)


def test_a_grouped_interval_covers_the_truth_where_groups_share_an_effect():
    """400 samples of 96 in 16 groups, intraclass correlation 0.5: 93 to 97 %; as if independent, far fewer."""
    rng = np.random.default_rng(14)
    groups = np.arange(96) % 16
    covered = np.zeros(2)
    for _ in range(400):
        values = rng.normal(0, 1, 16)[groups] + rng.normal(0, 1, 96)
        for i, labels in enumerate((groups, None)):
            effect = clustering.grouped_mean(values, labels, "x")
            covered[i] += effect.low <= 0 <= effect.high
    assert 0.93 <= covered[0] / 400 <= 0.97, covered / 400
    assert covered[1] / 400 < 0.8, covered / 400


def test_adjustments_are_clustered_by_group_where_there_are_groups():
    """Each against statsmodels; groups of one example change ANCOVA and bins in nothing."""
    pairs = paired(np.random.default_rng(15), n=60, slope=0.5)
    groups = np.arange(60) % 10
    grouped = Paired(pairs.value, pairs.loss, groups)
    value, loss = pairs.value[:, 0] - pairs.value[:, 1], pairs.loss[:, 0] - pairs.loss[:, 1]
    options = {"cov_type": "cluster", "cov_kwds": {"groups": groups}, "use_t": True}
    fit = sm.OLS(value, sm.add_constant(loss)).fit(**options)
    within = adjustment.within_example(grouped, "within")
    assert (within.estimate, within.low, within.df) == pytest.approx((fit.params[0], fit.conf_int()[0, 0], 9))
    keep = pairs.common
    example, column = np.nonzero(keep)
    design = np.column_stack([column == 0, pairs.loss[keep], np.ones(len(column))]).astype(float)
    options["cov_kwds"] = {"groups": groups[example]}
    fit = sm.OLS(pairs.value[keep], design).fit(**options)
    ancova = adjustment.ancova(grouped, "ANCOVA")
    assert (ancova.estimate, ancova.low, ancova.df) == pytest.approx((fit.params[0], fit.conf_int()[0, 0], 9))
    alone = Paired(pairs.value, pairs.loss, np.arange(60))
    for estimator in (adjustment.raw_contrast, adjustment.ancova, adjustment.binned):
        assert "clustered by template, 10 groups" in estimator(grouped, "x").method
        one, plain = estimator(alone, "x"), estimator(pairs, "x")
        assert (one.estimate, one.standard_error, one.df, one.n) == pytest.approx(
            (plain.estimate, plain.standard_error, plain.df, plain.n)
        )
    with pytest.raises(ValueError, match="one group for each of 60 examples"):
        Paired(pairs.value, pairs.loss, np.arange(3))


def test_serial_mean_is_newey_wests():
    """Bartlett weights on the autocovariances, written out."""
    series = np.cumsum(np.random.default_rng(1).normal(0, 1, 27))
    rest = series - series.mean()
    long_run = rest @ rest / 27
    for lag in (1, 2, 3):
        long_run += 2 * (1 - lag / 4) * (rest[lag:] @ rest[:-lag]) / 27
    effect = statistics.serial_mean(series, "x", "steps")
    assert effect.standard_error == pytest.approx(math.sqrt(long_run / 27 * 27 / 26))
    assert effect.standard_error > 1.3 * statistics.mean_effect(series, "x", "steps").standard_error


@FEW
@given(SAMPLE, st.floats(0.01, 50))
def test_tost_is_statsmodels_and_agrees_with_its_interval(values, margin):
    """The larger p of both one-sided tests; equivalent where the 90 % interval is inside."""
    tested = statistics.tost(statistics.mean_effect(values, "x", "examples"), margin)
    assert tested.p == pytest.approx(DescrStatsW(values).ttost_mean(-margin, margin)[0], abs=1e-9)
    inside = -margin < tested.low and tested.high < margin
    assert inside == (tested.p < 0.05) or tested.p == pytest.approx(0.05, abs=1e-6)


@FEW
@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(0, 6))
def test_null_p_counts_ties_and_the_observed_value(draws, observed):
    """(1 + #{draws >= observed}) / (1 + K), by a loop; never zero."""
    count = 1
    for draw in draws:
        count += draw >= observed
    assert statistics.null_p(observed, draws) == count / (1 + len(draws))
    assert statistics.null_p(observed, draws) >= 1 / (1 + len(draws))


def test_noisy_null_p_adds_the_sampling_error_to_every_draw():
    """Against simulation; without an error it is the plain count."""
    rng = np.random.default_rng(2)
    draws = rng.normal(0, 1, 50)
    effect = statistics.mean_effect(rng.normal(2, 3, 12), "T(v)", "examples")
    noise = effect.standard_error * rng.standard_t(effect.df, (20_000, 50))
    simulated = np.mean(draws + noise >= effect.estimate) * 50
    assert statistics.noisy_null_p(effect, draws) == pytest.approx((1 + simulated) / 51, abs=0.003)
    exact = statistics.mean_effect([0.5, 0.5], "T(v)", "examples")
    assert statistics.noisy_null_p(exact, draws) == statistics.null_p(0.5, draws)


def test_smallest_p_of_a_design_is_one_over_its_arrangements():
    """Three seeds 0.125 by sign-flip, five 0.031; three conditions in three seeds 1 / 216."""
    assert [statistics.smallest_sign_flip_p(seeds) for seeds in (3, 5)] == [0.125, 0.03125]
    assert statistics.smallest_permutation_p([3, 3, 3]) == 1 / 216


@FEW
@given(SAMPLE, SAMPLE)
def test_auc_and_cohens_d_are_their_definitions(first, second):
    """AUC by counting pairs and by SciPy's U; d changes sign with the order, and is the t statistic rescaled."""
    wins = sum((a > b) + 0.5 * (a == b) for a, b in itertools.product(first, second))
    n, m = len(first), len(second)
    assert statistics.auc(first, second) == pytest.approx(wins / (n * m))
    assert statistics.auc(first, second) == pytest.approx(stats.mannwhitneyu(first, second).statistic / (n * m))
    d = statistics.cohens_d(first, second)
    assert d == pytest.approx(-statistics.cohens_d(second, first))
    assert d == pytest.approx(stats.ttest_ind(first, second).statistic * math.sqrt(1 / n + 1 / m))


def test_split_half_cosine_finds_a_planted_direction_and_none_in_noise():
    """Near 1 for a strong common direction, near 0 without one."""
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 1, (200, 64))
    planted = noise + 2 * np.eye(64)[0]
    assert statistics.split_half_cosine(planted, rng) > 0.8
    assert abs(statistics.split_half_cosine(noise - noise.mean(axis=0), rng) + 1) < 1e-9
    assert abs(statistics.split_half_cosine(noise, rng, 400)) < 0.35


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 2.0, 8.0])
def test_overlap_is_that_of_two_normal_distributions(shift):
    """2 Phi(-shift / 2) for unit normals, up to the kernel's smoothing; the same in either order."""
    rng = np.random.default_rng(4)
    first, second = rng.normal(0, 1, 2000), rng.normal(shift, 1, 2000)
    found = statistics.overlap(first, second)
    assert found == pytest.approx(2 * stats.norm.cdf(-shift / 2), abs=0.04)
    assert statistics.overlap(second, first) == pytest.approx(found)
    assert statistics.overlap([1, 1], [1, 1]) == 1
    assert statistics.overlap([1, 1], [2, 2]) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("use", list(REFUSING.values()), ids=list(REFUSING))
def test_what_is_not_finite_is_refused_and_named(use, bad):
    """No row is left out in silence: the message says how many values are NaN or infinite."""
    with pytest.raises(ValueError, match=r"expected finite values, received [12] of .* NaN or infinite"):
        use(np.array([1.0, bad, 2.0]))


def test_unpaired_lengths_are_refused():
    """A pair has two sides."""
    with pytest.raises(ValueError, match="as many values on both sides of a pair, received 2 and 3"):
        statistics.paired_effect([1, 2], [1, 2, 3], "x", "examples")


def test_an_effect_reads_as_a_sentence_part():
    """Estimate, interval, p, n and unit; what is missing is not spoken of."""
    effect = statistics.paired_effect(SLEEP[1], SLEEP[0], "sleep", "patients")
    assert str(effect) == "+1.58 (95 % interval +0.7 to +2.46, p 0.0028, n 10 patients)"
    assert str(statistics.bare("share", 0.25, 4, "runs", "count")) == "+0.25 (n 4 runs)"


def test_ancova_is_ols_with_a_sandwich_written_out():
    """Coefficient by least squares, CR1 variance by loops over examples, t with clusters - 1."""
    pairs = paired(np.random.default_rng(5), n=12, slope=0.5)
    keep = pairs.common
    example, column = np.nonzero(keep)
    y, loss = pairs.value[keep], pairs.loss[keep]
    design = np.column_stack([column == 0, loss, np.ones(len(y))]).astype(float)
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    residual = y - design @ beta
    bread = np.linalg.inv(design.T @ design)
    meat = np.zeros((3, 3))
    groups = np.unique(example)
    for group in groups:
        score = design[example == group].T @ residual[example == group]
        meat += np.outer(score, score)
    g, n = len(groups), len(y)
    error = math.sqrt((bread @ meat @ bread)[0, 0] * g / (g - 1) * (n - 1) / (n - 3))
    effect = adjustment.ancova(pairs, "adjusted")
    half = stats.t.ppf(0.975, g - 1) * error
    assert (effect.estimate, effect.standard_error) == pytest.approx((beta[0], error))
    assert (effect.low, effect.high, effect.n) == pytest.approx((beta[0] - half, beta[0] + half, g))


def test_bins_average_the_differences_within_them():
    """Weights n1 n2 / (n1 + n2), by a loop over bins."""
    pairs = paired(np.random.default_rng(6), n=80)
    keep = pairs.common
    y, loss, other = pairs.value[keep], pairs.loss[keep], np.nonzero(keep)[1] == 0
    edges = np.quantile(loss, [0, 0.2, 0.4, 0.6, 0.8, 1])
    total = weights = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (loss >= low) & ((loss < high) | (high == edges[-1]))
        n1, n2 = np.sum(inside & other), np.sum(inside & ~other)
        total += n1 * n2 / (n1 + n2) * (y[inside & other].mean() - y[inside & ~other].mean())
        weights += n1 * n2 / (n1 + n2)
    assert adjustment.binned(pairs, "binned", 5).estimate == pytest.approx(total / weights)


def test_within_example_is_a_regression_of_differences_with_hc3():
    """Intercept and error written out."""
    pairs = paired(np.random.default_rng(7), n=20, slope=0.5)
    y, x = pairs.value[:, 0] - pairs.value[:, 1], pairs.loss[:, 0] - pairs.loss[:, 1]
    design = np.column_stack([np.ones(20), x])
    bread = np.linalg.inv(design.T @ design)
    beta = bread @ design.T @ y
    leverage = np.einsum("ij,jk,ik->i", design, bread, design)
    meat = design.T @ (design * ((y - design @ beta) ** 2 / (1 - leverage) ** 2)[:, None])
    effect = adjustment.within_example(pairs, "within")
    assert effect.estimate == pytest.approx(beta[0])
    assert effect.standard_error == pytest.approx(math.sqrt((bread @ meat @ bread)[0, 0]))


def test_adjustments_find_a_planted_effect_at_equal_loss():
    """Alignment falls by 0.1 itself and by 0.5 a nat/token of loss: 0.1 is what is left."""
    pairs = paired(np.random.default_rng(8), n=400, between=0.5, slope=0.5, effect=0.1)
    assert adjustment.raw_contrast(pairs, "raw").estimate > 0.14
    for estimator in (adjustment.ancova, adjustment.within_example):
        effect = estimator(pairs, "adjusted")
        assert effect.low < 0.1 < effect.high, str(effect)
    assert adjustment.binned(pairs, "bins", 40).estimate == pytest.approx(0.1, abs=0.02)


def test_only_the_within_example_regression_survives_a_confounded_slope():
    """All of the fall is loss (0.6 a nat/token), but hard examples have lower alignments: ANCOVA sees an effect."""
    pairs = paired(np.random.default_rng(9), n=400, between=-0.4, slope=0.6, effect=0.0)
    assert adjustment.ancova(pairs, "ANCOVA").low > 0.05
    assert adjustment.binned(pairs, "bins").low > 0.05
    within = adjustment.within_example(pairs, "within")
    assert within.low < 0 < within.high


@FEW
@given(st.integers(0, 1000), st.floats(-5, 5), st.floats(0.1, 10))
def test_adjusted_effects_scale_with_alignment_and_ignore_its_origin(seed, shift, scale):
    """Taking scale * value + shift multiplies estimate and interval by scale."""
    pairs = paired(np.random.default_rng(seed), n=20)
    moved = Paired(scale * pairs.value + shift, pairs.loss)
    for estimator in (adjustment.ancova, adjustment.binned, adjustment.within_example):
        plain, after = estimator(pairs, "a"), estimator(moved, "b")
        assert (after.estimate, after.low) == pytest.approx((scale * plain.estimate, scale * plain.low), abs=1e-7)


def test_losses_without_a_common_range_are_refused():
    """There is nothing to compare at equal loss."""
    with pytest.raises(ValueError, match="no common range"):
        adjustment.ancova(Paired(np.ones((4, 2)), np.array([[3.0, 1.0]] * 4)), "x")


def test_pearson_gives_anscombes_published_correlation():
    """It is 0.816 for the first of the four data sets; SciPy's Fisher interval."""
    r = correlation.pearson(*ANSCOMBE)
    oracle = stats.pearsonr(*ANSCOMBE)
    assert r == pytest.approx(0.81642, abs=5e-6)
    assert correlation.fisher_interval(r, 11) == pytest.approx(tuple(oracle.confidence_interval()))
    assert correlation.spearman(*ANSCOMBE) == pytest.approx(stats.spearmanr(*ANSCOMBE).statistic)


def test_a_constant_has_no_correlation():
    """NaN, not 0: it was not measured."""
    assert math.isnan(correlation.pearson([1, 2, 3], [0.1, 0.1, 0.1]))
    within = correlation.repeated_measures([0.1, 0.1, 0.7, 0.7], [1, 2, 3, 5], [0, 0, 1, 1], "within")
    assert math.isnan(within.estimate)
    assert math.isnan(within.p)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tail", ["greater", "less"])
def test_stratified_p_is_a_count_over_every_arrangement(seed, tail):
    """Three conditions in three seeds: 216 correlations by brute force."""
    rng = np.random.default_rng(seed)
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


def test_correlation_tost_is_out_of_reach_below_32_points():
    """A correlation of exactly zero, margin 0.3."""
    for n, reached in ((31, False), (32, True)):
        effect = statistics.bare("r", 0.0, n, "runs", "Pearson")
        assert (correlation.correlation_tost(effect, 0.3).p <= 0.05) == reached
    assert correlation.smallest_equivalence_n(0.3) == 32
    assert correlation.smallest_equivalence_n(0.0) == math.inf
    wide = correlation.correlation_tost(statistics.bare("r", 0.29, 100, "runs", "Pearson"), 0.3)
    assert wide.p > 0.05


def test_repeated_measures_is_the_ancova_of_bakdash_and_marusich():
    """Correlation, df and p from statsmodels' regression with a term for every group."""
    rng = np.random.default_rng(11)
    groups = np.repeat(np.arange(4), 5)
    x = rng.normal(size=20) + groups
    y = 0.5 * x - 2 * groups + rng.normal(size=20)
    design = np.column_stack([x, groups[:, None] == np.arange(4)]).astype(float)
    full, rest = sm.OLS(y, design).fit(), sm.OLS(y, design[:, 1:]).fit()
    r = math.copysign(math.sqrt((rest.ssr - full.ssr) / rest.ssr), full.params[0])
    effect = correlation.repeated_measures(x, y, groups, "within")
    assert (effect.estimate, effect.p) == pytest.approx((r, full.pvalues[0]))
    assert "df 15" in effect.method
    assert np.corrcoef(x, y)[0, 1] < 0 < effect.estimate


def test_leave_one_out_leaves_each_group_out_once():
    """Against NumPy on what remains."""
    rng = np.random.default_rng(12)
    x, y, groups = rng.normal(size=9), rng.normal(size=9), np.tile(["a", "b", "c"], 3)
    found = correlation.leave_one_out(x, y, groups)
    assert list(found) == ["a", "b", "c"]
    for group, r in found.items():
        assert r == pytest.approx(np.corrcoef(x[groups != group], y[groups != group])[0, 1])
