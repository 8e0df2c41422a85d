"""The slope of drift on alignment over prompts: Freedman-Lane by hand, error in a covariate, size and power."""

import itertools

import numpy as np
import pytest
import statsmodels.api as sm

from gradinoc.stats.regression import prompt_slope as sloping
from gradinoc.stats.regression.prompt_slope import Covariate, prompt_slope, weakest_without_one


def world(rng, kind, prompts, error):
    """Alignment, drift and measured elicitation of prompts graded from none to full inoculation, in its effects."""
    elicits, own = np.linspace(0, 1, prompts), rng.normal(0, 0.3, prompts)
    alignment = own if kind == "random" else elicits + own
    drift = {"mediated": alignment, "apart": elicits, "random": elicits}[kind]
    drift = drift + rng.normal(0, np.hypot(0.2, 0.16), prompts)
    return alignment + rng.normal(0, 0.1, prompts), drift, elicits + rng.normal(0, error, prompts)


def supported(kind, prompts, error, known, studies=200):
    """The share of studies whose slope at equal elicitation has p <= 0.05."""
    rng, found = np.random.default_rng(11), 0
    for _ in range(studies):
        alignment, drift, elicits = world(rng, kind, prompts, error)
        found += prompt_slope(alignment, drift, {"elicitation": Covariate(elicits, known)}, rng, "slope").p <= 0.05
    return found / studies


@pytest.fixture(autouse=True)
def _few_orders(monkeypatch):
    """Enough random orders for a p of 0.05."""
    monkeypatch.setattr(sloping, "RANDOM_ORDERS", 499)


def test_slope_and_interval_are_those_of_least_squares():
    """Without known error they are statsmodels', at equal covariates and raw."""
    rng = np.random.default_rng(1)
    x, y, z = rng.normal(size=(3, 12))
    for covariates, columns in (({}, [x]), ({"length": Covariate(z)}, [x, z])):
        effect = prompt_slope(x, y, covariates, rng, "slope")
        fit = sm.OLS(y, sm.add_constant(np.column_stack(columns))).fit()
        assert effect.estimate == pytest.approx(fit.params[1])
        assert (effect.low, effect.high) == pytest.approx(tuple(fit.conf_int()[1]))
        assert (effect.n, effect.unit) == (12, "prompts")


def test_the_p_is_freedman_and_lanes_over_every_order():
    """All 720 orders of six prompts, each refitted whole by statsmodels."""
    rng = np.random.default_rng(2)
    x, z = rng.normal(size=(2, 6))
    y = 0.8 * x + z + rng.normal(0, 0.5, 6)
    reduced = sm.OLS(y, sm.add_constant(z)).fit()
    full = sm.add_constant(np.column_stack([x, z]))
    observed = sm.OLS(y, full).fit().tvalues[1]
    ts = [
        sm.OLS(reduced.fittedvalues + reduced.resid[list(order)], full).fit().tvalues[1]
        for order in itertools.permutations(range(6))
    ]
    effect = prompt_slope(x, y, {"elicitation": Covariate(z)}, rng, "slope")
    assert effect.p == pytest.approx(np.mean(np.array(ts) >= observed - 1e-9))
    assert "all 720 orders" in effect.method


def test_random_orders_agree_with_all_of_them(monkeypatch):
    """Beyond the limit p is (1 + #) / (1 + K), near the exact one and never zero."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 7))
    exact = prompt_slope(x, y, {}, rng, "slope").p
    monkeypatch.setattr(sloping, "EXACT_PROMPTS", 5)
    monkeypatch.setattr(sloping, "RANDOM_ORDERS", 9_999)
    assert prompt_slope(x, y, {}, rng, "slope").p == pytest.approx(exact, abs=0.02)
    monkeypatch.setattr(sloping, "RANDOM_ORDERS", 99)
    steps = np.arange(24.0)
    assert prompt_slope(steps, steps + 0.01 * rng.normal(size=24), {}, rng, "slope").p == 0.01


def test_known_error_is_corrected_as_errors_in_variables_are():
    """With 20,000 prompts the planted slope comes back, which unequal elicitation hides: moments less their error."""
    rng = np.random.default_rng(4)
    true = rng.normal(size=20_000)
    x = true + rng.normal(0, 0.5, true.size)
    y = 0.3 * x + true
    measured = true + rng.normal(0, 0.4, true.size)
    design = np.column_stack([x, measured])
    design = design - design.mean(axis=0)
    # by hand, not through the module, whose permutation would take 20,000 x 20,000
    fit = sloping._corrected(design, y - y.mean(), np.array([0.0, 0.16]))
    naive = sloping._corrected(design, y - y.mean(), np.zeros(2))
    assert fit.slope == pytest.approx(0.3, abs=0.02)
    assert naive.slope > 0.5
    refit = sm.OLS(y - y.mean(), fit.design).fit()
    assert refit.params[0] == pytest.approx(fit.slope)


def test_the_correction_pays_for_what_it_does_not_know():
    """The corrected slope's own error is its spread over 400 studies; least squares on that column has less."""
    rng, slopes, errors, naive = np.random.default_rng(14), [], [], []
    for _ in range(400):
        true = rng.normal(size=100)
        x = true + rng.normal(0, 1, 100)
        design = np.column_stack([x, true + rng.normal(0, 0.4, 100)])
        design, y = design - design.mean(axis=0), 2 * true + rng.normal(0, 0.2, 100)
        fit = sloping._corrected(design, y - y.mean(), np.array([0.0, 0.16]))
        slopes.append(fit.slope)
        errors.append(fit.error)
        naive.append(sm.OLS(y - y.mean(), fit.design).fit().bse[0])
    assert np.mean(errors) == pytest.approx(np.std(slopes), rel=0.1)
    assert np.mean(naive) < 0.8 * np.std(slopes)


def test_elicitation_that_moves_both_is_no_slope():
    """Prompts that move alignment and drift apart: 5 % with little error, where the raw slope finds most."""
    assert supported("apart", 12, 0.05, 0.05) <= 0.08
    rng = np.random.default_rng(11)
    raw = [prompt_slope(*world(rng, "apart", 12, 0.05)[:2], {}, rng, "slope").p for _ in range(100)]
    assert np.mean(np.array(raw) <= 0.05) > 0.5


def test_error_in_elicitation_makes_no_slope_once_it_is_known():
    """Error 0.2 over 24 prompts: left alone it supports a false slope in a third of studies, corrected in few."""
    assert supported("apart", 24, 0.2, 0.0) > 0.2
    assert supported("apart", 24, 0.2, 0.2) <= 0.08


def test_alignment_random_over_prompts_is_no_slope():
    """Each prompt shifts alignment for a reason of its own: at most 5 %, within Monte-Carlo error."""
    assert supported("random", 9, 0.05, 0.05) <= 0.08


def test_a_mediated_world_is_found():
    """The referee's power: about 0.9 with 12 prompts of one run each."""
    assert supported("mediated", 12, 0.05, 0.05) >= 0.8


def test_the_interval_covers_the_slope_at_equal_elicitation():
    """No error in alignment: 95 % within Monte-Carlo error, error of elicitation corrected."""
    rng, held = np.random.default_rng(12), 0
    for _ in range(300):
        elicits = np.linspace(0, 1, 24)
        alignment = elicits + rng.normal(0, 0.3, 24)
        drift = 0.5 * alignment + 0.5 * elicits + rng.normal(0, 0.25, 24)
        measured = Covariate(elicits + rng.normal(0, 0.1, 24), 0.1)
        effect = prompt_slope(alignment, drift, {"elicitation": measured}, rng, "slope")
        held += effect.low <= 0.5 <= effect.high
    assert 0.91 <= held / 300 <= 0.985


def test_what_cannot_be_judged_says_why():
    """Too few prompts, a covariate that tells the same, one that is mostly error: NaN, and the reason as method."""
    rng = np.random.default_rng(13)
    x, y, z = rng.normal(size=(3, 6))
    three = {key: Covariate(rng.normal(size=6)) for key in ("elicitation", "length", "loss")}
    cases = [
        (prompt_slope(x, y, three, rng, "slope"), "6 prompts for 3 covariates, which take 7"),
        (prompt_slope(x, y, {"elicitation": Covariate(2 * x + 1)}, rng, "slope"), "do not vary apart"),
        (prompt_slope(x, y, {"length": Covariate(np.ones(6))}, rng, "slope"), "do not vary apart"),
        (prompt_slope(x, y, {"elicitation": Covariate(z, 2.0)}, rng, "slope"), "measure them on more questions"),
        (prompt_slope(x, np.zeros(6), {}, rng, "slope"), "drift does not vary"),
        (prompt_slope(x, 0.51 + 1e-17 * y, {}, rng, "slope"), "drift does not vary"),
    ]
    for effect, reason in cases:
        assert np.isnan([effect.estimate, effect.low, effect.p]).all()
        assert "undecidable" in effect.method
        assert reason in effect.method
    with pytest.raises(ValueError, match="as many values"):
        prompt_slope(x, y[:5], {}, rng, "slope")


def test_weakest_slope_without_a_prompt_is_that_of_statsmodels():
    """Each prompt is left out in turn, its covariates and their errors with it."""
    rng = np.random.default_rng(5)
    x, z = rng.normal(size=(2, 12))
    y = 0.8 * x + z + rng.normal(0, 0.4, 12)
    effect, place = weakest_without_one(x, y, {"length": Covariate(z, np.zeros(12))}, "slope")
    keep = [np.arange(12) != left_out for left_out in range(12)]
    fits = [sm.OLS(y[rest], sm.add_constant(np.column_stack([x, z])[rest])).fit() for rest in keep]
    lows = [fit.conf_int()[1][0] for fit in fits]
    assert (place, effect.low) == (np.argmin(lows), pytest.approx(min(lows)))
    assert (effect.n, effect.estimate) == (11, pytest.approx(fits[place].params[1]))
    assert np.isnan(effect.p)
    noisy = Covariate(z, np.r_[1.0, np.zeros(11)])
    assert weakest_without_one(x, y, {"length": noisy}, "slope")[0].low != effect.low
    few = weakest_without_one(x[:5], y[:5], {"length": Covariate(z[:5])}, "slope")[0]
    assert "undecidable" in few.method


def test_one_prompt_far_out_makes_a_p_and_no_slope_without_it():
    """14 prompts, nothing related but one that is 5 standard deviations out in alignment and drift alike."""
    rng, shown, stays = np.random.default_rng(7), 0, 0
    for _ in range(100):
        x, y = rng.normal(size=(2, 14))
        x[0], y[0] = 5, 5
        covariates = {name: Covariate(values) for name, values in zip("abc", rng.normal(size=(3, 14)), strict=True)}
        slope = prompt_slope(x, y, covariates, rng, "slope")
        shown += slope.low > 0 and slope.p <= 0.05
        stays += slope.low > 0 and slope.p <= 0.05 and weakest_without_one(x, y, covariates, "slope")[0].low > 0
    assert shown > 30
    assert stays <= 5
