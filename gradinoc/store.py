"""Load or compute: results kept on disk under a key of everything that determines them."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor

from gradinoc.provenance import provenance

MANIFEST = "manifest.json"
LAYOUT = 1  # part of every key: what was stored in another layout is not looked at
STAGE = re.compile(r"[a-z0-9][a-z0-9_-]*")

logger = logging.getLogger(__name__)
# (path, size, time of change) of the files whose checksum this process has verified.
_verified: set[tuple[str, int, int]] = set()


class Store:
    """A folder of results, safe to share between processes."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def entry(self, stage: str, inputs: Mapping[str, Any]) -> Entry:
        """The place of what `stage` makes of `inputs`, whether it is there yet or not.

        Raises:
            TypeError: `inputs` holds something JSON does not know.
            ValueError: it holds NaN or infinity, or `stage` is not lower-case letters, digits, `_` and `-`.
        """
        if not STAGE.fullmatch(stage):
            raise ValueError(f"Stage {stage!r}: expected lower-case letters, digits, '_' and '-'")
        return Entry(self.root, stage, inputs)


class Entry:
    """One stored result: a folder `path` that either is not there or is whole.

    `key` is the SHA-256, in hex, of the canonical JSON of stage and inputs.
    """

    def __init__(self, root: Path, stage: str, inputs: Mapping[str, Any]) -> None:
        self.stage, self.inputs = stage, json.loads(canonical_json(inputs))
        self.key = _key(stage, self.inputs)
        self.path = root / stage / self.key
        # One lock object a path: taking a lock again within the process that holds it is no deadlock.
        self._lock = FileLock(self.path.parent / f"{self.key}.lock", is_singleton=True)

    def complete(self) -> bool:
        """Whether the result is there, every file as it was written (checksums are taken once a process)."""
        return (self.path / MANIFEST).is_file() and self.fault() is None

    def manifest(self) -> dict[str, Any]:
        """Stage, inputs, files with size and SHA-256, and provenance of the stored result."""
        found: dict[str, Any] = load_json(self.path / MANIFEST)
        return found

    def fault(self) -> str | None:
        """What is wrong with the stored result, naming the file; None if nothing is."""
        try:
            manifest = self.manifest()
            if _key(manifest["stage"], manifest["inputs"]) != self.key:
                return f"{MANIFEST}: does not belong to this key"
            for name, expected in manifest["files"].items():
                if fault := _file_fault(self.path / name, expected["size"], expected["sha256"]):
                    return f"{name}: {fault}"
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return f"{MANIFEST}: {error!r}"
        return None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the entry, waiting for whoever holds it; the lock of a dead process is free."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            yield

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        """Hold the entry if nobody does; the value says whether it is held now."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            self._lock.release()

    @contextmanager
    def write(self) -> Iterator[Path]:
        """A fresh folder that becomes the result, in one step, when the block ends without error."""
        with self.lock():
            _remove_abandoned(self.path.parent, self.key)
            scratch = Path(tempfile.mkdtemp(prefix=f".{self.key}.", dir=self.path.parent))
            try:
                yield scratch
                self._seal(scratch)
                self.discard()
                scratch.rename(self.path)
                _sync(self.path.parent)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def discard(self) -> None:
        """Remove the stored result, if there is one."""
        if self.path.exists():
            with self.lock():
                gone = Path(tempfile.mkdtemp(prefix=f".{self.key}.", dir=self.path.parent))
                self.path.rename(gone / "discarded")
                shutil.rmtree(gone)

    def _seal(self, scratch: Path) -> None:
        """Write the manifest, and see to it that everything has reached the disk."""
        files = sorted(file for file in scratch.rglob("*") if file.is_file())
        listing = {
            file.relative_to(scratch).as_posix(): {"size": file.stat().st_size, "sha256": _sha256(file)}
            for file in files
        }
        manifest = {"stage": self.stage, "inputs": self.inputs, "files": listing, "provenance": provenance()}
        save_json(manifest, scratch / MANIFEST)
        for path in (*files, scratch / MANIFEST, scratch):
            _sync(path)


def load_or_compute(entry: Entry, compute: Callable[[Path], None]) -> Path:
    """The folder of the result; `compute`, given a scratch folder, fills it unless it is there already.

    Of several processes one computes and the others wait. What does not match its checksums is replaced.
    """
    if not entry.complete():
        with entry.lock():
            if (entry.path / MANIFEST).is_file() and (fault := entry.fault()):
                logger.warning("Stored result %s/%s is corrupt (%s): computing it anew", entry.stage, entry.key, fault)
                entry.discard()
            if not entry.complete():
                with entry.write() as scratch:
                    compute(scratch)
    return entry.path


def canonical_json(value: Any) -> str:
    """JSON text that is the same for the same content: sorted keys, no blanks, ASCII.

    Raises:
        TypeError: something that is not str, bool, int, float, None, list, tuple or a mapping with str keys.
        ValueError: NaN or infinity, which equal nothing and so identify nothing.
    """
    return json.dumps(_plain(value, "inputs"), sort_keys=True, separators=(",", ":"), allow_nan=False)


def save_table(table: pd.DataFrame, path: Path) -> None:
    """Write `table` without its index as Parquet."""
    table.to_parquet(path, engine="pyarrow", compression="zstd", index=False)


def load_table(path: Path) -> pd.DataFrame:
    """The table written by `save_table`."""
    return pd.read_parquet(path, engine="pyarrow")


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write named tensors as safetensors; views and tensors on a device are copied to plain memory first."""
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors written by `save_tensors`, on the CPU."""
    loaded: dict[str, Tensor] = load_file(path)
    return loaded


def save_json(value: Any, path: Path) -> None:
    """Write `value` as indented JSON; NaN is refused, as JSON has no word for it."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def load_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def _key(stage: str, inputs: Any) -> str:
    text = canonical_json({"layout": LAYOUT, "stage": stage, "inputs": inputs})
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, str | bool) or type(value) is int:
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}: a key needs finite numbers; use None for what is missing")
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{place}]") for place, item in enumerate(value)]
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{where} has keys that are not strings: {odd}")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    raise TypeError(f"{where} is a {type(value).__name__}: a key needs str, bool, int, float, None, lists and mappings")


def _file_fault(path: Path, size: int, sha256: str) -> str | None:
    stat = path.stat()
    if stat.st_size != size:
        return f"{stat.st_size} bytes instead of {size}"
    seen = (str(path), stat.st_size, stat.st_mtime_ns)
    if seen not in _verified:
        if _sha256(path) != sha256:
            return "checksum does not match"
        _verified.add(seen)
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have the system write a file, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_abandoned(folder: Path, held: str) -> None:
    """Remove the scratch folders of dead processes: of the key `held` by us, and of those nobody holds."""
    for scratch in folder.glob(".*.*"):
        key = scratch.name.split(".")[1]
        lock = FileLock(folder / f"{key}.lock", is_singleton=True)
        if lock.is_locked and key != held:
            continue  # this process is computing it further up the stack
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        shutil.rmtree(scratch, ignore_errors=True)
        lock.release()
