"""Correlations and their permutations, against published examples and by roads that the project does not take."""

import math

import numpy as np
import pytest
from scipy import stats

from gradinoc.stats.regression import correlation

# Crossed minus self-fertilised maize, eighths of an inch:
# Darwin's data in Fisher, "The Design of Experiments" (1935), III.
MAIZE = np.array([49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48])
# Intramural pH and arterial pCO2 of eight subjects:
# Bland and Altman, "Calculating correlation coefficients with repeated observations", BMJ 310 (1995), p. 446.
SUBJECTS = np.repeat(np.arange(8), (4, 4, 9, 5, 8, 6, 3, 8))
PH = np.array(
    [6.68, 6.53, 6.43, 6.33, 6.85, 7.06, 7.13, 7.17, 7.40, 7.42, 7.41, 7.37, 7.34, 7.35, 7.28, 7.30, 7.34, 7.36, 7.33,
     7.29, 7.30, 7.35, 7.35, 7.30, 7.30, 7.37, 7.27, 7.28, 7.32, 7.32, 7.38, 7.30, 7.29, 7.33, 7.31, 7.33, 6.86, 6.94,
     6.92, 7.19, 7.29, 7.21, 7.25, 7.20, 7.19, 6.77, 6.82]
)  # fmt: skip
PCO2 = np.array(
    [3.97, 4.12, 4.09, 3.97, 5.27, 5.37, 5.41, 5.44, 5.67, 3.64, 4.32, 4.73, 4.96, 5.04, 5.22, 4.82, 5.07, 5.67, 5.10,
     5.53, 4.75, 5.51, 4.28, 4.44, 4.32, 3.23, 4.46, 4.72, 4.75, 4.99, 4.78, 4.73, 5.12, 4.93, 5.03, 4.93, 6.85, 6.44,
     6.52, 5.28, 4.56, 4.34, 4.32, 4.41, 3.69, 6.09, 5.58]
)  # fmt: skip
# Anscombe, "Graphs in statistical analysis", American Statistician 27 (1973): x of the first three, y; the fourth.
X123 = (10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5)
ANSCOMBE = (
    (X123, (8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68)),
    (X123, (9.14, 8.14, 8.74, 8.77, 9.26, 8.10, 6.13, 3.10, 9.13, 7.26, 4.74)),
    (X123, (7.46, 6.77, 12.74, 7.11, 7.81, 8.84, 6.08, 5.39, 8.15, 6.42, 5.73)),
    ((8, 8, 8, 8, 8, 8, 8, 19, 8, 8, 8), (6.58, 5.76, 7.71, 8.84, 8.47, 7.04, 5.25, 12.50, 5.56, 7.91, 6.89)),
)


def test_permutation_within_pairs_gives_fishers_count_for_darwins_maize():
    """Of 32,768 signs of the 15 differences 863 reach the sum of 314, 835 exceed it (Design of Experiments, 21)."""
    side, value = np.tile([1, 0], 15), np.column_stack([MAIZE, np.zeros(15)]).ravel()
    pair = np.repeat(np.arange(15), 2)
    upper, how = correlation.stratified_p(side, value, pair, np.random.default_rng(0))
    assert upper == 863 / 32768
    assert "exact" in how
    lower, _ = correlation.stratified_p(side, value, pair, np.random.default_rng(0), tail="less")
    assert lower == (32768 - 835) / 32768


def test_both_correlations_of_runs_have_their_own_arrangements():
    """One stratum: r, rank r, p by SciPy's pairings, interval by SciPy's Fisher z."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=6), np.round(rng.normal(size=6), 1)
    first, ranks = correlation.stratified_correlation(x, y, np.zeros(6), rng, "r")
    options = {"permutation_type": "pairings", "alternative": "greater", "n_resamples": np.inf}
    for effect, test in ((first, stats.pearsonr), (ranks, stats.spearmanr)):
        oracle = stats.permutation_test((y,), lambda moved, test=test: test(x, moved).statistic, **options)
        assert (effect.estimate, effect.p) == pytest.approx((test(x, y).statistic, oracle.pvalue))
    assert (first.low, first.high) == pytest.approx(tuple(stats.pearsonr(x, y).confidence_interval()))
    assert math.isnan(ranks.low)


@pytest.mark.parametrize("index", range(4))
def test_pearson_gives_anscombes_four_equal_correlations(index):
    """All are 0.816 to within a thousandth, as published; SciPy has the other digits."""
    x, y = ANSCOMBE[index]
    assert correlation.pearson(x, y) == pytest.approx(0.816, abs=1e-3)
    assert correlation.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)


def test_fisher_interval_gives_a_documented_table():
    """30 points (the example of CorCI in R's DescTools), two decimals; and SciPy's at other levels."""
    table = {0.0: (-0.36, 0.36), 0.2: (-0.17, 0.52), 0.5: (0.17, 0.73), 0.7: (0.45, 0.85), 0.9: (0.80, 0.95)}
    for r, bounds in table.items():
        assert correlation.fisher_interval(r, 30) == pytest.approx(bounds, abs=0.005)
    x, y = ANSCOMBE[0]
    for level in (0.8, 0.9, 0.99):
        oracle = stats.pearsonr(x, y).confidence_interval(level)
        assert correlation.fisher_interval(correlation.pearson(x, y), 11, level) == pytest.approx(tuple(oracle))
    assert correlation.fisher_interval(1.0, 9) == (1.0, 1.0)
    assert math.isnan(correlation.fisher_interval(0.5, 3)[0])


def test_repeated_measures_gives_the_published_numbers_of_bland_and_altman():
    """Within subjects r -0.51, p 0.0008 as published; digits and corrected interval as in R's rmcorr 0.7.0."""
    effect = correlation.repeated_measures(PH, PCO2, SUBJECTS, "pH and pCO2")
    assert (effect.estimate, effect.p) == pytest.approx((-0.5067697, 0.0008471081), rel=1e-6)
    assert (effect.low, effect.high) == pytest.approx((-0.7067146, -0.2318631), abs=5e-8)
    assert (effect.n, "df 38" in effect.method) == (47, True)
