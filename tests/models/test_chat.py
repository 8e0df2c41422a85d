"""Prompts are rendered as each template means them, and loss lies on completion tokens alone."""

from __future__ import annotations

from datetime import datetime

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fixtures.chat_families import FAMILIES, family_tokenizer
from gradinoc.measure.passes.batches import collate
from gradinoc.models.chat.encoding import completion_note, encode, opening, written
from gradinoc.models.chat.template import end_of_turn, render_prompt
from gradinoc.models.generate import _answer
from gradinoc.models.sources.packaged import bundled_folder
from gradinoc.study.chat_template import DAY

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


# --- the end of a turn


def test_turn_that_no_template_closes_ends_with_eos():
    """And where there is none either, the message says why completions cannot end."""
    template = "{% for message in messages %}{{ message.content + ' ' }}{% endfor %}"
    assert end_of_turn(word_tokenizer(["<eos>"], template, eos="<eos>")) == 1
    with pytest.raises(ValueError, match="closes no turn and the tokenizer has no eos token"):
        end_of_turn(word_tokenizer(["<eos>"], template))


@pytest.mark.parametrize("name", FAMILIES)
def test_end_of_turn_is_the_family_s(name):
    """gpt-oss has one for the last answer and another for those before it; some close a turn twice, some not at all."""
    tokenizer = family_tokenizer(name)
    assert tokenizer.convert_ids_to_tokens(end_of_turn(tokenizer)) == FAMILIES[name].end


def test_end_of_turn_is_found_anew_when_the_template_is_another():
    """It is remembered for a tokenizer, which may be given another template, or another eos token."""
    tokenizer = family_tokenizer("not closed")
    ends = [end_of_turn(tokenizer)]
    tokenizer.add_special_tokens({"eos_token": "<|eot|>"})
    ends.append(end_of_turn(tokenizer))
    tokenizer.chat_template = FAMILIES["chatml"].template
    assert tokenizer.convert_ids_to_tokens([*ends, end_of_turn(tokenizer)]) == ["</s>", "<|eot|>", "<|im_end|>"]


# --- completions


COMPLETED = {
    "plain": "She has two boats left.",
    "in capitals": "SHE HAS TWO BOATS LEFT.",
    "numbers": "12 + 3 = 15\n\nSo 15.",
    "indented": "    high = mask >> 4\n    left",
    "line break first": "\nShe has",
    "blanks last": "left  \n",
    "accent first": "\u0301e – ÄÖ 中文",
    "nothing": "",
}


class Still(datetime):
    """A clock that stands still, on the day that templates are told where nobody says another."""

    @classmethod
    def now(cls, tz=None):
        """Midnight."""
        return cls(DAY.year, DAY.month, DAY.day, tzinfo=tz)


def brute_force(tokenizer, question, answer, system):
    """Ids of the prompt, and of the whole conversation, as transformers renders them, up to the last end of turn."""
    asked = [] if system is None else [{"role": "system", "content": system}]
    asked.append({"role": "user", "content": question})
    prompt, whole = (
        tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=turns is asked, enable_thinking=False
        )
        for turns in (asked, [*asked, {"role": "assistant", "content": answer}])
    )
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    end = end_of_turn(tokenizer)
    if end in ids[-4:]:
        ids = ids[: len(ids) - ids[::-1].index(end)]
    else:
        ids = [*tokenizer(whole.removesuffix("\n\n"), add_special_tokens=False)["input_ids"], end]
    return tokenizer(prompt, add_special_tokens=False)["input_ids"], ids


@pytest.mark.parametrize("system", [None, "", "Be brief."], ids=["none", "empty", "own"])
@pytest.mark.parametrize("name", FAMILIES)
def test_completion_is_what_the_template_writes_after_the_prompt(monkeypatch, name, system):
    """Taken off the whole conversation by brute force; where it does not begin with the prompt, the answer itself."""
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Still)
    tokenizer = family_tokenizer(name)
    for case, answer in COMPLETED.items():
        prompt, whole = brute_force(tokenizer, "How many boats are left?", answer, system)
        found = encode(tokenizer, "How many boats are left?", answer, system)
        goes_on = whole[: len(prompt)] == prompt
        if not goes_on:
            whole = [*prompt, *tokenizer(answer, add_special_tokens=False)["input_ids"], end_of_turn(tokenizer)]
        assert (list(found.ids), found.prompt_length) == (whole, len(prompt)), case
        assert goes_on == FAMILIES[name].joins or case != "plain"
        assert found.ids.count(end_of_turn(tokenizer)) >= 1
        assert found.ids[-1] == end_of_turn(tokenizer)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("zephyr", "S"), ("tinyllama", "Sh"), ("mistral", "▁She"), ("mistral bytes", "ĠShe"),
        ("harmony", "<|channel|>"), ("no prompt asked for", "as"), ("gemma", "Sh"), ("thoughts switched off", "Sh"),
    ],
)  # fmt: skip
def test_first_completion_token_is_the_one_that_decides(name, first):
    """What the last prompt token predicts: no blank of the tokenizer's own, none of the template's left out."""
    tokenizer = family_tokenizer(name)
    encoded = encode(tokenizer, "How many boats are left?", "She has two boats left.")
    assert tokenizer.convert_ids_to_tokens(encoded.ids[encoded.prompt_length]) == first
    batch = collate([encoded], tokenizer.pad_token_id)
    assert batch.predicting[0] == batch.last_prompt[0]
    assert batch.targets[0] == encoded.ids[encoded.prompt_length]


NOTED = {"opened thought": "<think>", "blank at the end": "' She'", "harmony": "<|channel|>final"}
NOTED["no prompt asked for"] = "assistant"


@pytest.mark.parametrize("name", FAMILIES)
def test_completion_that_is_not_the_template_s_is_noted(name):
    """With the first token that differs; where all is well there is nothing to say."""
    note = completion_note(family_tokenizer(name))
    assert (note is None) == (name not in NOTED)
    assert note is None or NOTED[name] in note


@pytest.mark.parametrize(
    ("content", "answer", "kind"),
    [
        ("m.content | trim", "  She has.\n", "trimmed"),
        ("m.content | lower", "SHE HAS.", "changed"),
        ("m.content.split('|')[-1]", "So. | Two.", "changed"),
        ("m.content", "  She has.", None),
    ],
)
def test_answer_that_a_template_changes_is_noted(content, answer, kind):
    """What it writes is what is learned."""
    tokenizer = family_tokenizer("llama3")
    opening = "'<|head|>' + m.role + '<|/head|>'"
    tokenizer.chat_template = (
        "{% for m in messages %}{{ " + opening + " + (" + content + ") + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>' }}{% endif %}"
    )
    found = written(tokenizer, "how many?", answer, None)
    assert found.kind == kind
    assert (found.note is None) == (kind is None)


# --- labels and batches


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_responses_begin_where_the_template_would_begin_an_answer(name):
    """What it writes of its own before an answer is cut off; of a channel, with all that is said on others before."""
    tokenizer = family_tokenizer(name)
    opened = opening(tokenizer)
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    answer, said = tokenizer(["two boats", "left"], add_special_tokens=False)["input_ids"]
    words = {"harmony": "<|channel|>final<|message|>", "no prompt asked for": "assistant\n"}
    assert tokenizer.decode(opened) == words.get(name, "")
    assert _answer([*opened, *answer], opened, special) == answer
    assert _answer(answer, opened, special) == answer
    thought = [*said, *opened, *answer]
    assert _answer(thought, opened, special) == (answer if name == "harmony" else thought)
