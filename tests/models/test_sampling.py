"""Sampled responses are exact samples, each with noise of its own, whatever shares a batch."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy import stats
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from fixtures.small_models import ARCHITECTURES, END, VOCABULARY, letter_tokenizer
from gradinoc.errors import NumericalError
from gradinoc.measure.fast import stacked_adapters
from gradinoc.models.generate import Batching, Way, generate, sample_copies, set_way
from gradinoc.models.past import can_share
from gradinoc.models.sampling import Sampling, gumbel_noise, noise_keys

PROMPTS = [[20, 21, 22], [30, 31, 32, 33, 34], [40], [50, 51, 52]]
LIKELY = 1e-4  # each test draws the same numbers each time: it fails for good or never


@pytest.fixture
def llama():
    """A small Llama."""
    return ARCHITECTURES["llama"]().requires_grad_(False)


def sample(model, prompts=PROMPTS, samples=3, tokens=8, batch_size=5, labels=("",), seed=0):
    """Responses `[copies][prompts][samples]`."""
    return sample_copies(model, letter_tokenizer(), prompts, Sampling(samples, tokens, seed), batch_size, labels)


# --- samples


def likely(model, prompt):
    """Probabilities of the next token `[vocabulary]`, float64, from one unpadded pass."""
    with torch.no_grad():
        return model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1).numpy()


def letters_of(tokenizer, chances):
    """Probabilities by letter; those of special tokens, which a text does not show, together under ""."""
    found = Counter()
    for token, chance in enumerate(chances):
        found[tokenizer.decode([token], skip_special_tokens=True)] += chance
    return found


def fits(counted, chances):
    """The p of a chi-square test; what is expected less than five times counts as one."""
    total = sum(counted.values())
    rare = [letter for letter in chances if chances[letter] * total < 5]
    kept = [letter for letter in chances if letter not in rare]
    seen = [counted[letter] for letter in kept] + [sum(counted[letter] for letter in rare)]
    due = [chances[letter] * total for letter in kept] + [sum(chances[letter] for letter in rare) * total]
    assert len(kept) > 8
    return stats.chisquare(*(values if due[-1] else values[:-1] for values in (seen, due))).pvalue


def test_first_token_follows_the_softmax(llama):
    """Of each of two prompts, 6,000 samples."""
    texts = sample(llama, PROMPTS[:2], 6000, 1, 3000)[0]
    for prompt, own in zip(PROMPTS, texts, strict=False):
        assert fits(Counter(own), letters_of(letter_tokenizer(), likely(llama, prompt))) > LIKELY


def test_second_token_follows_the_softmax_given_the_first(llama):
    """Letters after the commonest first letter: noise of the second step is not that of the first."""
    tokenizer = letter_tokenizer()
    pairs = Counter(text for text in sample(llama, PROMPTS[:1], 12_000, 2, 4000)[0][0] if len(text) == 2)
    first = max(letters_of(tokenizer, likely(llama, PROMPTS[0])).items(), key=lambda item: item[0] != "" and item[1])[0]
    chances = letters_of(tokenizer, likely(llama, [*PROMPTS[0], tokenizer.convert_tokens_to_ids(first)]))
    del chances[""]
    total = chances.total()
    counted = Counter({pair[1]: count for pair, count in pairs.items() if pair[0] == first})
    assert counted.total() > 500
    assert fits(counted, {letter: chance / total for letter, chance in chances.items()}) > LIKELY


def by_hand(model, prompt, number, tokens, label=""):
    """A response token by token: the largest of logits and noise, each from one unpadded pass."""
    said, tokenizer = list(prompt), letter_tokenizer()
    for key in torch.from_numpy(noise_keys(0, label, prompt, number, tokens)):
        with torch.no_grad():
            logits = model(torch.tensor([said])).logits[0, -1]
        said.append(int((logits + gumbel_noise(key[None], torch.arange(VOCABULARY, dtype=torch.int32))[0]).argmax()))
        if said[-1] == END:
            break
    return tokenizer.decode(said[len(prompt) :], skip_special_tokens=True)


def test_samples_are_the_largest_of_logits_and_noise(llama):
    """Token by token and sample by sample, until the turn ends."""
    expected = [[by_hand(llama, prompt, number, 8) for number in range(3)] for prompt in PROMPTS]
    assert sample(llama) == [expected]
    assert len({text for own in expected for text in own}) > 8


@pytest.mark.parametrize("way", [Way(), Way(Batching.EQUAL), Way(Batching.ALONE), Way(cached=False)], ids=str)
def test_a_response_is_what_it_is_alone(llama, way):
    """In every way of generating: of any batch size, in any order, with other prompts or none."""
    expected = sample(llama, batch_size=1)[0]
    set_way(llama, way)
    for size in (2, 5, 12):
        assert sample(llama, batch_size=size)[0] == expected
    assert sample(llama, PROMPTS[::-1], batch_size=4)[0][::-1] == expected
    assert [sample(llama, [prompt])[0][0] for prompt in PROMPTS] == expected
    assert [own[:2] for own in expected] == sample(llama, samples=2)[0]
    assert [[text[:3] for text in own] for own in expected] == [
        [text[:3] for text in own] for own in sample(llama, tokens=12)[0]
    ]


def test_lack_of_memory_changes_no_response(llama, monkeypatch):
    """Batches are halved, in the middle of a prompt's samples too; each response is made again from its own noise."""
    expected, own = sample(llama), llama.generate

    def narrow(ids, **named):
        found = own(ids, **named)
        if len(ids) > 2:
            raise torch.OutOfMemoryError
        return found

    monkeypatch.setattr(llama, "generate", narrow)
    assert sample(llama, batch_size=11) == expected


# --- prompts are computed once


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_samples_of_every_architecture_are_what_they_are_alone(name):
    """Whether their prompt's keys and values are shared or not; one prompt is longer than the windows."""
    model, prompts = ARCHITECTURES[name]().requires_grad_(False), [*PROMPTS[:3], list(range(20, 34))]
    alone = sample(model, prompts, 2, 5, 1)
    assert sample(model, prompts, 2, 5, 8) == alone
    assert sample(model, prompts, 2, 5, 3) == alone
    assert can_share(model) == (name != "qwen3_5")


def test_model_without_a_cache_is_sampled_all_the_same():
    """As GPT-1, whose every step goes through all tokens."""
    config = OpenAIGPTConfig(
        vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.5
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = OpenAIGPTLMHeadModel(config).eval().requires_grad_(False)
    set_way(model, Way(Batching.EQUAL))
    assert not can_share(model)
    assert sample(model, [[5, 6], [7, 8]], batch_size=6) == sample(model, [[5, 6], [7, 8]], batch_size=1)


def test_prompts_are_computed_once_however_many_samples(llama):
    """All but the last token of each prompt, for two adapters; then one token of every response at a time."""
    seen = []
    llama.model.layers[0].register_forward_hook(lambda _block, inputs, _out: seen.append(tuple(inputs[0].shape[:2])))
    with stacked_adapters(llama, ["", ""]):
        sample(llama, [[20, 21, 22, 23], [30, 31, 32]], 5, 3, 10, labels=["a", "b"])
    assert seen == [(4, 3), (20, 1), (20, 1), (20, 1)]


def three_adapters(model):
    """The model with three adapters that differ."""
    config = LoraConfig(r=4, lora_alpha=12, target_modules="all-linear")
    wrapped = get_peft_model(model, config, "one")
    for name in ("two", "three"):
        wrapped.add_adapter(name, deepcopy(config))
    generator = torch.Generator().manual_seed(3)
    for name, weight in wrapped.named_parameters():
        if "lora_" in name:
            weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
    return wrapped.eval()


def test_stacked_adapters_say_what_each_says_alone(llama):
    """Three adapters and none at all in one pass, under labels of their own."""
    model, names = three_adapters(llama), ["one", "two", "three"]
    alone = []
    for name in names:
        model.set_adapter(name)
        alone += sample(model, labels=[name])
    with model.disable_adapter():
        alone += sample(model, labels=["base"])
    with stacked_adapters(model, [*names, ""]):
        assert sample(model, labels=[*names, "base"]) == alone


@pytest.mark.parametrize("between", ["samples", "labels", "seeds"])
def test_noise_is_not_shared(llama, between):
    """Two draws of one first token are alike as often as chance has it, and no oftener."""
    count, (prompt, *_) = 3000, PROMPTS
    if between == "samples":
        (texts,) = sample(llama, [prompt], 2 * count, 1, 3000)[0]
        one, other = texts[::2], texts[1::2]
    elif between == "labels":
        with stacked_adapters(llama, ["", ""]):
            (one,), (other,) = sample(llama, [prompt], count, 1, 3000, labels=["a", "b"])
    else:
        one, other = (sample(llama, [prompt], count, 1, 3000, seed=seed)[0][0] for seed in (0, 1))
    due = sum(chance**2 for chance in letters_of(letter_tokenizer(), likely(llama, prompt)).values())
    alike = np.mean([mine == theirs for mine, theirs in zip(one, other, strict=True)])
    assert abs(alike - due) < 4 * np.sqrt(due * (1 - due) / count)


def test_prompt_that_is_there_twice_is_sampled_twice_as_often(llama):
    """Its second samples are the ones that would have come next."""
    (found,) = sample(llama, [PROMPTS[0], PROMPTS[1], PROMPTS[0]], 3)
    (more,) = sample(llama, PROMPTS[:1], 6)
    assert [*found[0], *found[2]] == more[0]
    assert found[0] != found[2]


def test_greedy_responses_have_no_noise(llama):
    """Nor are they changed by samples drawn before."""
    before = generate(llama, letter_tokenizer(), PROMPTS, 8, 3)
    sample(llama)
    assert generate(llama, letter_tokenizer(), PROMPTS, 8, 3) == before


# --- what goes wrong


def test_copies_of_one_label_are_refused(llama):
    """They would share their noise."""
    with pytest.raises(ValueError, match=r"Labels \['a', 'a'\]: expected another one for each copy"):
        sample(llama, labels=["a", "a"])


def test_logits_that_are_not_finite_name_the_prompt(llama):
    """By its number among the prompts, not among the samples."""
    llama.model.embed_tokens.weight[40] = torch.nan
    with pytest.raises(NumericalError, match=r"not finite in responses to prompts \[2\]"):
        sample(llama, tokens=1, batch_size=3)


def test_empty_prompt_is_refused(llama):
    """A continuation needs a token."""
    with pytest.raises(ValueError, match=r"Prompts \[1\] hold no token"):
        sample(llama, [[5], []])
