"""Places among directions, leads over named ones and slopes on steering strength, by brute force and by size."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from gradinoc.stats.effect import bare
from gradinoc.stats.families import Families, compare
from gradinoc.stats.places import leads, place_among, slope_among, slope_on_strength

FIRST = np.array([True] * 5 + [False] * 3)


def test_the_place_is_the_share_of_directions_above():
    """Without error of its own, T stands where counting puts it: (1 + #) / (1 + K)."""
    rng = np.random.default_rng(1)
    nulls = rng.normal(0, 1, (200, 8))
    draws = nulls[:, :5].mean(axis=1) - nulls[:, 5:].mean(axis=1)
    exact = replace(bare("T", 0.9, 8, "prompts", "none"), standard_error=0.0)
    placed = place_among(exact, nulls, FIRST)
    assert placed.p == pytest.approx((1 + np.sum(draws >= 0.9)) / 201)
    assert (placed.n, placed.unit) == (200, "directions")


def test_its_own_error_moves_the_place_towards_the_middle():
    """Each draw gets T's t noise: the mean of tails, so a noisy T is not an outlier."""
    nulls = np.random.default_rng(2).normal(0, 1, (200, 8))
    draws = nulls[:, :5].mean(axis=1) - nulls[:, 5:].mean(axis=1)
    noisy = replace(bare("T", 2.5, 8, "prompts", "none"), standard_error=3.0, df=5.0)
    assert place_among(noisy, nulls, FIRST).p == pytest.approx((1 + stats.t.sf((2.5 - draws) / 3, 5).sum()) / 201)


def test_a_direction_of_the_null_is_seldom_an_outlier():
    """One drawn like the directions, and measured on the same prompts: p <= 0.05 in at most 5 %."""
    rng, found = np.random.default_rng(3), 0
    for _ in range(300):
        true = rng.normal(0, 1, (201, 1)) * np.where(FIRST, 0.5, -0.5) + rng.normal(0, 0.3, (201, 8))
        tables = true[:, :, None] + rng.normal(0, 1, (201, 8, 12))
        v = compare(Families({"H": tables[0, :5], "I": tables[0, 5:]}), "H", "I", "T")
        found += place_among(v, tables[1:].mean(axis=2), FIRST).p <= 0.05
    assert found / 300 <= 0.05


def test_nulls_must_fit_the_prompts():
    """Another number of prompts, or a family without any, is refused."""
    effect = replace(bare("T", 0.9, 8, "prompts", "none"), standard_error=0.0)
    with pytest.raises(ValueError, match="first family"):
        place_among(effect, np.zeros((20, 7)), FIRST)
    with pytest.raises(ValueError, match="8 of the first"):
        place_among(effect, np.zeros((20, 8)), np.ones(8, dtype=bool))


def along(rng, contrast, noise=0.05):
    """Tables of 5 harmless and 3 inoculation prompts whose true difference is `contrast`."""
    return Families({"H": contrast + rng.normal(0, noise, (5, 20)), "I": rng.normal(0, noise, (3, 20))})


def test_a_lead_is_over_both_signs_and_every_direction():
    """The estimate is min T - 2 |T(u)|, negative T(u) count alike, and p is the largest of the one-sided ones."""
    rng = np.random.default_rng(4)
    v, near, far = along(rng, 1.0), along(rng, -0.4), along(rng, 0.1)
    both = leads(v, {"near": near, "far": far}, {"H": 1.0, "I": -1.0})
    sizes = [compare(each, "H", "I", "T").estimate for each in (v, near, far)]
    assert both.estimate == pytest.approx(sizes[0] - 2 * max(abs(sizes[1]), abs(sizes[2])))
    summed = Families({key: v.values[key] + 2 * near.values[key] for key in ("H", "I")})
    effect = compare(summed, "H", "I", "T")
    assert both.p == pytest.approx(effect.p / 2)
    assert both.p < 0.01
    assert "near" in both.name


def test_a_lead_of_less_than_twice_is_none():
    """T(u) = 0.6 T(v) of either sign: p is near one, the interval below zero."""
    rng = np.random.default_rng(5)
    for sign in (1, -1):
        effect = leads(along(rng, 1.0), {"u": along(rng, 0.6 * sign)}, {"H": 1.0, "I": -1.0})
        assert effect.p > 0.99
        assert effect.high < 0


def test_a_lead_at_the_bar_is_found_in_at_most_five_per_cent():
    """T(u) exactly half of T(v), two such directions: the intersection-union test keeps its size."""
    rng, found = np.random.default_rng(6), 0
    for _ in range(300):
        others = {"u": along(rng, 0.5, 0.3), "w": along(rng, -0.5, 0.3)}
        found += leads(along(rng, 1.0, 0.3), others, {"H": 1.0, "I": -1.0}).p <= 0.05
    assert found / 300 <= 0.05


def test_no_direction_to_lead_over_is_an_error():
    """A lead over nothing would be vacuous."""
    with pytest.raises(ValueError, match="received none"):
        leads(along(np.random.default_rng(7), 1.0), {}, {"H": 1.0, "I": -1.0})


STRENGTHS = (-1.0, 0.0, 1.0, 2.0)


def test_the_slope_is_each_questions_least_squares():
    """The mean of numpy's polyfit slopes; its error is theirs, by template."""
    rng = np.random.default_rng(8)
    outcome = rng.normal(0, 1, (4, 30)) + 0.7 * np.array(STRENGTHS)[:, None]
    effect = slope_on_strength(outcome, STRENGTHS, None, "slope")
    slopes = np.polyfit(STRENGTHS, outcome, 1)[0]
    assert effect.estimate == pytest.approx(slopes.mean())
    assert effect.standard_error == pytest.approx(stats.sem(slopes))
    grouped = slope_on_strength(np.repeat(outcome, 2, axis=1), STRENGTHS, np.repeat(np.arange(30), 2), "slope")
    assert grouped.standard_error == pytest.approx(effect.standard_error)
    with pytest.raises(ValueError, match="differing strengths"):
        slope_on_strength(outcome, (1.0, 1.0, 1.0, 1.0), None, "slope")


def test_a_steering_slope_is_placed_among_other_directions():
    """A steep one has the smallest p that 39 directions allow, 1/40; one like the others has none of note."""
    rng = np.random.default_rng(9)
    others = rng.normal(0, 0.1, (39, 4, 40)) + rng.normal(0, 0.2, (39, 1, 1)) * np.array(STRENGTHS)[:, None]
    steep = rng.normal(0, 0.1, (4, 40)) + 3 * np.array(STRENGTHS)[:, None]
    assert slope_among(steep, others, STRENGTHS, None, "slope").p == pytest.approx(1 / 40, abs=1e-6)
    assert slope_among(others[0], others, STRENGTHS, None, "slope").p > 0.05
    assert slope_among(steep, others, STRENGTHS, None, "slope").low > 0
