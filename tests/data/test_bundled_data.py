"""The bundled questions: made by their own script, distinct, balanced, arithmetically right, and plain to read."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DATASETS = Path(__file__).parents[2] / "datasets"
EQUATION = re.compile(r"\d+(?: [-+*/] \d+)+ = \d+")
NUMBER = re.compile(r"\d+")


def read_lines(name: str) -> list[dict[str, Any]]:
    """The JSON objects of a bundled file."""
    return [json.loads(line) for line in (DATASETS / name).read_text(encoding="utf-8").splitlines()]


def contents(line: dict[str, Any]) -> list[str]:
    """What is said in a line, turn by turn."""
    return [message["content"] for message in line["messages"]]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """The generator, loaded by its path: `datasets` is no package, for Hugging Face's has that name."""
    spec = importlib.util.spec_from_file_location("make_word_problems", DATASETS / "make_word_problems.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def problems() -> list[dict[str, Any]]:
    """The bundled word problems."""
    return read_lines("word_problems.jsonl")


def test_generator_reproduces_the_file_byte_for_byte(maker: ModuleType) -> None:
    """The committed word problems are what the committed templates and seed give."""
    made = maker.chat_lines(maker.make_problems())
    assert (DATASETS / "word_problems.jsonl").read_bytes() == made.encode()


def test_questions_are_many_and_distinct(problems: list[dict[str, Any]]) -> None:
    """1,600 questions, none of them twice."""
    assert len(problems) == 1600
    assert len({contents(line)[0] for line in problems}) == 1600


def test_templates_are_many_and_balanced(problems: list[dict[str, Any]]) -> None:
    """At least 60 templates, and none has more than one question more than another."""
    counts = Counter(line["template"] for line in problems)
    assert len(counts) >= 60
    assert max(counts.values()) - min(counts.values()) <= 1


def test_every_line_is_a_question_and_an_answer(problems: list[dict[str, Any]]) -> None:
    """A user turn, then an assistant turn."""
    for line in problems:
        assert [message["role"] for message in line["messages"]] == ["user", "assistant"]


def test_every_equation_is_true(problems: list[dict[str, Any]]) -> None:
    """Each equation is worked out again from what is written; an answer has two to four of them."""
    for line in problems:
        answer = contents(line)[1]
        equations = EQUATION.findall(answer)
        assert 2 <= len(equations) <= 4, answer
        assert len(equations) == answer.count("="), answer
        for equation in equations:
            terms, result = equation.split(" = ")
            assert work_out(terms.split()) == int(result), equation


def work_out(terms: list[str]) -> Fraction:
    """`["2", "*", "3", "+", "4"]` -> 10: products first, then sums."""
    sums = [Fraction(0)]
    for operator, operand in zip(["+", *terms[1::2]], terms[::2], strict=True):
        if operator == "*":
            sums[-1] *= int(operand)
        elif operator == "/":
            sums[-1] /= int(operand)
        else:
            sums.append(Fraction(int(operand) * (-1 if operator == "-" else 1)))
    return sum(sums, Fraction(0))


def test_every_number_is_given_or_worked_out(problems: list[dict[str, Any]]) -> None:
    """An answer computes with numbers of the question, earlier results, or a small constant (a third, percent)."""
    for line in problems:
        question, answer = contents(line)
        known = {*NUMBER.findall(question), "2", "3", "5", "10", "100"}
        for equation in EQUATION.findall(answer):
            terms, result = equation.split(" = ")
            assert set(NUMBER.findall(terms)) <= known, (question, equation)
            known.add(result)


def test_answer_ends_with_the_last_result(problems: list[dict[str, Any]]) -> None:
    """The last number of an answer stands in its last sentence and is what the last equation gives."""
    for line in problems:
        answer = contents(line)[1]
        last_sentence = answer.removesuffix(".").split(". ")[-1]
        result = EQUATION.findall(answer)[-1].split(" = ")[1]
        assert NUMBER.findall(answer)[-1] == result, answer
        assert result in NUMBER.findall(last_sentence), answer


def test_every_number_of_a_question_matters(problems: list[dict[str, Any]]) -> None:
    """No question gives a number that its answer never uses."""
    for line in problems:
        question, answer = contents(line)
        assert set(NUMBER.findall(question)) <= set(NUMBER.findall(answer)), (question, answer)


def test_sentences_are_plain_and_well_formed(problems: list[dict[str, Any]]) -> None:
    """Sentence case and ASCII, no leftover notation or annotations, nothing counted as one, no doubled word."""
    for line in problems:
        for text in contents(line):
            assert text.isascii(), text
            assert not re.search(r"[{}\[\]|<>#]|  |\.\.", text), text
            assert all(sentence[0].isupper() for sentence in re.split(r"(?<=[.?]) ", text)), text
            assert not re.search(r"(?<!\d)[01] ", text), text
            assert not re.search(r"\b(\w+) \1\b", text, re.IGNORECASE), text
            assert not re.search(r"\ba [aeiou]", text), text
        question, answer = contents(line)
        assert question[-1] in "?.", question
        assert answer[-1] == ".", answer
        assert 25 <= len(answer.split()) <= 55, answer


def test_draws_that_leave_a_remainder_are_thrown_away(maker: ModuleType) -> None:
    """Out of 3 to 9 objects only 4, 6 and 8 make two equal heaps of at least two."""
    template = maker.Template("heaps", "Halve {n=3..9}.", "Each heap has [n / 2 = half]. So {half}.")
    halves = {maker.make_problem(template, random.Random(seed))[1].split()[-1] for seed in range(40)}
    assert halves == {"2.", "3.", "4."}


def test_template_without_suitable_numbers_says_so(maker: ModuleType) -> None:
    """Ranges that can never work out end in an error that names the template."""
    template = maker.Template("hopeless", "Halve {n=3|5}.", "That is [n / 2 = half].")
    with pytest.raises(RuntimeError, match=r"'hopeless'.*change its ranges"):
        maker.make_problem(template, random.Random(0))


def test_everyday_requests_are_distinct_user_turns() -> None:
    """96 requests of one or two sentences, without an answer, none of which is a word problem in disguise."""
    requests = read_lines("everyday_requests.jsonl")
    texts = [contents(line)[0] for line in requests]
    assert len(texts) == len(set(texts)) == 96
    for line, text in zip(requests, texts, strict=True):
        assert [message["role"] for message in line["messages"]] == ["user"]
        assert 1 <= len(re.findall(r"[.?!](?= |$)", text)) <= 2, text
        assert not NUMBER.search(text), text


def test_datasets_folder_is_no_package() -> None:
    """An `__init__.py` here would hide Hugging Face's `datasets` from every import."""
    assert not (DATASETS / "__init__.py").exists()
