"""A fused model computes what the model itself does, and stays as it was where a trial says otherwise."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from fixtures.oracles import answer_loss, autograd_gradient
from fixtures.small_models import ARCHITECTURES, HIDDEN, LAYERS, PAD, letter_tokenizer, with_lora
from gradinoc.measure.directions.extraction import prompt_activations
from gradinoc.measure.fast import batched, completion_losses, fused, fused_adapter, stacked_adapters
from gradinoc.measure.fast.attention import Layout
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.fast.packed import packing
from gradinoc.measure.fast.packed.forward import attend, is_fused
from gradinoc.measure.fast.packed.packing import pack, pack_shared
from gradinoc.measure.gradients.alignment import GradientLogger, answer_losses, measure_alignments
from gradinoc.measure.passes.batches import collate
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.generate import generate, generate_copies

FUSED = sorted(set(ARCHITECTURES) - {"gpt2"})  # which drops out in training
EVERY = list(range(LAYERS))


def frozen(name):
    """A small random model, frozen."""
    return ARCHITECTURES[name]().requires_grad_(False)


@pytest.fixture(params=FUSED)
def pair(request):
    """One model twice: as it is, and fused."""
    plain, ours = frozen(request.param), frozen(request.param)
    assert fuse(ours)[0].endswith("sequences packed")
    return plain, ours


@pytest.fixture
def directions():
    """A few unit vectors, the same at every layer."""
    rows = torch.randn(5, HIDDEN, generator=torch.Generator().manual_seed(2))
    return dict.fromkeys(EVERY, torch.nn.functional.normalize(rows, dim=-1))


@pytest.fixture
def alike(examples, monkeypatch):
    """The examples behind beginnings that some of them have in common, two of them the whole prompt."""
    monkeypatch.setattr(packing, "SHARED_FROM", 3)
    beginnings = ((5, 6, 7, 8), (5, 6, 7, 9), (), (5, 6, 7, 8), (5, 6, 7, 9, 10))
    rows = [
        Encoded(begin + each.ids, len(begin) + each.prompt_length)
        for begin, each in zip(beginnings, examples, strict=True)
    ]
    last = rows[-1]
    return [*rows, Encoded((*last.ids[: last.prompt_length], 11, 12), last.prompt_length)]


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_model_says_whether_it_is_fused(name):
    """Those whose parts fit are; the others give the reason, and are left as they were."""
    model = frozen(name)
    before = {module: module.forward.__func__ for module in model.modules()}
    (note,) = fuse(model)
    assert is_fused(model) == (name in FUSED) == note.endswith("packed")
    if name not in FUSED:
        assert note.startswith("plain modules: ")
        assert {module: module.forward.__func__ for module in model.modules()} == before
        assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("reason", ["eager attention", "trained weights"])
def test_model_that_kernels_do_not_fit_is_left_alone(reason):
    """Eager attention was chosen for a reason; kernels have no gradients for weights."""
    model = frozen("llama")
    if reason == "eager attention":
        model.set_attn_implementation("eager")
    else:
        model.get_submodule("model.layers.1.mlp.up_proj").requires_grad_(True)
    assert fuse(model)[0].startswith("plain modules: ")
    assert not is_fused(model)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_unfused_model_has_its_own_attention_again(name):
    """Scaled dot products, or eager where scores have a cap."""
    model = frozen(name)
    own = model.config._attn_implementation
    assert fuse(model)[0].endswith("sequences packed")
    assert fused.unfuse(model)
    assert model.config._attn_implementation == own
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_bfloat16_models_are_fused_as_well(name, examples):
    """Those that are in float32; and losses are as near to float32's as those of the model's own modules are."""
    ours, plain = (frozen(name).bfloat16() for _ in range(2))
    (note,) = fuse(ours)
    assert is_fused(ours) == (name in FUSED), note
    if name not in FUSED:
        assert note.startswith("plain modules: ")
        return
    exact = deepcopy(plain).float()
    truth, own = (torch.stack([answer_loss(model, each).detach() for each in examples]) for model in (exact, plain))
    found = completion_losses(ours, pack(examples)).detach()
    apart, rounding = (float((losses - truth).norm() / truth.norm()) for losses in (found, own))
    assert apart < 2 * rounding, f"{apart:.2g} of the losses' norm, the model's own modules {rounding:.2g}"


def test_padded_batches_work_as_before(pair, examples):
    """What comes with a mask goes to transformers' own attention."""
    plain, ours = pair
    batch = collate(examples, PAD)
    expected = plain(batch.input_ids, attention_mask=batch.attention_mask).logits
    received = ours(batch.input_ids, attention_mask=batch.attention_mask).logits
    kept = batch.attention_mask.bool()
    torch.testing.assert_close(received[kept], expected[kept], rtol=1e-4, atol=1e-5)


def test_packed_gradients_are_those_of_each_example_alone(pair, alike, directions):
    """At every layer and all three positions, against autograd on one unpadded example at a time."""
    plain, ours = pair
    found = measure_alignments(ours, alike, directions, PAD, batch_size=4).table.set_index(
        ["example", "layer", "position"]
    )
    for row, example in enumerate(alike):
        for layer in EVERY:
            gradient = autograd_gradient(plain, layer, lambda one=example: answer_loss(plain, one))[0]
            ends = gradient[example.prompt_length - 1], gradient[example.prompt_length]
            for position, vector in zip(
                ("last_prompt_token", "first_assistant_token", "completion_sum"),
                (*ends, gradient[example.prompt_length :].sum(0)),
                strict=True,
            ):
                expected = float(torch.cosine_similarity(-vector, directions[layer][0], dim=0))
                assert found.loc[(row, layer, position), "alignment"] == pytest.approx(expected, abs=1e-4)


def test_activations_are_those_of_each_prompt_alone(pair):
    """The residual stream at the last prompt token, by layer; positions counted from either end as well."""
    plain, ours = pair
    tokenizer, questions = letter_tokenizer(), ["one", "a longer question", "mid one"]
    for position in ("last_prompt_token", "first_assistant_token", 2, -3):
        expected = prompt_activations(plain, tokenizer, questions, None, EVERY, position)
        received = prompt_activations(ours, tokenizer, questions, None, EVERY, position)
        for layer in EVERY:
            torch.testing.assert_close(received[layer], expected[layer], rtol=1e-4, atol=1e-4)


def test_shared_beginnings_change_nothing(three_adapters, monkeypatch):
    """Losses and activations of stacked adapters, with what examples begin with computed once, and each by itself."""
    model, tokenizer = three_adapters, letter_tokenizer()
    prompt = tuple(range(5, 15))
    rows = ((*prompt, 20, 21), (*prompt, 20, 22, 23), (*prompt[:6], 24, 25), (*prompt, 20, 21), (30, 31))
    examples = [Encoded(row, max(1, min(10, len(row) - 1))) for row in rows]
    questions, results = ["one and the same", "one and the other", "none"], []
    for least in (10**6, 3):
        monkeypatch.setattr(packing, "SHARED_FROM", least)
        with stacked_adapters(model, ["one", "", "three"]):
            losses = answer_losses(model, examples, PAD, 4, copies=3)
            states = prompt_activations(model, tokenizer, questions, None, EVERY, copies=3)
        results.append((torch.from_numpy(losses), *states.values()))
    for apart, together in zip(*results, strict=True):
        torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


def test_shared_beginnings_have_no_gradients(pair):
    """Of a gradient at a token that several examples share nobody could say whose it is."""
    for endings in ((30, 31), (30, 30)):
        batch = pack_shared([Encoded((*range(5, 25), last), 20) for last in endings])
        with GradientLogger(pair[1], {LAYERS - 1: torch.eye(HIDDEN)[:1]}) as logger:
            logger.expect(batch, 1.0)
            with pytest.raises(NotImplementedError, match="pack them for gradients"):
                completion_losses(pair[1], batch)


def test_generation_is_unchanged(pair):
    """Greedy texts, token by token through the cache."""
    plain, ours = pair
    prompts = [[7, 8, 9], [10, 11, 12, 13, 14], [6]]
    assert generate(ours, letter_tokenizer(), prompts, 8, 2) == generate(plain, letter_tokenizer(), prompts, 8, 2)


def test_adapter_gradients_are_those_of_peft(pair, alike, directions):
    """The same losses, adapter gradients and alignments with the adapter's own forward and with ours."""
    results = []
    for model in pair:
        wrapped = with_lora(model)
        with fused_adapter(wrapped), GradientLogger(wrapped, directions) as logger:
            batch = batched(wrapped, alike, PAD)
            logger.expect(batch, scale=1.0)
            losses = completion_losses(wrapped, batch)
            losses.sum().backward()
            alignments = logger.read().alignment
        gradients = {name: weight.grad for name, weight in wrapped.named_parameters() if weight.grad is not None}
        results.append((losses.detach(), alignments, gradients))
    (losses, alignments, gradients), (our_losses, our_alignments, our_gradients) = results
    torch.testing.assert_close(our_losses, losses, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(our_alignments, alignments, rtol=1e-3, atol=1e-4)
    assert gradients.keys() == our_gradients.keys()
    for name, gradient in gradients.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(our_gradients[name], gradient, rtol=1e-3, atol=1e-4 * scale)


def test_adapter_is_handed_back_as_it_was(pair):
    """After the block PEFT's own forward is in place again, an exception in between or not."""
    wrapped = with_lora(pair[1])
    before = {module: module.forward.__func__ for module in wrapped.modules()}
    for block in (fused_adapter(wrapped), stacked_adapters(wrapped, ["default"])):
        with pytest.raises(ZeroDivisionError), block:
            raise ZeroDivisionError
        assert {module: module.forward.__func__ for module in wrapped.modules()} == before


# --- several adapters at once


@pytest.fixture
def three_adapters(pair):
    """A fused model with three adapters that differ."""
    (_, ours) = pair
    config = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear")
    wrapped = get_peft_model(ours, config, "one")
    for name in ("two", "three"):
        wrapped.add_adapter(name, deepcopy(config))
    generator = torch.Generator().manual_seed(3)
    for name, weight in wrapped.named_parameters():
        if "lora_" in name:
            weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
    return wrapped.eval()


def test_stacked_adapters_are_each_alone(three_adapters, examples):
    """Losses, activations and texts of three adapters in one pass; one after the other; and of none at all."""
    model, tokenizer = three_adapters, letter_tokenizer()
    prompts, questions = [[7, 8, 9], [10, 11, 12, 13, 14], [6]], ["one", "a longer question"]
    alone = []
    for name in ("one", "two", "three"):
        model.set_adapter(name)
        states = prompt_activations(model, tokenizer, questions, None, EVERY)
        alone.append((answer_losses(model, examples, PAD, 2), states, generate(model, tokenizer, prompts, 8, 2)))
    with model.disable_adapter():
        states = prompt_activations(model, tokenizer, questions, None, EVERY)
        alone.append((answer_losses(model, examples, PAD, 2), states, generate(model, tokenizer, prompts, 8, 2)))
    with stacked_adapters(model, ["one", "two", "three", ""]):
        losses = answer_losses(model, examples, PAD, 2, copies=4)
        states = prompt_activations(model, tokenizer, questions, None, EVERY, copies=4)
        texts = generate_copies(model, tokenizer, prompts, 8, 2, copies=4)
    for place, (own_losses, own_states, own_texts) in enumerate(alone):
        np.testing.assert_allclose(losses[place], own_losses, rtol=1e-4)
        for layer in EVERY:
            rows = states[layer][2 * place : 2 * place + 2]
            torch.testing.assert_close(rows, own_states[layer], rtol=1e-3, atol=1e-3)
        assert texts[place] == own_texts
    assert len({tuple(own_texts) for _, _, own_texts in alone}) > 1, "adapters that say the same test nothing"


# --- what packing does not cover


@pytest.mark.parametrize("option", ["s_aux", "dropout"])
def test_options_that_packed_attention_does_not_know_are_refused(option):
    """They need other formulas: better plain than wrong."""
    states = torch.zeros(1, 2, 6, 4)
    attend(torch.nn.Identity(), states, states, states, None, layout=Layout.of([3, 3]), **{option: None})
    with pytest.raises(NotImplementedError, match=option):
        attend(torch.nn.Identity(), states, states, states, None, layout=Layout.of([2, 4]), **{option: 1})


def test_adapters_that_are_more_than_two_factors_are_refused(pair):
    """A variant of LoRA would be lost in a stack."""
    config = LoraConfig(r=4, target_modules="all-linear", use_dora=True)
    wrapped = get_peft_model(pair[1], config)
    with pytest.raises(NotImplementedError, match="plain low-rank updates"), stacked_adapters(wrapped, ["default"]):
        pass
