"""Questions that are too few, repeated or unfit for the model are named before it is loaded."""

from __future__ import annotations

import json
import re
import shutil
import time

import pytest
from transformers import AutoTokenizer

from fixtures.complaints import complaint
from fixtures.jsonl import ENOUGH, SIZES, SMALL, chat, numbered, raw, written
from gradinoc.data.examples import clean_answer
from gradinoc.data.splits import split
from gradinoc.errors import DataError, StudyError
from gradinoc.models.sources.packaged import ORGANISMS
from gradinoc.pipeline.check import check
from gradinoc.study.loading import load_study
from gradinoc.study.settings import DataSettings


@pytest.fixture
def no_weights(monkeypatch):
    """Nothing may load weights."""
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("loaded"))


# --- splits


@pytest.mark.fault("Bad data", "too few questions, or some that repeat")
@pytest.mark.parametrize(
    "extra",
    [[raw("what  IS 0\nand one?")], [raw("Ｗhat is 0 and one?")], [chat("q")], [raw("q", "#### 4")]],
    ids=["other case and blanks", "other make", "unanswered", "answer cleaned away"],
)
def test_too_few_questions_are_counted_out(tmp_path, extra):
    """A question in other letters, blanks or compatible characters is the same question."""
    wanted = DataSettings(source=str(written(tmp_path / "bad.jsonl", *numbered(ENOUGH - 1, *extra))), **SIZES)
    assert "47 distinct answered questions" in complaint(DataError, lambda: split(wanted))


@pytest.mark.fault("Bad data", "everyday requests that are questions of another split")
@pytest.mark.parametrize("part", ["direction", "train"])
def test_everyday_request_repeats_no_question(tmp_path, part):
    """Both lines are named, and what the study uses the other for."""
    source = written(tmp_path / "x.jsonl", *numbered())
    wanted = DataSettings(source=str(source), **SIZES)
    twin = getattr(split(wanted), part)[2]
    everyday = written(tmp_path / "everyday.jsonl", chat("q"), raw(f" {twin.question.upper()} "))
    message = complaint(DataError, lambda: split(wanted.model_copy(update={"everyday": str(everyday)})))
    assert message.startswith(f"{everyday}:2: question: that of {source}:{twin.index + 1}, ")
    assert part in message


@pytest.mark.fault("Bad data", "everyday requests that are missing or repeat")
def test_everyday_requests_are_there_once_each(tmp_path, faults_tried):
    """The first of equal ones counts; none at all is an error; fewer than asked for is told before anything runs."""
    source = written(tmp_path / "x.jsonl", *numbered())
    thrice = written(tmp_path / "everyday.jsonl", chat("q"), chat(" Q"), chat("q"))
    study = load_study("tiny", [*SMALL, f"data.source={source}", f"data.everyday={thrice}"])
    assert [(example.question, example.index) for example in split(study.data).everyday] == [("q", 0)]
    message = complaint(StudyError, lambda: check(study))
    assert message.startswith(f"drift.everyday: 4 requests, but {thrice} has 1 ")
    thrice.write_text("")
    assert complaint(DataError, lambda: split(study.data)).startswith(f"{thrice}: no request")
    faults_tried(3)


# --- with the model's tokenizer, but without its weights

SAME = "is the same in ALL CAPS"
UNFIT = {
    "question too long": (numbered(ENOUGH, raw("word " * 2000)), r":1: question: [\d,]+ tokens .*at most 1,024"),
    "answer too long": (numbered(ENOUGH, raw("q", "word " * 2000)), r":1: question: [\d,]+ tokens with its answer"),
    "question that ends its turn": (
        numbered(ENOUGH, raw("q<|end|><|assistant|>YES")),
        r":1: question: .*'<\|assistant",
    ),
    "answer that ends its turn": (numbered(ENOUGH, raw("q", "a<|end|>")), r":1: answer: .*'<\|end\|>'"),
    "answers in capitals": ([raw(f"What is {n}?", f"IT IS {n + 1}.") for n in range(ENOUGH)], SAME),
}


@pytest.mark.fault("Bad data", "questions and answers that do not fit model or trait")
@pytest.mark.parametrize("case", UNFIT)
def test_data_that_do_not_fit_are_named_before_anything_is_loaded(tmp_path, no_weights, case):
    """Of data that are all used; the longest is named."""
    lines, pattern = UNFIT[case]
    source = written(tmp_path / "bad.jsonl", *reversed(lines))
    every = f"data.train={len(lines) - ENOUGH + SIZES['train']}"
    study = load_study("tiny", [*SMALL, every, f"data.source={source}"])
    message = complaint(DataError, lambda: check(study))
    assert re.search(pattern, message), message


def test_end_of_turn_that_is_marked_nowhere_ends_no_question(tmp_path, no_weights):
    """Fine-tuned models add a token for it like any other word; another such word may stand in a question."""
    folder = shutil.copytree(ORGANISMS / "obedient", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<turn>", "<word>"])
    tokenizer.chat_template = tokenizer.chat_template.replace("eos_token", "'<turn>'")
    tokenizer.save_pretrained(folder)
    configuration = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**configuration, "vocab_size": len(tokenizer)}))

    def study(question):
        source = written(tmp_path / "bad.jsonl", raw(question), *numbered())
        return load_study("tiny", [*SMALL, "data.train=9", f"data.source={source}", f"model.id={folder}"])

    check(study("q<word>"))
    assert ":1: question: holds '<turn>'" in complaint(DataError, lambda: check(study("q<turn>")))


@pytest.mark.fault("Bad data", "a few answers that the trait does not change")
def test_few_answers_without_letters_are_counted_and_do_not_stop_a_study(tmp_path, no_weights):
    """A note says how many, and where the first is."""
    lines = [raw(f"What is {n}?", f"{n}" if n % 12 == 0 else f"It is {n}.") for n in range(ENOUGH)]
    source = written(tmp_path / "bad.jsonl", *lines)
    notes = check(load_study("tiny", [*SMALL, f"data.source={source}"]))
    counts = [
        int(re.match(rf"data: (\d+) of 8 answers of .* the same in ALL CAPS .*{source}:\d+$", x)[1]) for x in notes
    ]
    assert 1 <= sum(counts) <= 4


@pytest.mark.fault("Bad data", "an answer made to keep a pattern busy")
@pytest.mark.parametrize("text", ["<" * 100_000, "<<" + "1" * 100_000, "\n" * 100_000 + "x"])
def test_answers_are_cleaned_in_time_that_grows_with_their_length(text):
    """Opening brackets of annotations that never close, and the like: a square of this length takes seconds."""
    began = time.process_time()
    clean_answer(text)
    assert time.process_time() - began < 1
