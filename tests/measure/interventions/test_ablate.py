"""Ablation takes the component along a direction off the stream, forward and backward, for the rows that were meant."""

from __future__ import annotations

import pytest
import torch

from fixtures.by_hand import assert_same_gradients, beginning_alike, random_directions, small, weight_gradients, without
from fixtures.oracles import answer_loss, replaced_output
from fixtures.small_models import HIDDEN, PAD, letter_tokenizer, with_lora
from gradinoc import ActivationCollector, GradientCollector, ablate, steered
from gradinoc.measure.fast import batched, completion_losses, frozen_batch, scored_batch
from gradinoc.measure.fast.packed import packing
from gradinoc.measure.gradients.alignment import answer_losses
from gradinoc.models.generate import generate

BAND = (0, 2)
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(params=["plain", "fused"])
def kernels(request):
    """On which modules."""
    return request.param


@pytest.fixture(params=["llama", "gemma3", "qwen3_5"])
def model(request, kernels):
    """Full attention, windows, a recurrent state."""
    return small(request.param, kernels)


@pytest.fixture
def alike(examples, monkeypatch):
    """Examples that share what their prompts begin with, where they are packed."""
    monkeypatch.setattr(packing, "SHARED_FROM", 3)
    return beginning_alike(examples)


@pytest.fixture
def vectors():
    """One direction a layer."""
    return random_directions(BAND, HIDDEN)


def loss_by_hand(model, example, vectors, first=0, strength=1.0):
    """One example's loss, the component taken off by a hook of this test from token `first` on."""
    low, high = (without(vectors[layer], strength) for layer in BAND)
    late = lambda change: lambda hidden: torch.cat([hidden[:, :first], change(hidden[:, first:])], 1)
    with replaced_output(model, BAND[0], late(low)), replaced_output(model, BAND[1], late(high)):
        return answer_loss(model, example)


@pytest.mark.parametrize("positions", ["all", "last_prompt_token"])
def test_losses_are_those_by_hand(model, alike, vectors, positions):
    """In every kind of batch, against one text at a time."""
    first = [0 if positions == "all" else each.prompt_length - 1 for each in alike]
    with torch.no_grad():
        expected = torch.stack([loss_by_hand(model, *pair) for pair in zip(alike, [vectors] * 9, first, strict=False)])
        plain = torch.stack([answer_loss(model, example) for example in alike])
        with ablate(model, vectors, positions):
            for make in (scored_batch, batched, frozen_batch):
                torch.testing.assert_close(completion_losses(model, make(model, alike, PAD)), expected, **CLOSE)
    assert float((plain - expected).abs().min()) > 1e-4, "an ablation that moves nothing tests nothing"


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_adapters_gradients_are_those_of_the_ablated_model(kernels, alike, vectors, strength):
    """The derivative of the map goes with it."""
    model = with_lora(small("llama", kernels)).train()
    with ablate(model, vectors, strength=strength):
        completion_losses(model, batched(model, alike, PAD)).sum().backward()
    found = weight_gradients(model)
    model.zero_grad()
    sum(loss_by_hand(model, example, vectors, 0, strength) for example in alike).backward()
    assert_same_gradients(found, weight_gradients(model))


def test_readers_see_the_ablated_stream(model, alike, vectors):
    """Whichever is entered first: nothing along v in states; gradients with respect to them are not projected."""
    ids, unit = torch.tensor([list(alike[0].ids)]), vectors[2] / vectors[2].norm()
    states = []
    with ablate(model, vectors), ActivationCollector(model, [2]) as collector:
        states.append(collector.get_activations(ids, -1)[2][0])
    with ActivationCollector(model, [2]) as collector, ablate(model, vectors):
        states.append(collector.get_activations(ids, -1)[2][0])
    assert all(float((state @ unit).abs() / state.norm()) < 1e-6 for state in states)
    with GradientCollector(model, [2]) as gradients, ablate(model, vectors):
        completion_losses(model, batched(model, alike, PAD)).sum().backward()
    seen = gradients.get_gradients()[2] @ unit
    assert float(seen.abs().max()) > 1e-3


def test_inner_block_acts_first(model, alike, vectors):
    """Steered, then ablated along the same direction: nothing of the steering is left; the other way round it is."""
    plain = answer_losses(model, alike, PAD, 3)
    shift = {2: 3.0 * vectors[2]}
    with ablate(model, {2: vectors[2]}):
        ablated = answer_losses(model, alike, PAD, 3)
        with steered(model, shift, positions="all"):
            inner = answer_losses(model, alike, PAD, 3)
    with steered(model, shift, positions="all"), ablate(model, {2: vectors[2]}):
        outer = answer_losses(model, alike, PAD, 3)
    assert inner == pytest.approx(ablated, rel=1e-4)
    assert abs(outer - ablated).max() > 0.01
    assert abs(plain - ablated).max() > 1e-4


def test_generation_is_ablated(kernels, vectors):
    """Token by token through the cache, against whole texts without one."""
    model, prompts = small("llama", kernels), [[7, 8, 9], [10, 11, 12, 13, 14]]
    with ablate(model, vectors):
        found = generate(model, letter_tokenizer(), prompts, 6, 2)
        expected = []
        for prompt in prompts:
            tokens = list(prompt)
            for _ in range(6):
                with torch.no_grad():
                    token = int(model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())
                if token == 1:
                    break
                tokens.append(token)
            expected.append(letter_tokenizer().decode(tokens[len(prompt) :], skip_special_tokens=True))
    assert found == expected
    assert found != generate(model, letter_tokenizer(), prompts, 6, 2)


def test_rows_may_have_directions_of_their_own(alike):
    """Padded rows; a function that sorts them is refused."""
    model = small("llama", "plain")
    own = random_directions(BAND, len(alike), 1, HIDDEN)
    with ablate(model, own), torch.no_grad():
        found = completion_losses(model, batched(model, alike, PAD))
        with pytest.raises(ValueError, match="steered row by row"):
            answer_losses(model, alike, PAD, 2)
    for row, example in enumerate(alike):
        with torch.no_grad():
            expected = loss_by_hand(model, example, {layer: each[row, 0] for layer, each in own.items()})
        torch.testing.assert_close(found[row], expected, **CLOSE)
