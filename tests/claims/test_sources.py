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
    LEARNED_LESS,
    OWN,
    SIZE,
    STEEPNESS,
    TRANSFER,
    TURN,
    accounted,
    factors,
    families_of,
    points,
    prompts_of,
    transfer_factors,
    ways,
)
from gradinoc.claims.gates.accounts import G10
from gradinoc.claims.rules.finding import Status
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


# --- transfer, and what stands beside


def test_a_question_s_row_of_transfer_is_what_the_question_adds_to_it(evidence):
    """By finite differences: a question that weighs a little more moves each prompt's T by its row less T."""
    phi, own = (families_of(evidence, accounted(evidence, under)) for under in ("neutral", OWN))
    split = transfer_factors(evidence)
    for family in (HARMLESS, INOCULATING):
        one, other, rows = phi.values[family], own.values[family], split.turns.values[family]
        count, more = one.shape[1], 1e-6
        assert np.allclose(rows.mean(axis=1), one.mean(axis=1) / other.mean(axis=1))
        for question in range(count):
            weights = np.full(count, 1 / count) + more * (np.arange(count) == question) - more / count
            moved = (one @ weights) / (other @ weights) - one.mean(axis=1) / other.mean(axis=1)
            assert np.allclose(moved / more, rows[:, question] - rows.mean(axis=1), atol=1e-4)


def test_a_part_s_rows_are_what_questions_add_to_it(evidence):
    """The same of the share of transfer and of what is learned: both factors move with a question."""
    phi, own = (families_of(evidence, accounted(evidence, under)) for under in ("neutral", OWN))
    found = transfer_factors(evidence).parts

    def parts(weights):
        learned = {family: own.values[family] @ weights for family in DIFFERENCE}
        reached = {family: phi.values[family] @ weights / learned[family] for family in DIFFERENCE}
        apart = [each[HARMLESS][:, None] - each[INOCULATING][None] for each in (reached, learned)]
        mean = [(each[HARMLESS][:, None] + each[INOCULATING][None]) / 2 for each in (reached, learned)]
        return np.array([(apart[0] * mean[1]).mean(), (apart[1] * mean[0]).mean()])

    count = phi.questions
    equal, more = np.full(count, 1 / count), 1e-6
    rows = np.array([part.values[HARMLESS].mean(axis=0) - part.values[INOCULATING].mean(axis=0)
                     for part in (found[TRANSFER], found[LEARNED_LESS])])  # fmt: skip
    assert np.allclose(rows.mean(axis=1), parts(equal))
    for question in range(count):
        moved = parts(equal + more * (np.arange(count) == question) - more / count) - parts(equal)
        assert np.allclose(moved / more, rows[:, question] - rows.mean(axis=1), atol=1e-4)


def test_intervals_of_transfer_hold_questions(evidence):
    """Own-prompt learning that varies with questions, alike in all prompts: a wider interval about the same mean."""
    other = evidence.attribution["evaluation"].astype(str) != "neutral"
    times = np.where(other, 1 + 0.2 * (evidence.attribution["example"] % 2 - 0.5), 1.0)
    uneven = planted(evidence, "attribution", predicted=times * evidence.attribution["predicted"])
    one, two = (C7A.measure(each, RULES)["transfer.harmless"] for each in (evidence, uneven))
    assert two.estimate == pytest.approx(one.estimate, abs=0.02)
    assert two.standard_error > one.standard_error
    assert (one.unit, one.n) == ("prompts", len(prompts_of(evidence, HARMLESS)))


def test_measured_transfer_stands_beside_the_accounted(evidence):
    """Measured changes twice the accounted under the own prompt alone: transfer by half, shares of their own."""
    table = evidence.attribution
    times = np.where(table["evaluation"].astype(str) == "neutral", 1.0, 2.0)
    found = C7A.measure(planted(evidence, "attribution", measured=times * table["predicted"]), RULES)
    for name in (TRANSFER, LEARNED_LESS):
        assert found[f"measured.{name}"].estimate == pytest.approx(found[f"share.{name}"].estimate)
    neutral = planted(evidence, "attribution", measured=3 * table["predicted"].where(times == 1, 1 / 3))
    split = transfer_factors(neutral, "measured")
    level = {
        family: families_of(neutral, accounted(neutral, "neutral", "measured")).means[family] for family in DIFFERENCE
    }
    for family, means in level.items():
        assert np.allclose(split.turns.means[family], means / 2)  # two stretches of one nat each


def test_shares_of_phi_are_what_passes_the_band_times_shares_of_it(evidence):
    """The simulated band passes 0.8 of phi: v's share of phi is that of its share of the whole."""
    found = C7B.measure(evidence, RULES)
    assert found["through"].estimate == pytest.approx(0.8)
    assert (found["through"].low, found["through"].high) == pytest.approx((0.8, 0.8))
    assert found["share_of_phi"].estimate == pytest.approx(0.8 * found["share"].estimate)
    for key in (key for key in found.effects if key.startswith("named.")):
        other = found[key.replace("named.", "named_of_phi.")]
        assert other.estimate == pytest.approx(0.8 * found[key].estimate)
    assert C7B.measure(evidence, RULES, secondary=False).effects.keys().isdisjoint({"through", "share_of_phi"})


def test_accounts_stand_beside_at_the_last_adapter_and_between_adapters(evidence):
    """Own prompts twice what is accounted for, and a stretch that no line through all points shows."""
    table = evidence.attribution
    neutral = (table["evaluation"] == "neutral").to_numpy()
    first = (table["step"] == table["step"].min()).to_numpy()
    measured = np.where(neutral, 1.1, 2.0) * table["predicted"] + 0.3 * first
    found = G10.measure(planted(evidence, "attribution", measured=measured), RULES)
    runs, own = len(evidence.planned_runs), sum(name != "neutral" for name, _ in evidence.planned_runs)
    assert (found["last.neutral.slope"].n, found["last.own.slope"].n) == (runs, own)
    assert found["increments.slope"].n == found["slope"].n == 2 * (runs + own)
    for key, slope in (("last.neutral", 1.1), ("last.own", 2.0)):
        assert (found[f"{key}.slope"].estimate, found[f"{key}.r2"].estimate) == pytest.approx((slope, 1.0))
    assert found["increments.r2"].estimate < 1
    assert "an intercept that is free" in found.statement
    assert "intercept free" in found["slope"].method
    assert set(G10.measure(evidence, RULES, secondary=False).effects) == {"slope", "r2"}


def test_no_line_goes_through_two_points(evidence):
    """Of two runs the last adapters have no slope, and the method says why."""
    few = evidence.attribution["condition"].isin(["inoculation_02", "harmless_02"])
    rows = evidence.attribution[few & (evidence.attribution["evaluation"] == "neutral")]
    found = G10.measure(replace(evidence, attribution=rows), RULES)
    assert np.isnan(found["last.neutral.slope"].estimate)
    assert "no line through 2 points" in found["last.neutral.slope"].method


def test_c7c_says_which_p_its_design_can_reach(evidence):
    """999 orders of thirteen prompts: 1/1,000; five prompts, over which no slope is judged: none."""
    found = C7C.measure(evidence, RULES)
    assert found.facts["smallest p"] == 1 / 1000
    assert found.facts["prompts"] == found["r2"].n
    assert "no p is below 0.001" in found.statement
    strict = RULES.model_copy(update={"alpha": 1e-4})
    outcome = C7C.decide(found, strict)
    assert outcome.status is Status.UNDECIDED
    assert "the design cannot decide: 13 prompts reach no p below 0.001" in outcome.reason
    few = simulate("effect", np.random.default_rng(0), trained=(2, 2, 1), layers=1, steps=6)
    assert C7C.measure(few, RULES).facts["smallest p"] == 1.0
