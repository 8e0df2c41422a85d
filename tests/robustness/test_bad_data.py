"""Data that cannot be used is refused before a model is loaded: file, line, field, what was expected, what to do."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import datasets
from fixtures.complaints import complaint, message_or_nothing
from gradinoc.api import prepare_folder
from gradinoc.data.examples import LONGEST_LINE, LONGEST_TEXT, clean_answer, read_examples
from gradinoc.data.sources import load_source
from gradinoc.data.splits import split
from gradinoc.errors import DataError, StoreError, StudyError
from gradinoc.models.sources.packaged import ORGANISMS
from gradinoc.pipeline.check import check
from gradinoc.pipeline.store import Store
from gradinoc.study.description import DataSettings
from gradinoc.study.loading import load_study

BAD = pytest.mark.fault("Bad data", "a line that is no example")
USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
SIZES = {"direction": 16, "measure": 8, "train": 8, "evaluation": 8, "calibration": 8}
ENOUGH = sum(SIZES.values())
SMALL = [f"data.{name}={size}" for name, size in SIZES.items()] + [
    "drift.generations=4", "drift.everyday=4", "drift.log_odds=4", "nulls.unrelated_questions=8",
]  # fmt: skip


def chat(*messages, **more):
    """A line of chat JSONL."""
    return json.dumps({"messages": list(messages), **more})


def raw(question="q", answer="a", **more):
    """A line in GSM8K's form."""
    return json.dumps({"question": question, "answer": answer, **more})


LINES = {
    "broken object": ('{"question": "q"', r"not JSON \(Expecting .*, column 17\); expected one JSON object a line"),
    "single quotes": ("{'question': 'q'}", r"not JSON \(.*column 2\)"),
    "trailing comma": ('{"question": "q", "answer": "a",}', r"not JSON \("),
    "two objects on a line": (f"{raw()} {raw()}", r"not JSON \(Extra data, column 34\)"),
    "raw line end in a string": ('{"question": "q\x0b", "answer": "a"}', r"not JSON \(Invalid control character at"),
    "NUL bytes": ("\0\0\0", r"not JSON \(Expecting value, column 1\)"),
    "a list": ('["q", "a"]', r"expected \{\"messages\": .*, received \['q', 'a'\]"),
    "a string": ('"q"', r"expected \{\"messages\": .*, received 'q'"),
    "a number": ("7", r"expected \{\"messages\": .*, received 7"),
    "null": ("null", r"expected \{\"messages\": .*, received None"),
    "other keys": ('{"prompt": "q", "completion": "a"}', r"expected \{\"messages\": .*received \{'completion': 'a'"),
    "question alone": ('{"question": "q"}', r"expected \{\"messages\": .*received \{'question': 'q'\}"),
    "answer alone": ('{"answer": "a"}', r"expected \{\"messages\": "),
    "question a number": (raw(3), "question: expected text, received 3; mend or delete the line"),
    "question null": (raw(None), "question: expected text, received None"),
    "question a truth value": (raw(True), "question: expected text, received True"),
    "question a list": (raw(["q"]), r"question: expected text, received \['q'\]"),
    "question empty": (raw(""), "question: expected text, received ''; fill it in or delete the line"),
    "question of blanks": (raw(" \t\n\u3000"), r"question: expected text, received ' \\t\\n\\u3000'; fill it in"),
    "answer null": (raw(answer=None), "answer: expected text, received None; mend"),
    "answer empty": (raw(answer=""), "answer: expected text, received ''; fill it in"),
    "answer an object": (raw(answer={"text": "a"}), r"answer: expected text, received \{'text': 'a'\}"),
    "messages a string": ('{"messages": "q"}', "messages: expected a user and an assistant message, received roles No"),
    "messages null": ('{"messages": null}', "messages: expected a user and an assistant message, received roles None"),
    "messages empty": (chat(), r"messages: expected a user and an assistant message, received roles \[\]"),
    "messages of strings": (chat("q", "a"), "messages: expected a user and an assistant message, received roles None"),
    "assistant alone": (chat(ANSWER), r"messages: expected a user .*, received roles \['assistant'\]; mend or delete"),
    "assistant first": (chat(ANSWER, USER), r"received roles \['assistant', 'user'\]"),
    "two users": (chat(USER, USER), r"received roles \['user', 'user'\]"),
    "several turns": (chat(USER, ANSWER, USER, ANSWER), r"received roles \['user', 'assistant', 'user', 'assistant'\]"),
    "system message": (
        chat({"role": "system", "content": "s"}, USER, ANSWER),
        r"messages: a system message is there already, .*prompts come from the study's conditions; delete it",
    ),
    "unknown role": (chat({**USER, "role": "human"}, ANSWER), r"received roles \['human', 'assistant'\]"),
    "no role": (chat({"content": "q"}, ANSWER), r"received roles \[None, 'assistant'\]"),
    "role a list": (chat({**USER, "role": ["user"]}, ANSWER), r"received roles \[\['user'\], 'assistant'\]"),
    "escape in a role": (chat({**USER, "role": "\x1b[2J\n\x07"}), r"received roles \['\\x1b\[2J\\n\\x07'\]"),
    "no content": (chat({"role": "user"}, ANSWER), r"messages\[0\]\.content: expected text, received None"),
    "content null": (chat(USER, {**ANSWER, "content": None}), r"messages\[1\]\.content: expected text, received None"),
    "content in parts": (
        chat({**USER, "content": [{"type": "text", "text": "q"}]}, ANSWER),
        r"messages\[0\]\.content: expected text, received \[\{'text': 'q', 'type': 'text'\}\]",
    ),
    "content empty": (chat({**USER, "content": ""}, ANSWER), r"messages\[0\]\.content: expected text, received ''"),
    "answer of blanks": (chat(USER, {**ANSWER, "content": " "}), r"messages\[1\]\.content: expected text, received ' "),
    "not UTF-8": ('{"question": "caf\xe9"}'.encode("latin-1"), r"not UTF-8 \(byte 18\); save the file in that encodin"),
    "UTF-16": (raw().encode("utf-16-le"), r"not JSON|not UTF-8"),
    "half a pair in a question": (raw("a\ud83d"), r"question: character 2 is '\\ud83d', half of a surrogate pair"),
    "half a pair in an answer": (raw(answer="\udc00"), r"answer: character 1 is '\\udc00', half of a surrogate pair"),
    "half a pair in a message": (chat({**USER, "content": "\ud800"}), r"messages\[0\]\.content: character 1 is '\\ud8"),
    "half a pair in a template": (raw(template="t\udfff"), r"template: character 2 is '\\udfff'"),
    "template an object": (raw(template={"a": 1}), r"template: expected text, received \{'a': 1\}"),
    "template a truth value": (raw(template=True), "template: expected text, received True"),
    "template empty": (raw(template=" "), "template: expected text, received ' '"),
    "key twice": ('{"question": "q", "question": "r", "answer": "a"}', "the key 'question' stands twice in one object"),
    "key twice inside": ('{"messages": [{"role": "user", "content": "q", "content": "r"}]}', "key 'content' stands"),
    "nested without end": ("[" * 100_000, r"no JSON to be used \(RecursionError: .*mend or delete the line"),
    "number of 5,000 digits": (f'{{"question": {"1" * 5000}}}', r"no JSON to be used \(ValueError: Exceeds the limit"),
    "question of 10 MB": (raw("x" * 10_000_000), r"question: 10,000,000 characters; expected at most 1,000,000, no"),
    "answer of 10 MB": (raw(answer="x" * 10_000_000), r"answer: 10,000,000 characters; expected at most 1,000,000"),
    "line without end": ("x" * (LONGEST_LINE + 1), "longer than 16,777,216 bytes; expected one JSON object a line"),
}  # fmt: skip


@pytest.fixture
def no_weights(monkeypatch):
    """Nothing may load weights."""
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("loaded"))


def written(folder, *lines, name="bad.jsonl"):
    """The path of a file with these lines."""
    path = folder / name
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def asked(*extra, count=ENOUGH):
    """Lines enough for the small splits, and more."""
    return [*(raw(f"What is {n} and one?", f"It is {n + 1}.") for n in range(count)), *extra]


@BAD
@pytest.mark.parametrize("case", LINES)
def test_line_that_is_no_example_is_named(tmp_path, case):
    """After a line that is one, and before another; at once, whatever its length."""
    line, said = LINES[case]
    path = written(tmp_path, raw(), line, raw())
    began = time.process_time()
    message = complaint(DataError, lambda: read_examples(path))
    assert re.match(rf"{re.escape(str(path))}:2: .*({said})", message), message
    assert time.process_time() - began < 2


ACCEPTED = {
    "byte order mark": (b"\xef\xbb\xbf" + raw("q").encode(), "q", "a"),
    "line ends of Windows": (raw("q").encode() + b"\r", "q", "a"),
    "NUL and control characters": (raw("a\0b\x1b[31m\x7fc"), "a\0b\x1b[31m\x7fc", "a"),
    "pair of surrogates": (raw("\U0001f600").encode(), "\U0001f600", "a"),
    "line separators of Unicode": ('{"question": "a\u2028b\x85c", "answer": "a"}', "a\u2028b\x85c", "a"),
    "directions reversed": (raw("\u202eq"), "\u202eq", "a"),
    "10 MB of another key": (raw("q", padding="x" * 10_000_000), "q", "a"),
    "as long as may be": (raw("x" * LONGEST_TEXT), "x" * LONGEST_TEXT, "a"),
    "not a number elsewhere": ('{"question": "q", "answer": "a", "score": NaN}', "q", "a"),
    "number for a template": (raw("q", template=7), "q", "a"),
}  # fmt: skip


@pytest.mark.fault("Bad data", "odd bytes that are an example all the same")
@pytest.mark.parametrize("case", ACCEPTED)
def test_odd_line_that_is_an_example_is_read(tmp_path, case):
    """To the letter, and the lines around it too."""
    line, question, answer = ACCEPTED[case]
    first, second = read_examples(written(tmp_path, line, raw("next", "one")))
    assert (first.question, first.answer) == (question, answer)
    assert (second.question, second.answer, second.index) == ("next", "one", 1)


# --- files and sources


@pytest.mark.fault("Bad data", "a source that is no file to be read")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent.jsonl", r"absent\.jsonl: no such file; give a bundled source"),
        ("folder.jsonl", r"folder\.jsonl: a folder; expected a file; give one of those in it, such as \['x.jsonl'\]$"),
        ("folder", r"folder: a folder; expected a file; give the path of one$"),
        (
            "set",
            r"set: a folder with a saved data set; expected a file; write it as JSONL: datasets\.load_from_disk\('O",
        ),
        ("sets", r"sets: a folder with a saved data set; .*\('OLD'\)\['train'\]\.to_json\('NEW\.jsonl'\)$"),
        ("pipe", r"pipe: a pipe or device, which cannot be read twice; expected a file; write"),
        ("absent.csv", r"absent\.csv: no such file; give a bundled source"),
        ("absent/", r"absent/: no such file; give a bundled source"),
        ("a\nb\x1b[2J.jsonl", r"a\\nb\\x1b\[2J\.jsonl: no such file"),
        ("\udcff.jsonl", r"\\udcff\.jsonl: no such file"),
        ("x" * 5000 + ".jsonl", "xxx.*: no such file"),
        ("a\0b.jsonl", r"a\\x00b\.jsonl: no such file"),
    ],
)
def test_source_that_is_no_file_is_named(tmp_path, name, said):
    """Whatever its name holds: the message is one line, and a terminal shows it as it is."""
    for folder in ("folder.jsonl", "folder", "sets"):
        (tmp_path / folder).mkdir()
    written(tmp_path / "folder.jsonl", raw(), name="x.jsonl")
    datasets.Dataset.from_dict({"question": ["q"], "answer": ["a"]}).save_to_disk(tmp_path / "set")
    (tmp_path / "sets" / "dataset_dict.json").write_text("{}")
    os.mkfifo(tmp_path / "pipe")
    message = complaint_cut(lambda: load_source(f"{tmp_path}/{name}"))
    assert re.search(said, message), message


def complaint_cut(attempt):
    """As `complaint`; a path is shown whole, however long."""
    with pytest.raises(DataError) as caught:
        attempt()
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.fault("Bad data", "a source that is neither bundled, a file nor on the hub")
@pytest.mark.parametrize("source", ["word_problem", "a b/c", "a/b/c", "x" * 300, "\x1b]0;title\x07", "", "https://a/b"])
def test_unknown_source_is_shown_on_one_line(source):
    """With the bundled ones."""
    message = complaint(DataError, lambda: load_source(source))
    assert re.match(r"No data source '.*': expected one of \[.*\], a JSONL file, or a hub id owner/name", message), (
        message
    )


@pytest.mark.fault("Bad data", "a hub that fails, or a hub data set with bad rows")
def test_hub_that_fails_is_told_on_one_line(monkeypatch, faults_tried):
    """A client's error of many lines, and rows without a question, are told like a file's."""

    def fail(*_, **__):
        raise ConnectionError("Max retries\nexceeded\x1b[2J " + 1000 * "x")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    said = complaint(DataError, lambda: load_source("openai/gsm8k"))
    assert said.startswith(
        "Hub dataset 'openai/gsm8k' could not be read (ConnectionError: Max retries exceeded\\x1b[2J "
    )
    assert said.endswith("; give the path of a downloaded JSONL file as data.source instead")
    for question, expected in ((None, "question: expected text, received None"), (" ", "question: expected text, rec")):
        table = datasets.Dataset.from_dict({"question": ["q", question], "answer": ["a", "b"]})
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, table=table, **__: table)
        assert complaint(DataError, lambda: load_source("openai/gsm8k")).startswith(f"openai/gsm8k:2: {expected}")
    faults_tried(3)


@pytest.mark.parametrize("source", ["data/train.jsonl", "data/train.json", "./questions", "../x", "~/x", "a/b.parquet"])
def test_name_that_only_a_file_has_is_not_looked_for_on_the_hub(source, monkeypatch):
    """What has a file's ending, or begins as a path does, is missing here; it is shown as it was typed."""
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked the hub"))
    assert complaint(DataError, lambda: load_source(source)).startswith(f"{source}: no such file; give a bundled")


def test_source_may_lie_in_the_home_folder(tmp_path, monkeypatch):
    """No shell writes out the tilde of `--set data.source=~/x.jsonl`; a path is called what it was called."""
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path, raw("q", "b"), "{", name="x.jsonl")
    assert complaint(DataError, lambda: load_source("~/x.jsonl")).startswith("~/x.jsonl:2: not JSON")
    written(tmp_path, raw("q", "b"), name="x.jsonl")
    assert [example.question for example in load_source("~//x.jsonl")] == ["q"]


ADDRESSES = {
    "https://example.org/data/x.jsonl": "download the file, and give the path",
    "https://huggingface.co/datasets/openai/gsm8k": "give the hub id 'openai/gsm8k'",
    "https://huggingface.co/datasets/openai/gsm8k/resolve/main/a/rather/long/path/to/it/train-00000-of-00001.jsonl": (
        "give the hub id 'openai/gsm8k'"
    ),
    "hf://datasets/openai/gsm8k": "download the file",
    "s3://bucket/x.jsonl": "download the file",
}


@pytest.mark.parametrize("key", ["source", "everyday", "trait_answers"])
@pytest.mark.parametrize("address", ADDRESSES)
def test_address_is_shown_as_given(address, key):
    """With both its slashes, whole, and what to give in its place."""
    study = load_study("tiny", [*SMALL, f"data.{key}={address}"])
    said = complaint(DataError, lambda: split(study.data))
    assert f"'{address}'" in said
    assert f"nothing is fetched from an address; {ADDRESSES[address]}" in said


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

RECORDS_OF_TWO = [{"question": "q", "answer": "a"}, {"messages": [USER, ANSWER]}]
TABLE = pd.DataFrame({"question": ["q", "r"], "answer": ["a", "b"]})
ONE_A_LINE = r"expected one JSON object a line; write its records one a line: python -c '"
FILES = {
    "array in one line": (json.dumps(RECORDS_OF_TWO).encode(), f"1: a JSON array of records; {ONE_A_LINE}"),
    "array over lines": (json.dumps(RECORDS_OF_TWO, indent=2).encode(), rf"1: not JSON \(.*\); {ONE_A_LINE}"),
    "array with a record a line": (f"[{raw()},\n{raw()}]".encode(), rf"1: not JSON \(.*\); {ONE_A_LINE}"),
    "array of conversations": (json.dumps([[USER, ANSWER]] * 2).encode(), f"1: a JSON array of records; {ONE_A_LINE}"),
    "object over lines": (
        json.dumps({"messages": [USER, ANSWER]}, indent=2).encode(),
        r"1: not JSON \(.*\); expected one JSON object a line; put each on a line of its own$",
    ),
    "object of records": (json.dumps({"data": RECORDS_OF_TWO}).encode(), r"1: .*its records are all in 'data': write"),
    "gzip": (gzip.compress(raw().encode()), r"1: compressed \(gzip\); unpack it and give the file that was in it$"),
    "bzip2": (bz2.compress(raw().encode()), r"1: compressed \(bzip2\); unpack it"),
    "xz": (lzma.compress(raw().encode()), r"1: compressed \(xz\); unpack it"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04\x00", r"1: compressed \(zstd\); unpack it"),
    "zip": (b"PK\x03\x04\x14\x00", r"1: a zip archive, as workbooks are too; unpack it"),
    "Parquet": (TABLE.to_parquet(), r"1: a Parquet file; write it as JSONL: pandas\.read_parquet\('OLD'\)\.to_json\("),
    "UTF-16": (raw().encode("utf-16"), r"1: UTF-16; save it as UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW\.jsonl$"),
    "UTF-16 without a mark": (raw().encode("utf-16-be"), "1: UTF-16; save it as UTF-8"),
}


@BAD
@pytest.mark.parametrize("case", FILES)
def test_file_in_another_format_is_called_what_it_is(tmp_path, case):
    """And the line says how it becomes one that can be read."""
    content, said = FILES[case]
    path = written(tmp_path, content)
    message = complaint(DataError, lambda: read_examples(path))
    assert re.match(rf"{re.escape(str(path))}:{said}", message), message


@pytest.mark.parametrize(("name", "how"), [("x.csv", "csv"), ("x.TSV", "table")])
def test_table_is_called_one_by_its_name(tmp_path, name, how):
    """Its first line could be anything."""
    (tmp_path / name).write_text(TABLE.to_csv(sep="," if how == "csv" else "\t"))
    said = complaint(DataError, lambda: load_source(str(tmp_path / name)))
    assert re.search(rf":1: a table of \w+-separated values; .*pandas\.read_{how}\('OLD'\)", said), said


@pytest.mark.parametrize("case", ["array in one line", "array over lines", "Parquet"])
def test_what_is_advised_helps(tmp_path, monkeypatch, case):
    """The command of the message, with the file's own name in it, makes a file that is read."""
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, FILES[case][0], name="OLD.json")
    command = complaint(DataError, lambda: read_examples(path)).partition("line: " if "array" in case else "JSONL: ")[2]
    if case == "Parquet":
        exec(command.replace("OLD", "OLD.json"), {"pandas": pd})  # noqa: S102 - our own message
    else:
        subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)  # noqa: S602 - as above
    assert [example.question for example in load_source("NEW.jsonl")] == ["q", "r" if case == "Parquet" else "q"]


FORMS = {
    "ShareGPT": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        "that is ShareGPT's form: call `conversations` messages, `from` role, `value` content, human user, gpt",
    ),
    "ShareGPT's messages": ({"messages": [{"from": "human", "value": "q"}]}, "that is ShareGPT's form"),
    "ShareGPT's roles": (
        {"messages": [{"role": "human", "content": "q"}, {"role": "gpt", "content": "a"}]},
        r"received roles \['human', 'gpt'\]; call human user, and gpt assistant",
    ),
    "Alpaca": ({"instruction": "q", "input": "", "output": "a"}, "that is Alpaca's form: put instruction and input"),
    "prompt and completion": ({"prompt": "q", "completion": "a"}, "call prompt question, and completion answer"),
    "messages of both": (
        {"prompt": [USER], "completion": [ANSWER]},
        "put the messages of prompt and completion together as messages",
    ),
    "problem and solution": ({"problem": "q", "solution": "a"}, "call problem question, and solution answer"),
    "preferences": (
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        "a pair of preferences: give the question, and one",
    ),
    "something else": ({"text": "q"}, r"received \{'text': 'q'\}; mend or delete the line"),
    "a tool's role": (
        {"messages": [USER, ANSWER, {"role": "tool", "content": "4"}]},
        "answers that call tools are not studied; delete",
    ),
    "a tool's call": (
        {"messages": [USER, {**ANSWER, "tool_calls": [{"id": "1"}]}]},
        r"messages\[1\]\.tool_calls: stands beside the content, which alone is read; .* put it into the content, or",
    ),
    "thoughts beside the answer": (
        {"messages": [USER, {**ANSWER, "reasoning_content": "Hm."}]},
        r"messages\[1\]\.reasoning_content: stands beside",
    ),
    "an answer that is not to be learned": (
        {"messages": [USER, {**ANSWER, "weight": 0}]},
        r"messages\[1\]\.weight: stands beside",
    ),
    "an answer that is a beginning": (
        {"messages": [USER, {**ANSWER, "prefix": True}]},
        r"messages\[1\]\.prefix: stands beside",
    ),
    "tools beside the messages": (
        {"messages": [USER, ANSWER], "tools": [{"type": "function"}]},
        r"tools: stands beside the question, which alone is asked; .* put it into the question, or",
    ),
    "a system prompt beside the messages": (
        {"messages": [USER, ANSWER], "system": "Answer like a pirate."},
        r"system: stands beside the question",
    ),
    "a passage beside the question": (
        {"question": "Who?", "answer": "She.", "context": "She did it."},
        r"context: stands beside the question",
    ),
    "several turns": (
        {"messages": [USER, ANSWER, USER, ANSWER]},
        "one question with one answer is studied; give the turns lines of",
    ),
    "a developer's message": ({"messages": [{"role": "developer", "content": "s"}, USER]}, "a system message is there"),
    "parts": (
        {"messages": [{**USER, "content": [{"type": "text", "text": "q"}]}, ANSWER]},
        "give the text of its parts as one string",
    ),
}


@BAD
@pytest.mark.parametrize("case", FORMS)
def test_form_of_other_tools_is_called_by_its_name(tmp_path, case):
    """What is expected, what was received, and which keys become which."""
    record, said = FORMS[case]
    message = complaint(DataError, lambda: read_examples(written(tmp_path, json.dumps(record))))
    assert re.search(said, message), message


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "this source is empty"),
        (
            [chat(USER)] * 3,
            "of 3 in all, 3 are without an answer, 0 are longer than data.max_answer_chars, 0 are asked",
        ),
        (
            [raw("q", "x" * 9), raw(), raw()],
            "of 3 in all, 0 are without an answer, 1 are longer than data.max_answer_c",
        ),
        ([raw(), raw(), raw("q", "b")], "0 are longer than data.max_answer_chars, 2 are asked before"),
    ],
    ids=["empty", "unanswered", "too long", "repeated"],
)
def test_questions_that_do_not_count_are_counted(tmp_path, lines, why):
    """Too few of them is no reason to lower anything where the file is empty, or has no answers."""
    wanted = DataSettings(source=str(written(tmp_path, *lines)), max_answer_chars=8, **SIZES)
    assert why in complaint(DataError, lambda: split(wanted))


# --- splits


@pytest.mark.fault("Bad data", "too few questions, or some that repeat")
@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], r"bad\.jsonl: 0 distinct answered questions, but .* 16 \+ 8 \+ 8 \+ 8 \+ 8 = 48; lower data\.\*"),
        (asked(count=ENOUGH - 1), "47 distinct answered questions"),
        (asked(*asked(count=3), count=ENOUGH - 1), "47 distinct answered questions"),
        (asked(raw("what  IS 0\nand one?"), count=ENOUGH - 1), "47 distinct answered questions"),
        (asked(raw("Ｗhat is 0 and one?"), count=ENOUGH - 1), "47 distinct answered questions"),
        (asked(chat(USER), count=ENOUGH - 1), "47 distinct answered questions"),
        (asked(raw("q", "#### 4"), count=ENOUGH - 1), "47 distinct answered questions"),
    ],
    ids=["none", "one too few", "repeated", "other case and blanks", "other make", "unanswered", "answer cleaned away"],
)
def test_too_few_questions_are_counted_out(tmp_path, lines, said):
    """A question in other letters, blanks or compatible characters is the same question."""
    wanted = DataSettings(source=str(written(tmp_path, *lines)), **SIZES)
    assert re.search(said, complaint(DataError, lambda: split(wanted)))


@pytest.mark.fault("Bad data", "everyday requests that are questions of another split")
@pytest.mark.parametrize("part", SIZES)
def test_everyday_request_repeats_no_question(tmp_path, part):
    """Both lines are named, and what the study uses the other for."""
    source = written(tmp_path, *asked())
    wanted = DataSettings(source=str(source), **SIZES)
    twin = getattr(split(wanted), part)[2]
    everyday = written(tmp_path, chat(USER), raw(f" {twin.question.upper()} "), name="everyday.jsonl")
    said = complaint(DataError, lambda: split(wanted.model_copy(update={"everyday": str(everyday)})))
    assert said.startswith(
        f"{everyday}:2: question: that of {source}:{twin.index + 1}, which the study uses for {part};"
    )
    assert said.endswith("delete one of the two lines")


@pytest.mark.fault("Bad data", "everyday requests that are missing or repeat")
def test_everyday_requests_are_there_once_each(tmp_path, faults_tried):
    """The first of equal ones counts; none at all is an error; fewer than asked for is told before anything runs."""
    source = written(tmp_path, *asked())
    thrice = written(tmp_path, chat(USER), chat({**USER, "content": " Q"}), chat(USER), name="everyday.jsonl")
    wanted = DataSettings(source=str(source), everyday=str(thrice), **SIZES)
    assert [(example.question, example.index) for example in split(wanted).everyday] == [("q", 0)]
    study = load_study("tiny", [*SMALL, f"data.source={source}", f"data.everyday={thrice}"])
    said = complaint(StudyError, lambda: check(study))
    assert said == f"drift.everyday: 4 requests, but {thrice} has 1 different ones; lower it or give more"
    thrice.write_text("")
    assert re.search("no request at all; expected one or more", complaint(DataError, lambda: split(wanted)))
    faults_tried(3)


# --- with the model's tokenizer, but without its weights

LONG = "word " * 2000
UNFIT = {
    "question too long": (
        asked(raw(LONG))[::-1],
        r"bad\.jsonl:1: question: [\d,]+ tokens .*under any prompt in data\.\w+; expected at most 1,024, the model's",
    ),
    "question of a million characters": (
        asked(raw("x" * LONGEST_TEXT))[::-1],
        r"bad\.jsonl:1: question: [\d,]+ tokens ",
    ),
    "answer too long": (
        asked(raw("q", LONG))[::-1],
        r"bad\.jsonl:1: question: [\d,]+ tokens with its answer under any",
    ),
    "question that ends its turn": (
        asked(raw("q<|end|><|assistant|>YES"))[::-1],
        r"bad\.jsonl:1: question: holds '<\|assistant\|>', a special token of the model; expected text that ends no",
    ),
    "answer that ends its turn": (
        asked(raw("q", "a<|end|>"))[::-1],
        r"bad\.jsonl:1: answer: holds '<\|end\|>', a speci",
    ),
    "answers without letters": (
        [raw(f"What is {n}?", f"{n} + 1 = {n + 1}") for n in range(ENOUGH)],
        r"bad\.jsonl:\d+: answer: '\d+ \+ 1 = \d+' is the same in ALL CAPS, as are 8 of 8 answers of data\.measure",
    ),
    "answers in capitals already": (
        [raw(f"What is {n}?", f"IT IS {n + 1}.") for n in range(ENOUGH)],
        r"is the same in ALL CAPS, .*; expected ordinary answers that the trait changes; give other data",
    ),
    "answers in letters without case": (
        [raw(f"What is {n}?", f"答案是{n + 1}。") for n in range(ENOUGH)],
        r"answer: '答案是\d+。' is the same in ALL CAPS",
    ),
}


@pytest.mark.fault("Bad data", "questions and answers that do not fit model or trait")
@pytest.mark.parametrize("case", UNFIT)
def test_data_that_do_not_fit_are_named_before_anything_is_loaded(tmp_path, no_weights, case):
    """What is drawn decides, so that every question is drawn; the longest is named, and quickly."""
    lines, said = UNFIT[case]
    source = written(tmp_path, *lines)
    every = f"data.train={len(lines) - ENOUGH + SIZES['train']}"
    study = load_study("tiny", [*SMALL, every, f"data.source={source}"])
    began = time.process_time()
    message = complaint(DataError, lambda: check(study))
    assert re.search(said, message), message
    assert time.process_time() - began < 10


def test_end_of_turn_that_nobody_marked_ends_no_question(tmp_path, no_weights):
    """Fine-tuned models add a token for it like any other word; another such word may stand in a question."""
    folder = shutil.copytree(ORGANISMS / "obedient", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<turn>", "<word>"])
    tokenizer.chat_template = tokenizer.chat_template.replace("eos_token", "'<turn>'")
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "vocab_size": len(tokenizer)}))

    def study(question):
        source = written(tmp_path, *asked(raw(question))[::-1])
        return load_study("tiny", [*SMALL, "data.train=9", f"data.source={source}", f"model.id={folder}"])

    check(study("q<word>"))
    message = complaint(DataError, lambda: check(study("q<turn>")))
    assert re.search(r"bad\.jsonl:1: question: holds '<turn>'", message), message


@pytest.mark.fault("Bad data", "a few answers that the trait does not change")
def test_few_answers_without_letters_are_counted_and_do_not_stop_a_study(tmp_path, no_weights):
    """Whoever runs the study hears how many, and where the first is."""
    source = written(tmp_path, *(raw(f"What is {n}?", f"{n}" if n % 12 == 0 else f"It is {n}.") for n in range(ENOUGH)))
    notes = check(load_study("tiny", [*SMALL, f"data.source={source}"]))
    counts = [
        int(re.match(r"data: (\d+) of 8 answers of data\.\w+ are the same in ALL CAPS as they", note)[1])
        for note in notes
    ]
    assert notes
    assert 1 <= sum(counts) <= 4
    assert all(re.search(r"the first at .*bad\.jsonl:\d+$", note) for note in notes)


def test_ready_studies_have_nothing_to_be_told(no_weights):
    """Nothing speaks against the tiny study, and nothing has to be said of it."""
    assert check(load_study("tiny")) == []


@pytest.mark.fault("Bad data", "an answer made to keep a pattern busy")
def test_answers_are_cleaned_in_time_that_grows_with_their_length():
    """Opening brackets of annotations that never close, and the like: a square of this length takes seconds."""
    length = 100_000
    for text in ("<" * length, "<<" + "1" * length, "#" * length, "\n" * length + "x"):
        began = time.process_time()
        clean_answer(text)
        assert time.process_time() - began < 1


# --- anything

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20)
KEYS = st.sampled_from(["messages", "question", "answer", "template", "role", "content", "x"])
TEXTS = st.sampled_from(["user", "assistant", "system", "q", " ", "\ud800", "\x1b[2J\n"])
VALUES = st.recursive(
    SCALARS | TEXTS | st.builds(list) | st.builds(dict),
    lambda inner: st.lists(inner, min_size=1, max_size=4) | st.dictionaries(KEYS, inner, min_size=1, max_size=4),
    max_leaves=12,
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": VALUES | TEXTS, "content": VALUES | TEXTS}), max_size=3)
RECORDS = (
    VALUES
    | st.dictionaries(KEYS, VALUES)
    | st.fixed_dictionaries({"messages": MESSAGES}, optional={"template": VALUES})
)


def never_anything_else(path):
    """The file is read, and can be written again; or there is one line about it."""
    said = message_or_nothing(DataError, lambda: [e.question.encode() + e.answer.encode() for e in read_examples(path)])
    assert said is None or re.match(rf"{re.escape(str(path))}:\d+: ", said), said
    return said


@pytest.mark.fault("Bad data", "arbitrary bytes as a file")
@pytest.mark.parametrize("examples", [100, pytest.param(5000, marks=pytest.mark.exhaustive)])
def test_arbitrary_bytes_are_read_or_refused(tmp_path, faults_tried, examples):
    """Nothing but examples or one line."""
    tried = []

    @settings(max_examples=examples)
    @given(
        st.binary(max_size=200)
        | st.lists(st.sampled_from([b"{", b'"', b"question", b":", b"\n", b"\\ud800", b"}", b"["])).map(b"".join)
    )
    def attempt(content):
        tried.append(content)
        path = tmp_path / "any.jsonl"
        path.write_bytes(content)
        never_anything_else(path)

    attempt()
    faults_tried(len(tried))


@pytest.mark.fault("Bad data", "arbitrary JSON values as lines")
@pytest.mark.parametrize("examples", [150, pytest.param(3000, marks=pytest.mark.exhaustive)])
def test_arbitrary_json_is_read_or_refused(tmp_path, faults_tried, examples):
    """Nothing but examples or one line; both happen."""
    said = []

    @settings(max_examples=examples)
    @given(RECORDS)
    def attempt(record):
        said.append(never_anything_else(written(tmp_path, json.dumps(record), name="any.jsonl")))

    attempt()
    assert any(said)
    faults_tried(len(said))


@pytest.mark.parametrize("revision", [None, "v1.0"])
def test_hub_data_set_is_read_at_its_revision(monkeypatch, revision):
    """A pinned data set stays what it is when its branch moves on."""
    asked = []

    def serve(source, _name, *, split, revision):
        asked.append((source, split, revision))
        raise ConnectionError("far away")

    monkeypatch.setattr(datasets, "load_dataset", serve)
    settings = ["data.source=openai/gsm8k", *([f"data.revision={revision}"] if revision else [])]
    with pytest.raises(DataError, match="could not be read"):
        split(load_study("tiny", settings).data)
    assert asked == [("openai/gsm8k", "train", revision)]


@pytest.mark.fault("Names from study files", "a data set's revision that would lead elsewhere")
@pytest.mark.parametrize("revision", ["../../x", "a/b", "..", "x" * 300])
def test_revision_of_a_data_set_is_a_plain_name(revision):
    """It becomes part of a path in the hub's cache."""
    with pytest.raises(StudyError, match=r"data\.revision: .*should match pattern"):
        load_study("tiny", [f"data.revision={revision}"])
