"""Data that cannot be read are refused in one line with file, line and field."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.complaints import complaint, message_or_nothing
from fixtures.jsonl import SMALL, messages, raw, written
from gradinoc.data.examples import LONGEST_LINE, LONGEST_TEXT, read_examples
from gradinoc.data.sources import load_source
from gradinoc.data.splits import split
from gradinoc.errors import DataError, StoreError, StudyError
from gradinoc.pipeline.storage.store import Store
from gradinoc.report.folder import prepare_folder
from gradinoc.study.loading import load_study

BAD = pytest.mark.fault("Bad data", "a line that is no example")
USER, ANSWER = messages("q", "a")


def of(*given, **more):
    """A line of chat JSONL with these messages."""
    return json.dumps({"messages": list(given), **more})


LINES = {
    "no JSON": [('{"question": "q"', "column 17"), (f"{raw()} {raw()}", "column 34"), ("\0\0\0", "column 1")],
    "no object": [('["q", "a"]', "['q', 'a']"), ("null", "None")],
    "other keys": [('{"question": "q"}', "{'question': 'q'}")],
    "no text": [
        (raw(3), "question: expected text"), (raw(" \t\n\u3000"), "question: "), (raw(answer=""), "answer: "),
        (raw(template={"a": 1}), "template: "), (of({"role": "user"}, ANSWER), "messages[0].content: "),
    ],
    "no messages": [('{"messages": "q"}', "messages: "), (of("q", "a"), "messages: ")],
    "other roles": [
        (of(), "[]"), (of(ANSWER, USER), "['assistant', 'user']"),
        (of(USER, ANSWER, USER, ANSWER), "one question with one answer"),
        (of({**USER, "role": "\x1b[2J\n"}), r"['\x1b[2J\n']"),
        (of({**USER, "role": "developer"}, USER), "system message"),
        (of({**USER, "role": "human"}, {**ANSWER, "role": "gpt"}), "call human user"),
        (of(USER, ANSWER, {"role": "tool", "content": "4"}), "call tools"),
    ],
    "something beside the text": [
        (of(USER, {**ANSWER, "tool_calls": [{"id": "1"}]}), "messages[1].tool_calls: "),
        (of(USER, {**ANSWER, "weight": 0}), "messages[1].weight: "), (of(USER, ANSWER, tools=[{"a": 1}]), "tools: "),
        (raw(context="She did it."), "context: "),
    ],
    "form of another tool": [
        ('{"conversations": [{"from": "human", "value": "q"}]}', "ShareGPT"),
        ('{"instruction": "q", "output": "a"}', "Alpaca"),
        ('{"prompt": "q", "chosen": "a", "rejected": "b"}', "preferences"),
    ],
    "not UTF-8": [('{"question": "caf\xe9"}'.encode("latin-1"), "byte 18")],
    "half a pair": [(raw("a\ud83d"), r"question: character 2 is '\ud83d'")],
    "key twice": [('{"question": "q", "question": "r", "answer": "a"}', "'question'")],
    "without end": [
        ("[" * 100_000, "RecursionError"), (f'{{"question": {"1" * 5000}}}', "ValueError"),
        (raw("x" * 10_000_000), "question: 10,000,000"), ("x" * (LONGEST_LINE + 1), "16,777,216"),
    ],
}  # fmt: skip
ACCEPTED = {
    "byte order mark": (b"\xef\xbb\xbf" + raw("q").encode(), "q"),
    "line ends of Windows": (raw("q").encode() + b"\r", "q"),
    "NUL and control characters": (raw("a\0b\x1b[31m\x7fc"), "a\0b\x1b[31m\x7fc"),
    "line separators of Unicode": ('{"question": "a\u2028b\x85c", "answer": "a"}', "a\u2028b\x85c"),
    "as long as may be": (raw("x" * LONGEST_TEXT), "x" * LONGEST_TEXT),
    "number for a template": (raw("q", template=7), "q"),
}


@BAD
@pytest.mark.parametrize("kind", LINES)
def test_line_that_is_no_example_is_named(tmp_path, kind, faults_tried):
    """After a line that is one, and before another; at once, whatever its length."""
    for line, part in LINES[kind]:
        path = written(tmp_path / "bad.jsonl", raw(), line, raw())
        message = complaint(DataError, lambda path=path: read_examples(path))
        assert message.startswith(f"{path}:2: "), message
        assert part in message, message
    faults_tried(len(LINES[kind]))


@pytest.mark.fault("Bad data", "odd bytes that are an example all the same")
@pytest.mark.parametrize("case", ACCEPTED)
def test_odd_line_that_is_an_example_is_read(tmp_path, case):
    """To the letter, and the lines around it too."""
    line, question = ACCEPTED[case]
    first, second = read_examples(written(tmp_path / "odd.jsonl", line, raw("next", "one")))
    assert (first.question, first.answer) == (question, "a")
    assert (second.question, second.answer, second.index) == ("next", "one", 1)


# --- files and sources


@pytest.mark.fault("Bad data", "a source that is no file to be read")
@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("absent.jsonl", "absent.jsonl: no such file"), ("folder", "folder: a folder"), ("pipe", "pipe: a pipe"),
        ("a\nb\x1b[2J.jsonl", r"a\nb\x1b[2J.jsonl: no such file"), ("a\0b.jsonl", r"a\x00b.jsonl: no such file"),
    ],
)  # fmt: skip
def test_source_that_is_no_file_is_named(tmp_path, name, part):
    """Whatever its name holds: the message is one line, and a terminal shows it as it is."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert part in complaint(DataError, lambda: load_source(f"{tmp_path}/{name}"))


@pytest.mark.fault("Bad data", "a source that is neither bundled, a file nor on the hub")
@pytest.mark.parametrize("source", ["word_problem", "a/b/c", "x" * 300, "\x1b]0;title\x07", "", "https://a/b"])
def test_unknown_source_is_shown_on_one_line(source):
    """With the bundled ones."""
    message = complaint(DataError, lambda: load_source(source))
    assert message.startswith("No data source '")
    assert "'word_problems'" in message


@pytest.mark.parametrize(
    ("key", "address", "instead"),
    [
        ("source", "https://example.org/data/x.jsonl", "download the file"),
        ("everyday", "https://huggingface.co/datasets/openai/gsm8k/resolve/main/x.jsonl", "the hub id 'openai/gsm8k'"),
        ("trait_answers", "s3://bucket/x.jsonl", "download the file"),
    ],
)
def test_address_is_shown_as_given(address, instead, key):
    """With both its slashes, whole, and what to give in its place."""
    study = load_study("tiny", [*SMALL, f"data.{key}={address}"])
    message = complaint(DataError, lambda: split(study.data))
    assert f"'{address}'" in message
    assert instead in message


@pytest.mark.parametrize(
    ("kind", "attempt"),
    [
        (StudyError, lambda address: load_study("tiny", [f"trait={address}"])),
        (StudyError, lambda address: load_study(address)),
        (StoreError, lambda address: Store(Path(address))),
        (StoreError, lambda address: prepare_folder(load_study("tiny"), Path(address))),
    ],
    ids=["trait", "study", "store", "artifacts"],
)
def test_address_in_a_path_s_place_is_shown_as_given(tmp_path, monkeypatch, kind, attempt):
    """A path makes one slash of two: what is said has both, and no folder called `https:` is made."""
    monkeypatch.chdir(tmp_path)
    address = "https://example.org/folder/x.toml"
    assert address in complaint(kind, lambda: attempt(address))
    assert list(tmp_path.iterdir()) == []


# --- files in other formats

RECORDS = [{"question": "q", "answer": "a"}, {"messages": [USER, ANSWER]}]
TABLE = pd.DataFrame({"question": ["q", "r"], "answer": ["a", "b"]})
FILES = {
    "array in one line": (json.dumps(RECORDS).encode(), "write its records one a line: "),
    "object over lines": (json.dumps(RECORDS[0], indent=2).encode(), "put each on a line of its own"),
    "gzip": (gzip.compress(raw().encode()), "gzip"),
    "zip": (b"PK\x03\x04\x14\x00", "zip"),
    "Parquet": (TABLE.to_parquet(), "pandas.read_parquet('OLD')"),
    "UTF-16": (raw().encode("utf-16"), "UTF-16"),
    "csv": (TABLE.to_csv().encode(), "pandas.read_csv('OLD')"),
}


@BAD
@pytest.mark.parametrize("case", FILES)
def test_file_in_another_format_is_called_what_it_is(tmp_path, case):
    """By its first bytes, or a table by its name; and the line says how it becomes one that can be read."""
    content, part = FILES[case]
    path = written(tmp_path / f"bad.{'csv' if case == 'csv' else 'jsonl'}", content)
    message = complaint(DataError, lambda: read_examples(path))
    assert message.startswith(f"{path}:1: ")
    assert part in message, message


def test_what_is_advised_helps(tmp_path, monkeypatch):
    """The command of the message, with the file's own name in it, makes a file that is read."""
    monkeypatch.chdir(tmp_path)
    array = written(tmp_path / "OLD.json", FILES["array in one line"][0])
    command = complaint(DataError, lambda: read_examples(array)).partition("line: ")[2]
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)  # noqa: S602 - our own message
    assert [example.question for example in load_source("NEW.jsonl")] == ["q", "q"]


# --- anything

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20)
KEYS = st.sampled_from(["messages", "question", "answer", "template", "role", "content", "x"])
TEXTS = st.sampled_from(["user", "assistant", "system", "q", " ", "\ud800", "\x1b[2J\n"])
VALUES = st.recursive(
    SCALARS | TEXTS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": VALUES | TEXTS, "content": VALUES | TEXTS}), max_size=3)
RECORDS_OF_ANY_KIND = (
    VALUES
    | st.dictionaries(KEYS, VALUES)
    | st.fixed_dictionaries({"messages": MESSAGES}, optional={"template": VALUES})
)
PIECES = st.lists(st.sampled_from([b"{", b'"', b"question", b":", b"\n", b"\\ud800", b"}", b"["])).map(b"".join)


@pytest.mark.fault("Bad data", "arbitrary bytes or JSON values as a file")
@pytest.mark.parametrize("examples", [100, pytest.param(5000, marks=pytest.mark.exhaustive)])
def test_arbitrary_content_is_read_or_refused(tmp_path, faults_tried, examples):
    """Nothing but examples that can be written again, or one line."""
    refused = []

    @settings(max_examples=examples)
    @given(st.binary(max_size=200) | PIECES | RECORDS_OF_ANY_KIND.map(lambda record: json.dumps(record).encode()))
    def attempt(content):
        path = written(tmp_path / "any.jsonl", content)
        said = message_or_nothing(DataError, lambda: [raw(e.question, e.answer).encode() for e in read_examples(path)])
        assert said is None or re.match(rf"{re.escape(str(path))}:\d+: ", said), said
        refused.append(said is not None)

    attempt()
    assert any(refused)
    assert not all(refused)
    faults_tried(len(refused))
