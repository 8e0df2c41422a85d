"""A criterion says whether it holds, and how far the estimate is from flipping it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gradinoc.claims.rules import criteria
from gradinoc.claims.rules.verdict import CLAIMS, GATES, judge
from gradinoc.power.scenarios import SCENARIOS
from gradinoc.power.simulate import simulate
from gradinoc.stats.effect import bare, from_standard_error
from gradinoc.study.rules import Rules

RULES = Rules()


def effect(estimate, error=0.1, df=20):
    """An effect with a t interval."""
    return from_standard_error(bare("e", estimate, df + 1, "examples", "t"), error, df)


KINDS = {
    "above zero": lambda estimate: criteria.above_zero(effect(estimate)),
    "at or below zero": lambda estimate: criteria.at_or_below_zero(effect(estimate)),
    "above a bar": lambda estimate: criteria.above(effect(estimate), 0.2),
    "equivalent": lambda estimate: criteria.equivalent(effect(estimate), 0.5, 0.05),
    "at least": lambda estimate: criteria.at_least(effect(estimate), 0.9),
    "below": lambda estimate: criteria.below(effect(estimate), 0.05),
    "positive": lambda estimate: criteria.positive(effect(estimate)),
}


@pytest.mark.parametrize("estimate", [-0.6, -0.01, 0.02, 0.4, 1.3])
@pytest.mark.parametrize("kind", list(KINDS))
def test_criterion_flips_where_its_slack_ends(kind, estimate):
    """Just short of its slack it stays, just beyond it flips, whichever side it was on."""
    found = KINDS[kind](estimate)
    towards = [step for step in (1, -1) if KINDS[kind](estimate + step * 1.001 * abs(found.slack)).holds != found.holds]
    assert len(towards) == 1, f"flips towards {towards}"
    assert KINDS[kind](estimate + towards[0] * 0.999 * abs(found.slack)).holds == found.holds
    assert (found.slack > 0) == found.holds


@pytest.mark.parametrize(("p", "holds"), [(0.01, True), (0.05, True), (0.2, False)])
def test_slack_of_a_p_is_of_p(p, holds):
    """What is left to alpha."""
    found = criteria.p_at_most(replace(effect(1.0), p=p), 0.05)
    assert found.holds is holds
    assert found.slack == pytest.approx(0.05 - p)


def test_no_interval_decides_nothing():
    """One group of examples has none: neither above zero nor below, and no distance to it."""
    none = bare("e", 1.0, 1, "examples", "")
    for criterion in (criteria.above_zero(none), criteria.at_or_below_zero(none)):
        assert not criterion
        assert math.isnan(criterion.slack)


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_every_finding_shows_its_criteria_by_key(name):
    """Each names an effect of its finding, and a supported gate meets them all."""
    evidence = simulate(
        SCENARIOS[name],
        np.random.default_rng(3),
        examples=24,
        shared=24,
        layers=4,
        seeds=3,
        steps=10,
        directions=100,
        matched=19,
    )
    judgement = judge(evidence, RULES)
    for finding, claim in zip((*judgement.gates, *judgement.claims), (*GATES, *CLAIMS), strict=True):
        keys = {each.key for each in finding.effects}
        assert finding.criteria or not finding.effects
        assert {criterion.key for criterion in finding.criteria} <= {*keys, ""}, finding.key
        assert len(keys) == len(finding.effects), "two effects have one key"
        if claim in GATES:
            assert (finding.status == "supported") == all(finding.criteria)
