"""Load questions and answers from a bundled source, a JSONL file or the hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gradinoc.data.examples import Example, example_of, read_examples
from gradinoc.data.formats import BESIDE_QUESTION, OF_FILES, instead_of
from gradinoc.disk import is_address, shipped
from gradinoc.errors import DataError, printable, quoted, reason, shown

DATASETS = shipped("datasets")


def source_path(source: str) -> Path | None:
    """The file that `source` stands for, whether or not it is there; None for a hub dataset or an address."""
    if is_address(source):
        return None
    bundled = DATASETS / f"{source}.jsonl"
    if os.path.isfile(bundled):  # noqa: PTH113 - Path's own raises where a name is too long
        return bundled
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - Path's own raises where there is no such user
    there = bool(source) and os.path.exists(path)  # noqa: PTH110 - as above
    named = source.startswith((".", "/", "~")) or source.lower().endswith(OF_FILES)
    return path if there or named else None


def place_of(source: str) -> str:
    """What messages call `source`: a bundled one by its file, any other as it was given."""
    path = source_path(source)
    return printable(path if path is not None and path.parent == DATASETS else source)


def line_of(source: str, example: Example) -> str:
    """Where an example of `source` stands: file and line."""
    return f"{place_of(source)}:{example.index + 1}"


def load_source(source: str, revision: str | None = None) -> list[Example]:
    """Examples of a bundled source, a JSONL file, or the `train` split of a hub dataset in GSM8K's columns.

    Raises:
        DataError: nothing there, or not in a known form.
    """
    path = source_path(source)
    if path is not None:
        return read_examples(path, place_of(source))
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        bundled = sorted(file.stem for file in DATASETS.glob("*.jsonl"))
        raise DataError(
            f"No data source {quoted(source)}: expected one of {bundled}, a JSONL file, or a hub id owner/name"
            + (f"; {instead_of(source, dataset=True)}" if is_address(source) else "")
        )
    return _load_from_hub(source, revision)


def _load_from_hub(source: str, revision: str | None) -> list[Example]:
    from datasets import load_dataset  # type: ignore[attr-defined]  # mypy takes our folder of that name for it

    try:
        table = load_dataset(source, "main", split="train", revision=revision)
    except Exception as error:  # the hub client raises many kinds; each means the same here
        raise DataError(
            f"Hub dataset {source!r} could not be read ({reason(error)}); "
            "give the path of a downloaded JSONL file as data.source instead"
        ) from error
    if not {"question", "answer"} <= set(table.column_names):
        raise DataError(
            f"Hub dataset {source!r}: expected columns question, answer; it has {shown(table.column_names)}"
        )
    fields = [field for field in ("question", "answer", *BESIDE_QUESTION) if field in table.column_names]
    return [
        example_of({field: row[field] for field in fields}, f"{source}:{index + 1}", index)
        for index, row in enumerate(table)
    ]
