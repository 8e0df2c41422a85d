"""The tests in `claims/` say what the rules decide: all tests of a claim pass if and only if it is supported."""

from __future__ import annotations

import importlib
import inspect
import itertools
import math
from collections import defaultdict
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.gates import gates_of
from gradinoc.claims.rules.finding import Status
from gradinoc.claims.rules.verdict import OPTIONAL, RULES_OF, judge, not_run
from gradinoc.power.scenarios import SCENARIOS
from gradinoc.power.simulate import simulate
from gradinoc.study.rules import Rules

CLAIMS = Path(__file__).parents[2] / "claims"
RULES = Rules()
SIZES = {"layers": 3, "steps": 9, "directions": 100, "matched": 19}


@cache
def by_claim():
    """Key of a gate or claim -> the tests that are marked with it."""
    found = defaultdict(list)
    for path in sorted(CLAIMS.glob("test_*.py")):
        module = importlib.import_module(f"claims.{path.stem}")
        of_module = getattr(module, "pytestmark", None)
        for _, test in inspect.getmembers(module, inspect.isfunction):
            marks = [*getattr(test, "pytestmark", []), *([of_module.mark] if of_module else [])]
            for mark in marks:
                if mark.name == "claim":
                    found[mark.args[0]].append(test)
    return dict(found)


def passes(test, given):
    """Whether the test passes for every one of its parameters: of a run those that the study trained."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    axes = [[{mark.args[0]: value} for value in mark.args[1]] for mark in marks]
    wanted = inspect.signature(test).parameters
    if "seed" in wanted:
        axes.append([{"condition": condition, "seed": seed} for condition, seed in given["evidence"].planned_runs])
    for values in itertools.product(*axes):
        chosen = given | {name: value for each in values for name, value in each.items()}
        try:
            test(**{name: chosen[name] for name in wanted})
        except AssertionError:
            return False
        except KeyError:  # nothing was measured
            if given["finding"].status is Status.SUPPORTED:
                raise
            return False
    return True


def agree(evidence: Evidence, rules: Rules = RULES) -> dict[str, Status]:
    """Assert of every gate and claim that its tests pass if and only if it is supported; return the statuses."""
    tests = by_claim()
    gates, statuses = gates_of(evidence, rules), {}
    assert set(tests) == set(RULES_OF)
    for key, claim in RULES_OF.items():
        finding = claim.judge(evidence, rules, gates)
        given = {"finding": finding, "rules": rules, "evidence": evidence}
        failed = [test.__name__ for test in tests[key] if not passes(test, given)]
        assert (not failed) == (finding.status is Status.SUPPORTED), (key, finding.status, failed, finding.reason)
        statuses[key] = finding.status
    return statuses


@pytest.mark.parametrize("name", SCENARIOS)
def test_tests_of_a_claim_pass_if_and_only_if_it_is_supported(name):
    """In every scenario of the simulation, few layers and steps."""
    agree(simulate(name, np.random.default_rng(0), **SIZES))


def test_simulated_studies_meet_every_status():
    """Scenarios have every gate and claim supported and not, or the equivalence would say little."""
    met = defaultdict(set)
    for name in ("effect", "any_prompt", "wrong_sign", "loss_explains"):
        for key, status in agree(simulate(name, np.random.default_rng(1), matched=19)).items():
            met[key].add(status)
    assert all(Status.SUPPORTED in met[key] for key in RULES_OF if key not in ("C3", "C4")), met
    assert Status.REFUTED in met["C6"], met
    assert all(Status.UNDECIDED in met[key] for key in ("C1", "C2", "C3", "C4")), met


def test_a_study_without_arms_does_not_run_c5():
    """And says what it would show."""
    judgement = judge(simulate("effect", np.random.default_rng(0)), RULES)
    assert set(OPTIONAL) <= set(RULES_OF)
    assert not {"C5", "G11"} & {finding.key for finding in (*judgement.gates, *judgement.claims)}
    assert set(not_run(judgement.claims)) == {"C5"}


def test_claims_on_where_drift_comes_from_are_not_run_without_their_tables():
    """A study that asks for no attribution has no finding of theirs, and the verdict says so."""
    evidence = simulate("effect", np.random.default_rng(0), **SIZES)
    bare = {
        name: evidence.tables[name].iloc[:0] for name in ("attribution", "lengths", "shares", "share_nulls", "kernel")
    }
    judgement = judge(replace(evidence, **bare), RULES)
    assert not {"C7a", "C7b", "C7c", "G10"} & {finding.key for finding in (*judgement.gates, *judgement.claims)}
    assert set(not_run(judgement.claims)) == set(OPTIONAL) - {"C5"}
    assert not not_run(judge(evidence, RULES).claims)


SMALL = {
    "one seed": {"seeds": 1},
    "two prompts of a family trained": {"trained": (2, 2, 1)},
    "no rephrased pair": {"rephrased": False},
}


@pytest.mark.parametrize("name", list(SMALL))
def test_design_that_cannot_decide_fails_a_test_of_the_claim(name):
    """Where no p or interval can be had, tests of what needs it do not pass."""
    statuses = agree(simulate("effect", np.random.default_rng(0), **{**SIZES, **SMALL[name]}))
    assert Status.UNDECIDED in statuses.values()


@pytest.mark.parametrize(
    ("table", "column", "value", "gate"),
    [
        ("layers", "auc", 0.89, "G1"), ("layers", "split_half_cosine", 0.79, "G2"), ("losses", "trait_loss", 0.0, "G3"),
        ("training", "alignment", math.nan, "G4"), ("runs", "final_loss", math.inf, "G4"),
        ("runs", "final_loss", 9.0, "G4"), ("runs", "initial_adapter", "other", "G4"),
        ("responses", "response", "123", "G6"), ("behaviour", "score", 0.5, "G7"),
        ("steering_losses", "loss", 9.0, "G8a"), ("steering", "log_odds", 0.0, "G8a"),
    ],
)  # fmt: skip
def test_gate_that_fails_fails_its_test_and_a_test_of_what_rests_on_it(table, column, value, gate):
    """A failed gate leaves claims undecided, and a test of theirs says so; of a run that diverged too."""
    evidence = simulate("effect", np.random.default_rng(0), **SIZES)
    frame, others = getattr(evidence, table).copy(), {}
    rows = frame.index
    if table == "training":
        rows = frame.index[-40:]
    if column == "initial_adapter":
        rows = frame.index[:1]
    if table == "losses":
        rows = frame.index[frame["condition"].str.startswith("harmless")]
    if table == "steering_losses":
        rows = frame.index[frame["strength"] == frame["strength"].max()]
    if table == "behaviour":  # a model too weak to show it, and in log-odds no more than anything else
        others["elicitation"] = evidence.elicitation.assign(log_odds=0.0 * evidence.elicitation["log_odds"])
    frame.loc[rows, column] = value
    statuses = agree(replace(evidence, **{table: frame}, **others))
    assert statuses[gate] is Status.REFUTED
    assert Status.UNDECIDED in statuses.values()
