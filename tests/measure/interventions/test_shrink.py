"""Shrinking keeps where gradients point; every intervention leaves a model as it was, and says what it cannot do."""

from __future__ import annotations

import pytest
import torch

from fixtures.by_hand import (
    assert_same_gradients,
    beginning_alike,
    random_directions,
    small,
    trace,
    weight_gradients,
    weight_gradients_by_hand,
    without,
)
from fixtures.small_models import HIDDEN, LAYERS, PAD, with_lora
from gradinoc import GradientCollector, ablate, add_gradient, gradient_components, project_gradient, shrink_gradient
from gradinoc.measure.fast import batched, completion_losses
from gradinoc.measure.fast.packed import packing

BAND = (0, 2)
KINDS = ("project", "shrink", "shrink along", "add", "ablate")


@pytest.fixture(params=["plain", "fused"])
def learner(request):
    """A small Llama with adapters that learn, both ways."""
    return with_lora(small("llama", request.param))


@pytest.fixture
def alike(examples, monkeypatch):
    """Examples that share what their prompts begin with, where they are packed."""
    monkeypatch.setattr(packing, "SHARED_FROM", 3)
    return beginning_alike(examples)


@pytest.fixture
def vectors():
    """One direction a layer, of no particular length."""
    return random_directions(BAND, HIDDEN)


def learned(model, examples):
    """The adapters' gradients of one batch."""
    model.zero_grad()
    completion_losses(model, batched(model, examples, PAD)).sum().backward()
    return weight_gradients(model)


def by_hand(model, examples, changes):
    """The same, of each example alone, cut at the blocks."""
    each = [weight_gradients_by_hand(model, example, changes) for example in examples]
    return {name: sum(one[name] for one in each) for name in each[0]}


def as_short_as_projected(vector, strength=1.0):
    """Rows in their own directions, of the length that projecting leaves; computed from that projection."""
    project = without(vector, strength)
    norm = lambda rows: rows.square().sum(-1, keepdim=True).sqrt()
    return lambda rows: torch.where(norm(rows) > 0, rows * norm(project(rows)) / norm(rows).clamp(min=1e-30), rows)


def test_share_of_the_length_goes(learner, alike):
    """Of blocks 0 and 2, a quarter each: what is below both is multiplied twice."""
    plain = learned(learner, alike)
    with shrink_gradient(learner, BAND, 0.25):
        found = learned(learner, alike)
    factors = {"0": 0.75**2, "1": 0.75, "2": 0.75}
    assert_same_gradients(found, {name: factors[name[0]] * each for name, each in plain.items()}, 1e-6)


@pytest.mark.parametrize("strength", [1.0, -1.0])
def test_each_token_is_as_short_as_projecting_leaves_it(learner, alike, vectors, strength):
    """Against the projection's own length, token by token and example by example: nothing is shared in the batch."""
    with shrink_gradient(learner, directions=vectors, strength=strength):
        found = learned(learner, alike)
    changes = {layer: as_short_as_projected(each, strength) for layer, each in vectors.items()}
    assert_same_gradients(found, by_hand(learner, alike, changes))
    plain = learned(learner, alike)
    assert max(float((plain[name] - each).norm() / plain[name].norm()) for name, each in found.items()) > 0.01


def test_batches_that_share_tokens_are_refused(alike, vectors):
    """Of what several examples share only the sum of their gradients is there, whose length is not theirs."""
    model = with_lora(small("llama", "fused"))
    shared = batched(model, alike, PAD)
    with shrink_gradient(model, directions=vectors), pytest.raises(NotImplementedError, match="make the batch inside"):
        completion_losses(model, shared)
    with shrink_gradient(model, directions=vectors):
        assert batched(model, alike, PAD).input_ids.shape[1] == sum(len(each.ids) for each in alike)
    assert batched(model, alike, PAD).input_ids.shape == shared.input_ids.shape


def test_a_gradient_that_is_zero_stays_zero(learner, alike, vectors):
    """Of the blocks above the loss there is none: no 0/0 comes of it."""
    with shrink_gradient(learner, directions=vectors):
        learner.zero_grad()
        (0 * completion_losses(learner, batched(learner, alike, PAD)).sum()).backward()
    assert all(not bool(each.any()) for each in weight_gradients(learner).values())


# --- what is left behind


def intervention(kind, model, vectors, examples):
    """One of each kind."""
    if kind == "add":
        return add_gradient(model, vectors, gradient_components(model, examples, vectors, PAD, 0.5))
    made = {
        "project": lambda: project_gradient(model, vectors),
        "shrink": lambda: shrink_gradient(model, BAND, 0.5),
        "shrink along": lambda: shrink_gradient(model, directions=vectors),
        "ablate": lambda: ablate(model, vectors),
    }
    return made[kind]()


@pytest.mark.parametrize("kind", KINDS)
def test_model_is_as_it_was_whatever_happens(learner, alike, vectors, kind):
    """Weights to the last byte, hooks, marks, what learns: after the block, an error in it, and errors in a pass."""
    before, plain = trace(learner), learned(learner, alike)
    with intervention(kind, learner, vectors, alike):
        found = learned(learner, alike)
        assert trace(learner)[1] != before[1]
    assert trace(learner) == before
    assert any(not torch.equal(each, found[name]) for name, each in plain.items()), "what changes nothing tests nothing"
    assert all(torch.equal(each, plain[name]) for name, each in learned(learner, alike).items())
    with pytest.raises(KeyError, match="elsewhere"), intervention(kind, learner, vectors, alike):
        raise KeyError("elsewhere")
    assert trace(learner) == before
    with pytest.raises(IndexError), intervention(kind, learner, vectors, alike):
        learner(torch.tensor([[10_000]]))
    assert trace(learner) == before

    def refuse(layer, gradient):
        raise ArithmeticError("refused")

    with (
        pytest.raises(ArithmeticError, match="refused"),
        intervention(kind, learner, vectors, alike),
        GradientCollector(learner, [0], refuse),
    ):
        completion_losses(learner, batched(learner, alike, PAD)).sum().backward()
    learner.zero_grad()
    assert trace(learner) == before


def test_half_precision_projects_in_float32(vectors):
    """What is left along the direction is one rounding of the gradient, not one of the direction."""
    model = small("llama", "plain").bfloat16()
    ids = torch.tensor([[5, 9, 30, 12, 44]])
    gradients = []
    for inner in (torch.enable_grad(), project_gradient(model, {1: vectors[0]})):
        with GradientCollector(model, [1]) as collector, inner:
            model(ids).logits.float().log_softmax(-1)[..., 7].sum().backward()
        gradients.append(collector.get_gradients()[1])
    plain, found = gradients
    assert torch.equal(found, without(vectors[0])(plain.float()).bfloat16())


# --- what is refused


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"directions": {LAYERS: torch.ones(HIDDEN)}}, "expected one or more of 0..2"),
        ({"directions": {}}, "expected one or more of 0..2"),
        ({"directions": {0: torch.zeros(HIDDEN)}}, "vectors of positive, finite length"),
        ({"directions": {0: torch.full((HIDDEN,), torch.nan)}}, "vectors of positive, finite length"),
        ({"directions": {0: torch.ones(HIDDEN, dtype=torch.long)}}, "expected real numbers"),
        ({"directions": {0: torch.ones(2, HIDDEN)}}, "expected orthonormal rows"),
        ({"strength": float("nan")}, "expected a finite number"),
        ({"positions": "first"}, "Positions 'first'"),
        ({"strength": torch.ones(3), "positions": [0, 1]}, "expected one number of rows"),
    ],
    ids=str,
)
def test_faults_are_named_before_anything_is_hooked(fault, words):
    """Layers, shapes, numbers; of gradients and of the stream."""
    model = small("llama", "plain")
    before, given = trace(model), {"directions": {0: torch.ones(HIDDEN)}, **fault}
    for context in (project_gradient, ablate):
        with pytest.raises(ValueError, match=words), context(model, **given):
            pass
        assert trace(model) == before


def test_faults_of_the_other_kinds_are_named(vectors):
    """Neither or both ways of shrinking; components of other layers, at every token, or for rows of their own."""
    model = small("llama", "plain")
    for given in ({}, {"layers": [0], "directions": vectors}):
        with pytest.raises(ValueError, match="one of the two"), shrink_gradient(model, **given):
            pass
    with pytest.raises(ValueError, match="expected a finite number"), shrink_gradient(model, [0], float("inf")):
        pass
    with pytest.raises(ValueError, match="expected those of"), add_gradient(model, vectors, {0: torch.zeros(3)}):
        pass
    with pytest.raises(ValueError, match="aligned tokens"), add_gradient(model, vectors, vectors, positions="all"):
        pass
    by_row = {layer: each[None, None] for layer, each in vectors.items()}
    with pytest.raises(ValueError, match="the same for every row"), add_gradient(model, by_row, by_row):
        pass
    with pytest.raises(ValueError, match="expected 32 numbers"), project_gradient(model, {0: torch.ones(HIDDEN + 1)}):
        model(torch.tensor([[5, 6]]))
