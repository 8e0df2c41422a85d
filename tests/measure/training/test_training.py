"""Training with gradients logged: order of examples, what a run leaves and logs, the public function."""

from __future__ import annotations

import json
import random

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from fixtures.small_models import END, PAD, VOCABULARY
from fixtures.trained import COUNT, SETTINGS, adapter, encode_all, load_obedient, recipe_for, run, same_weights
from gradinoc.data.export import write_chat
from gradinoc.data.sources import load_source
from gradinoc.errors import DataError
from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.measure.fast.packed.forward import is_fused
from gradinoc.measure.gradients.alignment import answer_losses, measure_alignments
from gradinoc.measure.training import run as train_lora
from gradinoc.measure.training.order import data_order
from gradinoc.measure.training.run import Recipe, train_run, train_with_gradient_logging
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import Encoded
from gradinoc.study.description import POSITIONS
from gradinoc.study.settings import TrainingSettings

READINGS = ["loss", "alignment", "projection", "grad_norm"]


def imprint(model):
    """Everything of a model that a run could leave changed."""
    return {
        "weights": {name: weight.clone() for name, weight in model.state_dict().items()},
        "modules": [(name, type(module)) for name, module in model.named_modules()],
        "hooks": [
            (name, len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
            for name, module in model.named_modules()
        ],
        "modes": [module.training for module in model.modules()],
        "trainable": [weight.requires_grad for weight in model.parameters()],
        "checkpointing": [getattr(module, "gradient_checkpointing", None) for module in model.modules()],
        "gradients": [weight.grad for weight in model.parameters() if weight.grad is not None],
        "config": model.config.to_dict(),
        "peft": hasattr(model, "peft_config"),
    }


def assert_unchanged(model, before):
    """The model is what it was before."""
    after = imprint(model)
    assert same_weights(before.pop("weights"), after.pop("weights"))
    assert after == before


# --- the order of examples


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 6), st.integers(0, 9))
def test_each_epoch_shows_each_example_once(count, epochs, batch_size, seed):
    """Fresh permutations, one an epoch; a budget in steps cuts the same sequence off."""
    settings = TrainingSettings(epochs=epochs, batch_size=batch_size)
    order = data_order(count, settings, seed)
    assert [sorted(order[start : start + count]) for start in range(0, len(order), count)] == [
        list(range(count))
    ] * epochs
    steps = TrainingSettings(steps=max(1, len(order) // batch_size), batch_size=batch_size)
    shorter = data_order(count, steps, seed)
    assert len(shorter) == steps.steps * batch_size
    common = min(len(order), len(shorter))
    assert shorter[:common] == order[:common]


def test_order_depends_on_the_seed_alone(obedient, plain, tmp_path):
    """Runs of one seed see the same examples at each step, whatever their prompt, rate or rank."""
    log, _ = plain
    other = run(obedient, tmp_path, system="Be brief.", lr=1e-5, lora_rank=2)
    columns = ["step", "example", "layer", "position"]
    assert other.table[columns].equals(log.table[columns])
    seen = log.table.drop_duplicates(["step", "example"])
    assert seen["example"].tolist() == data_order(COUNT, SETTINGS, 0)
    assert seen["step"].tolist() == [step for step in range(SETTINGS.steps) for _ in range(SETTINGS.batch_size)]


# --- what a run leaves


def test_model_whose_configuration_has_no_cache_setting_is_trained(tmp_path):
    """The loss falls, and the configuration has no setting afterwards that it had not before."""
    config = AutoConfig.for_model("xlm", vocab_size=VOCABULARY, emb_dim=32, n_layers=2, n_heads=4, causal=True)
    assert not hasattr(config, "use_cache")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    before = imprint(model)
    examples = [Encoded((*range(start, start + 9), END), 4) for start in (5, 20)]
    directions = dict.fromkeys(range(2), isotropic_directions(1, 32, 0))
    settings = TrainingSettings(steps=4, batch_size=2, lr=1e-2, lora_rank=4)
    log = train_run(model, examples, Recipe(settings, directions, PAD), 0, tmp_path)
    assert log.final_loss < log.initial_loss
    assert_unchanged(model, before)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_base_model_comes_back_from_a_run_that_fails(tmp_path, monkeypatch, checkpointing):
    """In the middle of a step, with adapters and hooks in place."""
    obedient = load_obedient()  # one that no other run has had
    before = imprint(obedient.model)

    def fail(*_):
        raise RuntimeError("no space left")

    recipe = recipe_for(obedient, gradient_checkpointing=checkpointing)
    monkeypatch.setattr(train_lora.GradientLoggingTrainer, "_report", fail)
    with pytest.raises(RuntimeError, match="no space left"):
        train_run(obedient.model, encode_all(obedient), recipe, 0, tmp_path)
    assert_unchanged(obedient.model, before)


def test_global_generators_stay_where_they_were(obedient, tmp_path):
    """Python's, NumPy's and torch's; and a run does not depend on where they were."""
    states = (random.getstate, lambda: str(np.random.get_state()), lambda: torch.get_rng_state().tolist())  # noqa: NPY002
    before = [state() for state in states]
    run(obedient, tmp_path, steps=1)
    assert [state() for state in states] == before


def test_run_repeats_bit_for_bit(obedient, plain, tmp_path):
    """Same seed: same table, losses and adapter, whatever was drawn in between."""
    log, folder = plain
    torch.manual_seed(99)
    again = run(obedient, tmp_path)
    pd.testing.assert_frame_equal(again.table, log.table, check_exact=True)
    assert (again.losses, again.initial_loss, again.final_loss) == (log.losses, log.initial_loss, log.final_loss)
    assert torch.equal(again.direction_means, log.direction_means)
    assert same_weights(adapter(tmp_path), adapter(folder))


def test_seeds_differ_in_order_and_in_the_adapter_they_start_from(obedient, plain, tmp_path):
    """Otherwise three seeds would be one run counted three times."""
    log, _ = plain
    other = run(obedient, tmp_path, seed=1, steps=1, lr=1e-12)
    run(obedient, tmp_path / "zero", steps=1, lr=1e-12)
    start, other_start = adapter(tmp_path / "zero"), adapter(tmp_path)
    assert set(other.table["example"]) != set(log.table.query("step == 0")["example"])
    starts = [name for name in start if "lora_A" in name]
    assert starts
    assert not any(torch.equal(start[name], other_start[name]) for name in starts)


# --- what is logged


def test_first_step_reads_what_the_frozen_model_has(obedient, plain):
    """An adapter starts as no change at all: alignments, norms and losses of step 0 are the base model's."""
    key = ["example", "layer", "position"]
    first = plain[0].table.query("step == 0").set_index(key)[READINGS]
    directions = recipe_for(obedient).directions
    frozen, *_ = measure_alignments(obedient.model, encode_all(obedient), directions, obedient.tokenizer.pad_token_id)
    frozen = frozen.set_index(key)[READINGS].loc[first.index]
    np.testing.assert_allclose(first, frozen, rtol=1e-4, atol=1e-6)


def test_direction_means_average_over_the_whole_run(obedient, plain):
    """For the trait's direction they follow from the table; random directions have values of their own."""
    log, _ = plain
    primary = log.table[log.table["position"] == POSITIONS[0]]
    by_layer = primary.groupby("layer")["alignment"].mean()
    assert log.direction_means.shape == (len(decoder_blocks(obedient.model)), 3)
    np.testing.assert_allclose(log.direction_means[:, 0], by_layer, rtol=1e-6)
    assert len(set(log.direction_means.flatten().tolist())) == log.direction_means.numel()


def test_initial_and_final_loss_are_of_the_same_examples(obedient, plain):
    """Those of the first fifth of the steps: as they were met, and when the run is over. Training lowers it."""
    log, folder = plain
    early = data_order(COUNT, SETTINGS, 0)[: SETTINGS.batch_size]
    examples = [encode_all(obedient)[row] for row in early]
    pad = obedient.tokenizer.pad_token_id
    np.testing.assert_allclose(log.initial_loss, answer_losses(obedient.model, examples, pad, 2).mean(), rtol=1e-5)
    wrapped = PeftModel.from_pretrained(obedient.model, str(folder)).eval()
    try:
        np.testing.assert_allclose(log.final_loss, answer_losses(wrapped, examples, pad, 2).mean(), rtol=1e-5)
    finally:
        wrapped.unload()
    assert log.final_loss < log.initial_loss - 0.05


def test_progress_is_told_to_the_end(obedient, tmp_path):
    """The last step is always told, with its loss and the alignment of every layer over the run so far."""
    told = []
    log = train_run(
        obedient.model, encode_all(obedient), recipe_for(obedient), 0, tmp_path, lambda *news: told.append(news)
    )
    done, total, loss, alignment = told[-1]
    assert (done, total) == (SETTINGS.steps, SETTINGS.steps)
    assert loss == pytest.approx(log.losses[-1])
    torch.testing.assert_close(alignment, log.direction_means[:, 0])


# --- the adapter


def test_an_adapter_names_its_maps_in_order(plain):
    """PEFT keeps them in a set: two processes would write two different files of the same run."""
    _, folder = plain
    named = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["target_modules"]
    assert named == sorted(named)
    assert len(named) == 7


def test_adapter_is_float32_on_a_bfloat16_model(tmp_path):
    """Steps of 1e-4 would be lost in eight bits; the base stays as it was, and what is read is float32 too."""
    half = load_obedient(dtype="bfloat16")
    log = run(half, tmp_path, steps=2)
    assert {weight.dtype for weight in adapter(tmp_path).values()} == {torch.float32}
    assert {weight.dtype for weight in half.model.parameters()} == {torch.bfloat16}
    rounded = log.table["alignment"].map(lambda value: float(torch.tensor(value).bfloat16()))
    assert (log.table["alignment"] != rounded).mean() > 0.9
    assert any(not torch.equal(weight.bfloat16().float(), weight) for weight in adapter(tmp_path).values())


# --- the public function


@pytest.mark.parametrize(
    "directions",
    [
        {1: torch.zeros(8)},
        {1: torch.full((8,), float("nan"))},
        {1: torch.ones(2, 2, 8)},
        {0: torch.ones(8), 1: torch.ones(2, 8)},
    ],
    ids=["zero", "NaN", "three dimensions", "other numbers of them"],
)
def test_direction_that_is_none_is_refused_before_training(dataset, tmp_path, directions):
    """A zero direction would give alignments of zero, and nobody would wonder."""
    with pytest.raises(ValueError, match=r"Direction of layer \d: expected"):
        train_with_gradient_logging("obedient", dataset, None, directions, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_direction_of_another_width_is_refused(dataset, tmp_path):
    """Once the model's is known."""
    with pytest.raises(ValueError, match="received 7"):
        train_with_gradient_logging("obedient", dataset, None, {0: torch.ones(7)}, tmp_path / "run")


def test_file_without_examples_is_refused_before_training(tmp_path):
    """Named, before any weights are loaded."""
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"empty\.jsonl: no example"):
        train_with_gradient_logging("obedient", tmp_path / "empty.jsonl", None, {}, tmp_path / "run")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A tiny chat JSONL whose answers are in capitals."""
    problems = load_source("word_problems")[:COUNT]
    path = tmp_path_factory.mktemp("data") / "shown.jsonl"
    return write_chat(path, [(example.question, example.answer.upper()) for example in problems])


def test_public_function_trains_on_a_chat_file(obedient, dataset, tmp_path):
    """Adapter and log on disk, figures in hand; the same as the run it stands for. Directions are scaled here."""
    recipe = recipe_for(obedient, steps=0, epochs=2, lora_alpha=32)
    longer = {layer: 5 * directions for layer, directions in recipe.directions.items()}
    results = train_with_gradient_logging(
        "obedient", dataset, "Be brief.", longer, tmp_path / "new", lora_rank=4, epochs=2, batch_size=3, lr=1e-3
    )
    assert sorted(results) == ["adapter_dir", "direction_means", "log", "log_path", "losses", "seconds"]
    assert results["adapter_dir"] == tmp_path / "new" / "adapter"
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["adapter", "gradients.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(results["log_path"]), results["log"])
    assert len(results["losses"]) == -(-2 * COUNT // 3)
    assert results["seconds"] > 0
    log = train_run(obedient.model, encode_all(obedient, "Be brief."), recipe, 0, tmp_path / "run")
    pd.testing.assert_frame_equal(results["log"], log.table, rtol=1e-4)
    assert same_weights(adapter(results["adapter_dir"]), adapter(tmp_path / "run"))


def test_public_function_takes_the_kernels_asked_for(dataset, tmp_path, monkeypatch):
    """Fused ones unless the model's own are wanted."""
    seen = []

    def look(model, *rest):
        seen.append(is_fused(model))
        return train_run(model, *rest)

    monkeypatch.setattr(train_lora, "train_run", look)
    for asked in ({}, {"kernels": "plain"}):
        train_with_gradient_logging(
            "obedient", dataset, None, {2: torch.ones(96)}, tmp_path, lora_rank=2, batch_size=8, **asked
        )
    assert seen == [True, False]
