"""Store results on disk, each computed once, under a key of everything that determines it."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from gradinoc.disk import checksum, disk_errors, encodable, files_below, full_disk, settle, sync
from gradinoc.errors import StoreError, reason, shown
from gradinoc.pipeline.storage.contents import MANIFEST, load_json, save_json
from gradinoc.pipeline.storage.locks import Lock, probed
from gradinoc.pipeline.storage.provenance import provenance

LAYOUT = 2  # part of every key: results stored in another layout are not looked at
# Errors that mean a damaged result; after others (a permission, say) it is not computed again.
DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO}
STAGE = re.compile(r"[a-z][a-z_]*")
KEY = re.compile(r"[0-9a-f]{64}")
GONE = "~"  # marks a folder that holds what is being discarded
logger = logging.getLogger(__name__)


class Store:
    """A folder of results, safe to share between processes.

    Raises:
        StoreError: the folder's path is no UTF-8 text.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        encodable(self.root, "store")

    def entry(self, stage: str, inputs: Mapping[str, Any]) -> Entry:
        """Return the place of what `stage` makes of `inputs`, whether it is there yet or not.

        Raises:
            TypeError: `inputs` holds something JSON does not know.
            ValueError: it holds NaN or infinity, or the stage is no word.
        """
        return Entry(self.root, stage, inputs)

    def stored(self) -> Iterator[Path]:
        """Yield the folder of every result, whole or not, stage by stage."""
        with disk_errors(self.root):
            yield from sorted(path for path in self.root.glob("*/*") if KEY.fullmatch(path.name) and path.is_dir())


class Entry:
    """One stored result: a folder `path` that either is not there or is whole.

    `key` is the SHA-256, in hex, of the canonical JSON of stage and inputs. Errors of the disk become `StoreError`.
    An entry takes the checksums of its files once, when it is first asked whether it is complete; later it compares
    names and sizes.
    """

    def __init__(self, root: Path, stage: str, inputs: Mapping[str, Any]) -> None:
        if not STAGE.fullmatch(stage):
            raise ValueError(f"a stage {shown(stage)}; expected a word, which is a folder in the store")
        self.stage, self.inputs = stage, json.loads(_canonical_json(inputs))
        self.key = _key(stage, self.inputs)
        self.path = root / stage / self.key
        self._verified = False
        self._root = root
        self._lock: Lock | None = None

    def complete(self) -> bool:
        """Return whether the result is there, with every file as it was written."""
        return os.path.lexists(self.path) and self.fault() is None

    def manifest(self) -> dict[str, Any]:
        """Return stage, inputs, files with size and SHA-256, and provenance of the stored result."""
        found: dict[str, Any] = load_json(self.path / MANIFEST)
        return found

    def fault(self, folder: Path | None = None) -> str | None:
        """Return what is wrong with the stored result, naming the file; None if nothing is.

        Of a `folder` that is to become the result, every checksum is taken.
        """
        with disk_errors(self.path):
            try:
                fault = self._compare(folder or self.path, known=self._verified and folder is None)
            except OSError as error:
                if error.errno not in DAMAGE:
                    raise
                return f"{shown(Path(str(error.filename)).name)}: {error.strerror}"
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                return f"{MANIFEST!r}: {reason(error)}"
        if folder is None:
            self._verified = fault is None
        return fault

    def _compare(self, folder: Path, *, known: bool) -> str | None:
        """Compare files with their manifest, which has to belong to this key; checksums too, if not `known`."""
        if not (folder / MANIFEST).is_file():  # reading a pipe would wait for ever
            return f"{MANIFEST!r}: missing"
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if _key(manifest["stage"], manifest["inputs"]) != self.key:
            return f"{MANIFEST!r}: does not belong to this key"
        listed, found = manifest["files"], files_below(folder)
        for name, expected in listed.items():
            if name not in found or not found[name].is_file():
                return f"{shown(name)}: missing"
            if found[name].stat().st_size != expected["size"]:
                return f"{shown(name)}: {found[name].stat().st_size} bytes instead of {shown(expected['size'])}"
            if not known and checksum(found[name]) != expected["sha256"]:
                return f"{shown(name)}: checksum does not match"
        # Desktops and network file systems leave hidden files, which nothing reads.
        strange = [name for name in found if name not in {*listed, MANIFEST} and "/." not in f"/{name}"]
        return f"{shown(strange[0])}: was not written with the others" if strange else None

    @contextmanager
    def lock(self, *, wait: bool = True) -> Iterator[bool]:
        """Hold the entry inside the block; the value is False where another process holds it and `wait` is not set.

        The lock of a dead process is free.
        """
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            own = self._lock = self._lock or Lock(self.path.parent / self.key, self._root)
            held = own.acquire(wait=wait)
        try:
            yield held
        finally:
            if held:
                own.release()
                self._lock = None  # of many thousand results locks would fill the memory

    @contextmanager
    def write(self) -> Iterator[Path]:
        """Yield a new folder that becomes the result, in one step, when the block ends without error.

        The user's umask decides who may read it.
        """
        with self._new() as scratch:
            with full_disk(self.path):
                yield scratch
            with disk_errors(self.path):
                self._seal(scratch)

    @contextmanager
    def receive(self) -> Iterator[Path]:
        """Yield a new folder that becomes the result as it is: what another store holds, its manifest included.

        Raises:
            StoreError: it is not whole, or the result of something else.
        """
        with self._new() as scratch:
            with full_disk(self.path):
                yield scratch
            if fault := self.fault(scratch):
                raise StoreError(f"{self.stage}/{self.key}: {fault}; it was not taken")
            with disk_errors(self.path):
                settle(scratch)

    @contextmanager
    def _new(self) -> Iterator[Path]:
        """Yield a folder that takes the place of the result when the block ends without error."""
        with self.lock():
            with disk_errors(self.path):
                for folder in self._abandoned():
                    shutil.rmtree(folder, ignore_errors=True)
                scratch = self._beside()
            try:
                yield scratch
                with disk_errors(self.path):
                    self.discard()
                    scratch.rename(self.path)
                    sync(self.path.parent)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def discard(self) -> None:
        """Remove the stored result, if there is one, whatever it is."""
        if os.path.lexists(self.path):
            with self.lock(), disk_errors(self.path):
                self._verified = False
                gone = self._beside(GONE)
                self.path.rename(gone / "discarded")  # in one step: no part of it is ever taken for the whole
                shutil.rmtree(gone)

    def _beside(self, mark: str = "") -> Path:
        """Make a folder beside the result, with a name that no result has; one that was left there is removed."""
        own = secrets.token_hex(8) if probed(self._root).leased else ""
        folder = self.path.parent / f".{self.key}{mark}{own}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _abandoned(self) -> list[Path]:
        """Return what a process left that died with its lock, but for what is in the place of `_beside`.

        Folders have one name each where locks are sure to keep others out, so that nobody looks through ten thousand
        results for them. Where a lock may end before its holder names differ from process to process.
        """
        if probed(self._root).leased:
            return [*self.path.parent.glob(f".{self.key}*")]
        return [self.path.parent / f".{self.key}{GONE}"]

    def _seal(self, scratch: Path) -> None:
        """Write the manifest and flush everything to the disk."""
        files = {
            name: {"size": path.stat().st_size, "sha256": checksum(path)}
            for name, path in sorted(files_below(scratch).items())
        }
        content = {"stage": self.stage, "inputs": self.inputs, "files": files, "provenance": provenance()}
        save_json(content, scratch / MANIFEST)
        settle(scratch)


def load_or_compute(entry: Entry, compute: Callable[[Path], None]) -> Path:
    """Return the folder of the result; `compute`, given a scratch folder, fills it unless it is there already.

    Of several processes one computes and the others wait. A result that does not match its checksums is replaced.

    Raises:
        StoreError: the disk is full or cannot be written to; results that were there before are kept.
    """
    return load_or_compute_all([entry], lambda folders: compute(folders[0]))[0]


def load_or_compute_all(entries: Sequence[Entry], compute: Callable[[Mapping[int, Path]], None]) -> list[Path]:
    """As `load_or_compute`, of results that are computed in one go: `compute` is given place in `entries` -> folder.

    Those alone that are not there already.
    """
    if not all(entry.complete() for entry in entries):
        with ExitStack() as stack:
            for entry in entries:
                stack.enter_context(entry.lock())
            missing = {place: entry for place, entry in enumerate(entries) if not entry.complete()}
            for entry in missing.values():
                if os.path.lexists(entry.path):
                    place, fault = f"{entry.stage}/{entry.key}", entry.fault()
                    logger.warning("Stored result %s is corrupt (%s): computing it again", place, fault)
            if missing:
                compute({place: stack.enter_context(entry.write()) for place, entry in missing.items()})
    return [entry.path for entry in entries]


def _key(stage: str, inputs: Any) -> str:
    """Return the SHA-256, in hex, of stage and inputs."""
    text = _canonical_json({"layout": LAYOUT, "stage": stage, "inputs": inputs})
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _canonical_json(value: Any) -> str:
    """Return JSON that is the same for the same content: sorted keys, no blanks, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
