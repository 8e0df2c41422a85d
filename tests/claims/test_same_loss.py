"""Runs at the same training loss: where each is read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gradinoc.claims.c5 import C5
from gradinoc.claims.evidence.arms import whole
from gradinoc.claims.evidence.same_loss import (
    at_same_loss,
    both_reach,
    drift_courses,
    falling_losses,
    less_twin_at_same_loss,
)
from gradinoc.power.simulate import simulate
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

RULES = Rules()


@pytest.fixture(scope="module")
def evidence():
    """A study in which the component along v causes 0.8 of what inoculation removes."""
    return simulate("effect", np.random.default_rng(1), seeds=5, matched=19)


def test_runs_are_compared_where_both_had_reached_the_loss(evidence):
    """A removed arm whose loss ends where neutral runs were half way: neutral drift is read half way."""
    everything = whole(evidence)
    table = everything.training.copy()
    steps = table["step"].max() + 1
    slower = table["condition"] == "removed"
    table.loc[~slower, "loss"] = 2.0 - table["step"] / steps
    table.loc[slower, "loss"] = 2.0 - table["step"] / (2 * steps)
    planted = replace(everything, training=table, with_arms=None)
    found = at_same_loss(planted, {"one": NEUTRAL, "other": "removed"}, {"beside": INOCULATION})
    courses, losses = drift_courses(planted), falling_losses(planted)
    differences = less_twin_at_same_loss(planted, ("removed",), NEUTRAL)
    for place, seed in enumerate(range(5)):
        level = losses["removed", seed][-1]
        at = 1 + np.interp(-level, -losses[NEUTRAL, seed], np.arange(steps))
        known = courses[NEUTRAL, seed]
        expected = [np.interp(at, known.columns.astype(float), row) for row in known.to_numpy()]
        np.testing.assert_allclose(found["one"][place], expected, rtol=1e-6)
        np.testing.assert_allclose(found["other"][place], courses["removed", seed].iloc[:, -1], rtol=1e-6)
        beside = [np.interp(at, known.columns.astype(float), row) for row in courses[INOCULATION, seed].to_numpy()]
        np.testing.assert_allclose(found["beside"][place], beside, rtol=1e-6)
        gap = np.mean(expected) - courses["removed", seed].iloc[:, -1].mean()
        assert differences[place] == pytest.approx(-gap, rel=1e-6)


def test_a_run_that_learns_nothing_refutes_nothing(evidence):
    """At its loss neutral runs have hardly begun either: there is nothing yet to have a share of."""
    everything = whole(evidence)
    table = everything.training.copy()
    slower, steps = table["condition"] == "removed", table["step"].max() + 1
    table["loss"] = np.where(slower, 2.0, 2.0 - table["step"] / steps)
    planted = replace(everything, training=table, with_arms=None).without_arms()
    share = C5.measure(planted, RULES)["share.same_loss"]
    assert not share.high < RULES.removed, share


def test_the_same_loss_is_found_though_batches_differ(evidence):
    """One run learns 0.85 of what the other does; batches, which both meet, differ by 0.15 of what it learns.

    An isotonic curve follows them down at its end, and took 0.91 of the other's steps for the same loss.
    """
    rng, seeds, steps = np.random.default_rng(0), 60, 24
    batches = rng.normal(0, 0.15, (seeds, steps))
    done = np.arange(steps) / steps
    losses = [2 - rate * done + batches + rng.normal(0, 0.01, batches.shape) for rate in (1.0, 0.85)]
    table = pd.concat(
        [
            pd.DataFrame({"condition": name, "seed": seed, "step": range(steps), "loss": each[seed], "layer": 0})
            for name, each in zip(("quick", "slow"), losses, strict=True)
            for seed in range(seeds)
        ]
    ).assign(position=evidence.primary_position)  # fmt: skip
    planted = replace(evidence, training=pd.concat([evidence.training.iloc[:0], table]), with_arms=None)
    at = np.array([both_reach(planted, ("quick", seed), ("slow", seed)) for seed in range(seeds)])
    assert at[:, 0].mean() / at[:, 1].mean() == pytest.approx(0.85, abs=0.04)
