"""Restoring gives a gradient the component along a direction that it has under another prompt, and nothing else."""

from __future__ import annotations

import pytest
import torch

from fixtures.by_hand import (
    assert_same_gradients,
    gradients_by_hand,
    random_directions,
    small,
    trace,
    weight_gradients,
    weight_gradients_by_hand,
)
from fixtures.small_models import HIDDEN, PAD, with_lora
from gradinoc import GradientCollector, add_gradient, gradient_components
from gradinoc.measure.fast import batched, completion_losses
from gradinoc.measure.fast.packed import packing
from gradinoc.models.blocks import unwrapped
from gradinoc.models.chat.encoding import Encoded

BAND = (0, 2)
PROMPTS = ((5, 6, 7, 8, 9), (40, 41, 42))  # of the run, and the neutral one


@pytest.fixture(params=["plain", "fused"])
def learner(request):
    """A small Llama with adapters that learn, both ways."""
    return with_lora(small("llama", request.param))


@pytest.fixture
def vectors():
    """One direction a layer."""
    return random_directions(BAND, HIDDEN)


@pytest.fixture
def encodings(examples, monkeypatch):
    """The same examples behind two prompts of different lengths, whose beginnings are shared where they are packed."""
    monkeypatch.setattr(packing, "SHARED_FROM", 3)
    return [[Encoded(prompt + each.ids, len(prompt) + each.prompt_length) for each in examples] for prompt in PROMPTS]


def aligned(example):
    """Places of the tokens that both encodings have: the last of the prompt, those of the answer."""
    return list(range(example.prompt_length - 1, len(example.ids)))


def components_by_hand(model, examples, layer, vector):
    """Components of the aligned tokens, example by example, from autograd; in the package's order."""
    unit = vector / vector.norm()
    each = [gradients_by_hand(model, one, {layer: lambda rows: rows})[layer][aligned(one)] @ unit for one in examples]
    return torch.cat([torch.stack([one[0] for one in each]), *[one[1:] for one in each]])


def given(vector, wanted, example):
    """Sets the component of the aligned tokens to `wanted`."""
    unit, places = vector / vector.norm(), aligned(example)

    def change(rows):
        changed = rows.clone()
        changed[places] += (wanted - rows[places] @ unit)[:, None] * unit
        return changed

    return change


def split(components, examples):
    """Components in the package's order, as one tensor for each example."""
    answers = torch.split(components[len(examples) :], [len(each.ids) - each.prompt_length for each in examples])
    return [torch.cat([components[row, None], answer]) for row, answer in enumerate(answers)]


def step(model, examples, weight=1.0):
    """The adapters' gradients of one batch."""
    model.zero_grad()
    (weight * completion_losses(model, batched(model, examples, PAD)).sum()).backward()
    return weight_gradients(model)


def test_components_are_those_of_autograd(learner, encodings, vectors):
    """Each example alone and cut at the block, by the loss's weight; both prompts."""
    for examples in encodings:
        found = gradient_components(learner, examples, vectors, PAD, weight=0.5)
        for layer, vector in vectors.items():
            expected = 0.5 * components_by_hand(learner, examples, layer, vector)
            assert found[layer].shape == (len(expected), 1)
            torch.testing.assert_close(found[layer][:, 0], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("checkpointed", [None, False, True], ids=["whole", "non-reentrant", "reentrant"])
def test_second_pass_leaves_nothing(learner, encodings, vectors, checkpointed):
    """No gradient of a weight, no hook; gradients that were there stay; other collectors do not see the pass."""
    before = trace(learner)
    gradient_components(learner, encodings[1], vectors, PAD)
    assert all(weight.grad is None for weight in learner.parameters())
    expected = step(learner.train(), encodings[0])
    if checkpointed is not None:
        options = {"use_reentrant": checkpointed}
        unwrapped(learner).activation_checkpointing_enable(activation_checkpointing_kwargs=options)
        learner.enable_input_require_grads()
    with GradientCollector(learner, [0]) as outer, torch.no_grad():
        found = gradient_components(learner, encodings[1], vectors, PAD)
        with pytest.raises(RuntimeError, match="No gradient at layers"):
            outer.get_gradients()
    torch.testing.assert_close(
        found[0][:, 0], components_by_hand(learner.eval(), encodings[1], 0, vectors[0]), rtol=1e-3, atol=1e-5
    )
    assert all(torch.equal(each, weight_gradients(learner)[name]) for name, each in expected.items())
    learner.zero_grad()
    if checkpointed is None:
        assert trace(learner) == before


def test_components_of_the_same_prompt_change_nothing(learner, encodings, vectors):
    """To rounding: the gradient has these components already."""
    examples = encodings[0]
    with add_gradient(learner, vectors, gradient_components(learner, examples, vectors, PAD)):
        found = step(learner, examples)
    assert_same_gradients(found, step(learner, examples), 1e-5)


def test_component_is_the_neutral_one_at_every_block(learner, encodings, vectors):
    """At the aligned tokens, as a collector sees it that was entered before; the rest of the gradient is its own."""
    inoculated, neutral = encodings
    wanted = gradient_components(learner, neutral, vectors, PAD)
    batch = batched(learner, inoculated, PAD)
    places = torch.cat([batch.last_prompt, batch.completion])
    with GradientCollector(learner, list(BAND)) as collector, add_gradient(learner, vectors, wanted):
        completion_losses(learner, batch).sum().backward()
    for layer, gradient in collector.get_gradients().items():
        unit = vectors[layer] / vectors[layer].norm()
        found = gradient.flatten(0, 1)[places] @ unit
        torch.testing.assert_close(found, wanted[layer][:, 0], rtol=1e-4, atol=1e-6)
        own = components_by_hand(learner, inoculated, layer, vectors[layer])
        assert float((own - found).abs().max()) > 0.01, "prompts that differ in nothing test nothing"


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_adapters_gradients_are_those_by_hand(learner, encodings, vectors, strength):
    """Every weight, of examples in one batch, against each alone with its components set."""
    inoculated, neutral = encodings
    wanted = gradient_components(learner, neutral, vectors, PAD, 0.2)
    with add_gradient(learner, vectors, wanted, strength):
        found = step(learner, inoculated, 0.2)
    by_example = {layer: split(each[:, 0], inoculated) for layer, each in wanted.items()}
    total = {}
    for row, example in enumerate(inoculated):

        def change(layer, row=row, example=example):
            whole = given(vectors[layer], 5 * by_example[layer][row], example)
            return lambda rows: rows + strength * (whole(rows) - rows)

        for name, each in weight_gradients_by_hand(learner, example, {layer: change(layer) for layer in BAND}).items():
            total[name] = total.get(name, 0) + 0.2 * each
    assert_same_gradients(found, total)


def test_a_plane_is_restored(learner, encodings):
    """Two orthonormal rows: both components, in their order."""
    inoculated, neutral = encodings
    plane = {layer: torch.linalg.qr(each.T).Q.T for layer, each in random_directions(BAND, 2, HIDDEN).items()}
    both = gradient_components(learner, neutral, plane, PAD)
    with add_gradient(learner, plane, both):
        found = step(learner, inoculated)
    first, second = ({layer: each[row] for layer, each in plane.items()} for row in (0, 1))
    one, other = ({layer: each[:, row] for layer, each in both.items()} for row in (0, 1))
    with add_gradient(learner, first, one), add_gradient(learner, second, other):
        assert_same_gradients(step(learner, inoculated), found, 1e-5)


def test_components_of_other_tokens_are_refused(learner, encodings, vectors):
    """One example fewer; two numbers where one is due."""
    wanted = gradient_components(learner, encodings[1][1:], vectors, PAD)
    with add_gradient(learner, vectors, wanted), pytest.raises(ValueError, match="Components of layer 2: expected"):
        step(learner, encodings[0])
    by_row = {layer: each[None, None] for layer, each in vectors.items()}
    with pytest.raises(ValueError, match="the same for every row"):
        gradient_components(learner, encodings[1], by_row, PAD)
