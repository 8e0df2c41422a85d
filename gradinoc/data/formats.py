"""Recognise data and addresses in other forms than those that are read, and say what to do with them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ONE_A_LINE = (
    "write its records one a line: python -c 'import json, sys; [print(json.dumps(each)) for each in "
    "json.load(sys.stdin.buffer)]' < OLD.json > NEW.jsonl"
)
AS_TABLE = "write it as JSONL: pandas.read_{}('OLD').to_json('NEW.jsonl', orient='records', lines=True)"
UNPACK = "unpack it and give the file that was in it"
UTF_16 = "UTF-16; save it as UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW.jsonl"
BEGINNINGS = {  # the first bytes of a file -> what it is, and what to do with it
    b"\x1f\x8b": f"compressed (gzip); {UNPACK}",
    b"BZh": f"compressed (bzip2); {UNPACK}",
    b"\xfd7zXZ": f"compressed (xz); {UNPACK}",
    b"\x28\xb5\x2f\xfd": f"compressed (zstd); {UNPACK}",
    b"PK\x03\x04": f"a zip archive or a workbook; {UNPACK}",
    b"PAR1": f"a Parquet file; {AS_TABLE.format('parquet')}",
    b"ARROW1": f"an Arrow file; {AS_TABLE.format('feather')}",
    b"\xff\xfe": UTF_16,
    b"\xfe\xff": UTF_16,
}
ENDINGS = {  # of a name -> the same, where the beginning says nothing
    ".csv": f"a table of comma-separated values; {AS_TABLE.format('csv')}",
    ".tsv": f"a table of tab-separated values; {AS_TABLE.format('table')}",
}
# What only a file is called, so that nothing of that name is looked for on a hub.
OF_FILES = (
    ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".xlsx", ".gz", ".bz2", ".xz", ".zst",
    ".zip",
)  # fmt: skip

SHAREGPT = (
    "that is ShareGPT's form: call `conversations` messages, `from` role, `value` content, human user, gpt assistant"
)
PAIRS = (  # keys that question and answer have elsewhere
    ("prompt", "completion"), ("prompt", "response"), ("instruction", "response"), ("question", "response"),
    ("input", "output"), ("problem", "solution"), ("query", "response"),
)  # fmt: skip
FORMS: dict[tuple[str, ...], str] = {  # keys of a record -> what to do with it
    ("conversations",): SHAREGPT,
    ("instruction", "output"): (
        "that is Alpaca's form: put instruction and input together as question, and call output answer"
    ),
    ("chosen",): "that is a pair of preferences: give the question, and one of the two answers as its answer",
    **{pair: f"call {pair[0]} question, and {pair[1]} answer" for pair in PAIRS},
}
# Keys under which something of an answer or a question stands beside its text, so that the text alone is not all of it.
BESIDE_CONTENT = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking", "prefix")
BESIDE_QUESTION = (
    "tools", "functions", "system", "system_prompt", "context", "documents", "passage", "choices", "images",
)  # fmt: skip
OF_THE_HUB = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(datasets/)?([\w.-]+/[\w.-]+)")


def other_file(head: bytes, name: str) -> str | None:
    """What a file is that begins with `head` and is no JSONL, and what to do with it; None where it may be."""
    for beginning, words in BEGINNINGS.items():
        if head.startswith(beginning):
            return words
    if len(head) > 1 and (head[0] == 0) != (head[1] == 0):  # no byte order mark, and every second byte is zero
        return UTF_16
    return ENDINGS.get(Path(name).suffix.lower())


def no_file(path: Path) -> str | None:
    """What is at `path` in place of a file, and what to do; None where a file is."""
    if os.path.isfile(path):  # noqa: PTH113 - Path's own raises where a name is too long
        return None
    if os.path.isdir(path):  # noqa: PTH112 - as above
        return (
            "a folder; expected a file; give the path of one in it, or write a saved data set as JSONL: "
            "datasets.load_from_disk('OLD').to_json('NEW.jsonl')"
        )
    if os.path.exists(path):  # noqa: PTH110 - as above
        return "a pipe or device, which cannot be read twice; expected a file; write what comes out of it into one"
    return "no such file; give a bundled source, a JSONL file or a hub dataset id"


def other_record(record: Any) -> str:
    """What to do with a line's record that is in neither form."""
    if isinstance(record, Mapping):
        for keys, words in FORMS.items():
            if {*keys} <= {*record}:
                return words
        for key, value in record.items():
            if isinstance(value, list) and value and isinstance(value[0], dict):
                return f"its records are all in {key!r}: write them one a line"
    return "mend or delete the line"


def is_array(record: Any) -> bool:
    """Whether a line's record is a list of records, and no list of messages."""
    if not isinstance(record, list) or not record:
        return False
    first = record[0]
    return isinstance(first, list) or (isinstance(first, dict) and not {"role", "content"} & set(first))


def other_messages(messages: Sequence[Any]) -> str:
    """What to do with messages that are no question and answer."""
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


def instead_of(address: str, *, dataset: bool) -> str:
    """What to give in place of a web address."""
    found = OF_THE_HUB.match(address)
    if found and bool(found[1]) == dataset:
        return f"nothing is fetched from an address; give the hub id {found[2]!r}"
    what = "file" if dataset else "model's files into a folder"
    return f"nothing is fetched from an address; download the {what}, and give the path"
