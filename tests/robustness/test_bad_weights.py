"""Weights, blocks and layers that will not do: found in loading or where they are asked for, and named."""

from __future__ import annotations

import logging
import re
import shutil

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertLMHeadModel

from fixtures.bad_models import config, weights
from fixtures.complaints import complaint
from fixtures.small_models import ARCHITECTURES, letter_tokenizer
from gradinoc.data.splits import split
from gradinoc.errors import ModelError
from gradinoc.measure.directions.extraction import mean_difference
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.passes.hooks import ActivationCollector, GradientCollector
from gradinoc.measure.training.adapters import lora_config
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.sources.packaged import ORGANISMS
from gradinoc.pipeline.context import StudyContext
from gradinoc.study.loading import load_study
from gradinoc.study.settings import TrainingSettings


@pytest.fixture
def folder(tmp_path):
    """A copy of the obedient model."""
    return shutil.copytree(ORGANISMS / "obedient", tmp_path / "model")


def poisoned(name, value):
    """A fault: one number of a weight is none."""

    def change(tensors):
        tensors[name].flatten()[-1] = value

    return weights(change)


UP = "model.layers.1.mlp.up_proj.weight"
WEIGHTS = {
    "not a number": (poisoned(UP, torch.nan), rf"the weights '{re.escape(UP)}' are not finite \(1 of \d+\); expected "),
    "one missing": (
        weights(lambda tensors: {name: tensors[name] for name in tensors if name != UP}),
        rf"1 weights are missing or of another shape, '{re.escape(UP)}' first, and would be random; expected",
    ),
    "another shape": (weights(lambda tensors: {**tensors, UP: torch.zeros(3, 3)}), rf"another shape, '{UP}' first"),
    "more blocks than weights": (config(num_hidden_layers=5, layer_types=["full_attention"] * 5), r"weights are missi"),
    "no heads": (config(num_attention_heads=0), "Cannot load"),
}  # fmt: skip


@pytest.mark.fault("Bad models", "weights that are missing, damaged or no numbers")
@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_that_will_not_do_are_named(folder, case):
    """None is made up in its place, and none that is no number computes anything."""
    damage, said = WEIGHTS[case]
    damage(folder)
    message = complaint(ModelError, lambda: load_model(str(folder), device="cpu"))
    assert re.search(said, message), message


@pytest.mark.fault("Bad models", "weights that the configuration has no place for")
def test_weights_without_a_place_are_noted(folder, caplog):
    """Parts of other kinds are usual, a whole block is not: whoever reads the report is told, on one line, and once."""
    config(num_hidden_layers=3, layer_types=["full_attention"] * 3)(folder)
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        notes = load_model(str(folder), device="cpu").notes
    finally:
        logger.removeHandler(caplog.handler)
    assert "11 weights of the files have no place in this model, 'model.layers.3.input_layernorm.weight' first" in notes
    assert caplog.messages == []


@pytest.mark.fault("Bad models", "a model that sees later tokens")
def test_encoder_that_calls_itself_a_language_model_is_refused(tmp_path):
    """Files alone do not tell: it is tried."""
    small = BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, is_decoder=True)
    BertLMHeadModel(small).save_pretrained(tmp_path)
    config(is_decoder=False)(tmp_path)
    letter_tokenizer().save_pretrained(tmp_path)
    message = complaint(ModelError, lambda: load_model(str(tmp_path), device="cpu"))
    assert re.search("BertLMHeadModel is not causal: later tokens change earlier hidden states", message), message


# --- arguments


@pytest.mark.fault("Bad models", "layers that a model does not have")
@pytest.mark.parametrize("collector", [ActivationCollector, GradientCollector])
@pytest.mark.parametrize("layers", [[3], [-1], [], [1.5]])
def test_layer_out_of_range_is_named(collector, layers):
    """With those that there are."""
    with pytest.raises(
        ValueError, match=rf"^Layers {re.escape(str(layers))}: expected one or more of 0\.\.2, the blocks"
    ):
        collector(ARCHITECTURES["llama"](), layers)


@pytest.mark.fault("Bad models", "activations of a wrong shape or dtype")
@pytest.mark.parametrize(
    ("promote", "suppress", "said"),
    [
        ((4, 8), (4, 6), r"equal hidden size, received \[\(4, 8\), \(4, 6\)\]"),
        ((2, 4, 8), (2, 4, 8), r"Expected activations \[prompts, hidden\]"),
        ((0, 8), (4, 8), r"received \[\(0, 8\), \(4, 8\)\]"),
    ],
)
def test_activations_of_another_shape_make_no_direction(promote, suppress, said):
    """Or they would be stretched to fit, silently."""
    with pytest.raises(ValueError, match=said):
        mean_difference(torch.rand(promote), torch.rand(suppress))


@pytest.mark.fault("Bad models", "activations of a wrong shape or dtype")
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_activations_that_are_no_real_numbers_make_no_direction(dtype):
    """Counts and truth values are some other table."""
    with pytest.raises(ValueError, match=f"Expected floating-point activations, received {dtype} and torch.float32"):
        mean_difference(torch.ones(4, 8, dtype=dtype), torch.rand(4, 8))


@pytest.mark.fault("Bad models", "a model without decoder blocks")
def test_model_without_blocks_is_refused():
    """Before anything is hooked to it."""
    assert "No decoder blocks in Linear" in complaint(ModelError, lambda: decoder_blocks(nn.Linear(2, 2)))


@pytest.mark.fault("Bad models", "weights that change while a study is under way")
@pytest.mark.parametrize("when", ["before loading", "while loading"])
def test_weights_that_change_under_way_are_noticed(folder, monkeypatch, when):
    """Results would be kept under the key of other weights."""
    change = weights(lambda tensors: {name: weight * 1.5 for name, weight in tensors.items()})

    def load_and_change(*arguments, **named):
        loaded = load_model(*arguments, **named)
        change(folder)
        return loaded

    study = load_study("tiny", [f"model.id={folder}"])
    context = StudyContext(study, split(study.data))
    assert context.fingerprint
    if when == "before loading":
        change(folder)
    else:
        monkeypatch.setattr("gradinoc.pipeline.context.load_model", load_and_change)
    with pytest.raises(ModelError, match="its files changed while the study was under way"):
        _ = context.language_model


@pytest.mark.fault("Bad models", "adapter targets that match nothing")
def test_model_without_linear_maps_is_named():
    """As a packed or quantised one: there is nothing that an adapter could be put on."""
    model = ARCHITECTURES["llama"]()
    for block in decoder_blocks(model):
        block.self_attn, block.mlp = nn.Identity(), nn.Identity()
    with pytest.raises(ModelError, match="LlamaForCausalLM: no linear map in its decoder blocks"):
        lora_config(model, TrainingSettings())
