"""A run that diverges is a finding: G4 names it, what needs it is not computed, and the verdict is left open."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from fixtures.diverged import OF_RUNS as TABLES
from fixtures.diverged import diverged
from gradinoc.claims.evidence.measures import DIVERGED, diverged_runs
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.gates import GATES, gates_of
from gradinoc.claims.rules.finding import Status
from gradinoc.claims.rules.verdict import Verdict, judge
from gradinoc.power.simulate import simulate
from gradinoc.study.rules import Rules

RULES = Rules()
OF_RUNS = ("G5", "G6", "G8b", "G8c", "G9", "G10", "C4", "C6", "C7a", "C7b", "C7c")  # what needs the runs


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """A study in which every claim holds."""
    return simulate("effect", np.random.default_rng(2))


@pytest.mark.parametrize("condition", ["neutral", "inoculation", "anti_00"])
def test_run_that_diverged_is_named_and_leaves_the_verdict_open(evidence, condition):
    """It had stopped the judging. G4 fails with its numbers; all that needs the runs says why it is not computed."""
    seed = next(seed for name, seed in evidence.planned_runs if name == condition)
    found = judge(diverged(evidence, condition, seed), RULES)
    assert found["G4"].status is Status.REFUTED
    assert f"not in {condition} seed {seed}" in found["G4"].statement
    assert np.isfinite(found["G4"]["fall"].estimate)
    assert found.verdict is Verdict.UNDECIDED
    for key in OF_RUNS:
        assert (found[key].statement, found[key].effects) == (DIVERGED, ())
        assert found[key].status is (Status.UNDECIDED if key.startswith("C") else Status.REFUTED)
    assert "G4" in found["C4"].failed_gates
    assert "G4" in found["C6"].failed_gates
    spoken = [found.sentence, *found.warnings, *(each.statement for each in (*found.gates, *found.claims))]
    assert not any(re.search(r"\bnan\b", words) for words in spoken), spoken


@pytest.mark.parametrize("table", [name for name in TABLES if name != "cells"])  # which are made from the log
def test_one_table_tells_that_a_run_diverged(evidence, table):
    """Its weights may break in the last step, behind the last number that was logged."""
    broken = diverged(evidence, "inoculation", 1)
    assert diverged_runs(replace(evidence, **{table: broken.tables[table]})) == {("inoculation", 1)}
    assert diverged_runs(evidence) == set()


def test_every_run_may_have_diverged(evidence):
    """Then G4 names them all, and there is no number at all."""
    broken = evidence
    for run in evidence.planned_runs:
        broken = diverged(broken, *run)
    found = judge(broken, RULES)
    assert found["G4"].status is Status.REFUTED
    assert found["G4"].statement.startswith(f"In 0 of {len(evidence.planned_runs)} runs")
    assert "nan" not in found["G4"].statement
    assert found.verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("missing", ["", " ", None])
@pytest.mark.parametrize("count", [1, 10_000])
def test_adapter_that_was_not_stored_is_no_start_alike(evidence, missing, count):
    """Without their hashes nothing shows that runs of a seed began with the same weights: all empty are not equal."""
    starts = evidence.runs["initial_adapter"].astype(object).copy()
    starts.iloc[:count] = missing
    gates = gates_of(replace(evidence, runs=evidence.runs.assign(initial_adapter=starts)), RULES)
    failed = {gate.key: gate.statement for gate in gates if gate.status is not Status.SUPPORTED}
    assert set(failed) == {"G4"}
    assert f"Of {min(count, len(starts))} runs it was not stored" in failed["G4"]


def test_frozen_model_is_judged_though_a_run_diverged(evidence):
    """Gates and claims on the model before training rest on no run."""
    before, after = judge(evidence, RULES), judge(diverged(evidence, "inoculation", 0), RULES)
    frozen = {gate.key for gate in GATES} - {"G4", "G11", *OF_RUNS}
    assert all(before[key] == after[key] for key in frozen)
    assert all(before[key].statement == after[key].statement for key in ("C1", "C2", "C3"))
