"""Prompts are rendered as each template means them, and loss lies on completion tokens alone."""

from __future__ import annotations

from datetime import datetime

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fixtures.chat_families import FAMILIES, family_tokenizer, set_clock
from gradinoc.errors import ModelError
from gradinoc.measure.passes.batches import collate
from gradinoc.models.chat.encoding import completion_note, encode, opening, written
from gradinoc.models.chat.template import end_of_turn, render_prompt, tells_the_time
from gradinoc.models.generate import _answer
from gradinoc.models.sources.packaged import bundled_folder
from gradinoc.study.chat_template import DAY, dated

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


# --- the day

SHOWS_THE_DAY = {
    "without system message": "{% if messages[0].role != 'system' %}{{ strftime_now('%A') }}{% endif %}",
    "in a macro": "{% macro today() %}{{ strftime_now(format='%Y-%m-%d') }}{% endmacro %}{{ today() }}",
    "the time of day": "{{ strftime_now('%H:%M') }}",
    "by another name": "{% set clock = strftime_now %}{{ clock('%c') }}",
}
ENDS = "{% for m in messages %}{{ m.content + '</s>' }}{% endfor %}"
CLOCKS = [datetime(2026, 3, 1, 8, 30, 1), datetime(2026, 11, 28, 23, 59, 59), datetime(1999, 12, 31, 0, 0, 5)]


@pytest.mark.parametrize("case", SHOWS_THE_DAY)
def test_prompt_is_the_same_on_every_day(monkeypatch, case):
    """Prompt, completion and what transformers itself renders from a template that was told the day."""
    tokenizer, turns = family_tokenizer("not closed"), [{"role": "user", "content": "1"}]
    tokenizer.chat_template = SHOWS_THE_DAY[case] + ENDS
    found, clocked, told = set(), set(), set()
    for moment in CLOCKS:
        set_clock(monkeypatch, moment)
        clocked.add(tokenizer.apply_chat_template(turns, tokenize=False))
        found.add((render_prompt(tokenizer, "1", None), *encode(tokenizer, "1", "She has.", None).ids))
        told.add(tokenizer.apply_chat_template(turns, chat_template=dated(tokenizer.chat_template), tokenize=False))
    assert len(clocked) == len(CLOCKS), "a template that does not show the day proves nothing"
    assert len(found) == len(told) == 1
    set_clock(monkeypatch, datetime(DAY.year, DAY.month, DAY.day))
    assert tokenizer.apply_chat_template(turns, tokenize=False) == found.pop()[0] == told.pop()


@pytest.mark.parametrize("case", SHOWS_THE_DAY)
def test_template_that_shows_the_day_is_found(case):
    """Under the prompts that are asked about; one that only could show it does not."""
    tokenizer = family_tokenizer("not closed")
    tokenizer.chat_template = SHOWS_THE_DAY[case] + ENDS
    assert tells_the_time(tokenizer, [None])
    assert tells_the_time(tokenizer, ["Be brief."]) == (case != "without system message")
    tokenizer.chat_template = "{% if tools %}{{ strftime_now('%d') }}{% endif %}" + ENDS
    assert not tells_the_time(tokenizer, [None, "Be brief."])


SIGNS = [f"%{sign}" for sign in "aAbBcCdDeFGhHIjklmMnpPrRStTuUVwWxXyYzZf%"]
SIGNS += [*(f"%-{sign}" for sign in "dmHIMSjy"), "%^a", "%^B", "%%d", "%d%%", "on %A, %-d %B", "no sign"]


@pytest.mark.parametrize("moment", CLOCKS, ids=str)
def test_templates_are_told_the_day_as_a_clock_would(moment):
    """Every sign of a date or time, as the system's own clock has it in English."""
    tokenizer, text = family_tokenizer("not closed"), "|".join(SIGNS)
    template = dated("{{ strftime_now(messages[0].content) }}", moment)
    turns = [{"role": "user", "content": text}]
    assert tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False) == moment.strftime(text)


def test_template_keeps_its_white_space_when_it_is_told_the_day():
    """And one that asks for no time is not touched; being told again is no more than being told once."""
    tokenizer, turns = family_tokenizer("not closed"), [{"role": "user", "content": "1"}]
    for body in ("\n  {% if true %}a{% endif %}\n b", "   {{ 1 }}\n", "{%- if true -%}\n x {%- endif %}"):
        asking = body + "{% set _ = strftime_now('%d') %}"
        plain, told = (
            tokenizer.apply_chat_template(turns, chat_template=text, tokenize=False) for text in (asking, dated(asking))
        )
        assert plain == told
        assert dated(body) == body
        assert dated(dated(asking, CLOCKS[0]), CLOCKS[1]) == dated(asking, CLOCKS[1])


@pytest.mark.parametrize(
    "template",
    [
        "{{ ['a', 'b'] | random }}" + ENDS, "{{ lipsum(n=1) }}" + ENDS,
        "{{ [['a', 'b']] | map('random') | list }}" + ENDS, "{{ messages | map('length') }}" + ENDS,
        "{% filter random %}abcdefgh{% endfilter %}" + ENDS,
        "{% set f = 'random' %}{{ ['abcdefgh'] | map(f) | first }}" + ENDS,
    ],
)  # fmt: skip
def test_template_that_never_writes_the_same_is_refused(template):
    """One that draws, or writes where an object lies in memory."""
    tokenizer = family_tokenizer("not closed")
    tokenizer.chat_template = template
    for attempt in (lambda: render_prompt(tokenizer, "1", None), lambda: end_of_turn(tokenizer)):
        with pytest.raises(ModelError, match=r"(?i)chat_template: (draws at random|writes '.* at 0x)"):
            attempt()


def test_words_of_chance_in_a_prompt_are_no_fault():
    """A question about random numbers, or one that quotes Python, is one like any other."""
    tokenizer = family_tokenizer("not closed")
    tokenizer.chat_template = "A random text. " + ENDS
    question = "What is <function f at 0x7f00> | random?"
    assert question in render_prompt(tokenizer, question, None)


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
