"""Gradients with respect to the residual stream: against autograd, finite differences and captum.

The collector never asks for a gradient itself: it listens to a backward pass. Each oracle here asks in its own way.
"""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradientXActivation

from fixtures.oracles import autograd_gradient, replaced_output
from fixtures.small_models import LAYERS, with_lora
from gradinoc.measure.passes.hooks import GradientCollector
from gradinoc.models.blocks import decoder_blocks

EVERY = list(range(LAYERS))
IDS = torch.tensor([[7, 30, 9, 41, 12, 5, 60], [33, 8, 8, 19, 27, 50, 1]])


def text_losses(model, **inputs):
    """Each text's mean negative log-likelihood of `IDS`, `[batch]`."""
    log_p = model(**inputs, use_cache=False).logits[:, :-1].log_softmax(-1)
    return -log_p.gather(-1, IDS[:, 1:, None]).squeeze(-1).mean(-1)


def collected(model, layers=EVERY):
    """Gradients of the summed losses of both texts, by the collector."""
    with GradientCollector(model, layers) as collector:
        text_losses(model, input_ids=IDS).sum().backward()
        return collector.get_gradients()


def asked_of_autograd(model, layer):
    """The same for one layer, by `torch.autograd.grad`."""
    return autograd_gradient(model, layer, lambda: text_losses(model, input_ids=IDS).sum())


def loss_moved(model, layer, step):
    """The loss, float, with `step` added to the output of one block."""
    with torch.no_grad(), replaced_output(model, layer, lambda hidden: hidden + step):
        return float(text_losses(model, input_ids=IDS).sum())


def assert_same_gradients(found, expected):
    """Equal to a relative 1e-5 of the layer's whole gradient."""
    assert list(found) == list(expected)
    for layer, gradient in found.items():
        assert gradient.shape == expected[layer].shape
        error = (gradient - expected[layer]).norm() / expected[layer].norm()
        assert error < 1e-5, f"layer {layer}: relative error {error:.2g}"


def test_gradients_equal_autograds(either_model):
    """All architectures, with an adapter and without, every layer in one backward pass."""
    assert_same_gradients(collected(either_model), {layer: asked_of_autograd(either_model, layer) for layer in EVERY})


def test_gradients_equal_finite_differences(frozen_model):
    """A step along the gradient changes the loss by its length, any other step by its share of it; layer by layer."""
    model = frozen_model.double()
    for layer, gradient in collected(model).items():
        assert gradient.dtype == torch.float64
        noise = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(layer), dtype=torch.float64)
        for step in (gradient / gradient.norm(), noise / noise.norm()):
            eps = 1e-3
            slope = (loss_moved(model, layer, eps * step) - loss_moved(model, layer, -eps * step)) / (2 * eps)
            # Norms and rotary angles are computed in float32 whatever the weights are: 1e-7 / eps of noise.
            assert slope == pytest.approx(float((gradient * step).sum()), abs=5e-4 * float(gradient.norm())), layer


def test_gradients_equal_captums(frozen_model):
    """Captum's layer gradients, by its own hooks, one layer at a time."""
    embeddings = frozen_model.get_input_embeddings()(IDS).requires_grad_()

    def forward(inputs_embeds):
        return text_losses(frozen_model, inputs_embeds=inputs_embeds)

    expected = {}
    for layer, block in enumerate(decoder_blocks(frozen_model)):
        found = LayerGradientXActivation(forward, block, multiply_by_inputs=False).attribute(embeddings)
        expected[layer] = found[0] if isinstance(found, tuple) else found
    assert_same_gradients(collected(frozen_model), expected)


def test_frozen_model_needs_no_deeper_backward_pass_than_asked(llama):
    """Where nothing needs a gradient, the lowest layer asked for is where the backward pass ends."""
    outputs = []
    handles = [block.register_forward_hook(lambda *call: outputs.append(call[2])) for block in decoder_blocks(llama)]
    gradients = collected(llama, [1, 2])
    for handle in handles:
        handle.remove()
    assert [output.requires_grad for output in outputs] == [False, True, True]
    assert outputs[1].is_leaf
    assert_same_gradients(gradients, {layer: asked_of_autograd(llama, layer) for layer in (1, 2)})


def test_gradients_reach_below_the_adapter(llama):
    """An adapter on the last block alone: lower layers have their gradients all the same."""
    model = with_lora(llama).requires_grad_(False)
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_" in name and ".layers.2." in name)
    assert_same_gradients(collected(model), {layer: asked_of_autograd(model, layer) for layer in EVERY})


def test_collecting_does_not_change_training(llama):
    """The adapter's own gradients are the same, bit for bit, whether somebody listens or not."""
    model = with_lora(llama)

    def weight_gradients(layers):
        model.zero_grad()
        if layers:
            collected(model, layers)
        else:
            text_losses(model, input_ids=IDS).sum().backward()
        return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.requires_grad}

    silent, heard = weight_gradients([]), weight_gradients(EVERY)
    assert len(silent) == 2 * 7 * LAYERS
    for name, gradient in silent.items():
        assert torch.equal(gradient, heard[name]), name


def test_reduction_sees_each_layer_once_a_backward_pass(llama):
    """From the last layer to the first, with the whole gradient; what it returns is what is kept."""
    seen, expected = [], collected(llama)

    def reduce(layer, gradient):
        assert not torch.is_grad_enabled()
        assert torch.equal(gradient, expected[layer])
        seen.append(layer)
        return gradient.sum()

    with GradientCollector(llama, EVERY, reduce) as collector:
        for passes in (1, 2):
            text_losses(llama, input_ids=IDS).sum().backward()
            assert seen == [2, 1, 0] * passes
            for layer, total in collector.get_gradients().items():
                assert torch.equal(total, expected[layer].sum())


def test_passes_without_gradients_are_left_alone(llama):
    """Under no_grad and in inference mode no state is made to require a gradient."""
    outputs = []
    with GradientCollector(llama, EVERY):
        handles = [
            block.register_forward_hook(lambda *call: outputs.append(call[2])) for block in decoder_blocks(llama)
        ]
        for mode in (torch.no_grad(), torch.inference_mode()):
            with mode:
                text_losses(llama, input_ids=IDS)
        for handle in handles:
            handle.remove()
    assert len(outputs) == 2 * LAYERS
    assert not any(output.requires_grad for output in outputs)


def test_gradients_are_those_of_the_last_backward_pass(llama):
    """Two passes: the second replaces the first, whether that was read or not, and nothing adds up."""
    expected = collected(llama)
    with GradientCollector(llama, EVERY) as collector:
        (3 * text_losses(llama, input_ids=IDS).sum()).backward()
        text_losses(llama, input_ids=IDS).sum().backward()
        assert_same_gradients(collector.get_gradients(), expected)
        with pytest.raises(RuntimeError, match="No gradient at layers"):
            collector.get_gradients()


def test_missing_backward_pass_is_an_error(llama):
    """A forward pass alone gives no gradient, and neither does a pass under no_grad."""
    with GradientCollector(llama, [0, 2]) as collector:
        text_losses(llama, input_ids=IDS)
        with pytest.raises(RuntimeError, match=r"No gradient at layers \[0, 2\]"):
            collector.get_gradients()
        with torch.no_grad():
            text_losses(llama, input_ids=IDS)
        with pytest.raises(RuntimeError, match="expected one forward and one backward pass"):
            collector.get_gradients()


def test_hooks_are_gone_whatever_happens(either_model):
    """After the block, and after an exception in it or in the backward pass itself."""

    def in_place():
        return sum(len(block._forward_hooks) for block in decoder_blocks(either_model))

    def refuse(layer, gradient):
        raise ArithmeticError("refused")

    with GradientCollector(either_model, EVERY):
        assert in_place() == LAYERS
    assert in_place() == 0
    with pytest.raises(KeyError, match="elsewhere"), GradientCollector(either_model, EVERY):
        raise KeyError("elsewhere")
    assert in_place() == 0
    with pytest.raises(ArithmeticError, match="refused"), GradientCollector(either_model, EVERY, refuse):
        text_losses(either_model, input_ids=IDS).sum().backward()
    assert in_place() == 0
