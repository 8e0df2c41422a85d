"""Which weights never move along a direction whose gradient is removed, and what an optimiser puts back."""

from __future__ import annotations

import json
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from fixtures.by_hand import random_directions, small
from fixtures.small_models import HIDDEN, LAYERS, PAD, with_lora
from gradinoc import leak, project_gradient
from gradinoc.measure.fast import batched, completion_losses

EXACT, MUCH = 1e-6, 0.01
EVERY = range(LAYERS)
SGD = lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9, weight_decay=0.01)
ADAM = lambda weights: torch.optim.AdamW(weights, lr=1e-3)


def learner(name, kernels="plain", rank=4):
    """A small model with fresh adapters, B = 0, on every linear map."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return get_peft_model(small(name, kernels), LoraConfig(r=rank, lora_alpha=8, target_modules="all-linear"))


def trained(model, examples, directions, optimiser, steps=6):
    """The model after a few steps, the gradient projected in each."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    made = optimiser(weights)
    for _ in range(steps):
        made.zero_grad()
        with project_gradient(model, directions):
            completion_losses(model, batched(model, examples, PAD)).mean().backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        made.step()
    return model


@pytest.fixture
def same():
    """One direction for all layers."""
    return dict.fromkeys(EVERY, random_directions([0], HIDDEN)[0])


# --- what holds exactly


@pytest.mark.parametrize("kernels", ["plain", "fused"])
def test_gradient_descent_never_writes_along_a_removed_direction(examples, same, kernels):
    """The last map that writes in each block, with momentum, decay and clipping too; attention's map does."""
    model = trained(learner("llama", kernels), examples, same, SGD)
    assert max(leak(model, same, ["down_proj"]).values()) < EXACT
    assert min(leak(model, same, ["o_proj"]).values()) > MUCH
    assert min(leak(model, same).values()) > MUCH


def test_both_maps_of_a_parallel_block_are_exact(examples, same):
    """Attention and MLP side by side write into the block's output alike."""
    for name, maps in (("gpt_neox", ["dense", "dense_4h_to_h"]), ("cohere", ["o_proj", "down_proj"])):
        model = trained(learner(name), examples, same, SGD)
        for each in maps:
            assert max(leak(model, same, [each]).values()) < EXACT, (name, each)


def test_a_norm_behind_the_map_makes_it_inexact(examples, same):
    """Gemma 2 norms what its maps put out."""
    model = trained(learner("gemma2"), examples, same, SGD)
    assert min(leak(model, same, ["down_proj"]).values()) > MUCH


def test_a_layers_own_direction_is_exact_in_its_own_block(examples):
    """With another direction in each layer: maps of lower blocks may write along that of a higher one."""
    own = random_directions(EVERY, HIDDEN)
    found = leak(trained(learner("llama"), examples, own, SGD), own, ["down_proj"])
    assert found[0] < EXACT
    assert found[1] > MUCH
    assert found[2] > MUCH


def test_adam_puts_back_what_was_removed(examples, same):
    """Numbers of a gradient scaled one by one: steps along a direction in which the gradient has nothing."""
    removed, across = (
        min(leak(trained(learner("llama"), examples, same, optimiser), same, ["down_proj"]).values())
        for optimiser in (ADAM, SGD)
    )
    assert removed > MUCH
    assert across < EXACT


# --- the number itself


def by_forming(model, layer, direction, maps):
    """The same from the updates themselves."""
    unit, inside, whole = direction.double() / direction.double().norm(), 0.0, 0.0
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in maps and hasattr(module, "lora_A") and int(name.split("layers.")[1][0]) <= layer:
            update = module.get_delta_weight("default").detach().double()
            inside += float((unit @ update).square().sum())
            whole += float(update.square().sum())
    return (inside / whole) ** 0.5


@pytest.mark.parametrize("maps", [["down_proj"], ["o_proj"], ["o_proj", "down_proj"]], ids=str)
def test_leak_is_that_of_the_formed_updates(maps):
    """Random adapters of a scale that is not 1; each layer has the blocks up to it."""
    model, directions = with_lora(small("llama", "plain")), random_directions(EVERY, HIDDEN)
    found = leak(model, directions, maps)
    for layer, direction in directions.items():
        assert found[layer] == pytest.approx(by_forming(model, layer, direction, maps), rel=1e-5)


def test_a_planted_update_is_found():
    """An update that writes along v alone leaks wholly; one across it, nothing; a plane has the sum of both shares."""
    model, v = learner("llama"), torch.eye(HIDDEN)[3]
    other = torch.eye(HIDDEN)[5]
    for name, weight in model.named_parameters():
        if "down_proj.lora_B" in name:
            weight.data = 3 * v[:, None].repeat(1, 4) + 4 * other[:, None].repeat(1, 4)
    one, plane, across = torch.eye(HIDDEN)[3], torch.eye(HIDDEN)[[3, 5]], torch.eye(HIDDEN)[4]
    found = leak(model, {0: one, 1: plane, 2: across})
    assert found == pytest.approx({0: 0.6, 1: 1.0, 2: 0.0}, abs=1e-6)


def test_saved_adapters_leak_as_they_do_in_place(examples, same, tmp_path):
    """A folder in PEFT's format; nothing has moved in a fresh one."""
    model = learner("llama")
    assert all(map(math.isnan, leak(model, same).values()))
    trained(model, examples, same, ADAM, 2).save_pretrained(tmp_path)
    assert leak(tmp_path, same) == pytest.approx(leak(model, same), rel=1e-6)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))
    with pytest.raises(ValueError, match="plain LoRA"):
        leak(tmp_path, same)


def test_scale_of_an_adapter_counts(tmp_path, same):
    """Blocks of unequal updates: a share is that of all that is written, and a higher block is not in it."""
    model = with_lora(small("llama", "plain"))
    before = leak(model, same)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    for name in weights:
        if "layers.2." in name:
            weights[name] = 5 * weights[name]
    save_file(weights, tmp_path / "adapter_model.safetensors")
    after = leak(tmp_path, same)
    assert after[1] == pytest.approx(before[1], rel=1e-6)
    assert abs(after[2] - before[2]) > 1e-3


def test_faults_are_named(same):
    """Maps that are not adapted; directions of another size, or by row."""
    model = learner("llama")
    for directions, maps in (
        (same, ["c_proj"]),
        ({0: torch.ones(HIDDEN + 1)}, ["down_proj"]),
        ({0: torch.ones(1, 1, HIDDEN)}, ["down_proj"]),
    ):
        with pytest.raises(ValueError, match="Layer 0: expected adapted maps"):
            leak(model, directions, maps)
