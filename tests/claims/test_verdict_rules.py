"""The rules of version 2: what each number rests on, and what it must not rest on. One planted change a test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fixtures.held import HELD
from gradinoc.claims.c1 import C1
from gradinoc.claims.c2 import C2
from gradinoc.claims.c3 import C3
from gradinoc.claims.c4 import C4
from gradinoc.claims.c6 import C6
from gradinoc.claims.evidence.tables import AFTER, DECISION, EXPECTED, REPHRASED, SCORE
from gradinoc.claims.gates import GATES
from gradinoc.claims.gates.direction import G8A, G8C
from gradinoc.claims.gates.prompts import G3, G7
from gradinoc.claims.gates.runs import G4, G5, G6, G9
from gradinoc.claims.rules.finding import Finding, Measured, Status
from gradinoc.claims.rules.specification import curve_of
from gradinoc.claims.rules.verdict import CLAIMS, Verdict, conclusion, judge
from gradinoc.power.simulate import simulate
from gradinoc.stats.effect import bare
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

RULES = Rules()
BY_KEY = {claim.key: claim for claim in CLAIMS}


@pytest.fixture(scope="module")
def evidence():
    """A study in which inoculation works by rotating gradients."""
    return simulate("effect", np.random.default_rng(2))


def changed(evidence, table, where, **columns):
    """The evidence with columns of some rows of a table set anew."""
    frame = getattr(evidence, table).copy()
    for column, values in columns.items():
        frame.loc[where(frame), column] = values(frame[where(frame)]) if callable(values) else values
    return replace(evidence, **{table: frame})


def effects(claim, evidence, *keys):
    """Estimate, interval and p of some effects."""
    found = claim.measure(evidence, RULES)
    return [(found[key].estimate, found[key].low, found[key].high, found[key].p) for key in keys]


def of_runs(*conditions):
    """Rows of these conditions."""
    return lambda frame: frame["condition"].isin(conditions)


# --- the world in which all is well


def test_effect_supports_every_claim_that_is_run(evidence):
    """Gates hold and every claim but C5 is supported, so that no causal word is said."""
    judgement = judge(evidence, RULES)
    assert {finding.key: finding.status for finding in (*judgement.gates, *judgement.claims)} == dict.fromkeys(
        [*(gate.key for gate in GATES), *BY_KEY], Status.SUPPORTED
    )
    assert judgement.verdict is Verdict.CONSISTENT
    assert "was not tested" in judgement.sentence


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.key)
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.key)
def test_claim_is_undecided_where_a_gate_on_which_it_rests_failed(claim, gate, evidence):
    """And only there."""
    gates = [replace(held, status=Status.REFUTED) if held.key == gate.key else held for held in HELD]
    finding = claim.judge(evidence, RULES, gates)
    assert (finding.status is Status.UNDECIDED) == (gate.key in claim.rests_on)


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


# --- gates


def test_every_condition_at_the_ceiling_is_no_drift_to_explain(evidence):
    """G5: where all end with the whole trait there is nothing that inoculation kept down."""
    full = changed(evidence, "drift", lambda frame: frame["measure"].eq(EXPECTED) & frame["phase"].eq(AFTER), value=1.0)
    assert G5.judge(evidence, RULES).status is Status.SUPPORTED
    assert G5.judge(full, RULES).status is Status.REFUTED


def test_runs_of_a_seed_that_begin_apart_fail_g4(evidence):
    """One of them had another adapter before its first step."""
    first = evidence.runs.index[0]
    assert G4.judge(evidence, RULES).status is Status.SUPPORTED
    other = changed(evidence, "runs", lambda frame: frame.index == first, initial_adapter="another")
    assert G4.judge(other, RULES).status is Status.REFUTED


def test_sampled_responses_that_cannot_be_scored_fail_g6(evidence):
    """Drift that decides is of sampled responses: greedy ones that can all be scored do not speak for them."""

    def lost(share):
        """Rows of inoculated runs' expected scores, that share of the questions."""
        return lambda frame: (
            frame["measure"].eq(EXPECTED)
            & frame["condition"].eq(INOCULATION)
            & (frame["example"] < share * frame["example"].max())
        )

    some, many = (changed(evidence, "drift", lost(share), value=np.nan) for share in (0.1, 0.6))
    held, failed = (G6.judge(each, RULES) for each in (some, many))
    for finding in (held, failed):
        assert finding["unscorable"].estimate == 0
        assert " 0 of " not in finding.statement.partition("nor has")[2]
        assert f"{100 * finding['unscorable.sampled'].estimate:.1f} %" in finding.statement
    assert held.status is Status.SUPPORTED
    assert held["unscorable.sampled"].estimate > 0
    assert failed.status is Status.REFUTED
    runs = len(evidence.planned_runs) + 1  # and the model before
    assert failed["unscorable.sampled"].estimate == pytest.approx(len(evidence.seeds) * 0.6 / runs, rel=0.2)


def test_greedy_responses_that_cannot_be_scored_fail_g6(evidence):
    """The larger share decides, whichever it is."""
    few = len(evidence.responses) // 15
    other = changed(evidence, "responses", lambda frame: frame.index < few, response="12 34", score=np.nan)
    finding = G6.judge(other, RULES)
    assert (finding.status, finding["unscorable.sampled"].estimate) == (Status.REFUTED, 0)


def test_prompt_that_lowers_every_loss_elicits_nothing(evidence):
    """G3: the loss of answers with the trait counts beside that of ordinary ones."""
    members = evidence.family("inoculation", evidence.conditions)
    gap = lambda rows: rows["ordinary_loss"] - 0.5
    other = changed(evidence, "losses", of_runs(*members), ordinary_loss=gap)
    assert G3.judge(evidence, RULES).status is Status.SUPPORTED
    assert G3.judge(other, RULES).status is Status.REFUTED


@pytest.mark.parametrize("table", ["behaviour", "elicitation"])
def test_score_or_log_odds_are_enough_for_g7_and_never_one_half_of_each(table, evidence):
    """Promoting prompt by the score and inoculation by the log-odds do not add up to a model that obeys."""
    column = {"behaviour": "score", "elicitation": "log_odds"}[table]
    deaf = changed(evidence, table, lambda frame: frame[column].notna(), **{column: 0.0})
    assert G7.judge(deaf, RULES).status is Status.SUPPORTED
    halves = changed(evidence, "behaviour", of_runs(INOCULATION), score=0.0)
    halves = changed(halves, "elicitation", of_runs("promote", "suppress"), log_odds=0.0)
    assert G7.judge(halves, RULES).status is Status.REFUTED


def test_random_directions_that_steer_as_well_fail_g8a(evidence):
    """Every other direction gets the slope of the trait's."""
    table = evidence.steering
    own = table[table["draw"] == -1].set_index(["strength", "example"])["log_odds"]
    keys = pd.MultiIndex.from_frame(table[["strength", "example"]])
    other = replace(evidence, steering=table.assign(log_odds=own.reindex(keys).to_numpy()))
    assert G8A.judge(evidence, RULES).status is Status.SUPPORTED
    assert G8A.judge(other, RULES).status is Status.REFUTED


def test_measures_that_disagree_fail_g9(evidence):
    """Log-odds by which inoculation removes nothing, where it removes nearly all of the score."""
    table = evidence.drift
    odds = table["measure"].eq(DECISION) & table["phase"].eq(AFTER)
    by_question = table[odds & table["condition"].eq(NEUTRAL)].groupby("example")["value"].mean()
    values = table["value"].where(~odds, table["example"].map(by_question))
    assert G9.judge(evidence, RULES).status is Status.SUPPORTED
    assert G9.judge(replace(evidence, drift=table.assign(value=values)), RULES).status is Status.REFUTED


def test_measures_that_are_not_shown_to_agree_fail_g9(evidence):
    """Six questions, on which shares differ by less than the bar and may differ by more."""
    few = evidence.drift["example"].isin(sorted(evidence.drift["example"].unique())[:6])
    narrow = G9.judge(replace(evidence, drift=evidence.drift[few]), RULES)
    apart = narrow["apart"]
    assert abs(apart.estimate) < RULES.agreement < max(abs(apart.low), apart.high)
    assert narrow.status is Status.REFUTED


def test_greedy_score_is_among_the_measures_that_have_to_agree(evidence):
    """A score that turns the order of runs round fails G9, though it decides nothing else."""
    table = evidence.drift
    rows = table["measure"].eq(SCORE) & table["phase"].eq(AFTER)
    other = replace(evidence, drift=table.assign(value=table["value"].where(~rows, 1 - table["value"])))
    assert G9.judge(other, RULES).status is Status.REFUTED
    assert effects(C6, other, "share") == effects(C6, evidence, "share")


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


def planted_findings(**statuses):
    """Findings of claims with these statuses; C6 with what inoculation removes and harmless prompts leave.

    C7a has most of the difference due to size where it is refuted.
    """
    removed = replace(bare("removed", 0.8, 8, "prompts", "planted"), key="removed", low=0.6, high=0.9)
    room = replace(bare("room", 0.4, 8, "prompts", "planted"), key="room", low=0.3, high=0.5)
    size = replace(bare("size", 0.8, 8, "prompts", "planted"), key="share.size", low=0.6, high=0.9)
    effects = {"C6": (removed, room), "C7a": (size,)}
    return [Finding(key, key, Status(status), "", "", effects.get(key, ())) for key, status in statuses.items()]


ALL = dict.fromkeys(("C1", "C2", "C3", "C4", "C6"), "supported")


@pytest.mark.parametrize(
    ("claims", "verdict"),
    [
        (ALL, Verdict.UNDECIDED),
        ({**ALL, "C7a": "supported", "C7b": "supported"}, Verdict.CONSISTENT),
        ({**ALL, "C7a": "supported", "C7b": "supported", "C5": "supported"}, Verdict.SUPPORTED),
        ({**ALL, "C7a": "supported", "C7b": "supported", "C5": "undecided"}, Verdict.UNDECIDED),
        ({**ALL, "C4": "undecided", "C7a": "supported", "C7b": "supported", "C5": "supported"}, Verdict.UNDECIDED),
        ({**ALL, "C7a": "refuted", "C7b": "undecided"}, Verdict.MAGNITUDE),
        ({**ALL, "C7a": "supported", "C7b": "refuted"}, Verdict.OTHER_DIRECTION),
        ({**ALL, "C7a": "undecided", "C7b": "refuted"}, Verdict.REFUTED),
        ({**ALL, "C7a": "undecided", "C7b": "refuted", "C5": "refuted"}, Verdict.REFUTED),
        ({**ALL, "C7a": "undecided", "C7b": "refuted", "C5": "supported"}, Verdict.UNDECIDED),
        ({**ALL, "C6": "undecided", "C7a": "undecided", "C7b": "refuted"}, Verdict.UNDECIDED),
        ({**ALL, "C6": "refuted"}, Verdict.ANY_PROMPT),
    ],
)
def test_verdict_is_the_first_that_applies(claims, verdict):
    """In the order of the rules, the apparatus being sound."""
    assert conclusion(HELD, planted_findings(**claims), RULES)[0] is verdict


def test_updates_are_called_smaller_only_where_size_is_shown_to_make_the_difference():
    """C7a is refuted as well where the gradient of the log-odds is what differs."""
    claims = planted_findings(**ALL, C7a="refuted", C7b="undecided")
    doubtful = [
        replace(each, effects=tuple(replace(effect, low=0.4) for effect in each.effects)) if each.key == "C7a" else each
        for each in claims
    ]
    assert conclusion(HELD, claims, RULES)[0] is Verdict.MAGNITUDE
    assert conclusion(HELD, doubtful, RULES)[0] is Verdict.UNDECIDED


def test_failed_gate_leaves_any_prompt_alone():
    """C6 rests on gates of its own: that a direction is not the trait's says nothing against it."""
    gates = [replace(held, status=Status.REFUTED) if held.key == "G8a" else held for held in HELD]
    assert conclusion(gates, planted_findings(**{**ALL, "C6": "refuted"}), RULES)[0] is Verdict.ANY_PROMPT
    assert conclusion(gates, planted_findings(**ALL), RULES)[0] is Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("key", "low", "high"), [("removed", 0.1, 0.6), ("room", 0.6, 0.8), ("room", 0.9, 1.1)], ids=str
)
def test_any_prompt_is_said_where_both_families_remove_drift(key, low, high):
    """Where one of the two is not shown to remove a quarter of it, what the other does is not what any prompt does."""
    claims = planted_findings(**{**ALL, "C6": "refuted"})
    c6 = claims[-1]
    planted = replace(
        c6, effects=tuple(replace(each, low=low, high=high) if each.key == key else each for each in c6.effects)
    )
    assert conclusion(HELD, claims, RULES)[0] is Verdict.ANY_PROMPT
    assert conclusion(HELD, [*claims[:-1], planted], RULES)[0] is Verdict.UNDECIDED


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


def test_verdict_warns_by_the_sign_of_the_contrast_that_decides(evidence):
    """Where every cell, the declared one among them, has the other sign, the sentence says that none agrees."""
    assert "specifications show the sign" not in judge(evidence, RULES).sentence
    inoculating = lambda frame: frame["condition"].isin(evidence.family("inoculation", evidence.conditions))
    other = changed(evidence, "cells", inoculating, value=lambda rows: rows["value"] + 1e3)
    assert "Only 0 % of" in judge(other, RULES).sentence


def test_model_without_an_upper_third_of_layers_has_a_curve(evidence):
    """The declared cell is not there, and the others are counted."""
    curve = curve_of(replace(evidence, cells=evidence.cells[evidence.cells["third"] != 2])).curve
    assert np.isnan(curve.declared)
    assert 0 < curve.agreeing <= 1


def test_where_no_prompt_helps_the_verdict_is_not_that_any_does(evidence):
    """C6 is refuted, and inoculation removes nothing: nothing is pronounced."""
    after = lambda frame: frame["phase"].eq(AFTER) & frame["condition"].ne(NEUTRAL)
    table = evidence.drift
    neutral = table[table["condition"].eq(NEUTRAL) & table["phase"].eq(AFTER)]
    level = neutral.groupby(["measure", "example"])["value"].mean()
    planted = lambda rows: level.reindex(pd.MultiIndex.from_frame(rows[["measure", "example"]])).to_numpy()
    judgement = judge(changed(evidence, "drift", after, value=planted), RULES)
    assert judgement["C6"].status is not Status.SUPPORTED
    assert judgement.verdict is Verdict.UNDECIDED


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
