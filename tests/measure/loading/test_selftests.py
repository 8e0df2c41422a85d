"""Self-tests at loading pass sound models, find planted faults, and do what follows from them."""

from __future__ import annotations

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from fixtures.selftested import by_name, small
from fixtures.small_models import ARCHITECTURES, HIDDEN, LAYERS, VOCABULARY, letter_tokenizer
from gradinoc.errors import ModelError
from gradinoc.measure.fast import fused
from gradinoc.measure.fast.packed.forward import is_fused
from gradinoc.measure.loading.selftests import (
    CAUSALITY,
    COMPLETION,
    GENERATION,
    GRADIENT,
    PADDING,
    causal_leak,
    examine,
)
from gradinoc.models.generate import Batching, Way, generate, set_way, way

# Decoders that count positions by column, whatever the mask says, and one whose state padding runs through.
COLUMNS = {
    name: {
        "d_model": HIDDEN, "decoder_layers": LAYERS, "decoder_attention_heads": 4, "decoder_ffn_dim": 48,
        "init_std": 0.5, "is_decoder": True, "is_encoder_decoder": False,
    }
    for name in ("bart", "trocr")
}  # fmt: skip
COLUMNS["rwkv"] = {"attention_hidden_size": HIDDEN, "context_length": 256}


@pytest.mark.parametrize("kernels", ["fused", "plain"])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_sound_models_pass_every_test(name, kernels):
    """Whatever their architecture, with kernels and without; nothing is done to them but that."""
    model = ARCHITECTURES[name]().requires_grad_(False)
    attention = model.config._attn_implementation
    found = examine(model, letter_tokenizer(), kernels)
    assert [each.name for each in found] == [COMPLETION, CAUSALITY, PADDING, GENERATION, GRADIENT]
    assert all(each.passed for each in found), list(map(str, found))
    assert [each.note for each in found[1:4]] == [""] * 3
    assert found[4].note.endswith("sequences packed") == is_fused(model)
    assert found[4].note.startswith("plain modules") != is_fused(model)
    assert way(model) == Way(Batching.PADDED, cached=True)
    assert model.config._attn_implementation in (attention, fused.PACKED)


def test_model_that_changes_its_own_settings_is_refused(llama):
    """As BigBird, which gives up its sparse attention for good on the first short text."""
    llama.model.attention_type = "block_sparse"
    llama.model.register_forward_pre_hook(lambda module, _: setattr(module, "attention_type", "original_full"))
    with pytest.raises(ModelError, match=r"changes its own setting 'model\.attention_type'"):
        examine(llama, letter_tokenizer())


# --- later tokens


@pytest.fixture
def leaky_attention():
    """The name of an attention whose mask lets a little of later tokens through, as MPS is known to."""

    def attend(module, query, key, value, attention_mask, scaling=None, **_):
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = query @ key.transpose(-1, -2) * scaling
        length = scores.shape[-1]
        scores = scores - 5.0 * torch.ones(length, length).triu(1)
        return (scores.softmax(-1) @ value).transpose(1, 2), None

    AttentionInterface.register("leaky", attend)
    AttentionMaskInterface.register("leaky", sdpa_mask)
    return "leaky"


def test_leaking_attention_is_replaced_and_reported(llama, leaky_attention):
    """After falling back to eager attention the model is causal, and says that it had to."""
    llama.set_attn_implementation(leaky_attention)
    assert causal_leak(llama, range(5, 25)) > 1e-3
    found = by_name(examine(llama, letter_tokenizer()))[CAUSALITY]
    assert found.found == 0.0
    assert llama.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    "fault",
    [lambda states: states + 0.01 * states.mean(1, keepdim=True), lambda states: states * torch.nan],
    ids=["looks ahead", "not finite"],
)
def test_model_that_leaks_whatever_the_attention_is_refused(llama, fault):
    """A block that looks ahead, or computes no finite number, is no ground for a measurement."""
    llama.model.layers[1].register_forward_hook(lambda *call: fault(call[2]))
    with pytest.raises(ModelError, match="is not causal"):
        examine(llama, letter_tokenizer())


# --- padding and neighbours


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_responses_of_models_that_padding_changes_are_those_of_each_prompt_alone(name):
    """Prompts share a batch by equal length, or not at all; padded, as others are, some would be other responses."""
    model, tokenizer = small(name, **COLUMNS[name]), letter_tokenizer()
    found = by_name(examine(model, tokenizer))
    together = Batching.ALONE if name == "rwkv" else Batching.EQUAL
    assert way(model) == Way(together)
    assert str(together) in found[GENERATION].note
    assert found[GENERATION].passed
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(5, VOCABULARY, (length,), generator=generator).tolist() for length in (3, 9, 3, 14, 9)]
    alone = [generate(model, tokenizer, [prompt], 6, 1)[0] for prompt in prompts]
    assert generate(model, tokenizer, prompts, 6, len(prompts)) == alone
    set_way(model, Way())
    assert generate(model, tokenizer, prompts, 6, len(prompts)) != alone


def test_cache_that_forgets_is_not_used(llama):
    """What is generated through it is not what the model would say: there is another way, which is slower."""
    own = type(llama.model).forward
    prompt, tokenizer = [7, 8, 9, 20, 30], letter_tokenizer()
    expected = generate(llama, tokenizer, [prompt], 12, 1)

    def forgetful(*given, **named):
        if (cache := named.get("past_key_values")) is not None and cache.get_seq_length() > 0:
            cache.layers[0].keys.mul_(-1)
        return own(llama.model, *given, **named)

    llama.model.forward = forgetful
    assert generate(llama, tokenizer, [prompt], 12, 1) != expected
    examine(llama, tokenizer)
    assert way(llama) == Way(cached=False)
    assert generate(llama, tokenizer, [prompt], 12, 1) == expected


def test_model_that_sees_its_neighbours_is_refused(llama):
    """Numbers would depend on how examples share a batch."""
    llama.model.layers[1].register_forward_hook(lambda *call: call[2] + 0.01 * call[2].mean(0, keepdim=True))
    with pytest.raises(ModelError, match=r"neighbours in a batch or padding behind a text change its hidden states"):
        examine(llama, letter_tokenizer())


# --- blocks


def test_block_that_is_run_twice_is_refused(llama):
    """Gradients after it would be those of its last pass alone."""
    own = type(llama.model).forward

    def twice(*given, **named):
        llama.model.layers[1](
            torch.zeros(1, 1, HIDDEN), position_embeddings=(torch.ones(1, 1, 8), torch.zeros(1, 1, 8))
        )
        return own(llama.model, *given, **named)

    llama.model.forward = twice
    with pytest.raises(ModelError, match=r"LlamaForCausalLM: block 1 is run 2 times in a forward pass; expected once"):
        examine(llama, letter_tokenizer())


def test_block_with_several_streams_is_refused(llama):
    """As Gemma 3n's, which put out four of them."""
    llama.model.layers[0].register_forward_hook(lambda *call: torch.stack([call[2]] * 4))
    llama.model.layers[1].register_forward_pre_hook(lambda _block, inputs: (inputs[0][0],))
    with pytest.raises(ModelError, match="block 0 puts out"):
        examine(llama, letter_tokenizer())


def test_blocks_may_put_out_a_list():
    """The first OpenAI GPT's do; the stream is its first item."""
    model = small("openai-gpt", n_embd=HIDDEN, n_layer=LAYERS, n_head=4, n_positions=64)
    model.transformer.h[1].register_forward_hook(lambda *call: list(call[2]))
    assert all(each.passed for each in examine(model, letter_tokenizer()))
