"""Self-tests at loading pass sound models, find planted faults, and do what follows from them."""

from __future__ import annotations

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModelForCausalLM
from transformers.masking_utils import sdpa_mask

from fixtures.oracles import answer_loss
from fixtures.small_models import ARCHITECTURES, END, HIDDEN, LAYERS, PAD, SPREAD, VOCABULARY, letter_tokenizer
from gradinoc.errors import ModelError
from gradinoc.measure.fast import fused
from gradinoc.measure.fast.fused import fuse, windows
from gradinoc.measure.fast.packed import forward as packed
from gradinoc.measure.fast.packed.forward import is_fused
from gradinoc.measure.gradients.alignment import answer_losses
from gradinoc.measure.loading import selftests
from gradinoc.measure.loading.selftests import (
    CAUSALITY,
    COMPLETION,
    GENERATION,
    GRADIENT,
    PADDING,
    causal_leak,
    examine,
)
from gradinoc.measure.loading.selftests.exact import texts
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.generate import Batching, Way, generate, set_way, way

WINDOW = 16
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": LAYERS,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256,
    "initializer_range": SPREAD, "pad_token_id": PAD, "bos_token_id": None, "eos_token_id": END,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SLIDING = {"sliding_window": WINDOW, "layer_types": ["sliding_attention"] * LAYERS}
WINDOWED = {
    "qwen2_moe": {**EXPERTS, **SLIDING, "use_sliding_window": True, "shared_expert_intermediate_size": 32},
    "mistral": {"sliding_window": WINDOW},
    "gemma3_text": SLIDING,
    "llama4_text": {
        **EXPERTS, "attention_chunk_size": WINDOW, "layer_types": ["chunked_attention"] * LAYERS,
        "intermediate_size_mlp": 48,
    },
    "gpt_neo": {"num_layers": LAYERS, "num_heads": 4, "window_size": WINDOW, "attention_types": [[["local"], LAYERS]]},
}  # fmt: skip
# Decoders that count positions by column, whatever the mask says, and one whose state padding runs through.
COLUMNS = {
    name: {
        "d_model": HIDDEN, "decoder_layers": LAYERS, "decoder_attention_heads": 4, "decoder_ffn_dim": 48,
        "init_std": 0.5, "is_decoder": True, "is_encoder_decoder": False,
    }
    for name in ("bart", "trocr")
}  # fmt: skip
COLUMNS["rwkv"] = {"attention_hidden_size": HIDDEN, "context_length": 256}


def small(kind, **own):
    """A small random frozen model of a type of transformers."""
    config = AutoConfig.for_model(kind, **{**SHAPE, **own})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)


def by_name(found):
    """Self-tests by name."""
    return {each.name: each for each in found}


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


# --- kernels and windows


@pytest.mark.parametrize("name", sorted(WINDOWED))
def test_losses_beyond_a_window_are_those_of_each_answer_alone(name):
    """Answers shorter and longer than the window of attention, whether it is an option or in the mask alone."""
    model, exact = (small(name, **WINDOWED[name]) for _ in range(2))
    found = by_name(examine(model, letter_tokenizer()))
    generator = torch.Generator().manual_seed(1)
    examples = [
        Encoded(tuple(torch.randint(5, VOCABULARY, (6 + answer,), generator=generator).tolist()), 6)
        for answer in (14, 40, 70)
    ]
    expected = [float(answer_loss(exact, each)) for each in examples]
    assert answer_losses(model, examples, PAD, 3).tolist() == pytest.approx(expected, rel=1e-4)
    assert is_fused(model) == (name in ("gemma3_text", "mistral")), found[GRADIENT].note


@pytest.mark.parametrize("name", sorted(WINDOWED))
def test_texts_reach_beyond_every_window(name):
    """What is tried on fewer tokens than a window holds says nothing of it."""
    model = small(name, **WINDOWED[name])
    long, short = texts(letter_tokenizer(), model)
    assert len(long) > max(windows(model.config).values()) >= WINDOW
    assert 0 < len(short) < len(long)


def test_wrong_gradients_of_kernels_are_found_out(llama, monkeypatch):
    """If their own trial let them pass, the comparison with autograd does not: plain modules are put back."""
    monkeypatch.setattr(fused, "rms_norm", lambda *given: 1.05 * given[0])
    monkeypatch.setattr(selftests, "fuse", lambda model, _rows: fuse(model, trial=False))
    found = by_name(examine(llama, letter_tokenizer()))[GRADIENT]
    assert found.passed
    assert found.note.startswith("plain modules: with fused ones gradients are ")
    assert not is_fused(llama)


def test_kernels_that_fail_beyond_their_trial_are_taken_out(llama, monkeypatch):
    """As where a model's code takes another shape than attention gives it beyond a window."""

    def failing(*_):
        raise RuntimeError("view size is not compatible")

    monkeypatch.setattr(packed, "packed_attention", failing)
    monkeypatch.setattr(selftests, "fuse", lambda model, _rows: fuse(model, trial=False))
    found = by_name(examine(llama, letter_tokenizer()))[GRADIENT]
    assert found.passed
    assert found.note == "plain modules: fused ones do not fit (RuntimeError: view size is not compatible)"
    assert not is_fused(llama)


@pytest.mark.parametrize("wrong", [False, True])
def test_gradients_far_from_rounded_ones_are_compared_with_float32(llama, monkeypatch, wrong):
    """In half precision the model's own are off too: kernels are out only if they are farther from float32 than those.

    With a tolerance that no rounding meets; the fault is in the kernels' losses, which brute force does not use.
    """
    monkeypatch.setitem(selftests.GRADIENT_TOLERANCE, torch.bfloat16, 1e-6)
    monkeypatch.setattr(selftests, "fuse", lambda model, _rows: fuse(model, trial=False))
    if wrong:
        own = packed.token_losses
        monkeypatch.setattr(packed, "token_losses", lambda *given: 1.1 * own(*given))
    model = llama.bfloat16()
    found = by_name(examine(model, letter_tokenizer()))[GRADIENT]
    assert found.passed
    assert 1e-6 < found.found <= found.most < 0.05
    assert is_fused(model) != wrong


def test_wrong_gradients_of_plain_modules_are_refused(llama, monkeypatch):
    """Losses of a batch that are not each example's own are no ground for a measurement, whatever the reason."""
    own = selftests.completion_losses
    monkeypatch.setattr(selftests, "completion_losses", lambda *given: 1.01 * own(*given))
    with pytest.raises(ModelError, match=r"losses or gradients of a batch are .* from those of each"):
        examine(llama, letter_tokenizer(), "plain")


def test_windows_of_single_layers_are_known():
    """Gemma 4's layers differ in their settings: what one of them has is no attribute of the whole."""
    config = AutoConfig.for_model("gemma4_text", **SHAPE, sliding_window=WINDOW, global_head_dim=HIDDEN)
    assert config.is_heterogeneous
    assert windows(config) == {"sliding_window": WINDOW}
    of_one = {0: {"sliding_window": WINDOW}, 1: {"sliding_window": 2 * WINDOW}}
    config = AutoConfig.for_model("gemma4_text", **SHAPE, per_layer_config=of_one)
    assert windows(config) == {"sliding_window": 2 * WINDOW}
