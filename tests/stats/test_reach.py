"""What a design can reach, against the tests themselves at their most extreme; specification curves counted."""

import math

import numpy as np
import pytest

from gradinoc.stats import families as comparing
from gradinoc.stats import reach
from gradinoc.stats.families import Families, compare, permuted_labels, rank_among
from gradinoc.stats.regression import prompt_slope as sloping
from gradinoc.stats.regression.prediction import prediction
from gradinoc.stats.regression.prompt_slope import Covariate, prompt_slope
from gradinoc.stats.specifications import summarise


@pytest.mark.parametrize(("first", "second"), [(3, 5), (1, 8), (4, 4), (6, 6)])
@pytest.mark.parametrize("tail", ["greater", "two-sided"])
def test_the_smallest_label_p_is_reached(first, second, tail):
    """By families that do not overlap, and by no others."""
    rng = np.random.default_rng(1)
    effect = permuted_labels(np.arange(first) + 50.0, np.arange(second), rng, "d", tail)
    assert effect.p == pytest.approx(reach.smallest_label_p(first, second, tail))


def test_random_labels_set_the_floor_of_large_families():
    """Beyond the limit of arrangements it is 1 / (1 + K)."""
    assert reach.smallest_label_p(10, 10) == 1 / math.comb(20, 10)
    assert reach.smallest_label_p(12, 12) == 1 / (1 + comparing.RANDOM_LABELS)


def test_a_rank_among_ten_cannot_decide():
    """The p of a place among ten is never below 1/11; nineteen are needed at 0.05."""
    best = Families({"one": np.ones((1, 5)), "H": np.zeros((10, 5))})
    assert rank_among(best, "one", "H", "place").p == pytest.approx(reach.smallest_rank_p(10)) == pytest.approx(1 / 11)
    assert reach.fewest_others(0.05) == 19
    assert reach.smallest_rank_p(19) <= 0.05 < reach.smallest_rank_p(18)


def test_the_smallest_slope_p_is_reached_or_there_is_none():
    """By a perfect line; one prompt fewer than needed, and nothing is judged."""
    x = np.arange(6.0) + np.array([0, 0.1, 0, 0.2, 0, 0])
    effect = prompt_slope(x, 2 * x + 1e-6 * np.array([1, -1, 0, 1, -1, 0]), {}, np.random.default_rng(2), "slope")
    assert effect.p == pytest.approx(reach.smallest_slope_p(6, 0))
    assert reach.smallest_slope_p(7, 3) == 1.0 > reach.smallest_slope_p(8, 3)
    assert reach.smallest_slope_p(7, 3, spare=0) == 1 / math.factorial(7)
    assert reach.smallest_slope_p(6, 3, spare=0) == 1.0
    assert reach.smallest_slope_p(24, 3) == 1 / (1 + sloping.RANDOM_ORDERS)
    assert reach.smallest_slope_p(6, 3) == 1.0
    three = {str(i): Covariate(np.random.default_rng(i).normal(size=6)) for i in range(3)}
    assert math.isnan(prompt_slope(x, x, three, np.random.default_rng(3), "slope").p)


@pytest.mark.parametrize("prompts", [5, 12])
def test_the_smallest_p_of_a_prediction_is_reached(prompts):
    """By a perfect line; of five prompts some of 999 orders are the observed one, and three leave none out."""
    x = np.arange(float(prompts)) ** 2
    found = [prediction(x, x, "R2", np.random.default_rng(seed), 999).p for seed in range(40)]
    assert np.mean(found) == pytest.approx(reach.smallest_prediction_p(prompts, 999), rel=0.2)
    assert min(found) >= 1 / 1000
    assert reach.smallest_prediction_p(3, 999) == 1.0
    assert math.isnan(prediction(x[:3], x[:3], "R2", np.random.default_rng(0), 999).p)


def test_half_widths_are_what_intervals_have():
    """The mean half-width of 500 simulated differences of 3 and 5 prompts over 26 templates, within a tenth."""
    rng, widths = np.random.default_rng(4), []
    for _ in range(500):
        cells = {key: rng.normal(0, 0.3 / np.sqrt(2), 26) for key in ("I", "H")}
        tables = {key: cells[key] + rng.normal(0, 0.1, (size, 1)) for key, size in (("I", 6), ("H", 8))}
        effect = compare(Families(tables), "I", "H", "d")
        widths.append((effect.high - effect.low) / 2)
    assert reach.half_width({"I": 6, "H": 8}, 0.1, 26, 0.3) == pytest.approx(np.mean(widths), rel=0.1)
    assert reach.half_width({"I": 1, "H": 8}, 0.1) == math.inf
    assert reach.seeds_half_width(1, 0.1) == math.inf
    assert reach.seeds_half_width(3, 0.1) == pytest.approx(4.303 * 0.1 / np.sqrt(3), rel=1e-3)


def test_prompts_narrow_and_templates_set_the_floor():
    """More prompts narrow the interval, to no less than what templates leave."""
    widths = [reach.half_width({"I": n, "H": n}, 0.1, 26, 0.2) for n in (3, 6, 12, 1000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == pytest.approx(2.06 * 0.2 / np.sqrt(26), rel=0.02)


def test_a_curve_counts_each_cell_once():
    """Shares of cells above and below zero, zero neither; agreement is with the contrast that decides."""
    cells = {("a", 0): 0.2, ("a", 1): -0.1, ("b", 0): -0.3, ("b", 1): 0.0, ("c", 0): math.nan}
    curve = summarise(cells, ("a", 1), -0.02)
    assert (curve.cells, curve.missing) == (4, 1)
    assert (curve.positive, curve.negative, curve.agreeing) == (0.25, 0.5, 0.5)
    assert curve.declared == -0.1
    assert summarise(cells, ("a", 1), 0.3).agreeing == 0.25
    assert math.isnan(summarise(cells, ("a", 1), 0.0).agreeing)
    assert math.isnan(summarise(cells, ("a", 1), math.nan).agreeing)
    assert math.isnan(summarise(cells, "not measured", 0.3).declared)
    with pytest.raises(ValueError, match="measured cell"):
        summarise({"a": math.nan}, "a", 0.3)
