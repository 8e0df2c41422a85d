"""A study with arms from beginning to end, on a tiny model: what its runs, tables and claims are."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from fixtures.small_study import SMALLEST
from gradinoc.claims.evidence.arms import largest_alignment, whole
from gradinoc.claims.rules.verdict import judge
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps import training
from gradinoc.pipeline.steps.base_model.directions import band, half_lengths, trait_directions
from gradinoc.pipeline.steps.step import DIRECTIONS, run_key
from gradinoc.pipeline.storage.store import Store
from gradinoc.report.exports.tables import write_tables
from gradinoc.study.loading import load_study
from gradinoc.study.prompts import NEUTRAL

ARMS = [
    'arms.removed.intervention="project"',
    'arms.matched.intervention="project"', "arms.matched.draws=2",
    'arms.restored.intervention="restore"', 'arms.restored.prompt="inoculation"',
    'arms.steered.intervention="steer"', 'arms.ablated.intervention="ablate"', 'arms.shrunk.intervention="shrink"',
    'arms.learned.intervention="project"', 'arms.learned.direction="learned"',
]  # fmt: skip
NAMES = {"removed", "matched 0", "matched 1", "restored", "steered", "ablated", "shrunk", "learned"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The pipeline and the evidence of the smallest study, with every kind of arm."""
    pipeline = Pipeline(load_study("tiny", [*SMALLEST, *ARMS, "name=armed"]), Store(tmp_path_factory.mktemp("armed")))
    return pipeline, pipeline.evidence()


def test_every_arm_is_trained_and_measured(made):
    """Its rows are in the tables of all runs, and in none of those that other claims rest on."""
    _, evidence = made
    assert set(evidence.arms["condition"]) == NAMES
    for name in ("runs", "training", "drift", "checkpoints", "matrix", "weights"):
        assert set(whole(evidence).tables[name]["condition"]) >= NAMES, name
        assert not NAMES & set(evidence.tables[name]["condition"]), name
    evidence.ensure_measured()


def test_the_component_along_the_direction_is_gone(made):
    """Of the gradient that its training logged, at every step; neutral runs' is there."""
    _, evidence = made
    assert largest_alignment(evidence, ("removed", "ablated")) < 1e-5
    assert largest_alignment(evidence, (NEUTRAL,)) > 1e-3


def test_directions_are_drawn_that_hold_as_much_energy(made):
    """To within a fifth; two, as the arm asks."""
    _, evidence = made
    assert evidence.energies["draw"].tolist() == [0, 1]
    np.testing.assert_array_less((evidence.energies["energy"] / evidence.energies["target"] - 1).abs(), 0.2)


def test_an_arm_begins_with_the_adapter_of_its_seed_and_is_another_run(made):
    """Steps of other runs have the keys that they have in a study without arms."""
    pipeline, evidence = made
    runs = whole(evidence).runs
    assert runs.groupby("seed")["initial_adapter"].nunique().eq(1).all()
    plain = Pipeline(load_study("tiny", [*SMALLEST, "name=plain"]), Store(pipeline.entry("directions").path.parents[1]))
    ordinary = [key for key in plain.steps if key.stage in ("training", "drift", "checkpoints", "matrix")]
    assert ordinary
    assert all(plain.entries[key].key == pipeline.entries[key].key for key in ordinary)


def test_c5_and_its_gate_are_judged(made):
    """One question moves too little for a share; what G11 asks of gradients and losses is there."""
    _, evidence = made
    judgement = judge(evidence, load_study("tiny").rules)
    assert judgement["G11"]["alignment"].estimate < 1e-5
    assert np.isfinite([judgement["C5"][key].estimate for key in ("loss", "step", "steer.1")]).all()


def test_what_is_exported_has_the_runs_of_arms_too(made, tmp_path):
    """Their rows are in every table of runs, and `arms` tells them from the others."""
    _, evidence = made
    write_tables(evidence, [], tmp_path)
    tables = {name: pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("arms", "runs", "drift", "metrics")}
    assert set(tables["arms"]["condition"]) == NAMES
    for name in ("runs", "drift", "metrics"):
        assert set(tables[name]["condition"]) > NAMES, name
    assert tables["runs"].set_index("condition").loc[sorted(NAMES), "expected_score_drift"].notna().all()
    said = [json.loads(line)["condition"] for line in (tmp_path / "responses.jsonl").read_text("utf-8").splitlines()]
    assert set(said) > NAMES


def test_a_steered_arm_moves_the_stream_by_its_half_distances_behind_every_block(made, monkeypatch):
    """What its run adds at a block makes, with all that was added below, so much of the trait's direction."""
    pipeline, folder, taken = made[0], made[0].entry("directions").path, []

    def take(_model, runs, *_rest):
        taken.extend(runs)
        raise InterruptedError

    monkeypatch.setattr(training, "train_runs", take)
    with pytest.raises(InterruptedError):
        pipeline.steps[run_key("steered", 0)].compute({DIRECTIONS: folder}, folder, lambda *_words, **_more: None)
    (intervention,), total = taken[0].interventions, 0.0
    lengths, v = half_lengths(folder), trait_directions(folder)
    assert sorted(intervention.directions) == sorted(band(folder))
    for layer in sorted(intervention.directions):
        total = total + intervention.directions[layer]
        np.testing.assert_allclose(total, lengths[layer] * v[layer], rtol=1e-5, atol=1e-6)
