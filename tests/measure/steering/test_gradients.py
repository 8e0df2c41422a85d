"""Adapters and gradients of a steered model."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from fixtures.oracles import answer_loss, autograd_gradient
from fixtures.small_models import HIDDEN, PAD, with_lora
from fixtures.steered import CLOSE, EVERY, by_hand, frozen, padded
from gradinoc import steered
from gradinoc.measure.fast import batched, completion_losses, stacked_adapters
from gradinoc.measure.gradients.alignment import answer_losses, measure_alignments
from gradinoc.measure.passes.batches import model_inputs


def test_wrapped_and_stacked_adapters_are_steered(kernels, alike, vector):
    """Each adapter of a stack beside the others, as alone and by hand."""
    config = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear")
    model = get_peft_model(frozen("llama", kernels), config, "one")
    model.add_adapter("two", deepcopy(config))
    generator = torch.Generator().manual_seed(3)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
    model.eval()
    expected = []
    for name in ("one", "two"):
        model.set_adapter(name)
        for example in alike:
            with by_hand(model, vector, example.prompt_length - 1), torch.no_grad():
                expected.append(float(answer_loss(model, example)))
    with steered(model, vector), stacked_adapters(model, ["one", "two"]):
        found = answer_losses(model, alike, PAD, 4, copies=2)
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_gradients_equal_finite_differences(name, alike, vector):
    """Of the strength, and of the vector along a change of it; models that compute in float64 throughout."""
    model = frozen(name).double()
    inputs = model_inputs(*padded([example.ids for example in alike], "right"))
    first = [example.prompt_length - 1 for example in alike]
    strength = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    shifts = {layer: each.double().requires_grad_() for layer, each in vector.items()}
    change = {layer: each.detach().flip(0) for layer, each in shifts.items()}

    def loss(amount, step=0.0):
        moved = {layer: shifts[layer] + step * change[layer] for layer in shifts}
        with steered(model, moved, amount, first):
            return model(**inputs).logits.log_softmax(-1)[..., 7].sum()

    loss(strength).backward()
    gradient = float(strength.grad), sum(float((shifts[layer].grad * change[layer]).sum()) for layer in shifts)
    with torch.no_grad():
        by_strength = float(loss(strength + 1e-3) - loss(strength - 1e-3)) / 2e-3
        by_vector = float(loss(strength, 1e-3) - loss(strength, -1e-3)) / 2e-3
    assert gradient == pytest.approx((by_strength, by_vector), rel=1e-4)
    assert min(abs(by_strength), abs(by_vector)) > 0.1


def test_gradients_of_adapters_are_those_by_hand(kernels, alike, vector):
    """Preventative steering: every token, through kernels or not."""
    model = with_lora(frozen("llama", kernels)).train()
    gradients = []
    for ours in (True, False):
        model.zero_grad()
        if ours:
            with steered(model, vector, positions="all"):
                completion_losses(model, batched(model, alike, PAD)).sum().backward()
        else:
            with by_hand(model, vector, 0):
                sum(answer_loss(model, example) for example in alike).backward()
        gradients.append({name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None})
    assert len(gradients[0]) > 10
    for name, expected in gradients[1].items():
        scale = float(expected.abs().max())
        torch.testing.assert_close(gradients[0][name], expected, rtol=1e-3, atol=1e-4 * scale)


def test_gradients_of_the_stream_are_those_by_hand(some_model, alike, vector):
    """Alignment of the steered model, at the tokens that are steered."""
    directions = dict.fromkeys(EVERY, torch.nn.functional.normalize(torch.ones(1, HIDDEN), dim=-1))
    with steered(some_model, vector):
        table = measure_alignments(some_model, alike, directions, PAD, 4).table
    found = table[table["position"] == "last_prompt_token"].set_index(["example", "layer"])
    for row, example in enumerate(alike):
        for layer in EVERY:
            with by_hand(some_model, vector, example.prompt_length - 1):
                gradient = autograd_gradient(some_model, layer, lambda one=example: answer_loss(some_model, one))
            expected = torch.cosine_similarity(-gradient[0, example.prompt_length - 1], directions[layer][0], dim=0)
            assert found.loc[(row, layer), "alignment"] == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_training_is_steered(alike, vector, reentrant):
    """Blocks that are computed again in the backward pass give the same gradients."""
    gradients = []
    for checkpointed in (False, True):
        model = with_lora(frozen("llama", "fused")).train()
        if checkpointed:
            model.enable_input_require_grads()
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
        with steered(model, vector):
            completion_losses(model, batched(model, alike, PAD)).sum().backward()
        gradients.append([each.grad for each in model.parameters() if each.grad is not None])
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, **CLOSE)
