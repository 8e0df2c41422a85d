"""Losses and alignments of whole batches, against one example, one layer and one direction at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fixtures.oracles import answer_loss, autograd_gradient, replaced_output
from fixtures.small_models import ARCHITECTURES, END, HIDDEN, LAYERS, PAD, with_lora
from gradinoc.measure.fast import completion_losses
from gradinoc.measure.gradients.alignment import GradientLogger, alignment_frame, measure_alignments
from gradinoc.measure.passes.batches import collate
from gradinoc.models.blocks import decoder_blocks
from gradinoc.study.description import POSITIONS

EVERY = list(range(LAYERS))
DRAWS = 120
KEYS = ["example", "layer", "position"]


@pytest.fixture
def directions():
    """Unit rows `[1 + draws, hidden]`, others in each layer."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(LAYERS, 1 + DRAWS, HIDDEN, generator=generator)
    return dict(enumerate(nn.functional.normalize(rows, dim=-1)))


def descent_at(model, example, layer):
    """Minus the gradient of one example's loss at the three positions, float64 `[hidden]`, by autograd."""
    gradient = autograd_gradient(model, layer, lambda: answer_loss(model, example))[0].double().numpy()
    prompt = example.prompt_length
    return {
        "last_prompt_token": -gradient[prompt - 1],
        "first_assistant_token": -gradient[prompt],
        "completion_sum": -sum(gradient[place] for place in range(prompt, len(example.ids))),
    }


def by_key(table):
    """The table's rows by example, layer and position."""
    return table.set_index(KEYS).sort_index()


def reading_of(model, examples, directions, mean=False, pad=PAD):
    """One batch, read by the logger; the loss is the examples' sum or their mean."""
    batch = collate(examples, pad)
    with GradientLogger(model, directions) as logger:
        logger.expect(batch, len(examples) if mean else 1.0)
        losses = completion_losses(model, batch)
        (losses.mean() if mean else losses.sum()).backward()
        return logger.read()


def test_measured_alignments_equal_brute_force(frozen_model, examples, directions):
    """All layers, positions and 121 directions: autograd and a cosine, one example and one direction at a time."""
    table, means, *_ = measure_alignments(frozen_model, examples, directions, PAD, batch_size=3)
    found = by_key(table)
    assert len(found) == len(examples) * LAYERS * len(POSITIONS)
    sums = np.zeros((LAYERS, 1 + DRAWS))
    for row, example in enumerate(examples):
        loss = float(answer_loss(frozen_model, example))
        for layer in EVERY:
            for position, descent in descent_at(frozen_model, example, layer).items():
                line, length = found.loc[(row, layer, position)], np.linalg.norm(descent)
                trait = directions[layer][0].double().numpy()
                assert line["alignment"] == pytest.approx(descent @ trait / length, abs=1e-5), (row, layer, position)
                assert line["projection"] == pytest.approx(descent @ trait, abs=1e-5 * length)
                assert line["grad_norm"] == pytest.approx(length, rel=1e-5)
                assert line["loss"] == pytest.approx(loss, rel=1e-5)
                if position == "last_prompt_token":
                    for draw, direction in enumerate(directions[layer].double().numpy()):
                        sums[layer, draw] += descent @ direction / length
    assert means.dtype == torch.float64
    np.testing.assert_allclose(means.numpy(), sums / len(examples), atol=1e-5)


@pytest.mark.parametrize("position", POSITIONS)
def test_positive_alignment_means_that_moving_there_lowers_the_loss(examples, position):
    """Finite differences: a step of `eps` along the direction lowers the loss by `eps` times the projection."""
    model, example, eps = ARCHITECTURES["gpt2"]().double().requires_grad_(False), examples[3], 1e-4
    rows = nn.functional.normalize(torch.randn(8, HIDDEN, generator=torch.Generator().manual_seed(4)), dim=-1)
    prompt = example.prompt_length
    places = {
        "last_prompt_token": slice(prompt - 1, prompt),
        "first_assistant_token": slice(prompt, prompt + 1),
        "completion_sum": slice(prompt, None),
    }[position]

    def loss_at(layer, step):
        def move(hidden):
            moved = hidden.clone()
            moved[:, places] += step
            return moved

        with torch.no_grad(), replaced_output(model, layer, move):
            return float(answer_loss(model, example))

    signs = set()
    for layer in EVERY:
        for direction in rows:
            table, *_ = measure_alignments(model, [example], {layer: direction[None]}, PAD)
            line = by_key(table).loc[(0, layer, position)]
            step = eps * direction.double()
            lowered = (loss_at(layer, -step) - loss_at(layer, step)) / (2 * eps)
            assert lowered == pytest.approx(line["projection"], abs=1e-5 * line["grad_norm"])
            assert line["projection"] == pytest.approx(line["alignment"] * line["grad_norm"], rel=1e-5)
            signs.add(lowered > 0)
    assert signs == {True, False}, "Both signs should occur, to tell anything"


def test_alignments_ignore_batch_size_order_and_neighbours(frozen_model, examples, directions):
    """Cosines, projections and norms of an example are its own, whatever it is batched with, whatever pads it."""
    expected, means, *_ = measure_alignments(frozen_model, examples, directions, PAD, batch_size=1)
    for batch_size, pad in ((2, PAD), (5, END), (64, 17)):
        table, again, *_ = measure_alignments(frozen_model, examples, directions, pad, batch_size=batch_size)
        assert table[KEYS].equals(expected[KEYS])
        numbers = ["loss", "alignment", "projection", "grad_norm"]
        np.testing.assert_allclose(table[numbers], expected[numbers], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(again, means, atol=1e-5)
    turned, *_ = measure_alignments(frozen_model, examples[::-1], directions, PAD, batch_size=2)
    turned = by_key(turned.assign(example=len(examples) - 1 - turned["example"]))
    np.testing.assert_allclose(turned["alignment"], by_key(expected)["alignment"], atol=1e-5)


def test_a_mean_loss_is_scaled_back(llama, examples, directions):
    """A training step's loss is the batch's mean: norms and projections are those of each example's own loss."""
    own, mean = (reading_of(llama, examples, directions, mean) for mean in (False, True))
    torch.testing.assert_close(mean.grad_norm, own.grad_norm, rtol=1e-5, atol=0)
    torch.testing.assert_close(mean.projection, own.projection, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mean.alignment, own.alignment, rtol=0, atol=1e-5)


def test_training_gradients_are_read_from_an_adapter_in_training(llama, examples, directions):
    """The alignments of a model whose adapter learns are those of the same weights, frozen."""
    model = with_lora(llama)
    learning = reading_of(model, examples, directions, mean=True)
    frozen = reading_of(model.requires_grad_(False), examples, directions)
    torch.testing.assert_close(learning.alignment, frozen.alignment, rtol=0, atol=1e-5)
    torch.testing.assert_close(learning.grad_norm, frozen.grad_norm, rtol=1e-5, atol=0)


def test_unannounced_backward_pass_is_an_error(llama, examples, directions):
    """Without the batch, nobody knows where its prompts end; and nothing is read twice."""
    batch = collate(examples, PAD)
    with GradientLogger(llama, directions) as logger:
        with pytest.raises(RuntimeError, match=r"call expect\(batch, scale\) before it"):
            completion_losses(llama, batch).sum().backward()
        logger.expect(batch, 1.0)
        completion_losses(llama, batch).sum().backward()
        logger.read()
        with pytest.raises(RuntimeError, match=r"No gradient at layers \[0, 1, 2\]"):
            logger.read()
    assert not any(block._forward_hooks for block in decoder_blocks(llama))


def test_a_reading_becomes_rows_under_its_own_names(llama, examples, directions):
    """Layers and examples keep the names that they are given, in whatever order they were measured."""
    chosen = {layer: directions[layer] for layer in (2, 0)}
    reading = reading_of(llama, examples, chosen)
    table = alignment_frame(reading, torch.arange(5.0), [40, 30, 20, 10, 0], [0, 2])
    assert len(table) == 2 * 3 * 5
    line = table.set_index(KEYS).loc[(10, 2, "first_assistant_token")]
    assert line["loss"] == 3.0
    assert line["alignment"] == pytest.approx(float(reading.alignment[1, 1, 3, 0]))
    assert line["projection"] == pytest.approx(float(reading.projection[1, 1, 3]))
    assert line["grad_norm"] == pytest.approx(float(reading.grad_norm[1, 1, 3]))
