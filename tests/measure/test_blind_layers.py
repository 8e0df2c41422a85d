"""Layers at which the last prompt token sees nothing of the system prompt have no direction, and no part in a study."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from fixtures.oracles import answer_loss, autograd_gradient
from fixtures.smallest import smallest
from gradinoc.measure.directions.extraction import unmoved
from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.models.sources.packaged import bundled_folder
from gradinoc.pipeline.steps.base_model.directions import trait_directions
from gradinoc.pipeline.storage.provenance import loading_notes

WINDOW, BLIND, LAYERS = 8, 1, 4


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The smallest study of a model whose first layer looks back over a few tokens only."""
    folder = tmp_path_factory.mktemp("windowed")
    kinds = ["sliding_attention"] * BLIND + ["full_attention"] * (LAYERS - BLIND)
    config = Qwen2Config(
        vocab_size=900, hidden_size=32, intermediate_size=48, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2, use_sliding_window=True, sliding_window=WINDOW, layer_types=kinds, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    for file in bundled_folder("obedient").glob("*token*"):
        shutil.copy(file, folder)
    shutil.copy(bundled_folder("obedient") / "chat_template.jinja", folder)
    return smallest(tmp_path_factory.mktemp("store"), f"model.id={folder}", "model.device=cpu")


@pytest.mark.exhaustive
def test_every_table_leaves_the_same_layers_out(pipeline):
    """And numbers the others as the model does: nulls that are compared with the trait are those of its own layer."""
    tables = pipeline.evidence().tables
    seeing = list(range(BLIND, LAYERS))
    for name in ("layers", "projections", "alignments", "nulls", "unrelated", "training", "training_nulls"):
        assert sorted(set(tables[name]["layer"])) == seeing, name
    note = f"layers {list(range(BLIND))} see nothing of the system prompt at the last prompt token"
    assert any(each.startswith(note) for each in loading_notes(pipeline.entry("directions").path))


def test_a_null_at_a_layer_is_of_that_layer(pipeline):
    """The first isotropic direction's alignment, by brute force, an example at a time, at every layer."""
    nulls = pipeline.evidence("directions", "gradients", "unrelated").tables["nulls"]
    bench, model = pipeline.context, pipeline.context.language_model.model
    examples = bench.encoded(bench.splits.measure, bench.prompts["neutral"])
    axis = isotropic_directions(1, model.config.hidden_size, pipeline.study.nulls.seed)[0]
    for layer in trait_directions(pipeline.entry("directions").path):
        cosines = []
        for each in examples:
            gradient = autograd_gradient(model, layer, partial(answer_loss, model, each))[0, each.prompt_length - 1]
            cosines.append(torch.cosine_similarity(-gradient, axis, dim=0))
        found = nulls.query("null == 'isotropic' and draw == 0 and condition == 'neutral'").set_index("layer")
        assert found.loc[layer, "alignment"] == pytest.approx(float(torch.stack(cosines).mean()), abs=1e-5), layer


def test_sides_with_one_mean_are_unmoved():
    """But for rounding, and not for a contrast that is small beside what the sides share."""
    states = torch.randn(6, 16, generator=torch.Generator().manual_seed(0)) + 10
    assert unmoved(states, states.flip(0))
    assert unmoved(states, states * (1 + 1e-7))
    assert not unmoved(states, states + 1e-3)
    assert not unmoved(states, -states)
