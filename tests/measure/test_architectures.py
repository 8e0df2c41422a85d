"""Every architecture is taken apart and generates alike."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from fixtures.small_models import ARCHITECTURES, END, LAYERS, VOCABULARY, letter_tokenizer
from gradinoc.errors import ModelError
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.generate import generate

PROMPT_LENGTHS = (3, 14, 1, 9, 5)


@pytest.fixture(params=sorted(ARCHITECTURES))
def model(request):
    """A small random model of one architecture."""
    return ARCHITECTURES[request.param]()


@pytest.fixture
def prompts():
    """Prompts of very different lengths, without special tokens."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(5, VOCABULARY, (length,), generator=generator).tolist() for length in PROMPT_LENGTHS]


def test_decoder_blocks_are_found_in_order(model):
    """The output of block l is hidden state l + 1 (but for the last, which Hugging Face returns normed)."""
    blocks, outputs = decoder_blocks(model), []
    for block in blocks:
        block.register_forward_hook(lambda *call: outputs.append(call[2][0] if isinstance(call[2], tuple) else call[2]))
    with torch.no_grad():
        states = model(torch.tensor([[7, 8, 9]]), output_hidden_states=True).hidden_states
    assert len(blocks) == LAYERS
    assert len(outputs) == LAYERS
    for place in range(LAYERS - 1):
        torch.testing.assert_close(outputs[place], states[place + 1])


def test_generation_follows_the_largest_logit(model, prompts):
    """Recomputing every prefix from scratch, without cache, padding or batch, gives the same tokens."""
    tokenizer, expected = letter_tokenizer(), []
    for prompt in prompts:
        tokens = list(prompt)
        while len(tokens) < len(prompt) + 8:
            with torch.no_grad():
                logits = model(torch.tensor([tokens])).logits[0, -1]
            if (token := int(logits.argmax())) == END:
                break
            tokens.append(token)
        expected.append(tokenizer.decode(tokens[len(prompt) :], skip_special_tokens=True))
    assert generate(model, tokenizer, prompts, 8, 3) == expected


def test_lists_inside_blocks_are_not_taken_for_blocks():
    """Experts, a list inside a block, may be more than the blocks themselves."""
    blocks = nn.ModuleList(
        nn.ModuleDict({"experts": nn.ModuleList(nn.Linear(2, 2) for _ in range(8))}) for _ in range(3)
    )
    assert decoder_blocks(nn.Sequential(nn.Linear(2, 2), nn.Sequential(blocks))) == list(blocks)


def test_error_names_what_has_no_decoder_blocks():
    """Neither a model without a list of blocks nor one with an encoder is taken apart by guess."""
    with pytest.raises(ModelError, match=r"No decoder blocks in Linear: .* found none"):
        decoder_blocks(nn.Linear(2, 2))
    encoder_decoder = T5ForConditionalGeneration(
        T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    )
    with pytest.raises(ModelError, match="No decoder blocks in T5ForConditionalGeneration"):
        decoder_blocks(encoder_decoder)
