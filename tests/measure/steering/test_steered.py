"""A steered model computes what its vectors say, in every kind of pass; identities; what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import RwkvForCausalLM

from fixtures.oracles import answer_loss
from fixtures.small_models import HIDDEN, LAYERS, PAD
from fixtures.steered import BAND, CLOSE, EVERY, by_hand, frozen, logits_by_hand, padded, row_of, trace
from gradinoc import steered
from gradinoc.measure.fast import batched, completion_losses, frozen_batch, scored_batch
from gradinoc.measure.gradients.alignment import answer_losses
from gradinoc.measure.passes.batches import model_inputs
from gradinoc.measure.passes.hooks import ActivationCollector
from gradinoc.measure.steering.steered import increments
from gradinoc.models.blocks import decoder_blocks


def states_by_hand(model, tokens, shifts, first):
    """The stream of one text, `[tokens, hidden]` by layer, as hooks that come after those of `by_hand` see it."""
    held = []

    def keep(*call):
        held.append((call[2][0] if isinstance(call[2], tuple) else call[2])[0])

    with by_hand(model, shifts, first) as stack, torch.no_grad():
        for block in decoder_blocks(model):
            stack.callback(block.register_forward_hook(keep).remove)
        model(torch.tensor([list(tokens)]), use_cache=False)
    return held


# --- planted truth


def test_logits_move_as_the_final_norm_and_head_say(vector):
    """A vector at the last block goes through the final norm and the unembedding, computed by hand here."""
    model, tokens = frozen("llama"), [5, 6, 7, 8, 9, 10]
    layer, first = LAYERS - 1, 3
    last = {layer: vector[BAND[-1]]}
    with ActivationCollector(model, [layer]) as collector:
        states = [collector.get_activations(torch.tensor([tokens]), place)[layer][0] for place in range(len(tokens))]
    with steered(model, last, 0.5, [first]), torch.no_grad():
        found = model(torch.tensor([tokens])).logits[0]
    norm = model.model.norm
    for place, state in enumerate(states):
        state = state + 0.5 * last[layer] * (place >= first)
        unit = state / (state.square().mean() + norm.variance_epsilon).sqrt()
        torch.testing.assert_close(found[place], model.lm_head.weight @ (norm.weight * unit), **CLOSE)


def test_increments_move_the_stream_by_what_is_meant_behind_every_block(vector):
    """Where blocks hand on what they are given: none of them writes anything here. Whole vectors add up."""
    model, tokens = frozen("llama"), [5, 6, 7, 8]
    for block in decoder_blocks(model):
        for last in (block.self_attn.o_proj, block.mlp.down_proj):
            last.weight.data.zero_()

    def moved(vectors):
        still, steered_by = (states_by_hand(model, tokens, each, 2) for each in ({}, vectors))
        return {layer: steered_by[layer][2:] - still[layer][2:] for layer in BAND}

    for layer, found in moved(increments(vector)).items():
        torch.testing.assert_close(found, vector[layer].expand_as(found), **CLOSE)
    last = moved(vector)[BAND[-1]]
    torch.testing.assert_close(last, sum(vector.values()).expand_as(last), **CLOSE)


@pytest.mark.parametrize("name", ["llama", "rwkv"])
def test_documented_example_runs(name):
    """The docstring's default: from the last prompt token on, when a prompt alone is given."""
    model, tokens = frozen(name), [5, 6, 7, 8]
    shift = {1: torch.ones(HIDDEN)}
    with steered(model, shift, strength=2.0), torch.no_grad():
        found = model(torch.tensor([tokens])).logits[0]
    torch.testing.assert_close(found, logits_by_hand(model, tokens, {1: 2.0 * shift[1]}, 3), **CLOSE)


# --- brute force


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_are_each_steered_as_alone(model, examples, vectors, side):
    """A vector, a strength and a first token for each row; texts alone, unpadded, with hooks written here."""
    if side == "left" and isinstance(model, RwkvForCausalLM):
        pytest.skip("its state runs through padding, steered or not")
    rows = [example.ids for example in examples]
    first, strengths = [0, 4, 2, 1, 9], torch.tensor([1.0, -1.0, 0.5, 0.0, 2.0])
    ids, mask = padded(rows, side)
    with steered(model, vectors, strengths, first), torch.no_grad():
        found = model(**model_inputs(ids, mask)).logits
    for row, tokens in enumerate(rows):
        expected = logits_by_hand(model, tokens, row_of(vectors, row, strengths[row]), first[row])
        torch.testing.assert_close(found[row, mask[row].bool()], expected, **CLOSE)


@pytest.mark.parametrize("kind", ["one vector", "by row"])
def test_batches_are_steered_from_each_last_prompt_token_on(model, alike, vector, kind):
    """Losses of examples that begin alike, packed and padded, for gradients and without, against one text at a time."""
    rows = torch.randn(LAYERS, len(alike), HIDDEN, generator=torch.Generator().manual_seed(6))
    shifts = vector if kind == "one vector" else {layer: rows[layer] for layer in BAND}
    expected = []
    for row, example in enumerate(alike):
        with by_hand(model, row_of(shifts, row), example.prompt_length - 1), torch.no_grad():
            expected.append(answer_loss(model, example))
    with steered(model, shifts):
        for make in (scored_batch, batched, frozen_batch):
            with torch.no_grad():
                found = completion_losses(model, make(model, alike, PAD))
            torch.testing.assert_close(found, torch.stack(expected), **CLOSE)
    plain = torch.stack([answer_loss(model, example) for example in alike])
    assert float((plain - torch.stack(expected)).abs().min()) > 1e-3, "steering that moves nothing tests nothing"


@pytest.mark.parametrize("wrong", [-1, 1])
def test_one_token_off_is_another_result(some_model, alike, vector, wrong):
    """Otherwise the comparisons above would not see steering at the wrong tokens."""
    for example in alike:
        right, off = (
            logits_by_hand(some_model, example.ids, vector, first)[example.prompt_length - 1 :]
            for first in (example.prompt_length - 1, example.prompt_length - 1 + wrong)
        )
        assert float((right - off).abs().max()) > 0.01


def test_functions_that_sort_rows_steer_them_alike(some_model, alike, vector):
    """Losses of the package's own function, in batches of another order, with the model wrapped as well."""
    with steered(some_model, vector, -1.0):
        found = answer_losses(some_model, alike, PAD, 2)
    for row, example in enumerate(alike):
        with by_hand(some_model, row_of(vector, row, -1.0), example.prompt_length - 1), torch.no_grad():
            assert found[row] == pytest.approx(float(answer_loss(some_model, example)), rel=1e-4)


def test_later_tokens_alone_may_be_steered_in_a_batch(some_model, alike, vector):
    """Given by row, counted in tokens: from the second answer token on."""
    first = [example.prompt_length + 1 for example in alike]
    with steered(some_model, vector, 1.0, first), torch.no_grad():
        found = completion_losses(some_model, batched(some_model, alike, PAD))
    for row, example in enumerate(alike):
        with by_hand(some_model, vector, first[row]), torch.no_grad():
            torch.testing.assert_close(found[row], answer_loss(some_model, example), **CLOSE)


def test_every_token_may_be_steered(model, alike, vector):
    """As in training: prompts and answers, in each way that rows are put together."""
    expected = []
    for example in alike:
        with by_hand(model, vector, 0), torch.no_grad():
            expected.append(answer_loss(model, example))
    with steered(model, vector, positions="all"), torch.no_grad():
        for make in (scored_batch, batched, frozen_batch):
            found = completion_losses(model, make(model, alike, PAD))
            torch.testing.assert_close(found, torch.stack(expected), **CLOSE)


def test_runs_packed_together_may_have_vectors_of_their_own(alike, vectors):
    """Every token of each run's examples, two runs in one row."""
    model, runs = frozen("llama", "fused"), 2
    shifts = {layer: each[:runs] for layer, each in vectors.items()}
    with steered(model, shifts, positions="all"), torch.no_grad():
        found = completion_losses(model, batched(model, alike, PAD, runs))
    for row, example in enumerate(alike):
        with by_hand(model, row_of(shifts, row // (len(alike) // runs)), 0), torch.no_grad():
            torch.testing.assert_close(found[row], answer_loss(model, example), **CLOSE)


@pytest.mark.parametrize("position", ["last_prompt_token", "first_assistant_token", 0, -2])
def test_collected_states_are_the_steered_stream(some_model, alike, vector, position):
    """Whichever of the two blocks is entered first; the token put after a prompt is chosen and seen steered too."""
    prompts = [example.prompt for example in alike]
    prompts.append([*prompts[0], 33])  # goes on where another prompt ends
    ids, mask = padded(prompts, "left")
    found = []
    with steered(some_model, vector), ActivationCollector(some_model, EVERY) as collector:
        found.append(collector.get_activations(ids, position, mask))
    with ActivationCollector(some_model, EVERY) as collector, steered(some_model, vector):
        found.append(collector.get_activations(ids, position, mask))
    for row, tokens in enumerate(prompts):
        first = len(tokens) - 1
        text = list(tokens)
        if position == "first_assistant_token":
            text.append(int(logits_by_hand(some_model, tokens, vector, first)[-1].argmax()))
        place = position if isinstance(position, int) else -1
        held = states_by_hand(some_model, text, vector, first)
        for layer in EVERY:
            for each in found:
                torch.testing.assert_close(each[layer][row], held[layer][place], **CLOSE)


# --- identities


@pytest.mark.parametrize("positions", ["last_prompt_token", "all", [0, 1, 2, 3, 4]])
def test_strength_zero_changes_no_bit(some_model, examples, vector, positions):
    """Logits and the states of every layer are the same numbers."""
    inputs = model_inputs(*padded([example.ids for example in examples], "right"))
    with torch.no_grad():
        expected = some_model(**inputs).logits
        with steered(some_model, vector, 0.0, positions):
            assert torch.equal(some_model(**inputs).logits, expected)
        with steered(some_model, vector, torch.zeros(len(examples)), positions):
            assert torch.equal(some_model(**inputs).logits, expected)


def test_tokens_before_the_first_are_untouched(some_model, examples, vector):
    """To the last bit, in every layer: nothing flows back."""
    example = examples[1]
    first = example.prompt_length - 1
    states = []
    for strength in (0.0, 3.0):
        with steered(some_model, vector, strength, [first]):
            states.append(states_by_hand(some_model, example.ids, {}, 0))
    for plain, moved in zip(*states, strict=True):
        assert torch.equal(plain[:first], moved[:first])
        assert not torch.allclose(plain[first:], moved[first:])


def test_nested_blocks_add_up(some_model, alike, vector):
    """Of two blocks and of one with the sum; inner ones end first."""
    other = {layer: each.flip(0) for layer, each in vector.items()}
    with torch.no_grad(), steered(some_model, vector, 0.5):
        outer = completion_losses(some_model, batched(some_model, alike, PAD))
        with steered(some_model, other, -0.25):
            both = completion_losses(some_model, batched(some_model, alike, PAD))
        again = completion_losses(some_model, batched(some_model, alike, PAD))
    with torch.no_grad(), steered(some_model, {layer: 0.5 * vector[layer] - 0.25 * other[layer] for layer in vector}):
        summed = completion_losses(some_model, batched(some_model, alike, PAD))
    torch.testing.assert_close(both, summed, **CLOSE)
    assert torch.equal(outer, again)
    assert not torch.allclose(outer, both)


def test_neighbours_change_nothing(some_model, alike, vector):
    """An example alone, and in batches of several sizes."""
    with steered(some_model, vector):
        alone = answer_losses(some_model, alike, PAD, 1)
        for size in (2, 3, len(alike)):
            np.testing.assert_allclose(answer_losses(some_model, alike, PAD, size), alone, rtol=1e-4)


def test_model_is_as_it_was_whatever_happens(some_model, vector, examples):
    """Weights to the last byte, hooks, forwards and marks: after the block, an error in it, and one in the model."""
    before = trace(some_model)
    inputs = model_inputs(*padded([example.ids for example in examples], "right"))
    with steered(some_model, vector), steered(some_model, vector, 2.0, "all"), torch.no_grad():
        some_model(**inputs)
        assert trace(some_model)[1:] != before[1:]
    assert trace(some_model) == before
    with pytest.raises(KeyError, match="elsewhere"), steered(some_model, vector):
        raise KeyError("elsewhere")
    assert trace(some_model) == before
    with pytest.raises(IndexError), steered(some_model, vector):
        some_model(torch.tensor([[10_000]]))
    assert trace(some_model) == before


def test_states_that_transformers_records_are_steered(vector):
    """Its own hooks come behind ours, were they put in before or not."""
    model, tokens = frozen("llama"), torch.tensor([[5, 6, 7, 8]])
    for _ in range(2):
        with torch.no_grad():
            plain = model(tokens, output_hidden_states=True).hidden_states
            with steered(model, {0: vector[0]}):
                found = model(tokens, output_hidden_states=True).hidden_states
        torch.testing.assert_close(found[1][0, -1], plain[1][0, -1] + vector[0])
        assert torch.equal(found[1][0, :-1], plain[1][0, :-1])


def test_half_precision_adds_in_float32(vector):
    """One rounding, of the sum: a vector in bfloat16 would bend."""
    model = frozen("llama").bfloat16()
    held = []
    with torch.no_grad(), steered(model, {1: vector[0]}, 1.0, "all"):
        decoder_blocks(model)[1].register_forward_hook(lambda *call: held.append(call[2]))
        model(torch.tensor([[5, 6, 7]]))
    with torch.no_grad():
        model(torch.tensor([[5, 6, 7]]))
    moved, plain = held
    assert torch.equal(moved, (plain.float() + vector[0]).bfloat16())
