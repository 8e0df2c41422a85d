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

from gradinoc.claims.finding import Status
from gradinoc.claims.gates import gates_of
from gradinoc.claims.verdict import RULES_OF
from gradinoc.power.calibration.cases import cases
from gradinoc.power.scenarios import SCENARIOS
from gradinoc.power.simulate import simulate
from gradinoc.study.rules import Rules

CLAIMS = Path(__file__).parents[2] / "claims"
RULES = Rules()
SIZES = {"examples": 24, "layers": 3, "seeds": 3, "steps": 5, "directions": 40}


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
    """Whether the test passes for every one of its parameters."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    axes = {mark.args[0]: mark.args[1] for mark in marks}
    wanted = inspect.signature(test).parameters
    axes |= {"condition": given["evidence"].trained, "seed": given["evidence"].seeds}
    axes = {name: values for name, values in axes.items() if name in wanted}
    for values in itertools.product(*axes.values()):
        chosen = {**given, **dict(zip(axes, values, strict=True))}
        try:
            test(**{name: chosen[name] for name in wanted})
        except AssertionError:
            return False
        except KeyError:  # nothing was measured
            if given["finding"].effects and given["finding"].status is Status.SUPPORTED:
                raise
            return False
    return True


def agree(evidence, rules=RULES):
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


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[] if each in SCENARIOS else [pytest.mark.exhaustive]) for each in cases()]
)
def test_tests_of_a_claim_pass_if_and_only_if_it_is_supported(name):
    """In every scenario of the calibration, its sizes small and as many seeds as it has."""
    agree(simulate(cases()[name].scenario, np.random.default_rng(0), **SIZES))


def test_simulated_studies_meet_every_status():
    """Scenarios have every claim supported, refuted and undecided, or the equivalence would say little."""
    met = {claim: set() for claim in RULES_OF}
    for name in ("effect", "loss_mediated", "loss_explained", "reversed", "different_mechanism"):
        for key, status in agree(simulate(name, np.random.default_rng(0))).items():
            met[key].add(status)
    assert all(Status.SUPPORTED in statuses for statuses in met.values()), met
    assert all(Status.REFUTED in met[claim] for claim in ("C1", "C3", "C4")), met
    assert all(Status.UNDECIDED in met[claim] for claim in ("C2",)), met


BROKEN = {
    "no seed but one": {"seeds": 1},
    "few directions": {"directions": 10},
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_design_that_cannot_decide_fails_a_test_of_the_claim(name):
    """Where no p is small enough, tests of C2 or C4 do not pass."""
    agree(simulate("effect", np.random.default_rng(0), **{**SIZES, **BROKEN[name]}))


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("layers", "auc", 0.89), ("layers", "split_half_cosine", 0.79), ("alignments", "loss", 2.0),
        ("training", "alignment", math.nan), ("runs", "final_loss", math.inf), ("runs", "final_loss", 9.0),
    ],
)  # fmt: skip
def test_gate_that_fails_fails_its_test_and_a_test_of_what_rests_on_it(table, column, value):
    """A failed gate leaves claims undecided, and a test of theirs says so; of a run that diverged too."""
    evidence = simulate("effect", np.random.default_rng(0), **SIZES)
    frame = getattr(evidence, table).copy()
    rows = frame.index[-40:] if table == "training" else frame.index
    frame.loc[rows, column] = value if column != "loss" else value + 0.01 * frame["example"]
    statuses = agree(replace(evidence, **{table: frame}))
    assert Status.REFUTED in statuses.values()
    assert Status.UNDECIDED in statuses.values()
