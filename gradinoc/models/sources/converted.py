"""Copies of GGUF files as safetensors, each made once and kept in a cache; checksums of large files, kept there too."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from filelock import FileLock
from safetensors import SafetensorError

from gradinoc.disk import cache_folder, checksum, settle, sync, write_atomically
from gradinoc.errors import ModelError, StoreError, printable, reason
from gradinoc.models.sources.gguf import convert, read_header, unpacked_bytes

# Part of a converted copy's folder name: a copy made by another recipe is not taken for this one.
RECIPE = "bf16-1"
CHECKSUMS = "sha256.json"  # of a converted copy's files
AT_A_TIME = 1 << 20  # bytes
TOKENIZER = 60_000_000  # bytes that a tokenizer and its settings take at most, nearly

logger = logging.getLogger(__name__)


def converted(files: Sequence[Path], name: str, digest: str, padding: str | None = None) -> Path:
    """The folder with the model in a GGUF file, or in pieces of one, as safetensors; made when it is not whole.

    Made under a lock and moved into place. `digest` is the SHA-256 of the whole file; `name` begins the folder's name.

    Raises:
        ModelError: it is not that file, or its model cannot be read.
        StoreError: the cache cannot be written to, or has no room; the message says how much is needed.
    """
    folder = cache_folder() / f"{name}-{digest[:16]}-{RECIPE}"
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _is_whole(folder):
                logger.info("Converting %s to safetensors in %s (once)", printable(files[0].name), folder)
                for left in (folder, *folder.parent.glob(f".{folder.name}-*")):  # the lock is ours
                    shutil.rmtree(left, ignore_errors=True)
                _write(files, digest, padding, folder)
    except StoreError:
        raise
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{folder}: the converted copy of {name!r} cannot be kept there ({reason(error)}); free space, "
            "or set GRADINOC_CACHE to a folder that has it and can be written to"
        ) from error
    return folder


def digest_of(files: Iterable[Path]) -> str:
    """SHA-256 of the files' contents one after the other, in hex; kept in the cache while none of them changes.

    Raises:
        ModelError: one of them cannot be read.
    """
    try:
        return _digest(tuple((str(file), *_look(file)) for file in files))
    except StoreError:
        raise
    except OSError as error:
        raise ModelError(f"{error.filename}: cannot be read ({reason(error)})") from error


@lru_cache
def _digest(seen: tuple[tuple[str | int, ...], ...]) -> str:
    names = "\n".join(str(name) for name, *_ in seen)
    note = cache_folder() / f"{hashlib.sha256(names.encode(errors='surrogateescape')).hexdigest()[:32]}.sha256.json"
    listed = [list(each) for each in seen]
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = None
    if isinstance(known, dict) and known.get("files") == listed and "sha256" in known:
        return str(known["sha256"])
    digest = hashlib.sha256()
    for content in _contents(Path(str(name)) for name, *_ in seen):
        digest.update(content)
    with suppress(StoreError):  # a cache that cannot be written to may hold all else
        write_atomically(note, json.dumps({"files": listed, "sha256": digest.hexdigest()}).encode())
    return digest.hexdigest()


def _contents(files: Iterable[Path]) -> Iterator[bytes]:
    for file in files:
        with file.open("rb") as stream:
            while content := stream.read(AT_A_TIME):
                yield content


def _write(files: Sequence[Path], digest: str, padding: str | None, folder: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        source = files[0] if len(files) == 1 else _join(files, digest, scratch / "joined.gguf")
        header, made = read_header(source), scratch / "made"
        _ensure_room(folder, unpacked_bytes(header) + TOKENIZER)
        made.mkdir(mode=stat.S_IMODE(scratch.stat().st_mode))
        convert(header, made, padding)
        if digest_of(files) != digest:
            raise header.refuse("changed while it was read; run again")
        listing = {file.name: checksum(file) for file in made.iterdir()}
        (made / CHECKSUMS).write_text(json.dumps(listing), encoding="utf-8")
        settle(made)
        os.replace(made, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _join(files: Sequence[Path], digest: str, joined: Path) -> Path:
    """`joined`, holding the contents of the files one after the other, and nothing but what `digest` stands for."""
    _ensure_room(joined, 4 * sum(file.stat().st_size for file in files))  # four bits a number become sixteen
    found = hashlib.sha256()
    with joined.open("xb") as stream:
        for content in _contents(files):
            found.update(content)
            stream.write(content)
    if found.hexdigest() != digest:
        raise ModelError(f"{files[0]}: it and the pieces after it changed while they were read; run again")
    return joined


def _ensure_room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise StoreError(
            f"{path.parent}: unpacking a model takes {needed / 1e6:,.0f} MB there, and {free / 1e6:,.0f} MB "
            "are free; free space, or set GRADINOC_CACHE to a folder that has it"
        )


def _is_whole(folder: Path) -> bool:
    """Whether the files are those that were written; each is read once a process, and again if it changes."""
    try:
        listing = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        return bool({file.name: _known(file) for file in folder.iterdir() if file.name != CHECKSUMS} == listing)
    except (OSError, ValueError):
        return False


def _known(file: Path) -> str:
    return _checksum(file, *_look(file))


@lru_cache
def _checksum(file: Path, *_look: int) -> str:
    return checksum(file)


def _look(file: Path) -> tuple[int, ...]:
    """What changes when a file does."""
    seen = file.stat()
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns
