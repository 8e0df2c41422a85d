"""C7's rules: what is supported, refuted and left open at every criterion, by planted effects and planted studies."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gradinoc.claims.c7.c7a import C7A, by_size
from gradinoc.claims.c7.c7b import C7B
from gradinoc.claims.c7.c7c import C7C
from gradinoc.claims.evidence.sources import along
from gradinoc.claims.evidence.tables import TRAIT_DIRECTION, WHOLE
from gradinoc.claims.gates.accounts import G10
from gradinoc.claims.rules.finding import Finding, Measured, Status
from gradinoc.power.scenarios import SCENARIOS
from gradinoc.power.simulate import simulate
from gradinoc.stats.effect import bare
from gradinoc.study.rules import Rules
from gradinoc.study.settings import NULLS

RULES = Rules()
ABOVE, BELOW, AROUND, NONE = (0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (math.nan, math.nan)  # of a bar, from it
SUPPORTED, REFUTED, UNDECIDED = Status.SUPPORTED, Status.REFUTED, Status.UNDECIDED


@pytest.fixture(scope="module")
def evidence():
    """A study in which inoculation turns updates, along v by half."""
    return simulate("effect", np.random.default_rng(3), layers=3, steps=8)


def planted(evidence, table, **columns):
    """The study with columns of a table replaced."""
    return replace(evidence, **{table: evidence.tables[table].assign(**columns)})


def effect(bar, interval, p=0.001):
    """An effect whose interval lies so far from a bar."""
    low, high = (bar + each for each in interval)
    return replace(bare("effect", bar + np.mean(interval), 12, "prompts", "planted"), low=low, high=high, p=p)


# --- by planted effects


@pytest.mark.parametrize(
    ("turn", "share", "status"),
    [
        (ABOVE, ABOVE, SUPPORTED), (AROUND, ABOVE, UNDECIDED), (BELOW, ABOVE, UNDECIDED), (ABOVE, AROUND, UNDECIDED),
        (ABOVE, (0.0, 0.2), UNDECIDED), (ABOVE, (-0.2, 0.0), UNDECIDED), (ABOVE, BELOW, REFUTED),
        (AROUND, BELOW, REFUTED), (BELOW, BELOW, REFUTED), (ABOVE, NONE, UNDECIDED),
    ],
)  # fmt: skip
def test_c7a_asks_for_a_lower_cosine_and_more_than_half(turn, share, status):
    """The share alone refutes; an end that is the bar is on neither side of it."""
    found = {"turn": effect(0, turn), "share.turn": effect(RULES.turned, share), "share.size": effect(0.5, AROUND)}
    outcome = C7A.decide(Measured(found), RULES)
    assert outcome.status is status
    assert {each.key for each in outcome.criteria} == set(found)


def test_size_is_most_of_the_difference_where_its_own_share_is():
    """More than half, interval and all: C7a refuted is not enough, nor is half."""
    for interval, most in ((ABOVE, True), (AROUND, False), ((0.0, 0.2), False), (BELOW, False), (NONE, False)):
        size = replace(effect(RULES.turned, interval), key="share.size")
        assert by_size(Finding("C7a", "", REFUTED, "", "", (size,)), RULES) is most
    assert not by_size(Finding("C7a", "", REFUTED, "", ""), RULES)


@pytest.mark.parametrize(
    ("share", "p", "status"),
    [
        (ABOVE, 0.05, SUPPORTED), (ABOVE, 0.051, UNDECIDED), (AROUND, 0.01, UNDECIDED), (AROUND, 0.9, UNDECIDED),
        ((0.0, 0.2), 0.01, UNDECIDED), (BELOW, 0.01, REFUTED), (BELOW, 0.9, REFUTED), ((-0.2, 0.0), 0.9, UNDECIDED),
        (NONE, 0.01, UNDECIDED),
    ],
)  # fmt: skip
@pytest.mark.parametrize("null", NULLS)
def test_c7b_asks_for_a_quarter_and_for_more_than_other_directions(null, share, p, status):
    """By every null: one in which v is one of many leaves it open; and what others carry refutes nothing."""
    found = {f"null.{each}": effect(0, ABOVE, 0.01 if each != null else p) for each in NULLS}
    outcome = C7B.decide(Measured({"share": effect(RULES.carried, share), **found}), RULES)
    assert outcome.status is status
    if share is ABOVE and status is UNDECIDED:
        assert "other directions carry as much" in outcome.reason


@pytest.mark.parametrize(
    ("slope", "p", "p_r2", "status"),
    [
        (ABOVE, 0.05, 0.05, SUPPORTED), (ABOVE, 0.06, 0.01, UNDECIDED), (ABOVE, 0.01, 0.06, UNDECIDED),
        (AROUND, 0.01, 0.01, UNDECIDED), ((0.0, 0.2), 0.01, 0.01, UNDECIDED), (BELOW, 0.99, 0.9, REFUTED),
        ((-0.2, 0.0), 0.9, 0.9, REFUTED), (BELOW, 0.99, 0.01, REFUTED),
    ],
)  # fmt: skip
def test_c7c_asks_for_a_slope_and_for_prediction(slope, p, p_r2, status):
    """Both with their p; a slope at or below zero refutes, whatever is predicted."""
    found = Measured({"slope": effect(0, slope, p), "r2": effect(0, NONE, p_r2)}, "", {"smallest p": 0.001})
    assert C7C.decide(found, RULES).status is status


def test_c7c_without_a_slope_is_undecided_and_says_why():
    """Too few prompts, or covariates that tell the same."""
    slope = replace(bare("slope", math.nan, 5, "prompts", "undecidable: too few prompts"), key="slope")
    found = Measured({"slope": slope, "r2": effect(0, NONE)}, "", {"smallest p": 1.0})
    outcome = C7C.decide(found, RULES)
    assert outcome.status is UNDECIDED
    assert "too few prompts" in outcome.reason


@pytest.mark.parametrize("claim", [C7A, C7B, C7C], ids=lambda claim: claim.key)
def test_what_was_not_computed_is_undecided(claim):
    """As where a run diverged: the statement says so."""
    outcome = claim.decide(Measured({}, "Not computed."), RULES)
    assert (outcome.status, outcome.reason) == (UNDECIDED, "Not computed.")


def test_rules_in_words_say_what_shares_are_of():
    """C7b's is of what passes through the band, not of all of phi."""
    assert "of what passes through the band's layers of the difference in phi" in C7B.words(RULES)
    assert "lies above 0.25 with a p among each null of at most 0.05" in C7B.words(RULES)
    assert "its share of the difference in phi lies above 0.5" in C7A.words(RULES)


# --- by planted studies


def test_a_turn_and_a_smaller_update_are_told_apart():
    """Where all of the difference is a cosine, and where it is the size of updates."""
    sizes = {"trained": (10, 10, 4)}
    turned = simulate(replace(SCENARIOS["no_alignment"], turned=1.0), np.random.default_rng(1), **sizes)
    smaller = simulate("smaller_updates", np.random.default_rng(1), **sizes)
    effects = C7A.measure(turned, RULES).effects
    assert effects["share.turn"].estimate == pytest.approx(1, abs=0.1)
    assert effects["share.size"].high < RULES.turned
    assert C7A.decide(C7A.measure(turned, RULES), RULES).status is Status.SUPPORTED
    effects = C7A.measure(smaller, RULES).effects
    assert effects["share.size"].low > RULES.turned
    assert C7A.decide(C7A.measure(smaller, RULES), RULES).status is Status.REFUTED


def test_a_planted_share_along_v_is_found(evidence):
    """A third of the whole, of every prompt and question: the estimate, and an interval that is a point."""
    rows = evidence.shares.set_index(["condition", "seed", "step", "example", "layer", "position"])
    whole = rows.loc[rows["direction"] == WHOLE, "along"]
    mask = (evidence.shares["direction"] == TRAIT_DIRECTION).to_numpy()
    value = evidence.shares["along"].to_numpy(copy=True)
    value[mask] = (whole / 3).loc[rows.index[mask]].to_numpy()
    found = C7B.measure(planted(evidence, "shares", along=value), RULES)
    share = found["share"]
    assert (share.estimate, share.low, share.high) == pytest.approx((1 / 3, 1 / 3, 1 / 3), abs=1e-6)
    assert C7B.decide(found, RULES).status is Status.SUPPORTED


def test_v_among_directions_that_carry_as_much_is_not_supported(evidence):
    """Every direction of one null carries what v carries, and more."""
    nulls = evidence.share_nulls
    total = along(evidence, WHOLE).mean()
    runs = list(zip(nulls["condition"].astype(str), nulls["seed"], strict=True))
    value = np.where(nulls["null"] == "instruction", 0.9 * total.loc[runs].to_numpy(), nulls["along"])
    found = C7B.measure(planted(evidence, "share_nulls", along=value), RULES)
    assert found["null.instruction"].p > 0.9
    assert found["null.isotropic"].p < RULES.alpha
    assert C7B.decide(found, RULES).status is Status.UNDECIDED


def test_without_a_difference_nothing_is_decided():
    """Where any prompt does it no share has an interval, and the reason is said."""
    evidence = simulate("no_effect", np.random.default_rng(0))
    for claim, key in ((C7A, "share.turn"), (C7B, "share")):
        found = claim.measure(evidence, RULES)
        assert not np.isfinite(found[key].low)
        outcome = claim.decide(found, RULES)
        assert outcome.status is Status.UNDECIDED
        assert "denominator may be zero" in outcome.reason


def test_a_kernel_that_foretells_the_opposite_is_refuted():
    """With its sign turned, drift falls where it should rise."""
    evidence = simulate("effect", np.random.default_rng(0))
    assert C7C.decide(C7C.measure(evidence, RULES), RULES).status is Status.SUPPORTED
    other = planted(evidence, "kernel", kernel=-evidence.kernel["kernel"])
    assert C7C.decide(C7C.measure(other, RULES), RULES).status is Status.REFUTED


@pytest.mark.parametrize(("times", "holds"), [(0.79, False), (0.81, True), (1.24, True), (1.26, False)])
def test_accounts_hold_between_their_bars(evidence, times, holds):
    """Measured change so many times the accounted."""
    other = planted(evidence, "attribution", measured=times * evidence.attribution["predicted"])
    found = G10.judge(other, RULES)
    assert found["slope"].estimate == pytest.approx(times)
    assert (found.status is Status.SUPPORTED) is holds


def test_accounts_that_scatter_fail(evidence):
    """A slope of one, and R2 below its bar."""
    chance = np.random.default_rng(0).normal(0, 3, len(evidence.attribution))
    other = planted(evidence, "attribution", measured=evidence.attribution["predicted"] + chance)
    assert G10.judge(other, RULES).status is Status.REFUTED
