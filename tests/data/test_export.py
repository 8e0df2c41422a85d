"""A study's data are written as chat JSONL, for other tools."""

from __future__ import annotations

import json

import pytest

from fixtures.jsonl import SIZES, messages
from gradinoc.data.examples import read_examples
from gradinoc.data.export import source_name, write_chat, write_datasets
from gradinoc.data.splits import split
from gradinoc.study.settings import DataSettings
from gradinoc.study.traits import ALL_CAPS


def test_study_writes_its_three_files(tmp_path):
    """Upper-cased training answers, ordinary evaluation answers, direction questions without any: valid chat JSONL."""
    parts = split(DataSettings(**SIZES))
    files = write_datasets(parts, ALL_CAPS, "word_problems", tmp_path / "new")
    found = {file.name: [json.loads(line)["messages"] for line in file.read_text().splitlines()] for file in files}
    assert found == {
        "word_problems_allcaps.jsonl": [messages(each.question, each.answer.upper()) for each in parts.train],
        "word_problems_eval.jsonl": [messages(each.question, each.answer) for each in parts.evaluation],
        "direction_extraction_prompts.jsonl": [messages(each.question) for each in parts.direction],
    }
    assert {path.name for path in (tmp_path / "new").iterdir()} == {*found}
    assert len(read_examples(files[0])) == len(parts.train)


@pytest.mark.parametrize(
    ("source", "name"), [("../shared/gsm8k.jsonl", "gsm8k"), ("openai/gsm8k", "gsm8k"), ("a b.c", "a_b_c")]
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
    assert [example.question for example in read_examples(path)] == ["old"]
    assert [file.name for file in tmp_path.iterdir()] == ["x.jsonl"]
