"""The bundled questions: made by their own script, distinct, balanced, arithmetically right, and plain to read."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from gradinoc.data.sources import load_source

DATASETS = Path(__file__).parents[2] / "datasets"
EQUATION = re.compile(r"\d+(?: [-+*/] \d+)+ = \d+")
NUMBER = re.compile(r"\d+")
SPANISH_LETTERS = {*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZáéíóúüñÁÉÍÓÚ"}


@pytest.fixture(scope="module")
def maker():
    """The generator, loaded by its path: `datasets` is no package, for Hugging Face's has that name."""
    spec = importlib.util.spec_from_file_location("make_word_problems", DATASETS / "make_word_problems.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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


def test_answer_uses_every_number_and_ends_with_the_last_result(problems):
    """No question gives a number that its answer never uses; the last sentence holds what the last equation gives."""
    for problem in problems:
        numbers = NUMBER.findall(problem.answer)
        assert {*NUMBER.findall(problem.question)} <= {*numbers}, problem
        result = EQUATION.findall(problem.answer)[-1].split(" = ")[1]
        assert numbers[-1] == result, problem.answer
        assert result in NUMBER.findall(problem.answer.removesuffix(".").split(". ")[-1]), problem.answer


def test_sentences_are_plain_and_well_formed(pairs):
    """Sentence case, no leftover notation, nothing counted as one, no doubled word; English in ASCII."""
    for english, spanish in pairs:
        for text in (english.question, english.answer, spanish.answer):
            assert not re.search(r"[{}\[\]|<>#]|  |\.\.", text), text
            assert all(sentence[0].isupper() for sentence in re.split(r"(?<=[.?]) ", text)), text
            assert not re.search(r"\b(\w+) \1\b", text, re.IGNORECASE), text
        for text in (english.question, english.answer):
            assert text.isascii(), text
            assert not re.search(r"(?<!\d)[01] |\ba [aeiou]", text), text
        assert english.question[-1] in "?.", english
        assert english.answer[-1] == spanish.answer[-1] == ".", english
        assert 25 <= len(english.answer.split()) <= 55, english
        assert 20 <= len(spanish.answer.split()) <= 60, spanish


def test_everyday_requests_are_distinct_user_turns():
    """96 requests of one or two sentences, without an answer, none of which is a word problem in disguise."""
    requests = load_source("everyday_requests")
    assert len(requests) == len({request.question for request in requests}) == 96
    for request in requests:
        assert not request.answer
        assert 1 <= len(re.findall(r"[.?!](?= |$)", request.question)) <= 2, request
        assert not NUMBER.search(request.question), request


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


def test_spanish_answers_are_in_spanish_alone(pairs):
    """Spanish letters alone, no English word, and within a sentence only the question's names have a capital."""
    for english, spanish in pairs:
        text = spanish.answer
        assert {*re.findall(r"[^\W\d_]", text)} <= SPANISH_LETTERS
        assert not {"the", "of", "are", "and", "is", "with"} & {*text.lower().split()}, text
        names = {*re.findall(r"\b[A-Z][a-z]+\b", english.question)}
        assert {*re.findall(r"(?<=[a-zé,] )[A-Z]\w+", text)} <= names, text


# Articles and adjectives that a noun of the templates asks for: a slip of gender shows in one of these.
GENDERS = {
    "los|unos|algunos|estos": "canicas|páginas|entradas|semanas|pegatinas|tazas|velas|postales|sillas|personas|"
    "manzanas|botellas|vueltas|porciones|conchas|cuentas|flores|fotos|victorias|partidas|monedas|piezas|tiendas|vacas|"
    "ruedas|torres|baldosas|horas|plazas",
    "las|unas|algunas|estas": "huevos|cartones|centímetros|kilómetros|libros|estantes|dólares|litros|puntos|equipos|"
    "minutos|años|metros|postes|kilogramos|sellos|niños|ladrillos|tarros|collares|gramos|cajones|tornillos|socios|"
    "grupos|días|marcos|bloques|grados",
}


@pytest.mark.parametrize("articles", GENDERS)
def test_spanish_articles_agree_with_their_nouns(pairs, articles):
    """No "los" before a feminine noun of the templates, and no "las" before a masculine one."""
    wrong = re.compile(rf"\b({articles}) ({GENDERS[articles]})\b", re.IGNORECASE)
    assert [spanish.answer for _, spanish in pairs if wrong.search(spanish.answer)] == []
