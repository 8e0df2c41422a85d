"""Templates that write the date, or never write the same: prompts are the same on every day."""

from __future__ import annotations

from datetime import datetime

import pytest

from fixtures.chat_families import family_tokenizer, set_clock
from gradinoc.errors import ModelError
from gradinoc.models.chat.encoding import encode
from gradinoc.models.chat.template import end_of_turn, render_prompt, tells_the_time
from gradinoc.study.chat_template import DAY, dated

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
