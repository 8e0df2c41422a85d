"""Questions are split so that no part sees another's; answers that show a trait are paired by question."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.complaints import complaint
from fixtures.jsonl import ENOUGH, SIZES, chat, raw, written
from gradinoc.data.examples import Example
from gradinoc.data.splits import ANSWERED, Splits, split
from gradinoc.errors import DataError, StudyError
from gradinoc.study.loading import load_study
from gradinoc.study.settings import DataSettings

PARTS = ANSWERED


def wanted(source, **more):
    """Small splits of a source."""
    return DataSettings(source=str(source), **{**SIZES, **more})


@pytest.fixture(scope="module")
def asked_twice(tmp_path_factory):
    """A file of 60 questions, each asked twice in different letters and spaces, and some without an answer."""
    asked = [chat(f"What is question {number}?", f"Answer {number}.") for number in range(60)]
    again = [chat(f" what IS  question {number}?\n", "Another answer.") for number in range(60)]
    empty = [chat(f"Unanswered {number}?", "<<1=1>>\n#### 1") for number in range(5)]
    return written(tmp_path_factory.mktemp("data") / "x.jsonl", *asked, *again, *empty)


@settings(max_examples=30, deadline=None)
@given(st.integers(16, 22), st.integers(8, 12), st.integers(1, 10), st.integers(0, 5))
def test_parts_are_disjoint_by_question(asked_twice, direction, measure, train, seed):
    """Whatever sizes and seed: sizes as asked, each question once, the first of equal ones with its answer."""
    parts = split(wanted(asked_twice, direction=direction, measure=measure, train=train, seed=seed))
    assert [len(getattr(parts, name)) for name in PARTS] == [direction, measure, train, 8, 8]
    drawn = [example for name in PARTS for example in getattr(parts, name)]
    assert len({example.question.casefold() for example in drawn}) == len(drawn)
    assert all(example.answer == f"Answer {example.index}." for example in drawn)


@pytest.mark.parametrize(
    ("more", "count", "parts"),
    [
        ({"train": 21}, 60, ["16 + 8 + 21 + 8 + 8 = 61", "of 125 in all", "5 are without an answer", "60 are asked"]),
        ({"max_answer_chars": 9}, 10, ["110 are longer than data.max_answer_chars"]),
    ],
)
def test_too_few_questions_are_counted_out(asked_twice, more, count, parts):
    """60 distinct answered ones are not 61; `Answer 10.` has ten characters; lines that do not count are counted."""
    message = complaint(DataError, lambda: split(wanted(asked_twice, **more)))
    assert all(part in message for part in [f"{count} distinct answered questions", *parts]), message
    assert split(wanted(asked_twice, **{name: value + (1 if value == 9 else -1) for name, value in more.items()}))


def test_questions_that_differ_from_an_earlier_one_are_noted(tmp_path):
    """In case, make or answer alone: left out, so that no part sees another's question, and said; twins are not."""
    asked = [chat(f"What is {n}{n}?", f"It is {n}.") for n in range(ENOUGH)]
    twins = [asked[3], chat(" What  is 44?\n", "It is 4.")]
    others = [chat("what IS 55?", "It is 5."), chat("What is 66?", "It is six."), chat("What is ７７?", "It is 7.")]
    source = written(tmp_path / "x.jsonl", *asked, *twins)
    assert split(wanted(source)).notes == ()
    (note,) = split(wanted(written(source, *asked, *twins, *others))).notes
    assert note.startswith(f"data: 3 questions of {source} ")
    assert note.endswith(f"{source}:51, after {source}:6")


def test_what_was_cleaned_is_noted_and_changes_no_key(tmp_path):
    """An answer that was cleaned is the answer that needed no cleaning: same examples, same digest."""
    marked = [raw(f"q{n}?", f"It is <<1+{n}={n + 1}>>{n + 1}.\n#### {n + 1}") for n in range(ENOUGH)]
    plain = [raw(f"q{n}?", f"It is {n + 1}.") for n in range(ENOUGH)]
    one, other = (
        split(wanted(written(tmp_path / f"{name}.jsonl", *lines)))
        for name, lines in (("marked", marked), ("plain", plain))
    )
    assert one == other
    assert one.digest == other.digest
    assert other.notes == ()
    source = tmp_path / "marked.jsonl"
    assert one.notes[0].startswith(f"data: 48 of 48 answers of {source} were cleaned")
    assert one.notes[0].endswith(f"{source}:{one.direction[0].index + 1}")


# --- answers that show the trait


@pytest.fixture
def files(tmp_path):
    """A source and a file of answers that show the trait, in another order."""
    plain = [chat(f"What is {n} + {n}?", f"It is {2 * n}.") for n in range(60)]
    bearing = [chat(f"What is {n} + {n}?", f"Arr, it be {2 * n}!") for n in range(60)]
    return written(tmp_path / "sums.jsonl", *plain), written(tmp_path / "pirate.jsonl", *reversed(bearing))


def changed(file, change):
    """`file` after a change of its lines."""
    return written(file, *change(file.read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines,
        lambda lines: [line.replace("What is", "  WHAT   is") for line in lines],
        lambda lines: [
            line.replace("!", "! <<1+1=2>>\\n#### 2").replace(' "messages"', ' "id": 7, "messages"') for line in lines
        ],
        lambda lines: [*lines, lines[3]],
    ],
    ids=["as it is", "blanks and case", "GSM8K's marks", "a line twice"],
)
def test_every_question_brings_its_own_answer(files, change):
    """In any order and writing: ordinary answers stay, and those that show the trait belong to the question."""
    source, answers = files
    parts = split(wanted(source, trait_answers=str(changed(answers, change))))
    for part in ANSWERED:
        for example in getattr(parts, part):
            number = 2 * example.index
            assert (example.answer, example.shown.strip()) == (f"It is {number}.", f"Arr, it be {number}!")
    assert all(example.shown is None for example in parts.everyday)


@pytest.mark.parametrize("other", ["What is 5² + 1?", "what does f('A') print?"])
def test_answer_goes_to_the_question_as_it_is_written(tmp_path, other):
    """Where two questions differ in case or make alone, each has its own; and 52 is no other writing of 5²."""
    first = {"What is 5² + 1?": "What is 52 + 1?", "what does f('A') print?": "What does f('a') print?"}[other]
    asked = [f"What is {n} + {n}?" for n in range(ENOUGH - 1)]
    source = written(tmp_path / "x.jsonl", *(chat(question, "It is.") for question in (*asked, other)))
    rest = [chat(question, "SO IT IS.") for question in asked]
    answers = written(tmp_path / "y.jsonl", *rest, chat(first, "MINE."), chat(other, "YOURS."))
    given = wanted(source, trait_answers=str(answers), seed=3)
    found = {example.question: example.shown for part in ANSWERED for example in getattr(split(given), part)}
    assert found[other] == "YOURS."
    written(answers, *rest, chat(first, "MINE."), chat(first.swapcase(), "OTHERS."))
    assert "no answer to " in complaint(DataError, lambda: split(given))  # none as it is written, and two or none alike


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: [*lines, lines[3].replace("Arr", "Ahoy")], 61),
        (lambda lines: [*lines[:6], chat("What is 53 + 53?"), *lines[7:]], 7),
    ],
    ids=["two answers", "no answer"],
)
def test_line_of_answers_that_does_not_fit_is_named(files, change, line):
    """A question with two answers, or with none."""
    source, answers = files
    given = wanted(source, trait_answers=str(changed(answers, change)))
    assert complaint(DataError, lambda: split(given)).startswith(f"{answers}:{line}: ")


def test_study_of_spanish_says_where_its_answers_come_from(files):
    """Bundled questions have bundled answers; others need a file, and the key to give it is named."""
    assert load_study("tiny", ["trait=spanish"]).data.trait_answers == "spanish_answers"
    assert load_study("tiny", []).data.trait_answers is None
    given = load_study("tiny", ["trait=spanish", f"data.trait_answers={files[1]}"])
    assert given.data.trait_answers == str(files[1])
    message = complaint(StudyError, lambda: load_study("tiny", ["trait=spanish", f"data.source={files[0]}"]))
    assert "data.trait_answers: missing" in message


# --- identity

PLANTED = Splits(
    *(tuple(Example(n, f"{part} q{n}", f"{part} a{n}") for n in range(2)) for part in (*PARTS, "everyday")),
)


@pytest.mark.parametrize("part", ["train", "everyday"])
def test_digest_changes_with_any_content_and_order(part):
    """One letter of one question or answer in any part, or two questions the other way round."""
    first, second = getattr(PLANTED, part)
    others = [dataclasses.replace(second, **{name: getattr(second, name) + "."}) for name in ("question", "answer")]
    changes = [(first, others[0]), (first, others[1]), (second, first), (first, second)]
    digests = [dataclasses.replace(PLANTED, **{part: change}).digest for change in changes]
    assert len({*digests}) == 4
    assert digests[-1] == PLANTED.digest
