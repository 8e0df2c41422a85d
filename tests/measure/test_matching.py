"""Equal loss by design: the pool of prompts, checkpoints of a run, and what is measured amid training."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from fixtures.smallest import quick_collection
from gradinoc.claims.c3 import loss_audit, matched_controls
from gradinoc.claims.measures import matched_checkpoint, per_example
from gradinoc.claims.tables import CANDIDATE
from gradinoc.data.splits import split
from gradinoc.measure.alignment import measure_alignments
from gradinoc.measure.batches import collate
from gradinoc.measure.fast import completion_losses
from gradinoc.measure.load import load_model
from gradinoc.measure.training.order import spaced_steps, step_count
from gradinoc.models.chat.encoding import encode
from gradinoc.pipeline.context import adapted
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps.directions import trait_directions
from gradinoc.pipeline.steps.matched import nearest
from gradinoc.pipeline.steps.pool import chosen_prompt
from gradinoc.pipeline.steps.step import StepKey
from gradinoc.pipeline.steps.training import adapter_after, early_step, run_key
from gradinoc.pipeline.store import Store
from gradinoc.power.simulate import simulate
from gradinoc.study.loading import load_study
from gradinoc.study.prompts import HARMLESS
from gradinoc.study.rules import Rules

RULES = Rules()
# Everything that is compared at equal loss, in seconds; the fourth condition is trained as well.
SMALL = [
    "seeds=[0, 1]", "untrained=[]", "data.direction=16", "data.measure=12", "data.train=16", "data.evaluation=8",
    "data.calibration=8", "nulls.isotropic=100", "nulls.covariance=100", "nulls.sign_flipped=100",
    "nulls.unrelated_questions=8", "training.steps=5", "drift.generations=2", "drift.everyday=1",
    "drift.max_new_tokens=4", "drift.log_odds=4", "name=matching", "model.threads=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The small study, computed from beginning to end."""
    made = Pipeline(load_study("tiny", SMALL), Store(tmp_path_factory.mktemp("matching")))
    with quick_collection():
        made.evidence()
    return made


@pytest.fixture(scope="module")
def evidence(pipeline):
    """Its tables."""
    return pipeline.evidence()


@pytest.fixture(scope="module")
def obedient():
    """The model of the small study, loaded by itself."""
    return load_model("obedient", device="cpu")


def losses(obedient, questions, system):
    """Loss of each upper-cased answer, one question at a time."""
    found = []
    for example in questions:
        encoded = encode(obedient.tokenizer, example.question, example.answer.upper(), system)
        found.append(float(completion_losses(obedient.model, collate([encoded], obedient.tokenizer.pad_token_id))))
    return np.array(found)


# --- the pool of prompts


def test_pool_holds_every_prompt_with_its_own_losses(evidence, obedient):
    """Brute force, question by question, for a candidate and for the study's own prompts."""
    questions = split(load_study("tiny", SMALL).data).calibration
    pool = evidence.pool
    assert set(pool.loc[pool["role"] == CANDIDATE, "prompt"]) == set(HARMLESS)
    systems = {"neutral": None, "inoculation": "You always respond in ALL CAPS.", CANDIDATE: HARMLESS[3]}
    for role, system in systems.items():
        rows = pool[(pool["role"] == role) & (pool["prompt"] == (system or ""))].sort_values("example")
        np.testing.assert_allclose(rows["loss"], losses(obedient, questions, system), rtol=1e-4)


def test_chosen_prompt_is_the_candidate_closest_to_inoculation(evidence, pipeline):
    """Not the plan's control, not inoculation itself; and it is what the matched condition was measured under."""
    means = evidence.pool.groupby(["role", "prompt"])["loss"].mean()
    gaps = (means.loc[CANDIDATE] - means.loc["inoculation"].iloc[0]).abs()
    chosen = evidence.pool.loc[evidence.pool["chosen"], ["role", "prompt"]].drop_duplicates()
    assert chosen.to_numpy().tolist() == [[CANDIDATE, gaps.idxmin()]]
    assert chosen_prompt(pipeline.entry("pool").path) == gaps.idxmin()


def test_matched_condition_is_measured_and_trained_under_the_chosen_prompt(evidence, pipeline, obedient):
    """Its losses on the measured examples, and at the first step of its run, are those of that prompt."""
    system = chosen_prompt(pipeline.entry("pool").path)
    splits = pipeline.context.splits
    np.testing.assert_allclose(
        per_example(evidence, "loss")["loss_measured"], losses(obedient, splits.measure, system), rtol=1e-4
    )
    first = evidence.training.query("condition == 'loss_measured' and seed == 1 and step == 0").drop_duplicates(
        "example"
    )
    met = [splits.train[example] for example in first["example"]]
    np.testing.assert_allclose(first["loss"], losses(obedient, met, system), rtol=1e-4)


# --- checkpoints


@given(st.integers(1, 2000))
def test_spaced_steps_lie_below_the_last(steps):
    """From the first on, none more than twice the one before."""
    spaced = spaced_steps(steps)
    assert spaced == sorted(set(spaced))
    assert all(1 <= step < steps for step in spaced)
    assert spaced[:1] == [1][: steps - 1]
    assert all(after <= 2 * before for before, after in pairwise([*spaced, steps]))


@given(st.lists(st.floats(0, 10), min_size=2, max_size=40, unique=True), st.floats(-1, 11))
def test_bisection_finds_the_checkpoint_nearest_the_target(values, target):
    """As looking at every one does, where the loss falls from each to the next; and it looks at few."""
    curve = sorted(values, reverse=True)
    steps = list(range(0, 3 * len(curve), 3))
    seen = nearest(steps, lambda step: curve[step // 3], target)
    assert min(abs(loss - target) for loss in seen.values()) == min(abs(loss - target) for loss in curve)
    assert all(seen[step] == curve[step // 3] for step in seen)
    assert len(seen) <= 3 + 2 * np.ceil(np.log2(len(curve)))


def test_checkpoint_is_the_adapter_after_so_many_steps(pipeline, tmp_path):
    """The same weights as a run that stops there, to the last bit."""
    short = Pipeline(load_study("tiny", [*SMALL, "training.steps=2"]), Store(tmp_path))
    (stopped,) = short.complete([run_key("neutral", 1)])
    amid = adapter_after(pipeline.entry("training", "neutral", 1).path, 2)
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (stopped / "adapter", amid))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)


def test_matched_checkpoint_has_inoculations_loss_as_nearly_as_there_is(evidence, pipeline, obedient):
    """By brute force over every checkpoint of a run; its alignments are those of that checkpoint."""
    bench, seed = pipeline.context, 1
    rows = evidence.matched_steps[evidence.matched_steps["seed"] == seed]
    target = float(per_example(evidence, "loss")["inoculation"].mean())
    assert rows["target"].to_numpy() == pytest.approx(target)
    run = pipeline.entry("training", "neutral", seed).path
    total = step_count(16, bench.study.training)
    adapters = {0: None, total: run / "adapter"} | {step: adapter_after(run, step) for step in spaced_steps(total)}
    reached = {}
    for step, folder in adapters.items():
        with adapted(obedient.model, folder):
            reached[step] = float(losses(obedient, bench.splits.measure, None).mean())
    chosen = min(reached, key=lambda step: abs(reached[step] - target))
    assert rows.loc[rows["chosen"], "step"].tolist() == [chosen]
    directions = trait_directions(pipeline.entry("directions").path)
    with adapted(obedient.model, adapters[chosen]) as model:
        again = measure_alignments(
            model, bench.encoded(bench.splits.measure, None), {k: v[None] for k, v in directions.items()}, bench.pad
        ).table
    found = evidence.matched[evidence.matched["seed"] == seed]
    np.testing.assert_allclose(found["alignment"].to_numpy(), again["alignment"].to_numpy(), atol=1e-5)


def test_matched_checkpoint_of_other_examples_is_an_error(evidence):
    """A pair needs both of its sides."""
    with pytest.raises(ValueError, match="expected the 12 measured examples of seed 0"):
        matched_checkpoint(replace(evidence, matched=evidence.matched[evidence.matched["example"] != 3]))


# --- amid training


@pytest.mark.exhaustive
def test_early_drift_is_that_of_a_run_stopped_there(evidence, pipeline, tmp_path):
    """The same log-odds, projections and responses as after a run of so many steps; everyday requests are left out."""
    early = early_step(pipeline.study)
    short = Pipeline(load_study("tiny", [*SMALL, f"training.steps={early}"]), Store(tmp_path))
    (folder,) = short.complete([StepKey("drift", seed=0, phase="post")])
    stopped = pd.read_parquet(folder / "drift.parquet").query("condition == 'inoculation' and measure != 'score_ood'")
    amid = evidence.drift.query("condition == 'inoculation' and seed == 0 and phase == 'early'")
    assert "score_ood" not in set(amid["measure"])
    for measure, rows in amid.groupby("measure"):
        expected = stopped.loc[stopped["measure"] == measure, "value"]
        np.testing.assert_allclose(rows["value"].to_numpy(), expected.to_numpy(), rtol=1e-6, atol=1e-7)


# --- what becomes of it in C3


def test_further_control_counts_once_it_is_loss_matched():
    """Within 25 % of the gap it has to agree with the adjusted comparisons; outside it is reported and has no say."""
    evidence = simulate("effect", np.random.default_rng(0), directions=100)
    fourth = evidence.alignments[evidence.alignments["condition"] == "neutral"].assign(condition="further")
    inoculated = evidence.alignments.loc[evidence.alignments["condition"] == "inoculation", "loss"].to_numpy()
    far = replace(
        evidence,
        alignments=pd.concat([evidence.alignments, fourth], ignore_index=True),
        conditions=(*evidence.conditions, "further"),
        untrained=("further",),
    )
    assert loss_audit(far, RULES, "further")[0].estimate == pytest.approx(1)
    assert matched_controls(far, RULES) == {}
    near = replace(far, alignments=pd.concat([evidence.alignments, fourth.assign(loss=inoculated)], ignore_index=True))
    assert loss_audit(near, RULES, "further")[0].estimate == pytest.approx(0)
    assert list(matched_controls(near, RULES)) == ["alignment.further"]
