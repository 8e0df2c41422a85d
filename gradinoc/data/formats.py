"""Data and addresses in other forms than those that are read: what each is, and what to do with it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ARRAY = (
    "write its records one a line: python -c 'import json, sys; [print(json.dumps(each)) for each in "
    "json.load(sys.stdin.buffer)]' < OLD.json > NEW.jsonl"
)
TABLE = "write it as JSONL: pandas.read_{}('OLD').to_json('NEW.jsonl', orient='records', lines=True)"
ENCODING = "save it as UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW.jsonl"
PACKED = "unpack it and give the file that was in it"
BEGINNINGS = {  # the first bytes of a file -> what it is, and what to do with it
    b"\x1f\x8b": f"compressed (gzip); {PACKED}",
    b"BZh": f"compressed (bzip2); {PACKED}",
    b"\xfd7zXZ": f"compressed (xz); {PACKED}",
    b"\x28\xb5\x2f\xfd": f"compressed (zstd); {PACKED}",
    b"PK\x03\x04": f"a zip archive, as workbooks are too; {PACKED}",
    b"PAR1": f"a Parquet file; {TABLE.format('parquet')}",
    b"ARROW1": f"an Arrow file; {TABLE.format('feather')}",
    b"\xff\xff\xff\xff": "an Arrow stream; write it as JSONL: datasets.Dataset.from_file('OLD').to_json('NEW.jsonl')",
    b"\xff\xfe": f"UTF-16; {ENCODING}",
    b"\xfe\xff": f"UTF-16; {ENCODING}",
}
ENDINGS = {  # of a name -> the same, where the beginning says nothing
    ".csv": f"a table of comma-separated values; {TABLE.format('csv')}",
    ".tsv": f"a table of tab-separated values; {TABLE.format('table')}",
}
# What only a file is called, so that nothing of that name is looked for on a hub.
OF_FILES = (
    ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".xlsx", ".gz", ".bz2", ".xz", ".zst",
    ".zip",
)  # fmt: skip
SAVED_SET, SAVED_SETS = "state.json", "dataset_dict.json"  # what `datasets` leaves in a folder: one split, or several
NAMED = 3  # files of a folder that are named

SHAREGPT = (
    "that is ShareGPT's form: call `conversations` messages, `from` role, `value` content, human user, gpt assistant"
)
ALPACA = "that is Alpaca's form: put instruction and input together as question, and call output answer"
PAIRS = (  # keys that question and answer have elsewhere
    ("prompt", "completion"), ("prompt", "response"), ("instruction", "response"), ("question", "response"),
    ("input", "output"), ("problem", "solution"), ("query", "response"),
)  # fmt: skip
# Of a message, beside its text; and a weight that is not 1, by which some formats leave turns out of the loss.
UNSAID = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking", "prefix")
# Of a whole example, beside its messages or its question and answer: a model would have been told it.
UNTOLD = ("tools", "functions", "system", "system_prompt", "context", "documents", "passage", "choices", "images")
OF_THE_HUB = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(datasets/)?([\w.-]+/[\w.-]+)")


def other_file(head: bytes, name: str) -> str | None:
    """What a file is that begins with `head` and is no JSONL, and what to do with it; None where it may be."""
    for beginning, words in BEGINNINGS.items():
        if head.startswith(beginning):
            return words
    if len(head) > 1 and (head[0] == 0) != (head[1] == 0):  # no byte order mark, and every second byte is zero
        return BEGINNINGS[b"\xff\xfe"]
    return ENDINGS.get(Path(name).suffix.lower())


def no_file(path: Path) -> str | None:
    """What is at `path` in place of a file, and what to do; None where a file is."""
    if os.path.isfile(path):  # noqa: PTH113 - Path's own raises where a name is too long
        return None
    if os.path.isdir(path):  # noqa: PTH112 - as above
        return _folder(path)
    if os.path.exists(path):  # noqa: PTH110 - as above
        return "a pipe or device, which cannot be read twice; expected a file; write what comes out of it into one"
    return "no such file; give a bundled source, a JSONL file or a hub dataset id"


def _folder(path: Path) -> str:
    for mark, split in ((SAVED_SETS, "['train']"), (SAVED_SET, "")):
        if os.path.isfile(path / mark):  # noqa: PTH113 - as above
            saved = f"datasets.load_from_disk('OLD'){split}.to_json('NEW.jsonl')"
            return f"a folder with a saved data set; expected a file; write it as JSONL: {saved}"
    files = sorted(file.name for file in path.glob("*.json*") if file.name.isprintable())[:NAMED]
    return f"a folder; expected a file; give {f'one of those in it, such as {files}' if files else 'the path of one'}"


def other_record(record: Any) -> str | None:
    """What is to be done with a line's record that is in neither form, where that is known."""
    if not isinstance(record, Mapping):
        return None
    if "conversations" in record or "conversation" in record:
        return SHAREGPT
    if {"instruction", "output"} <= set(record):
        return ALPACA
    for question, answer in PAIRS:
        if {question, answer} <= set(record):
            if isinstance(record[question], list):
                return f"put the messages of {question} and {answer} together as messages"
            return f"call {question} question, and {answer} answer"
    if "chosen" in record:
        return "that is a pair of preferences: give the question, and one of the two answers as its answer"
    held = next((key for key, value in record.items() if _is_records(value)), None)
    return None if held is None else f"its records are all in {held!r}: write them one a line"


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def is_array(record: Any) -> bool:
    """Whether a line's record is a list of records, and no list of messages."""
    if not isinstance(record, list) or not record:
        return False
    first = record[0]
    return isinstance(first, list) or (isinstance(first, dict) and not {"role", "content"} & set(first))


def other_messages(messages: Sequence[Any]) -> str:
    """What is to be done with messages that are no question and answer."""
    roles = [message.get("role") for message in messages]
    if any("from" in message and "value" in message for message in messages):
        return SHAREGPT
    if any(role in ("human", "gpt") for role in roles):
        return "call human user, and gpt assistant"
    if any(role in ("tool", "function", "ipython") for role in roles):
        return "answers that call tools are not studied; delete the line"
    if roles.count("user") > 1 and "assistant" in roles:
        return "one question with one answer is studied; give the turns lines of their own, or delete the line"
    return "mend or delete the line"


def unsaid(message: Mapping[str, Any]) -> str | None:
    """The key of a message under which something of its turn stands beside its text; None where nothing does."""
    found = next((key for key in UNSAID if message.get(key)), None)
    return "weight" if found is None and message.get("weight", 1) != 1 else found


def untold(record: Mapping[str, Any]) -> str | None:
    """The key of an example under which something stands that its answer may rest on; None where nothing does."""
    return next((key for key in UNTOLD if record.get(key)), None)


def instead_of(address: str, *, dataset: bool) -> str:
    """What to give in place of a web address."""
    found = OF_THE_HUB.match(address)
    if found and bool(found[1]) == dataset:
        return f"nothing is fetched from an address; give the hub id {found[2]!r}"
    what = "file" if dataset else "model's files into a folder"
    return f"nothing is fetched from an address; download the {what}, and give the path"
