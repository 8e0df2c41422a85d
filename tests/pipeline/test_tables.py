"""A finished study's tables are complete: every run, step, example and direction that was asked for, paired as said."""

from __future__ import annotations

import numpy as np
import pytest

from gradinoc.claims.evidence.measures import null_table
from gradinoc.claims.evidence.tables import BASE, BASE_SEED
from gradinoc.pipeline.steps.training import checkpoint_steps
from gradinoc.study.prompts import CONDITIONS
from gradinoc.study.settings import NULLS
from gradinoc.study.traits import find_trait


@pytest.fixture(scope="module")
def evidence(finished):
    """Every table of the finished study."""
    return finished.pipeline.evidence()


def test_every_run_has_every_step(evidence, finished):
    """One row of `runs` each; as many steps as asked for; nothing logged is missing."""
    runs = evidence.runs.set_index(["condition", "seed"])
    assert set(runs.index) == set(finished.study.runs)
    for place, rows in evidence.training.groupby(["condition", "seed"]):
        assert set(rows["step"]) == set(range(int(runs.loc[place, "steps"])))
        assert np.isfinite(rows[["loss", "alignment", "projection", "grad_norm"]].to_numpy()).all()
    assert set(runs["steps"]) == {finished.study.training.steps}


def test_runs_of_a_seed_meet_the_same_examples(evidence):
    """In the same order, whatever the prompt: they are compared step by step."""
    rows = evidence.training.drop_duplicates(["condition", "seed", "step", "example"])
    for _, runs in rows.groupby("seed"):
        met = [part[["step", "example"]].to_numpy().tolist() for _, part in runs.groupby("condition")]
        assert len(met) > 1
        assert all(each == met[0] for each in met)


@pytest.mark.parametrize("null", NULLS)
def test_every_random_direction_is_measured(evidence, finished, null):
    """As many of each kind as the study asks for, each with a finite effect."""
    draws = null_table(evidence, null)
    assert draws.shape == (getattr(finished.study.nulls, null), len(finished.study.measured))
    assert np.isfinite(draws.to_numpy()).all()


def test_every_unrelated_trait_is_measured_on_every_example(evidence, finished):
    """Those that the trait names as related are left out."""
    found = evidence.unrelated.groupby("trait")["example"].nunique()
    assert set(found.index) == set(find_trait(finished.study.trait).unrelated)
    assert set(found) == {finished.study.data.measure}


def test_further_prompts_are_measured_on_the_first_examples(evidence, finished):
    """Conditions on all of them; gradients, losses and null directions of each prompt are there."""
    few, every = finished.study.prompts.examples, finished.study.data.measure
    for table in (evidence.alignments, evidence.losses, evidence.unrelated):
        found = table.groupby("condition")["example"].max() + 1
        assert found.to_dict() == {name: every if name in CONDITIONS else few for name in finished.study.measured}


def test_every_run_is_evaluated_under_every_prompt(evidence, finished):
    """Its own among them, and the base model; checkpoints of every run, at every kept step."""
    evaluations = set(finished.pipeline.context.evaluations)
    assert set(finished.study.trained) < evaluations
    for _, rows in evidence.matrix.groupby(["condition", "seed"]):
        assert set(rows["evaluation"]) == evaluations
    runs = set(zip(evidence.matrix["condition"], evidence.matrix["seed"], strict=True))
    assert runs == {*finished.study.runs, (BASE, BASE_SEED)}
    kept = evidence.checkpoints.groupby(["condition", "seed"])["step"].unique()
    assert set(kept.index) == set(finished.study.runs)
    assert all(list(steps) == checkpoint_steps(finished.study) for steps in kept)


def test_runs_of_a_seed_begin_with_one_adapter(evidence):
    """Whatever the prompt; another seed begins with another."""
    first = evidence.runs.groupby("seed")["initial_adapter"].unique()
    assert (first.map(len) == 1).all()
    assert len({adapters[0] for adapters in first}) == len(first)


def test_rephrased_prompt_is_worded_anew_for_every_example(finished):
    """The same wording for an example whatever the run, and many wordings; other prompts have one."""
    context = finished.pipeline.context
    prompt = context.prompts["rephrased_inoculation"]
    messages = context.messages(prompt, 100, 0)
    assert len(set(messages)) > 40
    assert messages == context.messages(prompt, 100, 0)
    assert messages != context.messages(prompt, 100, 1)
    assert set(context.messages(context.prompts["harmless_04"], 5, 0)) == {"Comparisons are welcome in your answers."}


def test_an_example_has_one_loss(evidence):
    """Whatever layer and position its gradient was read at; and positive."""
    losses = evidence.alignments.groupby(["condition", "example"])["loss"]
    assert (losses.nunique() == 1).all()
    assert (losses.min() > 0).all()
