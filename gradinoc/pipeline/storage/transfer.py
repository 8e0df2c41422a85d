"""Results that travel: packed into one file, taken into another store, whole stores made one."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gradinoc.disk import disk_errors, files_below, full_disk
from gradinoc.errors import StoreError, reason, shown
from gradinoc.pipeline.storage.contents import MANIFEST, load_json, load_table, readable
from gradinoc.pipeline.storage.store import Entry, Store

PACKED = ".tar"  # a result in one file: its stage, its key and this
CLOCKED = ["seconds"]  # columns that say how long a thing took: two that did the same differ there


class Became(StrEnum):
    """What became of a result that another store has."""

    TAKEN = "taken"
    KNOWN = "there already"
    DIFFERENT = "other bytes"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class Arrival:
    """A result of another store.

    Attributes:
        stage: its stage.
        key: its key, or the name of what should have held it.
        became: what became of it.
        what: which of its files differ from those that were there, or what is wrong with it.
    """

    stage: str
    key: str
    became: Became
    what: str = ""


def pack(entry: Entry) -> bytes:
    """Return a result as one uncompressed tar: the same bytes for the same result."""
    packed = io.BytesIO()
    with disk_errors(entry.path), tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in sorted(files_below(entry.path).items()):
            if name == MANIFEST or "/." not in f"/{name}":
                member = tarfile.TarInfo(name)
                member.size = path.stat().st_size
                with path.open("rb") as file:
                    tar.addfile(member, file)
    return packed.getvalue()


def receive(store: Store, packed: bytes) -> Arrival:
    """Put what `pack` returned into its place, unless it is there."""
    with disk_errors(store.root):
        store.root.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".received.", dir=store.root, ignore_cleanup_errors=True)
    with scratch as folder, full_disk(store.root):
        try:
            with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
                tar.extractall(folder, filter="data")
        except (tarfile.TarError, EOFError) as error:
            return Arrival("", "", Became.DAMAGED, reason(error))
        return take(store, Path(folder))


def take(store: Store, folder: Path) -> Arrival:
    """Put a copy of a result's folder, of another store, into its place; one that is there stays.

    The same key with other bytes means that two machines, or one machine twice, computed different things of the same:
    that is told and not taken. How long things took (`CLOCKED`) differs between any two.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        entry = store.entry(manifest["stage"], manifest["inputs"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        return Arrival(shown(folder.parent.name), shown(folder.name), Became.DAMAGED, reason(error))
    if fault := entry.fault(folder):
        return Arrival(entry.stage, entry.key, Became.DAMAGED, fault)
    with entry.lock():
        if entry.complete():
            what = ", ".join(differences(entry.path, folder))
            return Arrival(entry.stage, entry.key, Became.DIFFERENT if what else Became.KNOWN, what)
        with entry.receive() as scratch, disk_errors(entry.path):
            shutil.copytree(folder, scratch, dirs_exist_ok=True)
    return Arrival(entry.stage, entry.key, Became.TAKEN)


def differences(one: Path, other: Path) -> Iterator[str]:
    """Yield the files in which two results, both whole, differ by more than the time that they took."""
    listed = [load_json(each / MANIFEST)["files"] for each in (one, other)]
    for name in sorted({*listed[0], *listed[1]}):
        found = [files.get(name, {}).get("sha256") for files in listed]
        if found[0] != found[1] and not (None not in found and _same_table(one / name, other / name)):
            yield shown(name)


def _same_table(one: Path, other: Path) -> bool:
    """Return whether two tables are equal bit for bit, but for the time that things took."""
    if one.suffix != ".parquet":
        return False
    tables = [load_table(path).drop(columns=CLOCKED, errors="ignore") for path in (one, other)]
    return bool(tables[0].equals(tables[1]))


def merge(store: Store, other: Path) -> Iterator[Arrival]:
    """Take every result of another store, or of a file that `pack` made, and yield what became of each.

    Raises:
        StoreError: there is neither.
    """
    if other.is_file():
        with disk_errors(other):
            packed = other.read_bytes()
        yield receive(store, packed)
        return
    if not other.is_dir():
        raise StoreError(f"{other}: no such store; expected a folder of results, or a file that `store export` wrote")
    for folder in Store(other).stored():
        yield take(store, folder)


def entry_of(store: Store, folder: Path) -> Entry:
    """Return the result that a folder of the store is of.

    Raises:
        StoreError: its manifest does not say.
    """
    with readable(folder / MANIFEST):
        manifest = load_json(folder / MANIFEST)
        return store.entry(manifest["stage"], manifest["inputs"])


def faults(store: Store) -> Iterator[tuple[Path, str | None]]:
    """Yield the folder of every result and what is wrong with it, all checksums taken; None where it is whole."""
    for folder in store.stored():
        try:
            yield folder, entry_of(store, folder).fault(folder)
        except StoreError as error:
            yield folder, reason(error)


def found_in(store: Store, begun: str) -> Entry:
    """Return the result whose key begins so.

    Raises:
        StoreError: there is none, or more than one, or its manifest cannot be read.
    """
    paths = [path for path in store.stored() if path.name.startswith(begun)]
    if len(paths) != 1:
        raise StoreError(f"{store.root}: {len(paths)} results have keys that begin with {shown(begun)}; expected one")
    (folder,) = paths
    entry = entry_of(store, folder)
    if fault := entry.fault(folder):
        raise StoreError(f"{folder}: {fault}")
    return entry
