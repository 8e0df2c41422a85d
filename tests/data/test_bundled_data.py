"""The bundled questions: made by their own script, distinct, balanced, arithmetically right, and plain to read."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from fixtures.scripts import script
from gradinoc.data.sources import load_source

DATASETS = Path(__file__).parents[2] / "datasets"
EQUATION = re.compile(r"\d+(?: [-+*/] \d+)+ = \d+")
NUMBER = re.compile(r"\d+")


@pytest.fixture(scope="module")
def maker():
    """The generator, loaded by its path: `datasets` is no package, for Hugging Face's has that name."""
    return script(DATASETS / "make_word_problems.py")


@pytest.fixture(scope="module")
def problems():
    """The bundled word problems."""
    return load_source("word_problems")


@pytest.fixture(scope="module")
def pairs(problems):
    """Each bundled problem with its Spanish answer."""
    return list(zip(problems, load_source("spanish_answers"), strict=True))


@pytest.mark.parametrize(("file", "language"), [("word_problems", "english"), ("spanish_answers", "spanish")])
def test_generator_reproduces_the_file_byte_for_byte(maker, file, language):
    """The committed file is what the committed templates and seed give."""
    made = maker.chat_lines(maker.make_problems(), *(["spanish"] if language == "spanish" else []))
    assert (DATASETS / f"{file}.jsonl").read_bytes() == made.encode()


def test_questions_are_many_distinct_and_of_balanced_templates(problems):
    """1,600 questions, none twice; at least 60 templates, none with more than one question more than another."""
    assert len(problems) == len({problem.question for problem in problems}) == 1600
    assert all(problem.answer for problem in problems)
    counts = Counter(problem.template for problem in problems)
    assert len(counts) >= 60
    assert max(counts.values()) - min(counts.values()) <= 1


def test_every_equation_is_true_and_of_known_numbers(problems):
    """Two to four an answer, worked out again, with numbers of the question, earlier results, or small constants."""
    for problem in problems:
        equations = EQUATION.findall(problem.answer)
        assert 2 <= len(equations) == problem.answer.count("=") <= 4, problem.answer
        known = {*NUMBER.findall(problem.question), "2", "3", "5", "10", "100"}
        for equation in equations:
            terms, result = equation.split(" = ")
            assert {*NUMBER.findall(terms)} <= known, (problem.question, equation)
            assert work_out(terms.split()) == int(result), equation
            known.add(result)


def work_out(terms):
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


# --- the Spanish answers


def test_spanish_answers_answer_the_same_questions_with_the_same_numbers(pairs):
    """Line by line: question and template, every equation in its order, and the last number, which is the result."""
    for english, spanish in pairs:
        assert (english.question, english.template) == (spanish.question, spanish.template)
        assert EQUATION.findall(english.answer) == EQUATION.findall(spanish.answer)
        assert NUMBER.findall(spanish.answer)[-1] == NUMBER.findall(english.answer)[-1]
        assert {*NUMBER.findall(spanish.answer)} <= {*NUMBER.findall(english.question + english.answer)}
    one, other = ({example.answer for example in examples} for examples in zip(*pairs, strict=True))
    assert len(other) >= 0.98 * len(one)  # as varied as the English ones
