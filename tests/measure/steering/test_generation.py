"""Generation of a steered model, token by token."""

from __future__ import annotations

import pytest
import torch
from transformers import RwkvForCausalLM

from fixtures.small_models import END, HIDDEN, PAD, letter_tokenizer
from fixtures.steered import frozen, logits_by_hand, padded, row_of
from gradinoc import steered
from gradinoc.models.generate import generate, sample_copies
from gradinoc.models.sampling import Sampling


def greedy_by_hand(model, prompt, shifts, new):
    """Each token from a pass over the whole text, unpadded, without a cache, steered by hand."""
    tokens = list(prompt)
    for _ in range(new):
        token = int(logits_by_hand(model, tokens, shifts, len(prompt) - 1)[-1].argmax())
        if token == END:
            break
        tokens.append(token)
    return letter_tokenizer().decode(tokens[len(prompt) :], skip_special_tokens=True)


def test_generation_is_steered_token_by_token(model, vector):
    """From the last prompt token on, new tokens too, through the cache, prompts padded on the left."""
    prompts = [[7, 8, 9], [10, 11, 12, 13, 14], [6], [20, 21, 22, 23, 24, 25, 26, 27, 28, 29]]
    one_by_one = isinstance(model, RwkvForCausalLM)  # whose state runs through padding
    with steered(model, vector, 1.5):
        found = generate(model, letter_tokenizer(), prompts, 8, 1 if one_by_one else 3)
    assert found == [greedy_by_hand(model, prompt, row_of(vector, 0, 1.5), 8) for prompt in prompts]
    assert found != generate(model, letter_tokenizer(), prompts, 8, 1)


def test_samples_of_one_prompt_are_steered_as_each_alone(kernels, vector):
    """Nothing of a prompt is computed before its last token is known: the first of three samples is that of one."""
    model, prompts = frozen("llama", kernels), [[7, 8, 9], [10, 11, 12, 13, 14], [6, 20, 21, 22]]
    with steered(model, vector):
        three, one = (
            sample_copies(model, letter_tokenizer(), prompts, Sampling(samples, 12), 9)[0] for samples in (3, 1)
        )
    assert [own[0] for own in three] == [own[0] for own in one]


def test_generation_by_row_starts_where_it_is_told(some_model, vectors):
    """With transformers' own `generate`, which keeps rows in order: a vector and a place for each."""
    prompts = [[7, 8, 9], [10, 11, 12, 13, 14]]
    ids, mask = padded(prompts, "left")
    shifts = {layer: each[:2] for layer, each in vectors.items()}
    for cached in (True, False):
        with steered(some_model, shifts, 1.0, [2, 4]):
            found = some_model.generate(
                ids, attention_mask=mask, max_new_tokens=5, do_sample=False, use_cache=cached, pad_token_id=PAD
            )
        for row, prompt in enumerate(prompts):
            text = letter_tokenizer().decode(found[row, ids.shape[1] :], skip_special_tokens=True)
            assert text == greedy_by_hand(some_model, prompt, row_of(shifts, row), 5)


def test_generation_without_a_cache_is_refused():
    """Which token ended the prompt is not to be seen in a growing text; silently it would be the newest."""
    model = frozen("llama")
    with steered(model, {0: torch.ones(HIDDEN)}), pytest.raises(ValueError, match="expected use_cache=True"):
        model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False, use_cache=False, pad_token_id=PAD)
