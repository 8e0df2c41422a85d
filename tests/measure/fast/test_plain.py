"""Losses by a model's own modules are those of its own logits, a few tokens' of which are there at a time."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from fixtures.small_models import ARCHITECTURES, PAD, with_lora
from gradinoc.measure.fast import completion_losses, plain
from gradinoc.measure.fast.plain import try_split
from gradinoc.measure.passes.batches import collate

IDS = list(range(5, 13))


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    """Several chunks even of a few tokens."""
    monkeypatch.setattr(plain, "CHUNK", 3)


@pytest.fixture
def pair(request):
    """A model twice: taken as a whole, and split between its decoder and its head."""
    whole, split = (ARCHITECTURES[request.param]().requires_grad_(False) for _ in range(2))
    assert try_split(split, IDS)
    return whole, split


def rows_of_logits(model):
    """A list that receives how many tokens' logits each use of the model's head makes."""
    rows = []
    model.get_output_embeddings().register_forward_hook(lambda *call: rows.append(call[2][..., 0].numel()))
    return rows


@pytest.mark.parametrize("pair", sorted(ARCHITECTURES), indirect=True)
def test_losses_and_gradients_are_those_of_the_whole_model(pair, examples):
    """Of every architecture, of its adapters; caps and scales of logits among them."""
    results, rows = [], rows_of_logits(pair[1])
    for model in pair:
        wrapped = with_lora(model)
        losses = completion_losses(wrapped, collate(examples, PAD))
        (losses * torch.linspace(0.3, 2.0, len(losses))).sum().backward()
        results.append([losses.detach(), *(each.grad for each in wrapped.parameters() if each.grad is not None)])
        with torch.no_grad():
            results[-1].append(completion_losses(wrapped, collate(examples, PAD)))
    assert len(results[0]) > 10
    for found, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert max(rows) <= plain.CHUNK


@pytest.mark.parametrize("pair", ["llama"], indirect=True)
def test_losses_may_be_differentiated_twice(pair, examples):
    """A penalty on the gradient at the input of the first block: all rows are computed at once then."""
    penalties = []
    for model in pair:
        model.set_attn_implementation("eager")
        held = []
        model.model.embed_tokens.register_forward_hook(lambda *call, held=held: held.append(call[2].requires_grad_()))
        losses = completion_losses(model, collate(examples, PAD))
        (gradient,) = torch.autograd.grad(losses.square().sum(), held[0], create_graph=True)
        penalties.append(torch.autograd.grad(gradient.square().sum(), held[0])[0])
    largest = float(penalties[0].abs().max())
    assert largest > 0
    torch.testing.assert_close(penalties[1], penalties[0], rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("kind", ["own head", "trained head", "adapter on the head"])
def test_model_that_does_more_to_logits_is_taken_as_a_whole(kind, examples, monkeypatch):
    """Logits that are not the head's, gradients of the head, an adapter on it: nothing of that may be left out."""
    model = ARCHITECTURES["llama"]().requires_grad_(False)
    if kind == "own head":
        own = type(model).forward

        def warmer(*given, **named):
            out = own(model, *given, **named)
            out.logits = out.logits * 1.01
            return out

        monkeypatch.setattr(model, "forward", warmer)
    assert try_split(model, IDS) == (kind != "own head")
    if kind == "trained head":
        model.lm_head.weight.requires_grad_()
    subject = model
    if kind == "adapter on the head":
        subject = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False))
    batch = collate(examples, PAD)
    losses = completion_losses(subject, batch)
    logits = subject(batch.input_ids, attention_mask=batch.attention_mask).logits.flatten(0, 1)[batch.predicting]
    expected = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")
    sums = torch.zeros(len(batch)).index_add(0, batch.owner, expected)
    torch.testing.assert_close(losses, sums / batch.counts)
    if kind == "trained head":
        losses.sum().backward()
        assert model.lm_head.weight.grad.abs().max() > 0
