"""G11: what it takes for an intervention to have taken, criterion by criterion."""

from __future__ import annotations

import numpy as np
import pytest

from fixtures.armed import of_all_runs
from gradinoc.claims.c5 import C5
from gradinoc.claims.evidence.arms import mean_drift
from gradinoc.claims.evidence.tables import AFTER, PROJECTION
from gradinoc.claims.gates.interventions import G11
from gradinoc.claims.rules.finding import Status
from gradinoc.claims.rules.verdict import Verdict, judge
from gradinoc.power.simulate import simulate
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules

RULES = Rules()


@pytest.fixture(scope="module")
def evidence():
    """A study in which the component along v causes 0.8 of what inoculation removes."""
    return simulate("effect", np.random.default_rng(1), seeds=5, matched=19)


def test_a_component_that_is_left_fails_the_gate_and_leaves_c5_open(evidence):
    """What one projected run logged is no zero: C5 alone is undecided, the verdict consistent."""

    def leave(training):
        rows = (training["condition"] == "removed") & (training["layer"] == training["layer"].max())
        training.loc[rows, "alignment"] = 0.02

    broken = of_all_runs(evidence, "training", leave)
    assert G11.judge(broken, RULES).status is Status.REFUTED
    judgement = judge(broken, RULES)
    assert judgement["C5"].status is Status.UNDECIDED
    assert judgement["C5"].failed_gates == ("G11",)
    assert judgement.verdict is Verdict.CONSISTENT


def test_a_shift_that_is_hardly_cut_fails_the_gate(evidence):
    """Runs without the component move along v as far as three quarters of neutral ones."""
    neutral = mean_drift(evidence, PROJECTION)[NEUTRAL].mean()

    def move(drift):
        rows = (drift["condition"] == "removed") & (drift["measure"] == PROJECTION) & (drift["phase"] == AFTER)
        drift.loc[rows, "value"] += 0.75 * neutral - mean_drift(evidence, PROJECTION)["removed"].mean()

    moved = of_all_runs(evidence, "drift", move)
    assert G11.measure(moved, RULES)["cut"].estimate == pytest.approx(0.25)
    assert G11.judge(moved, RULES).status is Status.REFUTED
    assert G11.judge(evidence, RULES).status is Status.SUPPORTED


def test_a_shift_that_grows_is_told_as_what_it_is(evidence):
    """Runs without the component move farther along v: no share of it is cut."""

    def move(drift):
        rows = (drift["condition"] == "removed") & (drift["measure"] == PROJECTION) & (drift["phase"] == AFTER)
        means = mean_drift(evidence, PROJECTION)
        drift.loc[rows, "value"] += 1.25 * means[NEUTRAL].mean() - means["removed"].mean()

    found = G11.measure(of_all_runs(evidence, "drift", move), RULES)
    assert "farther than with the component" in found.statement
    assert "cut" not in found.statement


def test_a_shift_that_is_not_there_cannot_be_cut(evidence):
    """Of next to nothing the share that is cut is chance: neutral runs have to be shown to move."""

    def still(drift):
        rows = (drift["measure"] == PROJECTION) & (drift["phase"] == AFTER)
        means = mean_drift(evidence, PROJECTION)
        ends = {(name, seed): left for name, left in ((NEUTRAL, 0.02), ("removed", 0.0)) for seed in range(5)}
        for run, left in ends.items():
            mine = rows & (drift["condition"] == run[0]) & (drift["seed"] == run[1])
            drift.loc[mine, "value"] += left - means[run]

    found = G11.measure(planted := of_all_runs(evidence, "drift", still), RULES)
    assert found["cut"].estimate == pytest.approx(1.0)
    assert G11.judge(planted, RULES).status is Status.REFUTED


def not_learning(runs):
    """A projected run ends where it began."""
    runs.loc[runs["condition"] == "removed_matched 4", "final_loss"] = runs["initial_loss"]


def another_start(runs):
    """A run along a matched direction begins with another adapter."""
    runs.loc[runs["condition"] == "removed_matched 4", "initial_adapter"] = "another"


def unscorable(responses):
    """Runs without the component answer in figures."""
    responses.loc[responses["condition"].str.startswith("removed"), ["response", "score"]] = ["42.", np.nan]


@pytest.mark.parametrize(
    ("table", "change"), [("runs", not_learning), ("runs", another_start), ("responses", unscorable)]
)
def test_what_is_asked_of_every_run_is_asked_of_those_with_an_intervention(evidence, table, change):
    """G4 and G6 do not see them; so G11 does, and leaves C5 alone open."""
    judgement = judge(of_all_runs(evidence, table, change), RULES)
    assert judgement["G11"].status is Status.REFUTED
    assert judgement["C5"].status is Status.UNDECIDED
    assert judgement.verdict is Verdict.CONSISTENT


def test_a_restored_run_need_not_learn(evidence):
    """The component that it is given is of another prompt's gradient: its steps are no descent of its own loss."""

    def rising(runs):
        runs.loc[runs["condition"] == "restored", "final_loss"] = runs["initial_loss"] + 0.1

    assert G11.judge(of_all_runs(evidence, "runs", rising), RULES).status is Status.SUPPORTED


def test_a_study_without_arms_runs_neither():
    """And says so of C5."""
    plain = simulate("effect", np.random.default_rng(1))
    assert not C5.ran(plain)
    assert not G11.ran(plain)
