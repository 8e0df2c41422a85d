"""Projecting gradients changes the backward pass as the formula says, nothing that is computed forward, and is undone.

The oracle cuts the model at each block and asks `torch.autograd.grad`, one example at a time (`fixtures.by_hand`).
"""

from __future__ import annotations

import pytest
import torch

from fixtures.by_hand import (
    assert_same_gradients,
    beginning_alike,
    gradients_by_hand,
    random_directions,
    small,
    stream_of,
    weight_gradients,
    weight_gradients_by_hand,
    without,
)
from fixtures.oracles import answer_loss
from fixtures.small_models import HIDDEN, LAYERS, PAD, with_lora
from gradinoc import GradientCollector, project_gradient, steered
from gradinoc.measure.fast import batched, completion_losses
from gradinoc.measure.fast.packed import packing
from gradinoc.measure.gradients.alignment import GradientLogger, answer_losses
from gradinoc.models.blocks import decoder_blocks, unwrapped
from gradinoc.models.chat.encoding import Encoded

BAND = (0, 2)  # layers that are changed; the one between is not
EVERY = range(LAYERS)


@pytest.fixture(params=["plain", "fused"])
def kernels(request):
    """On which modules."""
    return request.param


@pytest.fixture(params=["llama", "gemma3", "qwen3_5", "gpt2"])
def learner(request, kernels):
    """Full attention, windows, a recurrent state, learned positions; with adapters that learn."""
    return with_lora(small(request.param, kernels))


@pytest.fixture
def llama_learner(kernels):
    """One architecture, both ways."""
    return with_lora(small("llama", kernels))


@pytest.fixture
def alike(examples, monkeypatch):
    """Examples that share what their prompts begin with, where they are packed."""
    monkeypatch.setattr(packing, "SHARED_FROM", 3)
    return beginning_alike(examples)


@pytest.fixture
def vectors():
    """One direction a layer, of no particular length."""
    return random_directions(BAND, HIDDEN)


def losses_of(model, examples, runs=1):
    """The sum of the examples' losses, as one batch."""
    return completion_losses(model, batched(model, examples, PAD, runs)).sum()


def learned(model, examples):
    """The adapters' gradients of one batch."""
    model.zero_grad()
    losses_of(model, examples).backward()
    return weight_gradients(model)


def streams(model, examples, outer=None, inner=None):
    """Gradients of a batch's stream by layer, `[tokens, hidden]`, the collector entered between two contexts."""
    with outer or torch.enable_grad(), GradientCollector(model, list(EVERY)) as collector:
        with inner or torch.enable_grad():
            losses_of(model, examples).backward()
        return {layer: each.flatten(0, 1) for layer, each in collector.get_gradients().items()}


# --- forward


def test_forward_pass_keeps_every_bit(learner, alike, vectors):
    """Losses of the same batch, with gradients asked for and without."""
    batch = batched(learner, alike, PAD)
    for grads in (True, False):
        with torch.set_grad_enabled(grads):
            expected = completion_losses(learner, batch)
            with project_gradient(learner, vectors, 2.0):
                assert torch.equal(completion_losses(learner, batch), expected)


# --- backward


@pytest.mark.parametrize("strength", [1.0, 2.0, 0.5, -1.0])
def test_adapters_gradients_are_those_by_hand(learner, alike, vectors, strength):
    """Every weight of every block, of examples in one batch, against each example alone, cut at the blocks."""
    with project_gradient(learner, vectors, strength):
        found = learned(learner, alike)
    changes = {layer: without(each, strength) for layer, each in vectors.items()}
    by_example = [weight_gradients_by_hand(learner, example, changes) for example in alike]
    assert_same_gradients(found, {name: sum(each[name] for each in by_example) for name in by_example[0]})
    plain, moved = learned(learner, alike), [name for name in found if not name.startswith("2.")]
    assert max(float((plain[name] - found[name]).norm() / plain[name].norm()) for name in moved) > 0.01


def test_weights_below_have_the_gradient_of_a_surrogate_loss():
    """Finite differences of <h[l], projected gradient>, in float64, along each adapter's own gradient."""
    model, layer = with_lora(small("gpt2", "plain")).double(), 1
    example, vector = Encoded((5, 9, 30, 12, 44, 1), 3), random_directions([layer], HIDDEN)
    changed = gradients_by_hand(model, example, {layer: without(vector[layer].double())})[layer]
    model.zero_grad()
    with project_gradient(model, vector):
        answer_loss(model, example).backward()
    below = {name: each for name, each in weight_gradients(model).items() if int(name[0]) <= layer}
    blocks, eps = decoder_blocks(model), 1e-4
    for name, gradient in below.items():
        weight = blocks[int(name[0])].get_parameter(name[2:])
        ends = []
        with torch.no_grad():
            for step in (eps, -2 * eps, eps):
                weight += step * gradient / gradient.norm()
                ends.append(float((stream_of(model, layer, example) * changed).sum()))
        slope = (ends[0] - ends[1]) / (2 * eps)
        assert slope == pytest.approx(float(gradient.norm()), rel=1e-4), name
    assert len(below) == 16


def test_nothing_is_left_along_the_direction(llama_learner, alike, vectors):
    """At every token of the blocks that are named, within rounding of the gradient's length; elsewhere there is."""
    found = streams(llama_learner, alike, inner=project_gradient(llama_learner, vectors))
    for layer, vector in vectors.items():
        left = found[layer] @ vector / vector.norm()
        assert float((left.abs() / found[layer].norm(dim=-1).clamp(min=1e-9)).max()) < 2e-6
    unnamed = found[1] @ vectors[0] / vectors[0].norm() / found[1].norm(dim=-1).clamp(min=1e-9)
    assert float(unnamed.abs().max()) > 0.05


def test_logged_alignment_of_a_projected_gradient_is_zero(llama_learner, alike, vectors):
    """Each layer and position of a logger that was entered before; the sum over an answer's tokens too."""
    rows = {layer: torch.nn.functional.normalize(each[None], dim=-1) for layer, each in vectors.items()}
    alignments = []
    for strength in (0.0, 1.0):
        batch = batched(llama_learner, alike, PAD)
        with GradientLogger(llama_learner, rows) as logger, project_gradient(llama_learner, vectors, strength):
            logger.expect(batch, 1.0)
            completion_losses(llama_learner, batch).sum().backward()
            alignments.append(logger.read().alignment)
    assert float(alignments[1].abs().max()) < 2e-6
    assert float(alignments[0].abs().amax((1, 2)).min()) > 0.05


def test_strength_zero_keeps_every_bit(llama_learner, alike, vectors):
    """Of the adapters' gradients."""
    with project_gradient(llama_learner, vectors, 0.0):
        found = learned(llama_learner, alike)
    assert all(torch.equal(each, found[name]) for name, each in learned(llama_learner, alike).items())


@pytest.mark.parametrize(("strength", "factor"), [(2.0, -1.0), (-1.0, 2.0), (0.5, 0.5)])
def test_component_is_multiplied(llama_learner, alike, vectors, strength, factor):
    """2 reflects, −1 doubles, 0.5 halves what arrives at the highest block; all across it stays."""
    top = {2: vectors[2] / vectors[2].norm()}
    plain = streams(llama_learner, alike)[2]
    found = streams(llama_learner, alike, inner=project_gradient(llama_learner, top, strength))[2]
    scale = float(plain.norm())
    torch.testing.assert_close(found @ top[2], factor * (plain @ top[2]), rtol=1e-4, atol=1e-6 * scale)
    across = without(top[2])
    torch.testing.assert_close(across(found), across(plain), rtol=1e-4, atol=1e-6 * scale)


def test_subspace_is_one_direction_after_another(llama_learner, alike):
    """Three orthonormal rows at once, and each in a block of its own."""
    basis = {layer: torch.linalg.qr(each.T).Q.T for layer, each in random_directions(BAND, 3, HIDDEN).items()}
    with project_gradient(llama_learner, basis):
        found = learned(llama_learner, alike)
    first, second, third = ({layer: each[row] for layer, each in basis.items()} for row in range(3))
    with project_gradient(llama_learner, first), project_gradient(llama_learner, second):
        two = learned(llama_learner, alike)
        with project_gradient(llama_learner, third):
            assert_same_gradients(learned(llama_learner, alike), found, 1e-5)
    with pytest.raises(AssertionError, match="off by"):
        assert_same_gradients(two, found, 1e-5)


def test_inner_block_acts_first(llama_learner, alike):
    """Two directions that are not orthogonal: the inner one's component comes back with the outer one."""
    one, other = random_directions([2, 0], HIDDEN).values()
    other = other + one
    plain = streams(llama_learner, alike)[2]
    with GradientCollector(llama_learner, [2]) as collector:
        with project_gradient(llama_learner, {2: one}), project_gradient(llama_learner, {2: other}):
            losses_of(llama_learner, alike).backward()
        found = collector.get_gradients()[2].flatten(0, 1)
    torch.testing.assert_close(found, without(one)(without(other)(plain)), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found, without(other)(without(one)(plain)), rtol=1e-2, atol=1e-4)


def test_order_of_entry_decides_what_a_collector_sees(llama_learner, alike, vectors):
    """Entered inside, the gradient before the change; entered before, the one after it. Lower layers see both."""
    top = {2: vectors[2]}
    plain = streams(llama_learner, alike)
    before = streams(llama_learner, alike, outer=project_gradient(llama_learner, top))
    after = streams(llama_learner, alike, inner=project_gradient(llama_learner, top))
    assert torch.equal(before[2], plain[2])
    torch.testing.assert_close(after[2], without(top[2])(plain[2]), rtol=1e-4, atol=1e-6)
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[0], plain[0], rtol=1e-3)


def test_steering_composes(llama_learner, alike, vectors):
    """Steered forward and projected backward: the oracle's cut model, steered by hand."""
    example = alike[0]
    shift = {1: random_directions([1], HIDDEN)[1]}
    with steered(llama_learner, shift, positions="all"):
        changes = {layer: without(each) for layer, each in vectors.items()}
        expected = weight_gradients_by_hand(llama_learner, example, changes)
        with project_gradient(llama_learner, vectors):
            assert_same_gradients(learned(llama_learner, [example]), expected)
    with project_gradient(llama_learner, vectors), steered(llama_learner, shift, positions="all"):
        assert_same_gradients(learned(llama_learner, [example]), expected)


# --- rows, positions


def test_rows_may_have_directions_and_strengths_of_their_own(alike):
    """Padded rows, each with a plane and a strength, against each alone."""
    model = with_lora(small("llama", "plain"))
    planes = random_directions(BAND, len(alike), HIDDEN, 2)
    basis = {layer: torch.linalg.qr(each).Q.mT for layer, each in planes.items()}
    strength = torch.tensor([1.0, 2.0, 0.0, -1.0, 0.5, 1.0])
    with project_gradient(model, basis, strength):
        found = learned(model, alike)
        with pytest.raises(ValueError, match="steered row by row"):
            answer_losses(model, alike, PAD, 2)
    total = {}
    for row, example in enumerate(alike):
        own = {layer: each[row] for layer, each in basis.items()}
        with project_gradient(model, own, float(strength[row])):
            for name, each in learned(model, [example]).items():
                total[name] = total.get(name, 0) + each
    assert_same_gradients(found, total)


def test_runs_packed_together_may_have_directions_of_their_own(alike):
    """A direction for each of two runs, each acting on its own run's tokens."""
    model = with_lora(small("llama", "fused"))
    basis = random_directions(BAND, 2, 1, HIDDEN)
    model.zero_grad()
    with project_gradient(model, basis, torch.tensor([1.0, 2.0])):
        losses_of(model, alike, 2).backward()
    found, total = weight_gradients(model), {}
    for run, strength in enumerate((1.0, 2.0)):
        with project_gradient(model, {layer: each[run] for layer, each in basis.items()}, strength):
            for name, each in learned(model, alike[3 * run : 3 * run + 3]).items():
                total[name] = total.get(name, 0) + each
    assert_same_gradients(found, total)


@pytest.mark.parametrize("positions", ["last_prompt_token", "index"])
def test_chosen_tokens_alone_are_changed(llama_learner, alike, vectors, positions):
    """From each last prompt token on, or from the second token of the answer on."""
    later = 0 if positions == "last_prompt_token" else 2
    first = [example.prompt_length - 1 + later for example in alike]
    with project_gradient(llama_learner, vectors, 1.0, positions if not later else first):
        found = learned(llama_learner, alike)
    total = {}
    for example, start in zip(alike, first, strict=True):

        def change(vector, start=start):
            return lambda rows: torch.cat([rows[:start], without(vector)(rows[start:])])

        changes = {layer: change(each) for layer, each in vectors.items()}
        for name, each in weight_gradients_by_hand(llama_learner, example, changes).items():
            total[name] = total.get(name, 0) + each
    assert_same_gradients(found, total)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_nothing(llama_learner, alike, vectors, reentrant):
    """Blocks that are computed again in the backward pass: each gradient is changed once."""
    model = llama_learner.train()
    with project_gradient(model, vectors, 2.0):
        expected = learned(model, alike)
        unwrapped(model).activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": reentrant})
        model.enable_input_require_grads()
        found = learned(model, alike)
    assert_same_gradients(found, expected, 1e-6)
