"""The verdict: which is the first that applies, on which gates and claims it rests, and what its sentence says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fixtures.held import HELD
from fixtures.planted import changed, planted_findings
from gradinoc.claims.evidence.tables import AFTER
from gradinoc.claims.gates import GATES
from gradinoc.claims.rules.finding import Status
from gradinoc.claims.rules.specification import curve_of
from gradinoc.claims.rules.verdict import CLAIMS, Verdict, conclusion, judge
from gradinoc.power.simulate import simulate
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules

RULES = Rules()
BY_KEY = {claim.key: claim for claim in CLAIMS}


@pytest.fixture(scope="module")
def evidence():
    """A study in which inoculation works by rotating gradients."""
    return simulate("effect", np.random.default_rng(2), matched=19)


def test_effect_supports_every_claim_that_is_run(evidence):
    """Gates hold and every claim is supported, C5 among them."""
    judgement = judge(evidence, RULES)
    assert {finding.key: finding.status for finding in (*judgement.gates, *judgement.claims)} == dict.fromkeys(
        [*(gate.key for gate in GATES), *BY_KEY], Status.SUPPORTED
    )
    assert judgement.verdict is Verdict.SUPPORTED


def test_no_causal_word_is_said_where_no_run_has_an_intervention():
    """Every other claim is supported."""
    judgement = judge(simulate("effect", np.random.default_rng(2)), RULES)
    assert judgement.verdict is Verdict.CONSISTENT
    assert "is not tested" in judgement.sentence


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.key)
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.key)
def test_claim_is_undecided_where_a_gate_on_which_it_rests_failed(claim, gate, evidence):
    """And only there."""
    gates = [replace(held, status=Status.REFUTED) if held.key == gate.key else held for held in HELD]
    finding = claim.judge(evidence, RULES, gates)
    assert (finding.status is Status.UNDECIDED) == (gate.key in claim.rests_on)


ALL = dict.fromkeys(("C1", "C2", "C3", "C4", "C6"), "supported")


@pytest.mark.parametrize(
    ("claims", "verdict"),
    [
        (ALL, Verdict.UNDECIDED),
        ({**ALL, "C7a": "supported", "C7b": "supported"}, Verdict.CONSISTENT),
        ({**ALL, "C7a": "supported", "C7b": "supported", "C5": "supported"}, Verdict.SUPPORTED),
        ({**ALL, "C7a": "supported", "C7b": "supported", "C5": "undecided"}, Verdict.CONSISTENT),
        ({**ALL, "C7a": "supported", "C7b": "supported", "C5": "refuted"}, Verdict.UNDECIDED),
        ({**ALL, "C4": "undecided", "C7a": "supported", "C7b": "supported", "C5": "supported"}, Verdict.UNDECIDED),
        ({**ALL, "C7a": "refuted", "C7b": "undecided"}, Verdict.MAGNITUDE),
        ({**ALL, "C7a": "supported", "C7b": "refuted"}, Verdict.OTHER_DIRECTION),
        ({**ALL, "C7a": "supported", "C7b": "refuted", "C5": "refuted"}, Verdict.OTHER_DIRECTION),
        ({**ALL, "C7a": "supported", "C7b": "refuted", "C5": "supported"}, Verdict.UNDECIDED),
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


SENTENCES = {  # verdict -> the claims that it takes, and what its sentence says
    Verdict.CONSISTENT: (
        {**ALL, "C7b": "supported"},
        "whether the component along the direction causes the drift is not tested",
    ),
    Verdict.MAGNITUDE: (
        {"C6": "supported", "C7a": "refuted"},
        "more than half of the difference is the size of updates, less than half their turn",
    ),
    Verdict.OTHER_DIRECTION: (
        {"C6": "supported", "C7a": "supported", "C7b": "refuted"},
        "updates turn, and of what passes through the layer band less than a quarter runs along the trait's direction",
    ),
    Verdict.REFUTED: (
        {"C6": "supported", "C7b": "refuted"},
        "of what passes through the layer band of the difference between harmless and inoculating runs, less than a "
        "quarter runs along the trait's direction",
    ),
}


@pytest.mark.parametrize("verdict", list(SENTENCES))
def test_sentence_says_what_its_claims_show_and_needs_each_of_them(verdict):
    """With any one of them undecided another verdict is given, or none; with every other undecided the same."""
    needed, words = SENTENCES[verdict]
    claims = {**dict.fromkeys((*ALL, "C7a", "C7b"), "undecided"), **needed}
    found, sentence = conclusion(HELD, planted_findings(**claims), RULES)
    assert (found, sentence) == (verdict, f"{words}." if verdict is not Verdict.CONSISTENT else sentence)
    assert words in sentence
    for key in needed:
        assert conclusion(HELD, planted_findings(**{**claims, key: "undecided"}), RULES)[0] is not verdict


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.key)
def test_no_sentence_but_any_prompt_s_is_said_where_a_gate_failed(gate):
    """Whichever it is; but for G11, on which C5 alone rests."""
    gates = [replace(held, status=Status.REFUTED) if held.key == gate.key else held for held in HELD]
    for needed, _ in SENTENCES.values():
        with_gate = conclusion(HELD, planted_findings(**{**ALL, **needed}), RULES)[0]
        found = conclusion(gates, planted_findings(**{**ALL, **needed}), RULES)[0]
        assert found is (with_gate if gate.key == "G11" else Verdict.UNDECIDED)
