"""Gradients ride on a training pass with activation checkpointing as on any other.

Checkpointing runs each block twice: hooks that see the wrong one of the two, or both, would read nothing, or twice.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from fixtures.small_models import ARCHITECTURES, LAYERS, with_lora
from gradinoc.measure.fast import completion_losses
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.fast.packed.packing import pack
from gradinoc.measure.passes.batches import collate
from gradinoc.measure.passes.hooks import GradientCollector
from gradinoc.models.blocks import decoder_blocks, unwrapped

EVERY = list(range(LAYERS))
KINDS = pytest.mark.parametrize("reentrant", [False, True], ids=["non-reentrant", "reentrant"])


def in_training(model):
    """The model in training mode, but without dropout: what it computes is the same each time."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model.train()


@pytest.fixture(params=sorted(ARCHITECTURES))
def learner(request):
    """A small model of each architecture in training, with an adapter whose weights learn."""
    return in_training(with_lora(ARCHITECTURES[request.param]()))


@pytest.fixture
def batch(examples):
    """All examples in one batch."""
    return collate(examples, 0)


def checkpoint(model, reentrant):
    """Switch checkpointing on; the reentrant kind needs embeddings that require a gradient."""
    base = unwrapped(model)
    base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
    base.enable_input_require_grads()


def training_step(model, batch, reduce=None):
    """Residual-stream gradients and the adapter's own gradients of one pass, and how often each block ran."""
    runs = dict.fromkeys(EVERY, 0)

    def count(layer):
        runs[layer] += 1

    mlps = [block.mlp for block in decoder_blocks(model)]
    handles = [mlp.register_forward_pre_hook(lambda *_, layer=layer: count(layer)) for layer, mlp in enumerate(mlps)]
    model.zero_grad()
    with GradientCollector(model, EVERY, reduce) as collector:
        completion_losses(model, batch).mean().backward()
        gradients = collector.get_gradients()
    for handle in handles:
        handle.remove()
    weights = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    return gradients, weights, runs


def assert_close(found, expected):
    """The same keys, and tensors equal to a relative 1e-5 of their norm."""
    assert found.keys() == expected.keys()
    for key, tensor in found.items():
        assert (tensor - expected[key]).norm() <= 1e-5 * expected[key].norm(), key


@KINDS
def test_checkpointing_changes_no_gradient(learner, batch, reentrant):
    """Blocks run twice; the residual stream's gradients and the adapter's are those of a plain pass."""
    gradients, weights, runs = training_step(learner, batch)
    assert set(runs.values()) == {1}
    assert weights
    checkpoint(learner, reentrant)
    again, weights_again, runs = training_step(learner, batch)
    assert set(runs.values()) == {2}, f"Checkpointing should be at work here: {runs}"
    assert_close(again, gradients)
    assert_close(weights_again, weights)


class Checkpointed(nn.Module):
    """Blocks that are checkpointed whole, hooks included, so that hooks run in the second forward pass too."""

    def __init__(self, reentrant):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in EVERY)
        self.reentrant = reentrant

    def forward(self, hidden):
        """The last block's output."""
        for block in self.blocks:
            hidden = torch_checkpoint(block, hidden, use_reentrant=self.reentrant)
        return hidden


@KINDS
def test_hooks_may_run_inside_the_checkpoint(reentrant):
    """Where the second forward pass runs the hooks again, each gradient is right all the same, and seen once."""
    model, seen = Checkpointed(reentrant), []
    start = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    states = [start]
    for block in model.blocks:
        states.append(block(states[-1]))
    expected = torch.autograd.grad(states[-1].square().sum(), states[1:])

    def reduce(layer, gradient):
        seen.append(layer)
        return gradient.clone()

    with GradientCollector(model, EVERY, reduce) as collector:
        model(start).square().sum().backward()
        gradients = collector.get_gradients()
    assert seen == [2, 1, 0]
    assert_close(gradients, dict(enumerate(expected)))


@KINDS
@pytest.mark.parametrize("name", ["llama", "gemma2", "nemotron", "qwen3_5"])
def test_checkpointing_changes_no_gradient_of_packed_sequences(name, examples, reentrant):
    """The second run of a block knows as the first did which tokens see which, whatever its attention is handed."""
    model = ARCHITECTURES[name]().requires_grad_(False)
    assert fuse(model)[0].endswith("sequences packed")
    learner, packed = in_training(with_lora(model)), pack(examples)
    gradients, weights, runs = training_step(learner, packed)
    assert set(runs.values()) == {1}
    checkpoint(learner, reentrant)
    again, same, runs = training_step(learner, packed)
    assert set(runs.values()) == {2}
    assert_close(again, gradients)
    assert_close(same, weights)
