"""A finished study's tables are complete: every run, step, example and direction that was asked for, paired as said."""

from __future__ import annotations

import numpy as np
import pytest

from gradinoc.claims.measures import null_contrasts, unrelated_contrasts
from gradinoc.study.description import NULLS
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.traits import find_trait


@pytest.fixture(scope="module")
def evidence(finished):
    """Every table of the finished study."""
    return finished.pipeline.evidence()


def test_every_run_has_every_step(evidence, finished):
    """One row of `runs` each; as many steps as asked for; nothing logged is missing."""
    runs = evidence.runs.set_index(["condition", "seed"])
    assert set(runs.index) == {(condition, seed) for condition in evidence.trained for seed in evidence.seeds}
    for place, rows in evidence.training.groupby(["condition", "seed"]):
        assert set(rows["step"]) == set(range(int(runs.loc[place, "steps"])))
        assert np.isfinite(rows[["loss", "alignment", "projection", "grad_norm"]].to_numpy()).all()
    assert set(runs["steps"]) == {finished.study.training.steps}


def test_runs_of_a_seed_meet_the_same_examples(evidence):
    """In the same order, whatever the prompt: they are compared step by step."""
    rows = evidence.training.drop_duplicates(["condition", "seed", "step", "example"])
    for _, runs in rows.groupby("seed"):
        met = [part[["step", "example"]].to_numpy().tolist() for _, part in runs.groupby("condition")]
        assert len(met) == len(evidence.trained)
        assert all(each == met[0] for each in met)


@pytest.mark.parametrize("null", NULLS)
def test_every_random_direction_is_measured(evidence, finished, null):
    """As many of each kind as the study asks for, each with a finite effect."""
    draws = null_contrasts(evidence, null, NEUTRAL)
    assert len(draws) == getattr(finished.study.nulls, null)
    assert np.isfinite(draws).all()


def test_every_unrelated_trait_is_measured_on_every_example(evidence, finished):
    """Those that the trait names as related are left out."""
    found = unrelated_contrasts(evidence, NEUTRAL)
    assert found.shape == (finished.study.data.measure, len(find_trait(finished.study.trait).unrelated))


def test_an_example_has_one_loss(evidence):
    """Whatever layer and position its gradient was read at; and positive."""
    losses = evidence.alignments.groupby(["condition", "example"])["loss"]
    assert (losses.nunique() == 1).all()
    assert (losses.min() > 0).all()
