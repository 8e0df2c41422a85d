"""Ratios with an uncertain denominator: Fieller's closed form, bounds, coverage; and measures compared."""

import numpy as np
import pytest
from scipy import stats

from gradinoc.stats.families import Families, contrast
from gradinoc.stats.shares.agreement import ranks_agree, shares_apart
from gradinoc.stats.shares.ratios import combine, ratio, share_removed

OVER, UNDER = {"H": 1.0, "I": -1.0}, {"neutral": 1.0}


def study(rng, sizes, means, prompt=0.1, run=0.04):
    """Drift of families with these true means: rows of neutral are runs, of others prompts; 64 questions, 26 templates.

    A template takes part in the drift of all in proportion, and of each family by itself.
    """
    groups = np.sort(np.concatenate([np.arange(26), rng.integers(0, 26, 38)]))
    common = rng.normal(0, 0.2, 26)
    tables = {}
    for key, size in sizes.items():
        cell = means[key] * (1 + common) + rng.normal(0, 0.1, 26) + rng.normal(0, 0.1, (size, 26))
        spread = run if key == "neutral" else prompt
        tables[key] = rng.normal(0, spread, (size, 1)) + cell[:, groups] + rng.normal(0, 0.3, (size, 64))
    return Families(tables, groups)


def test_the_interval_is_fiellers_closed_form():
    """With one question, no shared family and many prompts it is the textbook's quadratic."""
    rng = np.random.default_rng(1)
    over, under = rng.normal(1, 1, (4000, 1)), rng.normal(3, 1, (4000, 1))
    effect = ratio(Families({"a": over, "b": under}), {"a": 1.0}, {"b": 1.0}, "share")
    m, d, vm, vd = over.mean(), under.mean(), over.var(ddof=1) / 4000, under.var(ddof=1) / 4000
    t = stats.norm.ppf(0.975)
    low, high = np.sort(np.roots([d * d - t * t * vd, -2 * m * d, m * m - t * t * vm]))
    assert (effect.low, effect.high) == pytest.approx((low, high), rel=2e-3)
    assert effect.estimate == pytest.approx(m / d)


def test_a_bound_is_where_the_contrast_leaves_zero():
    """At each bound numerator - r x denominator has p 0.05; inside it has more, outside less; so for the bar's p."""
    families = study(np.random.default_rng(2), {"H": 5, "I": 3, "neutral": 3}, {"H": 0.5, "I": 0.2, "neutral": 0.6})
    effect = ratio(families, OVER, UNDER, "iota", bar=0.25)
    p = lambda r: contrast(families, combine(OVER, UNDER, r), "c").p
    assert p(effect.low) == pytest.approx(0.05, abs=1e-6)
    assert p(effect.high) == pytest.approx(0.05, abs=1e-6)
    assert p(effect.low - 0.01) < 0.05 < p(effect.low + 0.01)
    assert effect.p == p(0.25)
    assert effect.low < effect.estimate < effect.high


def test_a_denominator_that_may_be_zero_gives_no_interval():
    """NaN and the reason, near zero and below it; the estimate stays."""
    for neutral in (0.02, -0.6):
        families = study(
            np.random.default_rng(3), {"H": 5, "I": 3, "neutral": 3}, {"H": 0.5, "I": 0.2, "neutral": neutral}
        )
        effect = ratio(families, OVER, UNDER, "iota")
        assert np.isnan([effect.low, effect.high, effect.p]).all()
        assert np.isfinite(effect.estimate)
        assert "may be zero" in effect.method


def test_a_single_run_gives_no_interval():
    """One neutral run, or one inoculation prompt: NaN, and which."""
    means = {"H": 0.5, "I": 0.2, "neutral": 0.6}
    one_run = study(np.random.default_rng(4), {"H": 5, "I": 3, "neutral": 1}, means)
    assert "single prompt of neutral" in ratio(one_run, OVER, UNDER, "iota").method
    one_prompt = study(np.random.default_rng(4), {"H": 5, "I": 1, "neutral": 3}, means)
    assert "single prompt of I" in ratio(one_prompt, OVER, UNDER, "iota").method
    assert np.isnan(ratio(one_prompt, OVER, UNDER, "iota").low)


def test_without_error_the_interval_is_the_point():
    """Constant tables: low = estimate = high."""
    families = Families({"H": np.full((5, 8), 0.5), "I": np.full((3, 8), 0.2), "neutral": np.full((3, 8), 0.6)})
    effect = ratio(families, OVER, UNDER, "iota")
    assert effect.low == effect.estimate == effect.high == pytest.approx(0.5)


@pytest.mark.parametrize("sizes", [{"H": 5, "I": 3, "neutral": 3}, {"H": 6, "I": 6, "neutral": 3}])
@pytest.mark.parametrize("neutral", [0.6, 0.15])
def test_the_interval_covers_and_its_bounds_seldom_mislead(sizes, neutral):
    """In 5 % of studies, within Monte-Carlo error, an interval misses; at the bar, half of these lie above.

    Where the denominator is near zero, some have none: those are no misses.
    """
    rng, missed, above, exist = np.random.default_rng(5), 0, 0, 0
    for _ in range(250):
        families = study(rng, sizes, {"H": 0.5, "I": 0.5 - 0.25 * neutral, "neutral": neutral})
        effect = ratio(families, OVER, UNDER, "iota", bar=0.25)
        exist += np.isfinite(effect.low)
        missed += effect.low > 0.25 or effect.high < 0.25
        above += effect.low >= 0.25
    assert (exist == 250) == (neutral == 0.6)
    assert 0.01 <= missed / 250 <= 0.09
    assert above / 250 <= 0.05


def test_share_removed_is_one_less_the_ratio_of_means():
    """Prompts that stop everything remove 1, that change nothing 0."""
    families = Families({"I": np.full((3, 4), 0.15), "neutral": np.full((3, 4), 0.6)})
    assert share_removed(families, "I", "neutral", "share").estimate == pytest.approx(0.75)


def test_measures_that_say_the_same_are_not_apart():
    """A measure and its double have the same share, without error; another's difference is that of the two shares."""
    rng = np.random.default_rng(6)
    one = study(rng, {"I": 3, "neutral": 3}, {"I": 0.1, "neutral": 0.6})
    double = Families({key: 2 * table for key, table in one.values.items()}, one.groups)
    other = study(rng, {"I": 3, "neutral": 3}, {"I": 0.4, "neutral": 0.5})
    other = Families(other.values, one.groups)
    widest, *rest = shares_apart({"score": one, "double": double, "other": other}, "I", "neutral")
    assert "other" in widest.name
    shares = [share_removed(each, "I", "neutral", "s").estimate for each in (one, other)]
    assert abs(widest.estimate) == pytest.approx(shares[0] - shares[1])
    assert rest[-1].estimate == pytest.approx(0, abs=1e-12)
    assert rest[-1].high == pytest.approx(0, abs=1e-9)


def test_the_difference_of_shares_covers():
    """Two measures of three prompts and three runs that share their noise in part: 95 % within Monte-Carlo error."""
    rng, held = np.random.default_rng(7), 0
    means = {"I": 0.2, "neutral": 0.6}
    for _ in range(300):
        one = study(rng, {"I": 3, "neutral": 3}, means)
        other = study(rng, {"I": 3, "neutral": 3}, {"I": 0.8, "neutral": 2.0}, prompt=0.2)
        mixed = Families({key: other.values[key] + one.values[key] - means[key] for key in means}, one.groups)
        effect = shares_apart({"score": one, "log-odds": mixed}, "I", "neutral")[0]
        held += effect.low <= 1 - 0.2 / 0.6 - (1 - 0.8 / 2.0) <= effect.high
    assert 0.91 <= held / 300 <= 0.99


def test_measures_without_a_share_are_no_agreement():
    """A baseline that may be zero: NaN with the measure's name; other questions: refused."""
    rng = np.random.default_rng(8)
    one = study(rng, {"I": 3, "neutral": 3}, {"I": 0.1, "neutral": 0.6})
    none = Families(study(rng, {"I": 3, "neutral": 3}, {"I": 0.0, "neutral": 0.0}).values, one.groups)
    effect = shares_apart({"score": one, "log-odds": none}, "I", "neutral")[0]
    assert np.isnan(effect.low)
    assert "log-odds" in effect.method
    with pytest.raises(ValueError, match="same prompts"):
        shares_apart(
            {"score": one, "log-odds": Families({"I": np.ones((2, 64)), "neutral": np.ones((3, 64))})}, "I", "neutral"
        )
    with pytest.raises(ValueError, match="two measures"):
        shares_apart({"score": one}, "I", "neutral")


def test_the_smallest_rank_correlation_is_told():
    """Of three measures, ties at mean rank, the pair that agrees least; against scipy."""
    rng = np.random.default_rng(9)
    score = rng.integers(0, 4, 12).astype(float)
    measures = {"score": score, "expected": score + rng.normal(0, 0.5, 12), "log-odds": rng.normal(0, 1, 12)}
    effect = ranks_agree(measures)
    pairs = [("score", "expected"), ("score", "log-odds"), ("expected", "log-odds")]
    assert effect.estimate == pytest.approx(min(stats.spearmanr(measures[a], measures[b]).statistic for a, b in pairs))
    assert effect.low < effect.estimate < effect.high
    constant = ranks_agree({**measures, "floor": np.zeros(12)})
    assert np.isnan(constant.estimate)
    assert "same everywhere" in constant.method
