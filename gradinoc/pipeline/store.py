"""Load or compute: results kept on disk under a key of everything that determines them."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from pyarrow import ArrowException
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gradinoc.disk import checksum, disk_errors, disk_failures, encodable, files_below, settle, sync
from gradinoc.errors import GradinocError, StoreError, reason
from gradinoc.pipeline.manifest import MANIFEST, Checked, Seen, canonical_json, entry_key, manifest_text
from gradinoc.pipeline.provenance import provenance

STAGE = re.compile(r"[a-z0-9][a-z0-9_-]*")
SCRATCH = re.compile(r"\.(?P<key>[0-9a-f]{64})\.\w+")  # a folder that is not a result, or no longer
# What reading a damaged file ends in: it depends on the format, and on where the damage is.
UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, ArrowException, SafetensorError,
)  # fmt: skip
logger = logging.getLogger(__name__)


class Store:
    """A folder of results, safe to share between processes.

    A file's checksum is taken when a store first meets it, and again when its size, times or inode have changed. Bits
    that a disk loses without a trace are found by the next process.

    Raises:
        StoreError: the folder's path is no text.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        encodable(self.root, "store")
        self._seen: Seen = {}

    def entry(self, stage: str, inputs: Mapping[str, Any]) -> Entry:
        """The place of what `stage` makes of `inputs`, whether it is there yet or not.

        Raises:
            TypeError: `inputs` holds something JSON does not know.
            ValueError: it holds NaN or infinity, or `stage` is not lower-case letters, digits, `_` and `-`.
        """
        if not STAGE.fullmatch(stage):
            raise ValueError(f"Stage {stage!r}: expected lower-case letters, digits, '_' and '-'")
        return Entry(self.root, stage, inputs, self._seen)


class Entry:
    """One stored result: a folder `path` that either is not there or is whole.

    `key` is the SHA-256, in hex, of the canonical JSON of stage and inputs. What the disk refuses is a `StoreError`.
    """

    def __init__(self, root: Path, stage: str, inputs: Mapping[str, Any], seen: Seen) -> None:
        self.stage, self.inputs = stage, json.loads(canonical_json(inputs))
        self.key = entry_key(stage, self.inputs)
        self.path = root / stage / self.key
        self._checked = Checked(self.path, self.key, seen)
        # One lock object a path: taking a lock again within the process that holds it is no deadlock.
        self._lock = FileLock(self.path.parent / f"{self.key}.lock", is_singleton=True)

    def complete(self) -> bool:
        """Whether the result is there, every file as it was written and no other beside them (see `Store`)."""
        return os.path.lexists(self.path) and self.fault() is None

    def manifest(self) -> dict[str, Any]:
        """Stage, inputs, files with size and SHA-256, and provenance of the stored result."""
        found: dict[str, Any] = load_json(self.path / MANIFEST)
        return found

    def fault(self) -> str | None:
        """What is wrong with the stored result, naming the file; None if nothing is."""
        with disk_errors(self.path):
            return self._checked.fault()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the entry, waiting for whoever holds it; the lock of a dead process is free."""
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        """Hold the entry if nobody does; the value says whether it is held now."""
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(blocking=False)
                held = True
            except Timeout:
                held = False
        try:
            yield held
        finally:
            if held:
                self._lock.release()

    @contextmanager
    def write(self) -> Iterator[Path]:
        """A fresh folder that becomes the result, in one step, when the block ends without error.

        Who may read it is what the user's umask says.
        """
        with self.lock():
            with disk_errors(self.path):
                _remove_abandoned(self.path.parent, self.key)
                scratch = self._beside()
            try:
                with disk_failures(self.path):
                    yield scratch
                with disk_errors(self.path):
                    self._seal(scratch)
                    self.discard()
                    scratch.rename(self.path)
                    sync(self.path.parent)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def discard(self) -> None:
        """Remove the stored result, if there is one, whatever it is."""
        if os.path.lexists(self.path):
            with self.lock(), disk_errors(self.path):
                gone = self._beside()
                self.path.rename(gone / "discarded")
                shutil.rmtree(gone)

    def _beside(self) -> Path:
        """A new folder beside the result, of a name that is known for no result's."""
        folder = self.path.parent / f".{self.key}.{secrets.token_hex(8)}"
        folder.mkdir()
        return folder

    def _seal(self, scratch: Path) -> None:
        """Write the manifest, and see to it that everything has reached the disk."""
        listing = {
            name: {"size": path.stat().st_size, "sha256": checksum(path)}
            for name, path in sorted(files_below(scratch).items())
        }
        text = manifest_text(self.stage, self.inputs, listing, provenance())
        (scratch / MANIFEST).write_bytes(text.encode())
        settle(scratch)


def load_or_compute(entry: Entry, compute: Callable[[Path], None]) -> Path:
    """The folder of the result; `compute`, given a scratch folder, fills it unless it is there already.

    Of several processes one computes and the others wait. What does not match its checksums is replaced.

    Raises:
        StoreError: the disk refuses, or does not keep what is written; results that were there before still are.
    """
    if not entry.complete():
        with entry.lock():
            if os.path.lexists(entry.path) and (fault := entry.fault()):
                logger.warning("Stored result %s/%s is corrupt (%s): computing it anew", entry.stage, entry.key, fault)
                entry.discard()
            if not entry.complete():
                with entry.write() as scratch:
                    compute(scratch)
                if fault := entry.fault():
                    raise StoreError(
                        f"{entry.path}: {fault} as soon as it was written; see whether the disk is sound "
                        f"and nothing else writes there, or name another folder with --store=DIR, and run again"
                    )
    return entry.path


def save_table(table: pd.DataFrame, path: Path) -> None:
    """Write `table` without its index as Parquet."""
    with path.open("wb") as file:
        table.to_parquet(file, engine="pyarrow", compression="zstd", index=False)


def load_table(path: Path) -> pd.DataFrame:
    """The table written by `save_table`.

    Raises:
        StoreError: the file cannot be read.
    """
    with readable(path), path.open("rb") as file:  # of a folder pandas would make an empty table
        return pd.read_parquet(file, engine="pyarrow")


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write named tensors as safetensors; views and tensors on a device are copied to plain memory first."""
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors written by `save_tensors`, on the CPU.

    Raises:
        StoreError: the file cannot be read.
    """
    with readable(path):
        loaded: dict[str, Tensor] = load_file(path)
    return loaded


def save_json(value: Any, path: Path) -> None:
    """Write `value` as indented JSON; NaN is refused, as JSON has no word for it."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def load_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        StoreError: the file cannot be read.
    """
    with readable(path):
        return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What goes wrong inside the block, where a stored file is read, becomes a `StoreError` that names it.

    Every file was whole when its entry was found complete: it has been damaged since.
    """
    try:
        yield
    except GradinocError:
        raise
    except UNREADABLE as error:
        raise StoreError(
            f"{path}: cannot be read ({reason(error)}), and could when its checksum was taken; "
            f"run again: what is damaged is computed anew, everything else is kept"
        ) from error


def _remove_abandoned(folder: Path, held: str) -> None:
    """Remove the scratch folders of dead processes: of the key `held` by us, and of those nobody holds."""
    for scratch in folder.iterdir():
        name = SCRATCH.fullmatch(scratch.name)
        if name is None:
            continue  # not ours to remove
        lock = FileLock(folder / f"{name['key']}.lock", is_singleton=True)
        if lock.is_locked and name["key"] != held:
            continue  # this process is computing it further up the stack
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        try:
            shutil.rmtree(scratch, ignore_errors=True)
        finally:
            lock.release()
