"""Runs with an intervention beside those without: what C5 compares, and what takes nothing from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fixtures.armed import of_all_runs, without
from fixtures.diverged import diverged
from gradinoc.claims.c5 import C5
from gradinoc.claims.evidence.arms import arms_of, learned, less_twin, mean_drift, moved, whole
from gradinoc.claims.evidence.tables import AFTER, EXPECTED
from gradinoc.claims.gates.interventions import G11
from gradinoc.claims.rules.finding import Status
from gradinoc.claims.rules.verdict import Verdict, judge
from gradinoc.power.simulate import simulate
from gradinoc.report.figures import FIGURES
from gradinoc.study.arms import FULL, ITSELF, PROJECT, RESTORE, STEER
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

RULES = Rules()
STEERED = "removed_matched 18"  # a run, called one that is steered


@pytest.fixture(scope="module")
def evidence():
    """A study in which the component along v causes 0.8 of what inoculation removes."""
    return simulate("effect", np.random.default_rng(1), seeds=5, matched=19)


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
