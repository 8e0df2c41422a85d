"""Where drift comes from: splits that add up, planted truths, and what C7 makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradinoc.claims.c7.c7a import C7A
from gradinoc.claims.c7.c7b import C7B
from gradinoc.claims.c7.c7c import C7C
from gradinoc.claims.evidence.measures import HARMLESS, INOCULATING
from gradinoc.claims.evidence.sources import (
    OWN,
    SIZE,
    STEEPNESS,
    TURN,
    accounted,
    along,
    factors,
    families_of,
    points,
    prompts_of,
    transfer_factors,
    ways,
)
from gradinoc.claims.evidence.tables import TRAIT_DIRECTION, WHOLE
from gradinoc.claims.gates.accounts import G10
from gradinoc.claims.rules.finding import Status
from gradinoc.power.scenarios import SCENARIOS
from gradinoc.power.simulate import simulate
from gradinoc.stats.families import contrast
from gradinoc.study.rules import Rules

RULES = Rules()
DIFFERENCE = {HARMLESS: 1.0, INOCULATING: -1.0}


@pytest.fixture(scope="module")
def evidence():
    """A study in which inoculation turns updates, along v by half."""
    return simulate("effect", np.random.default_rng(3), layers=3, steps=8)


def planted(evidence, table, **columns):
    """The study with columns of a table replaced."""
    return replace(evidence, **{table: evidence.tables[table].assign(**columns)})


# --- what is read from the tables


def test_stretches_of_a_run_add_up(evidence):
    """Over both stretches, by question; the way is as long as its stretches together."""
    rows = evidence.attribution
    mine = rows[(rows["condition"] == "inoculation") & (rows["seed"] == 1) & (rows["evaluation"] == "neutral")]
    assert mine["step"].nunique() == 2
    expected = mine.groupby("example")["predicted"].sum()
    assert np.allclose(accounted(evidence)[("inoculation", 1)], expected)
    last = points(evidence).groupby(["condition", "seed", "evaluation"])["predicted"].last()
    assert last.loc[("inoculation", 1, "neutral")] == pytest.approx(expected.mean())
    lengths = evidence.lengths
    mine = lengths[(lengths["condition"] == "inoculation") & (lengths["seed"] == 1)]
    assert ways(evidence).loc[("inoculation", 1), "length"] == pytest.approx(mine["length"].sum())


def test_own_is_the_prompt_that_a_run_was_trained_under(evidence):
    """Of neutral runs that is neutral; of others it is not what is accounted for under neutral."""
    own, neutral = accounted(evidence, OWN), accounted(evidence)
    assert set(own.columns) == set(neutral.columns)
    assert np.allclose(own["neutral"], neutral["neutral"])
    rows = evidence.attribution
    mine = rows[(rows["condition"] == "harmless_02") & (rows["evaluation"] == "harmless_02")]
    assert np.allclose(own[("harmless_02", 0)], mine.groupby("example")["predicted"].sum())


# --- splits


def test_factors_of_a_difference_add_up_to_it(evidence):
    """Cosine, length and gradient; transfer and what is learned: either way they make the difference in phi."""
    phi = families_of(evidence, accounted(evidence))
    expected = contrast(phi, DIFFERENCE, "phi").estimate
    for split in (factors(evidence), transfer_factors(evidence)):
        parts = [contrast(part, DIFFERENCE, name).estimate for name, part in split.parts.items()]
        assert sum(parts) == pytest.approx(expected)
        assert contrast(split.whole, DIFFERENCE, "whole").estimate == pytest.approx(expected)
    cosine = factors(evidence).turns.means[INOCULATING]
    way = ways(evidence).groupby(level="condition").mean().loc[prompts_of(evidence, INOCULATING)]
    assert np.allclose(cosine * way["length"] * way["slope"], phi.means[INOCULATING])


def test_a_factor_s_part_is_the_mean_over_pairs_of_prompts(evidence):
    """By brute force: Shapley's value of each pair, in all six orders of the three factors."""
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    way = ways(evidence).groupby(level="condition").mean()
    phi = accounted(evidence).mean().groupby(level="condition").mean()
    sides = []
    for family in (HARMLESS, INOCULATING):
        names = prompts_of(evidence, family)
        sides.append([(phi[n] / way.loc[n].prod(), way.loc[n, "length"], way.loc[n, "slope"]) for n in names])
    expected = np.zeros(3)
    for first in sides[0]:
        for second in sides[1]:
            for order in orders:
                at = list(second)
                for place in order:
                    before = np.prod(at)
                    at[place] = first[place]
                    expected[place] += (np.prod(at) - before) / (len(orders) * len(sides[0]) * len(sides[1]))
    found = factors(evidence).parts
    for place, name in enumerate((TURN, SIZE, STEEPNESS)):
        assert contrast(found[name], DIFFERENCE, name).estimate == pytest.approx(expected[place])


# --- what is made of them


def test_a_turn_and_a_smaller_update_are_told_apart():
    """Where all of the difference is a cosine, and where it is the size of updates."""
    sizes = {"trained": (10, 10, 4)}
    turned = simulate(replace(SCENARIOS["no_alignment"], turned=1.0), np.random.default_rng(1), **sizes)
    smaller = simulate(replace(SCENARIOS["smaller_updates"], elicits=0.7), np.random.default_rng(1), **sizes)
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
