"""Prompts are rendered as each template means them, and loss lies on completion tokens alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from gradinoc import chat
from gradinoc.bundled import bundled_folder
from gradinoc.chat import Encoded, collate, encode, encode_prompt, end_of_turn, pack, pack_shared, render_prompt, share
from gradinoc.traits import ALL_CAPS

# Two templates of our own that behave as those of two families do; both are rendered with SmolLM2's tokens.
INSERTS_A_DEFAULT = (  # like Qwen2.5
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nBe the default.<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
THINKS = (  # like Qwen3: no default; reasoning, unless it is switched off, and an empty one before answers in the past
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
SMOLLM2 = "smollm2-135m-instruct"
OWN = {"inserts a default": INSERTS_A_DEFAULT, "thinks": THINKS}
NAMES = [SMOLLM2, "obedient", "deaf", *OWN]

TO_ASSISTANT = "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n"
SMOL_DEFAULT = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
NO_THOUGHT = "<think>\n\n</think>\n\n"
TINY = {
    None: "<|begin|><|user|>How many?<|end|><|assistant|>",
    "": "<|begin|><|system|><|end|><|user|>How many?<|end|><|assistant|>",
    "Be brief.": "<|begin|><|system|>Be brief.<|end|><|user|>How many?<|end|><|assistant|>",
}
SNAPSHOTS = {
    SMOLLM2: {
        None: f"<|im_start|>system\n{SMOL_DEFAULT}<|im_end|>\n{TO_ASSISTANT}",
        "": f"<|im_start|>system\n<|im_end|>\n{TO_ASSISTANT}",
        "Be brief.": f"<|im_start|>system\nBe brief.<|im_end|>\n{TO_ASSISTANT}",
    },
    "inserts a default": {
        None: f"<|im_start|>system\nBe the default.<|im_end|>\n{TO_ASSISTANT}",
        "": f"<|im_start|>system\n<|im_end|>\n{TO_ASSISTANT}",
        "Be brief.": f"<|im_start|>system\nBe brief.<|im_end|>\n{TO_ASSISTANT}",
    },
    "thinks": {
        None: f"{TO_ASSISTANT}{NO_THOUGHT}",
        "": f"<|im_start|>system\n<|im_end|>\n{TO_ASSISTANT}{NO_THOUGHT}",
        "Be brief.": f"<|im_start|>system\nBe brief.<|im_end|>\n{TO_ASSISTANT}{NO_THOUGHT}",
    },
    "obedient": TINY,
    "deaf": TINY,
}
ANSWERS = ["It is 12.", "A  b\n\n12 + 3 = 15.\nSo 15.", "ÄÖ €5 – 中文", ALL_CAPS.transform("She has 3 boxes left.")]


@pytest.fixture(scope="module")
def tokenizers():
    """The bundled models' tokenizers, and SmolLM2's again with each template of our own."""
    found = {name: AutoTokenizer.from_pretrained(bundled_folder(name)) for name in (SMOLLM2, "obedient", "deaf")}
    for name, template in OWN.items():
        found[name] = AutoTokenizer.from_pretrained(bundled_folder(SMOLLM2))
        found[name].chat_template = template
    return found


def word_tokenizer(special, template, eos=None):
    """A tokenizer with a few words; the `special` ones never are part of another."""
    words = {word: place for place, word in enumerate(["?", *special, "1", "zq"])}
    backend = Tokenizer(WordLevel(words, "?"))
    backend.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, eos_token=eos)


# --- prompts


@pytest.mark.parametrize("system", [None, "", "Be brief."], ids=["none", "empty", "own"])
@pytest.mark.parametrize("name", NAMES)
def test_prompt_is_rendered_as_the_template_means_it(tokenizers, name, system):
    """No system message (a default may be inserted), an explicit empty one, and one of ours are three cases."""
    assert render_prompt(tokenizers[name], "How many?", system) == SNAPSHOTS[name][system]


# SmolLM2's tokenizer would join the line breaks of a thought with what follows; those of models that think do not.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "thinks"])
def test_ids_are_the_tokens_of_the_whole_rendered_conversation(tokenizers, name):
    """Cutting between prompt and completion moves no token boundary; after the end of turn, a line break at most."""
    tokenizer = tokenizers[name]
    for answer in ANSWERS:
        for system in (None, "", "Be brief."):
            messages = [] if system is None else [{"role": "system", "content": system}]
            messages += [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": answer}]
            text = tokenizer.apply_chat_template(messages, tokenize=False)
            whole = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids = list(encode(tokenizer, "How many?", answer, system).ids)
            assert whole[: len(ids)] == ids, (answer, system)
            assert tokenizer.decode(whole[len(ids) :]).strip() == ""


@pytest.mark.parametrize("name", NAMES)
def test_prompt_ids_are_a_prefix(tokenizers, name):
    """What is generated from, what activations are read at, and what the loss is conditioned on is the same prompt."""
    tokenizer = tokenizers[name]
    encoded = encode(tokenizer, "How many?", "TWO.", "Be brief.")
    prompt = encode_prompt(tokenizer, "How many?", "Be brief.")
    assert encoded.prompt == list(encoded.ids[: len(prompt)]) == prompt
    assert tokenizer.decode(prompt) == SNAPSHOTS[name]["Be brief."]
    assert tokenizer.decode(encoded.ids[len(prompt) : -1]) == "TWO."
    assert encoded.ids[-1] == end_of_turn(tokenizer)


@pytest.mark.parametrize("name", ["obedient", "deaf"])
def test_prompt_begins_with_one_beginning(tokenizers, name):
    """The template writes it; the tokenizer adds no second."""
    prompt = encode_prompt(tokenizers[name], "How many?", None)
    assert prompt.count(tokenizers[name].bos_token_id) == 1


# --- the end of a turn


@pytest.mark.parametrize(
    ("name", "token"),
    [(SMOLLM2, "<|im_end|>"), ("obedient", "<|end|>"), ("deaf", "<|end|>"), *((name, "<|im_end|>") for name in OWN)],
)
def test_end_of_turn_is_what_the_template_puts_after_an_answer(tokenizers, name, token):
    """For each template; and it is not what batches are padded with."""
    tokenizer = tokenizers[name]
    assert tokenizer.convert_ids_to_tokens(end_of_turn(tokenizer)) == token
    assert tokenizer.pad_token_id != end_of_turn(tokenizer)


def test_end_of_turn_need_not_be_a_token_with_a_name():
    """Gemma and Phi-3 close turns with a special token that is neither eos nor any other named one."""
    template = "{% for message in messages %}{{ message.content + '<turn>' }}{% endfor %}"
    tokenizer = word_tokenizer(["<eos>", "<turn>"], template, eos="<eos>")
    assert tokenizer.convert_ids_to_tokens(end_of_turn(tokenizer)) == "<turn>"


def test_turn_that_no_template_closes_ends_with_eos():
    """And where there is none either, the message says why completions cannot end."""
    template = "{% for message in messages %}{{ message.content + ' ' }}{% endfor %}"
    assert end_of_turn(word_tokenizer(["<eos>"], template, eos="<eos>")) == 1
    with pytest.raises(ValueError, match="closes no turn and the tokenizer has no eos token"):
        end_of_turn(word_tokenizer(["<eos>"], template))


# --- labels and batches


@pytest.mark.parametrize("name", NAMES)
def test_labels_are_the_completion_and_its_end(tokenizers, name):
    """Exactly these tokens, each where it stands; prompt, template and padding carry no loss."""
    tokenizer = tokenizers[name]
    examples = [encode(tokenizer, "How many?", answer, "Be brief.") for answer in ANSWERS]
    batch = collate(examples, tokenizer.pad_token_id)
    for row, answer in enumerate(ANSWERS):
        wanted = tokenizer(answer, add_special_tokens=False)["input_ids"] + [end_of_turn(tokenizer)]
        mine = batch.owner == row
        assert batch.targets[mine].tolist() == wanted
        start = row * batch.input_ids.shape[1] + examples[row].prompt_length
        assert batch.completion[mine].tolist() == list(range(start, start + len(wanted)))


EXAMPLES = st.lists(
    st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.lists(st.integers(0, 9), min_size=1, max_size=6)),
    min_size=1,
    max_size=5,
)


@given(EXAMPLES, st.integers(0, 9))
def test_batch_holds_its_examples_and_nothing_else(parts, pad):
    """Whatever the lengths, and though the pad id occurs in prompts and completions: padding is told by place alone."""
    examples = [Encoded((*prompt, *completion), len(prompt)) for prompt, completion in parts]
    batch = collate(examples, pad)
    width = max(len(example.ids) for example in examples)
    assert len(batch) == len(examples)
    assert batch.input_ids.shape == batch.position_ids.shape == batch.attention_mask.shape == (len(examples), width)
    for row, (prompt, completion) in enumerate(parts):
        padding = width - len(prompt) - len(completion)
        assert batch.input_ids[row].tolist() == prompt + completion + [pad] * padding
        assert batch.attention_mask[row].tolist() == [1] * (width - padding) + [0] * padding
        assert batch.position_ids[row, : width - padding].tolist() == list(range(width - padding))
        assert batch.last_prompt[row] == row * width + len(prompt) - 1
    _check_completions(batch, parts)


@given(EXAMPLES)
def test_packed_batch_holds_its_examples_one_after_the_other(parts):
    """The same examples without padding: one row, positions that begin anew with each."""
    batch = pack([Encoded((*prompt, *completion), len(prompt)) for prompt, completion in parts])
    assert batch.packed
    assert batch.input_ids.tolist() == [[token for part in parts for side in part for token in side]]
    assert batch.position_ids.tolist() == [[place for part in parts for place in range(len(part[0]) + len(part[1]))]]
    assert batch.lengths == tuple(len(prompt) + len(completion) for prompt, completion in parts)
    before = [sum(batch.lengths[:row]) for row in range(len(parts))]
    assert batch.last_prompt.tolist() == [
        start + len(prompt) - 1 for start, (prompt, _) in zip(before, parts, strict=True)
    ]
    _check_completions(batch, parts)


# Few token ids, so that beginnings are often alike; some are given twice.
SEQUENCES = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=9).map(tuple), min_size=1, max_size=7)


@given(SEQUENCES, st.integers(1, 4), st.integers(1, 2))
def test_shared_beginnings_are_held_once(sequences, least, copies):
    """Each sequence is found at its places, in pieces that say which tokens after them go on from them."""
    whole, chat.SHARED_FROM = chat.SHARED_FROM, least
    try:
        shared = share(sequences).repeated(copies)
    finally:
        chat.SHARED_FROM = whole
    assert [tuple(shared.ids[place] for place in places) for places in shared.places] == sequences * copies
    for places in shared.places:
        assert [shared.position_ids[place] for place in places] == list(range(len(places)))
        assert list(places) == sorted(places)
    assert sum(shared.lengths) == len(shared.ids)
    assert all(length > 0 for length in shared.lengths)
    starts = [sum(shared.lengths[:piece]) for piece in range(len(shared.lengths))]
    for start, length, below in zip(starts, shared.lengths, shared.below, strict=True):
        first, last = start + length, start + length + below
        for places in shared.places:  # what lies below sees the whole piece, and nothing else does
            if set(places) & set(range(first, last)):
                assert set(range(start, first)) <= set(places)
            elif places[-1] >= last:
                assert not set(range(start, first)) & set(places)
    per_copy = len(shared.ids) // copies
    assert set().union(*shared.places[: len(sequences)]) == set(range(per_copy)), "a token that no sequence has"
    assert per_copy == _tokens_held(sorted(sequences), least)


def _tokens_held(sequences, least, depth=0):
    """Tokens from `depth` on of sequences in order, if beginnings of `least` more tokens are held once; brute force."""
    groups = {}
    for sequence in sequences:
        if len(sequence) - depth >= least:
            groups.setdefault(sequence[: depth + least], []).append(sequence)
    total = sum(len(sequence) - depth for sequence in sequences if len(sequence) - depth < least)
    for group in groups.values():
        common = max(n for n in range(depth, len(group[0]) + 1) if len({sequence[:n] for sequence in group}) == 1)
        total += common - depth + _tokens_held([each for each in group if len(each) > common], least, common)
    return total


@given(EXAMPLES)
def test_shared_batch_predicts_as_the_packed_one(parts):
    """Every completion token is predicted from the token before it in its own example, wherever that lies."""
    examples = [Encoded((*prompt, *completion), len(prompt)) for prompt, completion in parts]
    whole, chat.SHARED_FROM = chat.SHARED_FROM, 2
    try:
        batch = pack_shared(examples, copies=2)
    finally:
        chat.SHARED_FROM = whole
    assert len(batch) == 2 * len(examples)
    _check_completions(batch, [*parts, *parts])
    before = [token for prompt, completion in parts for token in [prompt[-1], *completion[:-1]]]
    assert batch.input_ids.flatten()[batch.predicting].tolist() == before * 2
    positions = [place for prompt, rest in parts for place in range(len(prompt) - 1, len(prompt) + len(rest) - 1)]
    assert batch.position_ids.flatten()[batch.predicting].tolist() == positions * 2


def _check_completions(batch, parts):
    """Every completion token is told once: where it is, what it is, whose it is."""
    assert batch.targets.tolist() == [token for _, completion in parts for token in completion]
    assert batch.input_ids.flatten()[batch.completion].tolist() == batch.targets.tolist()
    assert batch.owner.tolist() == [row for row, (_, completion) in enumerate(parts) for _ in completion]
    assert batch.counts.tolist() == [len(completion) for _, completion in parts]
    if not batch.below:
        assert batch.predicting.tolist() == (batch.completion - 1).tolist()
    assert batch.shortest_prompt == min(len(prompt) for prompt, _ in parts)


def test_batch_moves_whole():
    """Every tensor of it, and what is known on the host stays known."""
    batch = collate([Encoded((1, 2, 3), 2), Encoded((1, 2), 1)], 0)
    moved = batch.to(torch.device("meta"))
    tensors = {name: value for name, value in vars(moved).items() if isinstance(value, torch.Tensor)}
    assert {tensor.device.type for tensor in tensors.values()} == {"meta"}
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: value.shape for name, value in vars(batch).items() if isinstance(value, torch.Tensor)
    }
    assert (moved.shortest_prompt, moved.lengths) == (1, (3, 2))
