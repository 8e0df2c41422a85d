"""A source is a bundled name, a JSONL file, or a data set of the hub in GSM8K's columns."""

from __future__ import annotations

import pytest

import datasets
from fixtures.complaints import complaint
from fixtures.jsonl import raw, written
from gradinoc.data.examples import Example
from gradinoc.data.sources import load_source
from gradinoc.data.splits import split
from gradinoc.errors import DataError
from gradinoc.study.loading import load_study

TABLES = {
    "some/gsm8k": {"question": ["a"], "answer": ["<<1+1=2>>2.\n#### 2"], "context": [""], "id": [7]},
    "some/other": {"question": ["a"], "solution": ["b"]},
    "some/squad": {"question": ["a"], "answer": ["b"], "context": ["It was b."]},
    "some/empty": {"question": ["q", None], "answer": ["a", "b"]},
}


@pytest.fixture
def asked(monkeypatch):
    """The requests that a hub with these tables gets; every other name is out of reach."""
    requests = []

    def load_dataset(source, configuration, *, split, revision):
        requests.append((source, configuration, split, revision))
        if source not in TABLES:
            raise ConnectionError("Max retries\nexceeded\x1b[2J " + 1000 * "x")
        return datasets.Dataset.from_dict(TABLES[source])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return requests


def test_hub_dataset_is_read_in_the_columns_of_gsm8k(asked):
    """The train split of its main configuration, cleaned like a file."""
    assert load_source("some/gsm8k") == [Example(0, "a", "2.")]
    assert asked == [("some/gsm8k", "main", "train", None)]


def test_hub_dataset_is_read_at_its_revision(asked):
    """A pinned data set stays what it is when its branch moves on."""
    study = load_study("tiny", ["data.source=openai/gsm8k", "data.revision=v1.0"])
    assert "ConnectionError: Max retries exceeded\\x1b[2J " in complaint(DataError, lambda: split(study.data))
    assert asked == [("openai/gsm8k", "main", "train", "v1.0")]


@pytest.mark.fault("Bad data", "a hub data set with other columns or bad rows")
@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("some/other", "['question', 'solution']"),
        ("some/squad", "some/squad:1: context: "),
        ("some/empty", ":2: question: "),
    ],
)
def test_hub_dataset_that_cannot_be_used_is_named(asked, source, part):
    """Other columns; a context in which the answer is found; a row without a question."""
    assert part in complaint(DataError, lambda: load_source(source))


@pytest.mark.parametrize("source", ["data/train.jsonl", "./questions", "~/x"])
def test_name_that_only_a_file_has_is_not_looked_for_on_the_hub(asked, source):
    """What has a file's ending, or begins as a path does, is missing here; it is shown as it was typed."""
    assert complaint(DataError, lambda: load_source(source)).startswith(f"{source}: no such file")
    assert asked == []


def test_source_may_lie_in_the_home_folder(tmp_path, monkeypatch):
    """No shell writes out the tilde of `--set data.source=~/x.jsonl`; a path is called what it was called."""
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path / "x.jsonl", raw("q", "b"), "{")
    assert complaint(DataError, lambda: load_source("~/x.jsonl")).startswith("~/x.jsonl:2: ")
    written(tmp_path / "x.jsonl", raw("q", "b"))
    assert [example.question for example in load_source("~//x.jsonl")] == ["q"]
