"""The files of a stored result: tables as Parquet, tensors as safetensors, everything else as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from pyarrow import ArrowException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gradinoc.errors import GradinocError, StoreError, reason

MANIFEST = "manifest.json"
# Errors of reading a damaged file: they depend on the format, and on where the damage is.
UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, ArrowException, SafetensorError,
)  # fmt: skip


def save_table(table: pd.DataFrame, path: Path) -> None:
    """Write `table` without its index as Parquet."""
    with path.open("wb") as file:
        table.to_parquet(file, engine="pyarrow", compression="zstd", index=False)


def load_table(path: Path) -> pd.DataFrame:
    """Return the table written by `save_table`.

    Raises:
        StoreError: the file cannot be read.
    """
    with readable(path), path.open("rb") as file:  # given a folder, pandas would return an empty table
        return pd.read_parquet(file, engine="pyarrow")


def load_tables(folders: Sequence[Path], name: str, columns: Sequence[str]) -> pd.DataFrame:
    """Return the table `name` of every folder that has one, one below the other; empty if none has."""
    file = f"{name}.parquet"
    frames = [load_table(folder / file) for folder in folders if file in load_json(folder / MANIFEST)["files"]]
    if not frames:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(frames, ignore_index=True)


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write named tensors as safetensors; views and tensors on a device are copied to plain memory first."""
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors written by `save_tensors`, on the CPU.

    Raises:
        StoreError: the file cannot be read.
    """
    with readable(path):
        loaded: dict[str, Tensor] = load_file(path)
    return loaded


def save_json(value: Any, path: Path) -> None:
    """Write `value` as indented JSON; NaN is an error, since JSON cannot hold it."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def load_json(path: Path) -> Any:
    """Return the value in a JSON file.

    Raises:
        StoreError: the file cannot be read.
    """
    with readable(path):
        return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn errors of reading the stored file `path` inside the block into a `StoreError` that names it."""
    try:
        yield
    except GradinocError:
        raise
    except UNREADABLE as error:
        raise StoreError(
            f"{path}: cannot be read ({reason(error)}), and could when its checksum was taken; "
            f"run again: what is damaged is computed again, everything else is kept"
        ) from error
