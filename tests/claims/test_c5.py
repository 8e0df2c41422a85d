"""C5: what the numbers rest on, each criterion of the rule, and what arms must not touch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fixtures.armed import of_all_runs, without
from fixtures.diverged import diverged
from gradinoc.claims import c5
from gradinoc.claims.c5 import C5, decide, deciding
from gradinoc.claims.evidence.arms import arms_of, by_strength, learned, less_twin, mean_drift, moved, whole
from gradinoc.claims.evidence.measures import drift_by_question
from gradinoc.claims.evidence.tables import AFTER, EXPECTED, PROJECTION
from gradinoc.claims.gates.interventions import G11
from gradinoc.claims.rules.finding import Measured, Status
from gradinoc.claims.rules.verdict import Verdict, judge
from gradinoc.power.scenarios import Scenario
from gradinoc.power.simulate import simulate
from gradinoc.report.figures import FIGURES
from gradinoc.report.wording import rounded
from gradinoc.stats.effect import Effect, bare, null_p
from gradinoc.study.arms import FULL, ITSELF, PROJECT, RESTORE, STEER
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

RULES = Rules()
STEERED = "removed_matched 18"  # a run, called one that is steered


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


def test_a_table_that_is_changed_is_changed_for_runs_with_an_intervention_too(evidence):
    """Their twins are in it."""
    drift = evidence.drift.copy()
    rows = (drift["condition"] == NEUTRAL) & (drift["measure"] == EXPECTED)
    drift.loc[rows, "value"] += 0.1
    before, after = (mean_drift(each, EXPECTED) for each in (evidence, replace(evidence, drift=drift)))
    np.testing.assert_allclose(after[NEUTRAL], before[NEUTRAL] + 0.1)
    np.testing.assert_allclose(after["removed"], before["removed"])
    assert whole(evidence).planned_runs == evidence.with_arms.planned_runs


def test_c5_is_not_run_where_no_arm_removes_the_component(evidence):
    """A study with restored runs alone has not asked: what needs C5 is not left open by it."""
    restored = without(evidence, "removed", "dose", "removed_matched")
    assert set(restored.arms["arm"]) == {"restored", "restored_matched"}
    assert not C5.ran(restored)
    assert not G11.ran(restored)


@pytest.mark.parametrize("run", [("removed", 1), ("removed_matched 3", 3), ("restored", 0)])
def test_an_arm_that_diverged_leaves_c5_open_and_nothing_else(evidence, run):
    """Of every other gate and claim the numbers are the same."""
    before, after = judge(evidence, RULES), judge(diverged(whole(evidence), *run).without_arms(), RULES)
    assert after["C5"].status is Status.UNDECIDED
    assert after["G11"].status is Status.REFUTED
    for finding in (*before.gates, *before.claims):
        if finding.key not in ("C5", "G11"):
            assert after[finding.key].statement == finding.statement
    assert after.verdict is Verdict.CONSISTENT


@pytest.fixture
def steered(evidence):
    """The study with one of its matched directions' runs called one that is steered: an arm that nothing rests on."""

    def call(arms):
        rows = arms["condition"] == STEERED
        arms.loc[rows, ["intervention", "strength", "draw"]] = (STEER, 2.0, ITSELF)

    return of_all_runs(evidence, "arms", call)


def unscored(evidence):
    """No response of the steered run can be scored, of a half of the questions."""

    def lose(drift):
        rows = (drift["condition"] == STEERED) & (drift["measure"] == EXPECTED) & (drift["phase"] == AFTER)
        drift.loc[rows & (drift["example"] % 2 == 0), "value"] = np.nan

    return of_all_runs(evidence, "drift", lose)


@pytest.mark.parametrize(
    ("lose", "n"), [(lambda evidence: diverged(whole(evidence), STEERED, 3).without_arms(), 0), (unscored, 1)]
)
def test_an_arm_that_nothing_rests_on_takes_nothing_from_the_claim(steered, lose, n):
    """Diverged, or without responses that can be scored: what decides is the same, and its own effect is told."""
    less = lose(steered)
    before, after = judge(steered, RULES), judge(less, RULES)
    for key in ("C5", "G11"):
        assert after[key].status is before[key].status
        for effect in before[key].effects:
            if effect.key != "steer.2":
                assert after[key][effect.key] == effect or np.isnan(effect.estimate), effect.key
    assert before["C5"]["steer.2"].n == 1
    assert after["C5"]["steer.2"].n == n
    assert FIGURES["plot23_removing_the_component"].draw(less, RULES).finding


def test_seeds_that_the_arm_has_not_are_not_compared_with_it(evidence):
    """Neutral runs of two further seeds learn twice as much and move twice as far: the arm does as its twins do."""
    everything = whole(evidence)
    tables = {}
    for name in ("runs", "weights"):
        table = everything.tables[name]
        late = table["seed"] >= 3
        table = table[~late | (table["condition"] != "removed")].copy()
        rows = (table["condition"] == NEUTRAL) & (table["seed"] >= 3)
        if name == "runs":
            table.loc[rows, "final_loss"] -= table.loc[rows, "initial_loss"] - table.loc[rows, "final_loss"]
        else:
            table.loc[rows, "moved"] *= 2
        tables[name] = table
    planted = replace(everything, **tables)
    assert learned(planted, "removed", NEUTRAL) == pytest.approx(1, abs=0.05)
    assert moved(planted, "removed", NEUTRAL) == pytest.approx(1, abs=0.05)


def test_arms_are_told_apart_by_what_they_do(evidence):
    """Own directions by strength, drawn ones in order; restored under inoculation."""
    assert set(arms_of(evidence, PROJECT).own) == {-1.0, 0.5, FULL, 2.0}
    assert arms_of(evidence, PROJECT).drawn == tuple(f"removed_matched {draw}" for draw in range(19))
    assert arms_of(evidence, RESTORE).own == {FULL: "restored"}
    assert len(less_twin(evidence, EXPECTED, ("restored",), INOCULATION)) == 5


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
