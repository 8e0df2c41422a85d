"""A half-precision model is computed in float32 without a float32 copy of it."""

from __future__ import annotations

import gc
import weakref
from copy import deepcopy

import pytest
import torch

from fixtures.small_models import ARCHITECTURES, VOCABULARY
from gradinoc.measure.fast.trial import float32
from gradinoc.measure.fast.trial.float32 import in_float32

IDS = torch.arange(3, 15)[None] % VOCABULARY


def passed(model, embedded):
    """Logits of an embedded text, and the gradient of the sum of their squares there."""
    embedded = embedded.detach().requires_grad_()
    logits = model(inputs_embeds=embedded, use_cache=False).logits
    return logits.detach(), torch.autograd.grad(logits.square().sum(), embedded)[0]


@pytest.mark.parametrize("piece", [64, 2**23])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_numbers_are_those_of_a_float32_copy(name, piece, monkeypatch):
    """Of the weights as they are, rounded; matrices in pieces or whole; every architecture."""
    monkeypatch.setattr(float32, "PIECE", piece)
    model = ARCHITECTURES[name]().requires_grad_(False).bfloat16()
    embedded = model.get_input_embeddings()(IDS).float()
    exact = passed(deepcopy(model).float(), embedded)
    with in_float32(model):
        found = passed(model, embedded)
    for received, expected in zip(found, exact, strict=True):
        assert received.dtype == torch.float32
        torch.testing.assert_close(received, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_model_is_left_as_it_was():
    """Its weights, its modules' forwards and what it computes; also after an error."""
    model = ARCHITECTURES["llama"]().requires_grad_(False).bfloat16()
    embedded, weights = model.get_input_embeddings()(IDS), dict(model.named_parameters())
    before = passed(model, embedded)
    with pytest.raises(ZeroDivisionError), in_float32(model):
        raise ZeroDivisionError
    assert not any("forward" in vars(module) for module in model.modules())
    assert all(weights[name] is weight for name, weight in model.named_parameters())
    assert all(torch.equal(*pair) for pair in zip(passed(model, embedded), before, strict=True))


def test_backward_pass_needs_no_float32_weights(monkeypatch):
    """Between the passes the graph holds activations, and of every matrix the half-precision one."""
    model, copies, known = ARCHITECTURES["llama"]().requires_grad_(False).bfloat16(), [], float32._Copies._known

    def watched(own, made, weight):
        copies.append(weakref.ref(made))
        return known(own, made, weight)

    monkeypatch.setattr(float32._Copies, "_known", watched)
    embedded = model.get_input_embeddings()(IDS).detach().float().requires_grad_()
    with in_float32(model):
        logits = model(inputs_embeds=embedded, use_cache=False).logits
    gc.collect()
    assert len(copies) > 20
    assert [each() for each in copies] == [None] * len(copies)
    assert torch.autograd.grad(logits.sum(), embedded)[0].isfinite().all()
