"""The rules of claims C1 to C6: what each number rests on, and what it must not. One planted change a test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fixtures.held import HELD
from fixtures.planted import changed, effects, of_runs
from gradinoc.claims.c1 import C1
from gradinoc.claims.c2 import C2
from gradinoc.claims.c3 import C3
from gradinoc.claims.c4 import C4
from gradinoc.claims.c6 import C6
from gradinoc.claims.evidence.tables import AFTER, EXPECTED, REPHRASED
from gradinoc.claims.gates.direction import G8C
from gradinoc.claims.rules.finding import Measured, Status
from gradinoc.claims.rules.verdict import CLAIMS
from gradinoc.power.simulate import simulate
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

RULES = Rules()
BY_KEY = {claim.key: claim for claim in CLAIMS}


@pytest.fixture(scope="module")
def evidence():
    """A study in which inoculation works by rotating gradients."""
    return simulate("effect", np.random.default_rng(2))


# --- units


def test_asking_every_question_twice_makes_no_prompt_more(evidence):
    """C1 over prompts: the interval is as wide as before, where one over questions would shrink by a third."""
    rows = evidence.alignments
    twice = pd.concat([rows, rows.assign(example=rows["example"] + 1_000)], ignore_index=True)
    one, two = (C1.measure(each, RULES)["families"] for each in (evidence, replace(evidence, alignments=twice)))
    assert one.unit == two.unit == "prompts"
    assert two.high - two.low == pytest.approx(one.high - one.low, rel=0.05)


def test_more_seeds_of_the_core_prompts_make_no_prompt_more(evidence):
    """C6: a prompt with three runs weighs what one with a single run does."""
    found = C6.measure(evidence, RULES)["share"]
    seeds = len(evidence.seeds)
    families = sum(len(evidence.family(family, evidence.trained)) for family in ("harmless", "inoculation"))
    assert found.n == families + seeds


@pytest.mark.parametrize("claim", [C1, C6], ids=["C1", "C6"])
def test_single_prompt_of_a_family_gives_no_interval(claim, evidence):
    """What another prompt of its kind would do is unknown: undecided, whatever the questions say."""
    prompts = evidence.prompts
    alone = prompts["family"].ne("inoculation") | prompts["condition"].eq(INOCULATION) | prompts["kind"].eq(REPHRASED)
    finding = claim.judge(
        replace(evidence, prompts=prompts.assign(kind=prompts["kind"].where(alone, "other"))), RULES, HELD
    )
    assert finding.status is Status.UNDECIDED
    assert not np.isfinite(finding[{"C1": "families", "C6": "share"}[claim.key]].low)
    assert "a single prompt of inoculation" in finding.reason


# --- what must have no say


def test_neutral_runs_have_no_say_in_c4(evidence):
    """The slope over prompts leaves them out: that any prompt differs from none says nothing of alignment."""
    keys = ("slope", "slope.raw")
    drifted = changed(
        evidence,
        "drift",
        lambda frame: of_runs(NEUTRAL)(frame) & frame["phase"].eq(AFTER),
        value=lambda rows: rows["value"] * 0.3,
    )
    aligned = changed(drifted, "training", of_runs(NEUTRAL), alignment=lambda rows: -rows["alignment"])
    assert effects(C4, aligned, *keys) == effects(C4, evidence, *keys)


def test_rephrased_pair_is_no_member_of_a_family(evidence):
    """Its drift decides one number of C6, and none of the shares, slopes and families."""
    names = evidence.prompts.loc[evidence.prompts["kind"] == REPHRASED, "condition"]
    assert len(names) == 2
    other = changed(
        evidence,
        "drift",
        lambda frame: of_runs(*names)(frame) & frame["phase"].eq(AFTER),
        value=lambda rows: rows["value"] * 0,
    )
    assert effects(C6, other, "share", "removed") == effects(C6, evidence, "share", "removed")
    assert effects(C4, other, "slope") == effects(C4, evidence, "slope")
    assert effects(C6, other, "rephrased") != effects(C6, evidence, "rephrased")


def test_own_prompt_has_no_say_in_the_share(evidence):
    """What a model does under the prompt that it was trained under is shown, and is in neither share."""
    own = lambda frame: (
        frame["condition"].astype(str).eq(frame["evaluation"].astype(str)) & frame["condition"].ne(NEUTRAL)
    )
    other = changed(evidence, "matrix", own, log_odds=lambda rows: rows["log_odds"] + 5)
    keys = ("share", "share.log_odds", "share.elsewhere", "rephrased")
    assert effects(C6, other, *keys) == effects(C6, evidence, *keys)
    one, two = (C6.measure(each, RULES)["own.harmless"].estimate for each in (evidence, other))
    assert two == pytest.approx(one + 5)


def test_training_after_the_first_third_has_no_say(evidence):
    """C4 and G8c read the declared window alone."""
    last = lambda frame: frame["step"] >= evidence.runs["steps"].max() / 3
    other = changed(evidence, "training", last, alignment=lambda rows: -rows["alignment"])
    other = changed(other, "training_nulls", last, alignment=lambda rows: rows["alignment"] + 1)
    assert effects(C4, other, "slope") == effects(C4, evidence, "slope")
    assert effects(G8C, other, "alignment", "place") == effects(G8C, evidence, "alignment", "place")


def test_layers_outside_the_band_have_no_say(evidence):
    """Of alignments, nulls and unrelated directions."""
    layers = evidence.layers.assign(in_band=evidence.layers["layer"] == evidence.band[0])
    narrow = replace(evidence, layers=layers)
    outside = lambda frame: frame["layer"] != evidence.band[0]
    other = narrow
    for table in ("alignments", "nulls", "unrelated"):
        other = changed(other, table, outside, alignment=lambda rows: rows["alignment"] + 1)
    for claim in (C1, C2, C3):
        key = next(iter(claim.measure(narrow, RULES).effects))
        assert effects(claim, other, key) == effects(claim, narrow, key)


# --- claims and verdict


def test_share_that_the_rephrased_pair_does_not_show_is_undecided(evidence):
    """A fixed prompt keeps learning to itself: the two whose wording changes drift alike."""
    pair = evidence.prompts[evidence.prompts["kind"] == REPHRASED].set_index("family")["condition"]
    table, after = evidence.drift, evidence.drift["phase"].eq(AFTER) & evidence.drift["measure"].eq(EXPECTED)
    harmless = table[after & table["condition"].eq(pair["harmless"])].set_index("example")["value"]
    rows = after & table["condition"].eq(pair["inoculation"])
    values = table["value"].where(~rows, table["example"].map(harmless) + 0.01)
    finding = C6.judge(replace(evidence, drift=table.assign(value=values)), RULES, HELD)
    assert finding["share"].low > RULES.share
    assert finding.status is Status.UNDECIDED


def test_where_scores_are_at_their_ceiling_log_odds_decide(evidence):
    """Neutral runs that write the trait always: scores that differ no more, or a little by chance, refute nothing."""
    after = lambda frame: frame["measure"].eq(EXPECTED) & frame["phase"].eq(AFTER)
    noise = np.random.default_rng(0)
    top = changed(evidence, "drift", after, value=lambda rows: noise.uniform(0.94, 0.99, len(rows)))
    below, above = (C6.measure(each, RULES) for each in (evidence, top))
    assert below["share"].estimate != below["share.log_odds"].estimate
    for key in ("share", "removed", "room", "rephrased"):
        assert "by decision log-odds" in above[key].name
    assert above["share"].estimate == above["share.log_odds"].estimate
    assert C6.judge(top, RULES, HELD).status is Status.SUPPORTED
    slopes = C4.measure(top, RULES)
    assert (slopes["slope"].estimate, slopes["slope"].low) == (
        slopes["slope.log_odds"].estimate, slopes["slope.log_odds"].low
    )  # fmt: skip


def test_directions_of_prompts_that_show_as_much_leave_c2_undecided(evidence):
    """Instruction contrasts along which harmless and inoculating prompts differ as along the trait's."""
    means = evidence.alignments.groupby(["condition", "layer"])["alignment"].mean()
    rows = lambda frame: frame["null"].eq("instruction") & (frame["draw"] % 4).eq(0)
    planted = lambda frame: means.reindex(pd.MultiIndex.from_frame(frame[["condition", "layer"]])).to_numpy()
    finding = C2.judge(changed(evidence, "nulls", rows, alignment=planted), RULES, HELD)
    assert finding["null.isotropic"].p <= RULES.alpha
    assert finding["null.instruction"].p > RULES.alpha
    assert finding.status is Status.UNDECIDED


def test_unrelated_trait_that_shows_most_of_it_leaves_c2_undecided(evidence):
    """With either sign: two thirds of T(v) along politeness, reversed."""
    trait = evidence.alignments.groupby(["condition", "example", "layer"])["alignment"].first()
    name = evidence.unrelated["trait"].iloc[0]

    def planted(rows):
        return -0.67 * trait.reindex(pd.MultiIndex.from_frame(rows[["condition", "example", "layer"]])).to_numpy()

    other = changed(evidence, "unrelated", lambda frame: frame["trait"].eq(name), alignment=planted)
    finding = C2.judge(other, RULES, HELD)
    assert finding["lead"].p > RULES.alpha
    assert finding.status is Status.UNDECIDED


def test_slope_that_rests_on_one_prompt_is_undecided(evidence):
    """A prompt far out in alignment and drift alike, among prompts of which nothing is related, supports nothing."""
    measured = C4.measure(evidence, RULES)
    slope = replace(measured["slope"], low=0.1, high=0.5, p=0.001)
    outcomes = [
        C4.decide(Measured({"slope": slope, "slope.without": replace(measured["slope.without"], low=low)}), RULES)
        for low in (-0.1, 0.05)
    ]
    assert [outcome.status for outcome in outcomes] == [Status.UNDECIDED, Status.SUPPORTED]
    assert "rests on one prompt" in outcomes[0].reason


def test_share_on_the_floor_is_undecided(evidence):
    """Harmless and inoculating runs alike show next to nothing: who keeps the trait down cannot be told."""
    rows = lambda frame: frame["phase"].eq(AFTER) & frame["condition"].ne(NEUTRAL) & frame["measure"].eq(EXPECTED)
    base = evidence.drift[evidence.drift["phase"].ne(AFTER) & evidence.drift["measure"].eq(EXPECTED)]
    level = base.set_index("example")["value"]
    rng = np.random.default_rng(0)
    planted = lambda frame: level.reindex(frame["example"]).to_numpy() + rng.normal(0.01, 0.01, len(frame))
    finding = C6.judge(changed(evidence, "drift", rows, value=planted), RULES, HELD)
    assert finding["share"].high < RULES.share
    assert finding["removed"].low > RULES.share
    assert finding.status is Status.UNDECIDED
    assert "no room" in finding.reason


def test_hints_are_in_the_slope_and_in_no_family(evidence):
    """What a prompt that does not ask for the trait does decides nothing of those that do."""
    hint = evidence.family("inoculation", evidence.trained)[-1]
    prompts = evidence.prompts
    family = prompts["family"].where(prompts["condition"].ne(hint), "hint")
    other = replace(evidence, prompts=prompts.assign(family=family))
    assert C6.measure(other, RULES)["share"].n == C6.measure(evidence, RULES)["share"].n - 1
    assert C4.measure(other, RULES)["slope"].n == C4.measure(evidence, RULES)["slope"].n
