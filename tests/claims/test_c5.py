"""C5: what the numbers rest on, each criterion of the rule, and what arms must not touch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fixtures.armed import of_all_runs, without
from gradinoc.claims import c5
from gradinoc.claims.c5 import C5, decide, deciding
from gradinoc.claims.evidence.arms import by_strength, mean_drift, whole
from gradinoc.claims.evidence.measures import drift_by_question
from gradinoc.claims.evidence.tables import EXPECTED, PROJECTION
from gradinoc.claims.rules.finding import Measured, Status
from gradinoc.claims.rules.verdict import Verdict, judge
from gradinoc.power.scenarios import Scenario
from gradinoc.power.simulate import simulate
from gradinoc.report.figures import FIGURES
from gradinoc.report.wording import rounded
from gradinoc.stats.effect import Effect, bare, null_p
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

RULES = Rules()


@pytest.fixture(scope="module")
def evidence():
    """A study in which the component along v causes 0.8 of what inoculation removes."""
    return simulate("effect", np.random.default_rng(1), seeds=5, matched=19)


@pytest.fixture(scope="module")
def found(evidence):
    """C5's effects in it."""
    return C5.measure(evidence, RULES)


def test_a_component_that_causes_the_drift_is_found(evidence):
    """Every claim is supported, C5 among them, and the verdict says so."""
    judgement = judge(evidence, RULES)
    assert judgement["C5"].status is Status.SUPPORTED, judgement["C5"].reason
    assert judgement.verdict is Verdict.SUPPORTED


def test_what_is_sampled_is_what_a_method_says(evidence):
    """Of every number of every gate and claim: where runs count, none speaks of prompts as the sample."""
    judgement = judge(evidence, RULES)
    of_runs = {
        f"{finding.key} {effect.key}": effect.method
        for finding in (*judgement.gates, *judgement.claims)
        for effect in finding.effects
        if effect.unit == "runs"
    }
    assert {"C5 share", "C5 share.same_loss", "G5 drift", "G8b moved"} <= of_runs.keys()
    assert not {name for name, method in of_runs.items() if "prompts" in method}


def test_a_component_that_causes_nothing_is_refuted_and_no_causal_word_is_said():
    """All other claims hold: then nothing is pronounced."""
    judgement = judge(simulate(Scenario(caused=0.0), np.random.default_rng(2), seeds=5, matched=19), RULES)
    assert judgement["C5"].status is Status.REFUTED
    assert judgement.verdict is Verdict.UNDECIDED


def test_the_share_is_what_means_of_runs_say(evidence, found):
    """(neutral - removed) / (neutral - inoculation), questions and runs weighing the same."""
    means = drift_by_question(whole(evidence), EXPECTED).mean()
    neutral, removed, inoculated = (means[name].mean() for name in (NEUTRAL, "removed", INOCULATION))
    assert found["share"].estimate == pytest.approx((neutral - removed) / (neutral - inoculated), rel=1e-12)


def test_places_are_ranks_among_runs_of_matched_directions(evidence, found):
    """Against the neutral run of the same seed, by brute force."""
    means = mean_drift(evidence, EXPECTED)
    own = np.mean([means[NEUTRAL, seed] - means["removed", seed] for seed in range(5)])
    drawn = [
        means[NEUTRAL, seed] - value for (name, seed), value in means.items() if name.startswith("removed_matched")
    ]
    assert len(drawn) == 19
    assert found["place"].estimate == pytest.approx(own)
    assert found["place"].p == null_p(own, drawn)


def test_it_is_told_how_far_restored_and_inoculated_runs_moved_along_v(evidence, found):
    """A restored run is to move as neutral ones do: the means over runs of the projection's drift."""
    means = mean_drift(evidence, PROJECTION)
    for condition in ("restored", INOCULATION):
        assert found[f"shift.{condition}"].estimate == pytest.approx(means[condition].mean())
        assert found[f"shift.{condition}"].n == len(means[condition])


def test_arms_are_in_no_other_claim(evidence):
    """Without their tables every other gate and claim is the same."""
    names = set(evidence.arms["condition"])
    for name, table in evidence.tables.items():
        assert name == "arms" or "condition" not in table or not names & set(table["condition"]), name
    bare_of_arms = replace(evidence, arms=evidence.arms.iloc[:0], with_arms=None)
    with_arms, without = judge(evidence, RULES), judge(bare_of_arms, RULES)
    others = {finding.key: finding for finding in (*without.gates, *without.claims)}
    assert set(others) == {each.key for each in (*with_arms.gates, *with_arms.claims)} - {"C5", "G11"}
    for key, finding in others.items():
        assert with_arms[key].statement == finding.statement
    assert without.verdict is Verdict.CONSISTENT


# --- the rule, criterion by criterion


def effect(key, estimate, low, high, p=0.01, n=19):
    """An effect that decides."""
    return Effect(key, estimate, low, high, p, n, "runs", "planted", key=key)


def measured(**changed):
    """Effects under which C5 is supported, but for those changed."""
    effects = {
        "share": effect("share", 0.6, 0.4, 0.8),
        "share.same_loss": effect("share.same_loss", 0.1, 0.0, 0.2),
        "dose": effect("dose", -0.9, np.nan, np.nan),
        "place": effect("place", 0.2, 0.1, 0.3),
        "place.same_loss": effect("place.same_loss", 0.2, 0.1, 0.3),
        "restored.place": effect("restored.place", 0.2, 0.1, 0.3),
        "loss": bare("loss", 1.02, 5, "runs", ""),
        "step": bare("step", 0.97, 5, "runs", ""),
    }
    return Measured({key: value for key, value in (effects | changed).items() if value is not None})


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, Status.SUPPORTED),
        ({"share": effect("share", 0.6, 0.25, 0.8)}, Status.UNDECIDED),
        ({"share": effect("share", 0.1, 0.0, 0.24)}, Status.REFUTED),
        ({"share": effect("share", 0.1, 0.0, 0.25)}, Status.UNDECIDED),
        ({"share": effect("share", 0.6, np.nan, np.nan)}, Status.UNDECIDED),
        ({"dose": effect("dose", -0.3, np.nan, np.nan, p=0.06)}, Status.UNDECIDED),
        ({"place": effect("place", 0.2, 0.1, 0.3, p=0.1)}, Status.UNDECIDED),
        ({"restored.place": effect("restored.place", 0.2, 0.1, 0.3, p=0.1)}, Status.UNDECIDED),
        ({"restored.place": effect("restored.place", -0.1, -0.2, 0.0)}, Status.UNDECIDED),
        ({"restored.place": None}, Status.UNDECIDED),
        ({"place": effect("place", 0.2, 0.1, 0.3, p=np.nan, n=0)}, Status.UNDECIDED),
        ({"dose": bare("dose", np.nan, 10, "runs", "none")}, Status.UNDECIDED),
        ({"place.same_loss": effect("place.same_loss", 0.2, 0.1, 0.3, p=0.1)}, Status.SUPPORTED),
        ({"loss": bare("loss", 0.9, 5, "runs", "")}, Status.REFUTED),
        ({"step": bare("step", 1.06, 5, "runs", "")}, Status.REFUTED),
    ],
)
def test_each_criterion_decides(changed, status):
    """One effect a time is moved; with other loss or weights the share at the same loss decides."""
    outcome = decide(measured(**changed), RULES)
    assert outcome.status is status, outcome.reason


@pytest.mark.parametrize("key", ["share", "place"])
def test_what_is_found_at_the_same_loss_decides_where_less_was_learned(key):
    """By 5 % at most the runs count as alike."""
    less = measured(loss=bare("loss", 0.949, 5, "runs", ""))
    assert deciding(measured(), key, RULES).key == key
    assert deciding(less, key, RULES).key == f"{key}.same_loss"


def test_the_place_at_the_same_loss_is_asked_for_where_less_was_learned():
    """A direction without which less is learned leads the others in drift, whatever it causes."""
    less = {"loss": bare("loss", 0.9, 5, "runs", ""), "share.same_loss": effect("share.same_loss", 0.6, 0.4, 0.8)}
    one_of_many = {"place.same_loss": effect("place.same_loss", 0.2, 0.1, 0.3, p=0.1)}
    assert decide(measured(**less), RULES).status is Status.SUPPORTED
    assert decide(measured(**less, **one_of_many), RULES).status is Status.UNDECIDED


def test_the_statement_names_the_share_that_decides(evidence):
    """Not that at the runs' ends, where they differ in what they learn."""

    def slow(runs):
        rows = runs["condition"] == "removed"
        runs.loc[rows, "final_loss"] += 0.2 * (runs.loc[rows, "initial_loss"] - runs.loc[rows, "final_loss"])

    found = C5.measure(of_all_runs(evidence, "runs", slow), RULES)
    assert found["loss"].estimate < 0.95
    assert str(found["share.same_loss"]) in found.statement
    assert "at the same training loss" in found.statement
    assert "training loss" not in C5.measure(evidence, RULES).statement


# --- doses


def test_one_strength_is_no_dose(evidence):
    """Five seeds at 0 and 1 have a p of 1/32: that drift is less at one of two was taken for a dose."""
    bare_of_doses = without(evidence, "dose")
    found = C5.measure(bare_of_doses, RULES)
    assert np.isnan(found["dose"].p)
    assert C5.decide(found, RULES).status is Status.UNDECIDED
    assert "other strengths" in C5.decide(found, RULES).reason


def test_a_single_run_without_other_strengths_is_left_open():
    """Two runs are too few for a correlation, which had stopped the judging."""
    one = without(simulate("effect", np.random.default_rng(1), seeds=1, matched=19), "dose")
    assert judge(one, RULES)["C5"].status is Status.UNDECIDED


def test_the_dose_is_of_ranks(evidence, monkeypatch):
    """Its p, like its estimate: drift on another scale, in the same order, has the same."""
    table, effects = by_strength(evidence, EXPECTED), []
    table = table.assign(drift=np.random.default_rng(0).permutation(table["drift"]))
    for power in (1, 9):
        monkeypatch.setattr(c5, "by_strength", lambda *_, power=power: table.assign(drift=table["drift"] ** power))
        effects.append(C5.measure(evidence, RULES)["dose"])
    assert (effects[0].estimate, effects[0].p) == (effects[1].estimate, effects[1].p)


# --- which runs


def test_the_figure_says_what_decides(evidence):
    """Where the arm learned less, the share and the place at the same loss, by name."""
    found = FIGURES["plot23_removing_the_component"]
    assert "same training loss" not in found.draw(evidence, RULES).finding

    def less(runs):
        rows = runs["condition"] == "removed"
        runs.loc[rows, "final_loss"] = runs["initial_loss"] - 0.7 * (runs["initial_loss"] - runs["final_loss"])

    slower = of_all_runs(evidence, "runs", less)
    effects = C5.measure(slower, RULES)
    told = found.draw(slower, RULES).finding
    assert "at the same training loss" in told
    assert rounded(effects["share.same_loss"].estimate) in told
    assert rounded(effects["place.same_loss"].p) in told
