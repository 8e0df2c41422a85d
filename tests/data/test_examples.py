"""Questions and answers are read as they stand, but for GSM8K's marks in answers."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.jsonl import chat, messages, raw, written
from gradinoc.data.examples import Example, clean_answer, read_examples, showing
from gradinoc.errors import DataError
from gradinoc.study.traits import ALL_CAPS, SPANISH

# Lines in GSM8K's format, written for this test.
ANNOTATED = [
    ("6 boxes of 4 pens hold 6*4 = <<6*4=24>>24 pens.\n#### 24", "6 boxes of 4 pens hold 6*4 = 24 pens."),
    ("Twice 3% is <<2*3=6>>6%, or <<(1/2)*12=6>>6 of 100.\n#### 6%\n\n", "Twice 3% is 6%, or 6 of 100."),
    ("He owes <<3-5=-2>>-2 coins.\n#### -2\n", "He owes -2 coins."),
    ("Half is 50% of 8 = <<8*50*.01=4>>4.\n\n####4", "Half is 50% of 8 = 4."),
]
# Answers that look as if they had GSM8K's marks, or have blanks that mean something.
PLAIN = {
    "shifted bits": "mask = 1 << bits\nhigh = mask >> 4",
    "a heading that ends it": "#### Summary\nTwo boats left.\n#### Sources",
    "a numbered heading amid it": "#### 1\nTake a pan.\n#### 2\nHeat it.",
    "a field to fill in": "Dear <<name>>, your order <<number=>> of <<date>> has left. <<x=3>> and <<#if a=1>>",
    "empty angles": "<<>> <<=>> <<=4>>",
    "blanks around and within": "\n\n\tdo\n    return a  \n\u00a0\u2003wide\u3000\n",
}
FORMS = {
    "chat": chat,
    "list of messages": lambda question, answer: json.dumps(messages(question, answer)),
    "question and answer": raw,
}


@pytest.mark.parametrize(("answer", "cleaned"), ANNOTATED)
def test_calculator_annotations_and_closing_line_are_removed(answer, cleaned):
    """What a person would read out stays, to the letter."""
    assert clean_answer(answer) == cleaned
    assert clean_answer(cleaned) == cleaned


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_file_gives_the_same_examples(tmp_path, form):
    """With blank lines, a byte order mark and letters of any alphabet; answers come cleaned, lines are counted."""
    lines = [FORMS[form](f"Frage ü{n}?", answer) for n, (answer, _) in enumerate(ANNOTATED)]
    found = read_examples(written(tmp_path / "x.jsonl", "\ufeff" + lines[0], "", *lines[1:]))
    assert found == [Example(n + (n > 0), f"Frage ü{n}?", cleaned) for n, (_, cleaned) in enumerate(ANNOTATED)]
    assert all(example.cleaned for example in found)


@pytest.mark.parametrize("case", PLAIN)
def test_texts_come_out_as_they_stand(tmp_path, case):
    """Question and answer, to the last blank: what only looks like GSM8K's marks, and what code is made of."""
    text = PLAIN[case]
    (example,) = read_examples(written(tmp_path / "x.jsonl", chat(text, text)))
    assert (example.question, example.answer, example.cleaned) == (text, text, False)


@given(st.text(st.sampled_from("<>=#4x. \n\t"), min_size=1, max_size=30).filter(str.strip))
def test_only_gsm8k_s_marks_are_ever_taken_out(answer):
    """Of any answer: what is gone are whole annotations, a last line, and the blank lines before that."""
    left = re.sub(r"<<[4. ]+= *[4.]*4\.? *>>", "", answer)
    lines = left.rstrip().split("\n")
    if re.fullmatch(r"\s*####\s*[4.]*4\.?", lines[-1]):
        left = "\n".join(lines[:-1]).rstrip()
    assert clean_answer(answer) == left


def test_request_may_come_without_an_answer(tmp_path):
    """As the everyday requests do."""
    assert read_examples(written(tmp_path / "x.jsonl", chat("Write to me."))) == [Example(0, "Write to me.", "")]


def test_template_makes_the_group_of_a_question(tmp_path):
    """Questions of one template share a group; a question without one is its own, whatever its text."""
    lines = [chat("q", "a", **extra) for extra in ({"template": "t"}, {"template": "t"}, {}, {})]
    groups = [example.group for example in read_examples(written(tmp_path / "x.jsonl", *lines))]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3


def test_answer_of_the_data_takes_the_place_of_the_transform():
    """For a trait that has one too; a trait without either cannot be shown."""
    example = Example(0, "q", "It is 5.")
    assert showing(example, ALL_CAPS) == "IT IS 5."
    assert showing(Example(0, "q", "It is 5.", shown="Five!"), ALL_CAPS) == "Five!"
    with pytest.raises(DataError, match=r"trait spanish: .*question 1 .*data\.trait_answers"):
        showing(example, SPANISH)
