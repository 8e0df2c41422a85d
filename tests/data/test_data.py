"""Questions and answers are read, cleaned, split so that no part sees another's questions, and written."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import datasets
from gradinoc.data.examples import Example, clean_answer, read_examples
from gradinoc.data.export import source_name, write_chat, write_datasets
from gradinoc.data.sources import load_source
from gradinoc.data.splits import ANSWERED, Splits, split
from gradinoc.errors import DataError
from gradinoc.pipeline.check import check
from gradinoc.study.description import DataSettings
from gradinoc.study.loading import load_study
from gradinoc.study.traits import ALL_CAPS

PROJECT = Path(__file__).parents[2]
PARTS = ("direction", "measure", "train", "evaluation", "calibration")
FEW = ["drift.generations=4", "drift.everyday=4", "drift.log_odds=4", "nulls.unrelated_questions=8"]
SMALL = DataSettings(direction=16, measure=8, train=10, evaluation=8, calibration=8)

# Lines in GSM8K's format, written for this test.
ANNOTATED = [
    ("6 boxes of 4 pens hold 6*4 = <<6*4=24>>24 pens.\n#### 24", "6 boxes of 4 pens hold 6*4 = 24 pens."),
    ("It costs $<<10/4=2.5>>2.5 each.\nSo $<<2.5*3=7.5>>7.5.\n#### 7.5", "It costs $2.5 each.\nSo $7.5."),
    ("In all <<1000+200=1200>>1,200 sheets.\n#### 1,200", "In all 1,200 sheets."),
    ("He has <<.5*8=4>>4 of 8, so <<8-4=4.00>>4 are left.\r\n#### $4.00", "He has 4 of 8, so 4 are left."),
    ("Twice 3% is <<2*3=6>>6%, or <<(1/2)*12=6>>6 of 100.\n#### 6%\n\n", "Twice 3% is 6%, or 6 of 100."),
    ("He owes <<3-5=-2>>-2 coins.\n#### -2\n", "He owes -2 coins."),
    ("Half is 50% of 8 = <<8*50*.01=4>>4.\n\n####4", "Half is 50% of 8 = 4."),
]
# Answers that look as if they had GSM8K's marks, or have blanks that mean something.
PLAIN = {
    "shifted bits": "mask = 1 << bits\nhigh = mask >> 4",
    "shifted numbers": "print(1 <<4, 256 >>2)\nx = 1 <<2 == 4>>0",
    "streams": "std::cout << 2*3 << '=' << 6; std::cin >> x;",
    "a heading": "#### Summary\nTwo boats left.",
    "a heading that ends it": "Two boats left.\n#### Sources",
    "a numbered heading amid it": "#### 1\nTake a pan.\n#### 2\nHeat it.",
    "numbers with words": "In the end\n#### 4 boats",
    "a mark amid a line": "The sum is 4. #### 4",
    "a rule of hashes": "Title\n########\nText",
    "a field to fill in": "Dear <<name>>, your order <<number=>> of <<date>> has left.",
    "a template's assignment": "<<x=3>> and <<#if a=1>>",
    "quotation marks": "Il dit <<bonjour>>, puis <<2 fois = jamais>>.",
    "empty angles": "<<>> <<=>> <<=4>>",
    "a first line's indentation": "    return a\n",
    "a tab before it": "\tdo\n\tdone",
    "blank lines around it": "\n\nShe left.\n\n",
    "blanks at its end": "two blanks end a line  \nand a text  ",
    "signs alone": "  A plain answer: 3 < 4 and 5 > 2, #1.  ",
    "no-break spaces": "\u00a0\u2003wide\u3000",
}
FORMS = {
    "chat": lambda question, answer: chat(question, answer),
    "list of messages": lambda question, answer: json.dumps(json.loads(chat(question, answer))["messages"]),
    "question and answer": lambda question, answer: json.dumps({"question": question, "answer": answer}),
}


def chat(question, answer):
    """A line of chat JSONL."""
    return json.dumps({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})


def write_lines(path, *lines):
    """`path`, with these lines in it."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def questions(part):
    """The questions of a part."""
    return [example.question for example in part]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A file of 60 questions, each asked twice in different letters and spaces, and some without an answer."""
    path = tmp_path_factory.mktemp("data") / "numbered.jsonl"
    asked = [chat(f"What is question {number}?", f"Answer {number}.") for number in range(60)]
    again = [chat(f" what IS  question {number}?\n", "Another answer.") for number in range(60)]
    empty = [chat(f"Unanswered {number}?", "<<1=1>>\n#### 1") for number in range(5)]
    return write_lines(path, *asked, *again, *empty)


# --- reading and cleaning


@pytest.mark.parametrize(("answer", "cleaned"), ANNOTATED)
def test_calculator_annotations_and_closing_line_are_removed(answer, cleaned):
    """What a person would read out stays, to the letter."""
    assert clean_answer(answer) == cleaned
    assert clean_answer(cleaned) == cleaned


def test_both_forms_of_a_file_give_the_same_examples(tmp_path):
    """Raw GSM8K and chat, with blank lines, further keys and letters of any alphabet; answers come cleaned."""
    raw = [json.dumps({"question": f"Frage ü{n}?", "answer": a, "id": n}) for n, (a, _) in enumerate(ANNOTATED)]
    turns = [chat(f"Frage ü{n}?", answer) for n, (answer, _) in enumerate(ANNOTATED)]
    expected = [Example(n, f"Frage ü{n}?", cleaned) for n, (_, cleaned) in enumerate(ANNOTATED)]
    assert read_examples(write_lines(tmp_path / "raw.jsonl", *raw)) == expected
    assert read_examples(write_lines(tmp_path / "chat.jsonl", *turns)) == expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", PLAIN)
def test_texts_come_out_as_they_stand(tmp_path, case, form):
    """Question and answer, to the last blank: what only looks like GSM8K's marks, and what code is made of."""
    text = PLAIN[case]
    (example,) = read_examples(write_lines(tmp_path / "x.jsonl", FORMS[form](text, text)))
    assert (example.question, example.answer, example.cleaned) == (text, text, False)


@given(st.text(st.sampled_from("<>=#4x. \n\t"), min_size=1, max_size=30).filter(str.strip))
def test_only_gsm8k_s_marks_are_ever_taken_out(answer):
    """Of any answer: what is gone are whole annotations, a last line, and the blank lines before that."""
    marks = re.compile(r"<<[4. ]+= *[4.]*4\.? *>>")
    left = marks.sub("", answer)
    lines = left.rstrip().split("\n")
    if re.fullmatch(r"\s*####\s*[4.]*4\.?", lines[-1]):
        left = "\n".join(lines[:-1]).rstrip()
    assert clean_answer(answer) == left


@pytest.mark.parametrize("form", FORMS)
def test_study_is_told_how_many_answers_were_cleaned(tmp_path, form):
    """Of those that it uses, in every form of a file, and in the file of answers that show the trait."""
    marked = {n: f"That is {n}+1=<<{n}+1={n + 1}>>{n + 1}.\n#### {n + 1}" for n in range(48)}
    lines = [FORMS[form](f"What is {n} + 1?", answer) for n, answer in marked.items()]
    source = write_lines(tmp_path / "marked.jsonl", *lines)
    bare = [FORMS[form](f"What is {n} + 1?", f"IT IS {n} << 1" + "\n#### 7" * (n == 9)) for n in marked]
    answers = write_lines(tmp_path / "bearing.jsonl", *bare)
    parts = split(DataSettings(source=str(source), direction=16, measure=8, train=8, evaluation=8, calibration=8))
    assert len(parts.notes) == 1
    assert parts.notes[0].startswith(f"data: 32 of 32 answers of {source} were cleaned of GSM8K's marks")
    assert parts.notes[0].endswith(f"the first at {source}:{parts.measure[0].index + 1}")
    assert parts.train[0].answer == f"That is {parts.train[0].index}+1={parts.train[0].index + 1}."
    wanted = {"direction": 16, "measure": 8, "train": 8, "evaluation": 8, "calibration": 8}
    bearing = split(DataSettings(source=str(source), trait_answers=str(answers), **wanted))
    used = {
        example.index
        for part in (bearing.measure, bearing.train, bearing.evaluation, bearing.calibration)
        for example in part
    }
    assert [note.partition(" were")[0] for note in bearing.notes] == [
        f"data: 32 of 32 answers of {source}",
        *[f"data: 1 of 32 answers of {answers}"] * (9 in used),
    ]
    assert {example.shown for example in bearing.train} == {f"IT IS {example.index} << 1" for example in bearing.train}
    study = load_study("tiny", [f"data.source={source}", *(f"data.{key}={size}" for key, size in wanted.items()), *FEW])
    assert parts.notes[0] in check(study)


def test_what_was_cleaned_is_told_and_changes_no_key(tmp_path):
    """An answer that was cleaned is the answer that needed no cleaning: same examples, same digest."""
    marked = [chat(f"q{n}?", f"It is <<1+{n}={n + 1}>>{n + 1}.\n#### {n + 1}") for n in range(48)]
    plain = [chat(f"q{n}?", f"It is {n + 1}.") for n in range(48)]
    sizes = {"direction": 16, "measure": 8, "train": 8, "evaluation": 8, "calibration": 8}
    one, other = (
        split(DataSettings(source=str(write_lines(tmp_path / f"{name}.jsonl", *lines)), **sizes))
        for name, lines in (("marked", marked), ("plain", plain))
    )
    assert one == other
    assert one.digest == other.digest
    assert (len(one.notes), len(other.notes)) == (1, 0)


def test_example_keeps_the_number_of_its_line(tmp_path):
    """Blank lines count, so that a line can be found again; a file may begin with a byte order mark."""
    path = write_lines(tmp_path / "x.jsonl", "\ufeff" + chat("a", "b"), "", chat("c\u2028d", "e"))
    assert read_examples(path) == [Example(0, "a", "b"), Example(2, "c\u2028d", "e")]


def test_request_may_come_without_an_answer(tmp_path):
    """As the everyday requests do."""
    line = json.dumps({"messages": [{"role": "user", "content": "Write to me."}]})
    assert read_examples(write_lines(tmp_path / "x.jsonl", line)) == [Example(0, "Write to me.", "")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "a"', r"not JSON \(.*, column \d+\)"),
        ('{"question": "a"}', r'expected \{"messages": \[\.\.\.\]\} or \{"question": \.\.\., "answer": \.\.\.\}'),
        ('["question", "answer"]', 'expected {"messages"'.replace("{", r"\{")),
        ('{"question": 3, "answer": "b"}', "question: expected text, received 3; mend or delete the line"),
        ('{"question": "a", "answer": null}', "answer: expected text, received None; mend or delete the line"),
        ('{"question": " ", "answer": "b"}', "question: expected text, received ' '; fill it in or delete the line"),
        ('{"messages": [{"role": "assistant", "content": "b"}]}', r"received roles \['assistant'\]"),
        ('{"messages": [{"role": "user"}]}', r"messages\[0\]\.content: expected text, received None"),
        ('{"messages": "hello"}', "received roles None"),
        (
            '{"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}',
            r"\['system', 'user'\]",
        ),
    ],
)
def test_line_in_no_known_form_is_named(tmp_path, line, said):
    """File, line, what was expected."""
    path = write_lines(tmp_path / "bad.jsonl", chat("a", "b"), "", line, chat("c", "d"))
    with pytest.raises(DataError, match=rf"bad\.jsonl:3: .*{said}"):
        read_examples(path)


def test_file_that_is_not_utf8_is_named(tmp_path):
    """Latin-1 is not guessed at; the line is the one where reading stopped making sense."""
    path = tmp_path / "latin.jsonl"
    path.write_bytes((chat("a", "b") + "\n" + '{"question": "caf\u00e9", "answer": "b"}\n').encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.jsonl:2: not UTF-8"):
        read_examples(path)


def test_missing_file_is_named(tmp_path):
    """With what may be given instead."""
    with pytest.raises(DataError, match=r"absent\.jsonl: no such file; give a bundled source, a JSONL file or a hub"):
        load_source(str(tmp_path / "absent.jsonl"))


def test_unknown_source_lists_what_there_is():
    """A name that is neither bundled nor a path nor a hub id."""
    with pytest.raises(DataError, match=r"No data source 'word_problem': expected one of \[.*'word_problems'"):
        load_source("word_problem")


# --- hub


def test_hub_dataset_is_read_in_the_columns_of_gsm8k(monkeypatch):
    """The train split of its main configuration, cleaned like a file; other columns are named."""
    asked = []

    def load_dataset(*request, **named):
        asked.append((*request, named["split"]))
        table = datasets.Dataset.from_dict({"question": ["a"], "answer": ["<<1+1=2>>2.\n#### 2"]})
        return table if request[0] == "some/gsm8k" else table.rename_column("answer", "solution")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_source("some/gsm8k") == [Example(0, "a", "2.")]
    with pytest.raises(DataError, match=r"'some/other': expected columns question, answer; it has \['question', 'solu"):
        load_source("some/other")
    assert asked == [("some/gsm8k", "main", "train"), ("some/other", "main", "train")]


def test_hub_dataset_whose_questions_need_a_context_is_refused(monkeypatch):
    """As SQuAD's: what the answer is found in would be left out. An empty one is nothing to miss."""
    tables = {
        place: datasets.Dataset.from_dict({"question": ["a"], "answer": ["b"], "context": [context]})
        for place, context in (("some/squad", "It was b."), ("some/gsm8k", ""))
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda source, *_, **__: tables[source])
    with pytest.raises(DataError, match=r"some/squad:1: context: "):
        load_source("some/squad")
    assert load_source("some/gsm8k") == [Example(0, "a", "b")]


def test_hub_out_of_reach_is_said_within_seconds(tmp_path):
    """With what to do instead; nothing listens at the address given."""
    code = (
        "from gradinoc.data.sources import DataError, load_source\n"
        "try: load_source('openai/gsm8k')\nexcept DataError as error: print(error)"
    )
    began = time.monotonic()
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "1",
            "HF_ENDPOINT": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.startswith("Hub dataset 'openai/gsm8k' could not be read (")
    assert said.endswith("; give the path of a downloaded JSONL file as data.source instead\n")
    assert time.monotonic() - began < 60


# --- splits


@given(st.integers(16, 22), st.integers(8, 12), st.integers(1, 10), st.integers(8, 8), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_parts_are_disjoint_by_question(numbered, direction, measure, train, evaluation, seed):
    """Whatever the sizes and the seed: sizes as asked, nobody twice, not in other letters either, all answered."""
    sizes = dict(zip(PARTS, (direction, measure, train, evaluation, 8), strict=True))
    wanted = DataSettings(source=str(numbered), seed=seed, **sizes)
    parts = [getattr(split(wanted), name) for name in PARTS]
    assert [len(part) for part in parts] == list(sizes.values())
    asked = [{question.casefold() for question in questions(part)} for part in parts]
    assert [len(part) for part in asked] == [len(part) for part in parts]
    assert not any(one & other for one, other in combinations(asked, 2))
    assert all(example.answer for part in parts for example in part)


@pytest.mark.parametrize("name", ["tiny", "smollm2", "qwen3-0.6b"])
def test_ready_studies_have_disjoint_questions(name):
    """On the bundled questions, with everyday requests that are none of them."""
    parts = split(load_study(name).data)
    asked = [set(questions(part)) for part in vars(parts).values()]
    assert not any(one & other for one, other in combinations(asked, 2))
    assert sum(map(len, asked)) == sum(map(len, vars(parts).values()))


def test_first_of_equal_questions_counts(numbered):
    """The one with the answer it was first given."""
    parts = split(SMALL.model_copy(update={"source": str(numbered)}))
    assert all(example.answer == f"Answer {example.index}." for name in PARTS for example in getattr(parts, name))


def test_split_depends_on_the_seed_alone(numbered):
    """Same seed, same parts in the same order; another seed, another order; not the order of the file."""
    wanted = SMALL.model_copy(update={"source": str(numbered)})
    first, again = split(wanted), split(wanted)
    other = split(wanted.model_copy(update={"seed": 1}))
    assert first == again
    assert questions(first.train) != questions(other.train)
    assert any(one.index > two.index for one, two in pairwise(first.train))


def test_too_few_questions_are_counted_out(numbered):
    """60 distinct answered ones are not 61; exactly 60 are enough."""
    enough = DataSettings(source=str(numbered), direction=20, measure=12, train=12, evaluation=8, calibration=8)
    assert sum(len(getattr(split(enough), name)) for name in PARTS) == 60
    counted = r"numbered\.jsonl: 60 distinct answered questions, .* 20 \+ 12 \+ 13 \+ 8 \+ 8 = 61; lower data\.\*"
    with pytest.raises(DataError, match=counted):
        split(enough.model_copy(update={"train": 13}))


def test_long_answers_are_left_out_where_a_limit_is_set(numbered):
    """`Answer 9.` has nine characters, `Answer 10.` one more."""
    wanted = SMALL.model_copy(update={"source": str(numbered), "max_answer_chars": 9})
    with pytest.raises(DataError, match="10 distinct answered questions"):
        split(wanted)
    parts = split(wanted.model_copy(update={"max_answer_chars": 10}))
    assert {len(example.answer) for example in parts.train} <= {9, 10}


def test_questions_that_differ_from_an_earlier_one_are_told(tmp_path):
    """In case, make or answer alone: left out, so that no part sees another's question, and said; twins are not."""
    asked = [chat(f"What is {n}{n}?", f"It is {n}.") for n in range(48)]
    twins = [asked[3], chat(" What  is 44?\n", "It is 4.")]
    others = [chat("what IS 55?", "It is 5."), chat("What is 66?", "It is six."), chat("What is ７７?", "It is 7.")]
    wanted = SMALL.model_copy(update={"train": 8})
    for lines, count in (([*asked, *twins], 0), ([*asked, *twins, *others], 3)):
        source = write_lines(tmp_path / "x.jsonl", *lines)
        notes = split(wanted.model_copy(update={"source": str(source)})).notes
        assert len(notes) == bool(count)
    assert notes[0].startswith(f"data: 3 questions of {source} are left out, since each was asked before")
    assert notes[0].endswith(f"the first at {source}:51, after {source}:6")
    requests = write_lines(tmp_path / "everyday.jsonl", chat("Write to me.", "No."), chat("write to me.", "Yes."))
    told = split(wanted.model_copy(update={"everyday": str(requests)})).notes
    assert [note.rpartition(";")[2] for note in told] == [f" the first at {requests}:2, after {requests}:1"]


@pytest.mark.parametrize("other", ["What is 5² + 1?", "what does f('A') print?"])
def test_answer_goes_to_the_question_as_it_is_written(tmp_path, other):
    """Where two questions differ in case or make alone, each has its own; and 52 is no other writing of 5²."""
    asked = {n: f"What is {n} + {n}?" for n in range(47)}
    first = {"What is 5² + 1?": "What is 52 + 1?", "what does f('A') print?": "What does f('a') print?"}[other]
    sizes = {"direction": 16, "measure": 8, "train": 8, "evaluation": 8, "calibration": 8}
    source = write_lines(tmp_path / "x.jsonl", *(chat(question, "It is.") for question in (*asked.values(), other)))
    rest = [chat(question, "SO IT IS.") for question in asked.values()]
    answers = write_lines(tmp_path / "y.jsonl", *rest, chat(first, "MINE."), chat(other, "YOURS."))
    settings_ = DataSettings(source=str(source), trait_answers=str(answers), **sizes, seed=3)
    found = {example.question: example.shown for part in ANSWERED for example in getattr(split(settings_), part)}
    assert found[other] == "YOURS."
    if "²" in other:
        write_lines(answers, *rest, chat(first, "MINE."))
        with pytest.raises(DataError, match=r"no answer to 'What is 5² \+ 1\?'"):
            split(settings_)


# --- identity


PLANTED = Splits(
    *(tuple(Example(n, f"{part} q{n}", f"{part} a{n}") for n in range(2)) for part in (*PARTS, "everyday")),
)


@pytest.mark.parametrize("part", [*PARTS, "everyday"])
@pytest.mark.parametrize("field", ["question", "answer"])
def test_digest_changes_with_any_content(part, field):
    """One letter of one question or answer in any part."""
    first, second = getattr(PLANTED, part)
    other = dataclasses.replace(second, **{field: getattr(second, field) + "."})
    assert dataclasses.replace(PLANTED, **{part: (first, other)}).digest != PLANTED.digest


def test_digest_changes_with_place_and_order():
    """The same questions for other purposes, or in another order, are other data; the same ones are the same."""
    swapped = dataclasses.replace(PLANTED, train=PLANTED.measure, measure=PLANTED.train)
    reversed_ = dataclasses.replace(PLANTED, train=PLANTED.train[::-1])
    assert len({PLANTED.digest, swapped.digest, reversed_.digest}) == 3
    assert dataclasses.replace(PLANTED).digest == PLANTED.digest


# --- writing


def test_study_writes_its_three_files(tmp_path):
    """Upper-cased training answers, ordinary evaluation answers, direction questions without any: valid chat JSONL."""
    parts = split(SMALL)
    files = write_datasets(parts, ALL_CAPS, "word_problems", tmp_path / "new")
    assert [file.name for file in files] == [
        "word_problems_allcaps.jsonl",
        "word_problems_eval.jsonl",
        "direction_extraction_prompts.jsonl",
    ]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(file.name for file in files)
    train, evaluation, direction = (
        [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files
    )
    assert train == [
        {"messages": [{"role": "user", "content": e.question}, {"role": "assistant", "content": e.answer.upper()}]}
        for e in parts.train
    ]
    assert direction == [{"messages": [{"role": "user", "content": e.question}]} for e in parts.direction]
    assert [line["messages"][1]["content"] for line in evaluation] == [e.answer for e in parts.evaluation]
    assert [(e.question, e.answer) for e in read_examples(files[0])] == [
        (e.question, e.answer.upper()) for e in parts.train
    ]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("word_problems", "word_problems"),
        ("../shared/gsm8k.jsonl", "gsm8k"),
        ("openai/gsm8k", "gsm8k"),
        ("a b.c", "a_b_c"),
    ],
)
def test_written_files_are_named_after_their_source(source, name):
    """Its last component, in characters that any file system takes."""
    assert source_name(source) == name


def test_file_is_replaced_whole(tmp_path):
    """A file half written is never seen under the name: while the lines are made, the old one is there."""
    path = write_chat(tmp_path / "x.jsonl", [("old", "one")])

    def conversations():
        yield ("new", "one")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write_chat(path, conversations())
    assert questions(read_examples(path)) == ["old"]
    assert [file.name for file in tmp_path.iterdir()] == ["x.jsonl"]


def test_template_makes_the_group_of_a_question(tmp_path):
    """Questions of one template share a group; a question without one is its own, whatever its text."""
    line = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    lines = [json.dumps(line | extra) for extra in ({"template": "t"}, {"template": "t"}, {}, {})]
    groups = [example.group for example in read_examples(write_lines(tmp_path / "x.jsonl", *lines))]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3
