"""Activations: hooks read the residual stream that the model computes, at the token that was meant."""

from __future__ import annotations

import pytest
import torch

from fixtures.small_models import LAYERS, PAD
from gradinoc.measure.passes.batches import model_inputs
from gradinoc.measure.passes.hooks import ActivationCollector
from gradinoc.models.blocks import decoder_blocks, unwrapped

EVERY = list(range(LAYERS))


@pytest.fixture
def prompts(examples):
    """Token ids without completions, of different lengths."""
    return [example.prompt for example in examples]


def padded(prompts, side):
    """Ids and mask, `[batch, seq]`, with the padding on one side."""
    width = max(map(len, prompts))
    rows = [(prompt, [1] * len(prompt), width - len(prompt)) for prompt in prompts]
    if side == "left":
        pairs = [([PAD] * gap + ids, [0] * gap + mask) for ids, mask, gap in rows]
    else:
        pairs = [(ids + [PAD] * gap, mask + [0] * gap) for ids, mask, gap in rows]
    return torch.tensor([ids for ids, _ in pairs]), torch.tensor([mask for _, mask in pairs])


def hidden_states(model, tokens):
    """What Hugging Face returns for one unpadded text: `[layers + 1, seq, hidden]`."""
    with torch.no_grad():
        return torch.cat(model(torch.tensor([tokens]), output_hidden_states=True).hidden_states)


def with_greedy_token(model, tokens):
    """The text and the token that the model would put after it."""
    with torch.no_grad():
        return [*tokens, int(model(torch.tensor([tokens])).logits[0, -1].argmax())]


def final_norm(model):
    """The norm between the last block and the vocabulary."""
    decoder = unwrapped(model).get_decoder()
    return next(getattr(decoder, name) for name in ("norm", "ln_f", "final_layer_norm") if hasattr(decoder, name))


def collect(model, prompts, position, side="right", layers=EVERY):
    """Activations of a padded batch."""
    ids, mask = padded(prompts, side)
    with ActivationCollector(model, layers) as collector:
        return collector.get_activations(ids, position, mask)


def hooks_in_place(model):
    """How many forward hooks the blocks carry."""
    return sum(len(block._forward_hooks) for block in decoder_blocks(model))


def assert_equal_states(found, expected):
    """Equal to a relative 1e-4, by the norm of each state."""
    for layer, state in found.items():
        difference = (state - expected[layer]).norm(dim=-1) / expected[layer].norm(dim=-1)
        assert difference.max() < 1e-4, f"layer {layer}: {difference.tolist()}"


def test_activations_are_the_hidden_states_of_the_next_index(either_model, prompts):
    """h[l] is hidden_states[l + 1], at every token of every architecture, with an adapter and without."""
    tokens = prompts[1]
    expected = hidden_states(either_model, tokens)
    with ActivationCollector(either_model, EVERY) as collector:
        for place in range(len(tokens)):
            found = collector.get_activations(torch.tensor([tokens]), place)
            for layer in EVERY[:-1]:
                assert torch.equal(found[layer][0], expected[layer + 1, place]), (layer, place)


def test_last_activation_comes_before_the_final_norm(either_model, prompts):
    """The last block's output is not the last hidden state, but becomes it through the final norm."""
    expected = hidden_states(either_model, prompts[1])[-1, -1]
    last = collect(either_model, prompts[1:2], "last_prompt_token")[LAYERS - 1][0]
    torch.testing.assert_close(final_norm(either_model)(last), expected)
    assert not torch.allclose(last, expected, rtol=0.05), "The final norm should change something here"


@pytest.mark.parametrize("side", ["left", "right"])
def test_activations_ignore_padding_and_neighbours(frozen_model, prompts, side):
    """A row in a padded batch, on either side and beside other neighbours, is what it is alone; at every position."""
    for position in ("last_prompt_token", "first_assistant_token", 0, 1, -1, -2):
        alone = [collect(frozen_model, [prompt], position) for prompt in prompts]
        together = collect(frozen_model, prompts, position, side)
        pair = collect(frozen_model, prompts[2:0:-1], position, side)
        assert_equal_states(together, {layer: torch.cat([one[layer] for one in alone]) for layer in EVERY})
        assert_equal_states(pair, {layer: together[layer][[2, 1]] for layer in EVERY})


def test_first_assistant_token_is_the_models_own_choice(either_model, prompts):
    """The state is that of the greedy next token, appended by hand and computed without padding."""
    for side in ("left", "right"):
        found = collect(either_model, prompts, "first_assistant_token", side)
        for row, prompt in enumerate(prompts):
            expected = hidden_states(either_model, with_greedy_token(either_model, prompt))[1:, -1]
            assert_equal_states({0: found[0][row], 1: found[1][row]}, expected)


def test_activations_are_detached_float32_in_half_precision(llama, prompts):
    """Whatever the model computes in, what is accumulated is float32, and it holds no graph."""
    for state in collect(llama.to(torch.bfloat16), prompts, -1).values():
        assert state.dtype == torch.float32
        assert not state.requires_grad


@pytest.mark.parametrize("position", ["last", None, 1.0, "completion_sum"])
def test_unknown_positions_are_refused(llama, prompts, position):
    """The message names the positions there are."""
    with pytest.raises(ValueError, match=r"expected 'last_prompt_token', 'first_assistant_token' or an integer"):
        collect(llama, prompts, position)


@pytest.mark.parametrize("position", [2, -3])
def test_positions_outside_a_row_are_refused(llama, prompts, position):
    """The shortest prompt has two tokens: a third would be padding, or a neighbour's."""
    with pytest.raises(ValueError, match="outside the shortest row, of 2 tokens"):
        collect(llama, prompts, position)


def test_model_is_told_which_tokens_count_and_where_they_are():
    """Positions count tokens, on either side of the padding; the mask is handed on as it is."""
    ids, mask = torch.tensor([[5, 6, 7, 8]] * 3), torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1]])
    inputs = model_inputs(ids, mask)
    assert torch.equal(inputs["input_ids"], ids)
    assert torch.equal(inputs["attention_mask"], mask)
    assert inputs["position_ids"][mask == 1].tolist() == [0, 1, 0, 1, 0, 1, 2, 3]
    assert not inputs["use_cache"]


def test_hooks_are_gone_whatever_happens(either_model):
    """After the block, after an exception in it, and after one inside the model."""
    with ActivationCollector(either_model, EVERY):
        assert hooks_in_place(either_model) == LAYERS
    assert hooks_in_place(either_model) == 0
    with pytest.raises(KeyError, match="elsewhere"), ActivationCollector(either_model, EVERY):
        raise KeyError("elsewhere")
    assert hooks_in_place(either_model) == 0
    with pytest.raises(IndexError), ActivationCollector(either_model, EVERY) as collector:
        collector.get_activations(torch.tensor([[10_000]]), -1)
    assert hooks_in_place(either_model) == 0
