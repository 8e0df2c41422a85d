"""Storage: damage is noticed, named and computed again; errors of the disk take one line and cost no result."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch

from fixtures.complaints import complaint
from fixtures.small_study import assert_same
from fixtures.smallest import quick_collection, smallest, tables, written
from gradinoc.disk import write_atomically
from gradinoc.errors import StoreError
from gradinoc.pipeline import store as storing
from gradinoc.pipeline.store import (
    MANIFEST,
    Store,
    load_json,
    load_or_compute,
    load_table,
    load_tensors,
    save_json,
    save_table,
    save_tensors,
)


def fill(folder: Path, number: int = 1) -> None:
    """A computation that leaves a file of every format, one of them deep."""
    save_table(pd.DataFrame({"a": range(64), "b": float(number)}), folder / "table.parquet")
    save_tensors({"t": torch.arange(64.0) + number}, folder / "tensors.safetensors")
    save_json({"number": number, "word": "é"}, folder / "value.json")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "notes.md").write_text(f"number {number}\n")


FILES = ("table.parquet", "tensors.safetensors", "value.json", "deep/er/notes.md", MANIFEST)


def entries(root: Path, *numbers: int):
    """Entries of one stage in a store that has met none of their files, and what computes each."""
    store = Store(root)
    return [(store.entry("stage", {"number": n}), lambda folder, n=n: fill(folder, n)) for n in numbers]


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def results(folder: Path) -> dict[str, bytes]:
    """The same without the manifest, in which the time is."""
    return {name: data for name, data in content(folder).items() if name != MANIFEST}


# --- damage


def flip_a_bit(path: Path, _other: Path) -> None:
    """One bit, and nothing to be seen in size or time."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[4] ^= 1  # in a manifest the middle is provenance, which nothing depends on
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def truncate(path: Path, _other: Path) -> None:
    """Cut in the middle."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


STRAY = "adapter_model.bin"  # a library may prefer it
DAMAGES = {
    "a file truncated": truncate,
    "a bit flipped": flip_a_bit,
    "a file emptied": lambda path, _: path.write_bytes(b""),
    "a file deleted": lambda path, _: path.unlink(),
    "a file made a folder": lambda path, _: (path.unlink(), path.mkdir()),
    "a file exchanged with another result's": lambda path, other: shutil.copy(other, path),
    "a file added": lambda path, _: path.with_name(STRAY).write_bytes(b"anything"),
}
damages = [pytest.param(what, marks=pytest.mark.fault("Storage", what)) for what in DAMAGES]


@pytest.mark.parametrize("what", damages)
def test_damaged_file_is_named_and_its_entry_alone_computed_again(tmp_path, caplog, faults_tried, what):
    """Any file of an entry, the manifest included, in a store that another process has filled."""
    whole = {}
    for entry, compute in entries(tmp_path, 1, 2):
        whole[entry.path] = results(load_or_compute(entry, compute))
    for name in FILES:
        before = written(tmp_path)
        (entry, _), (other, _) = entries(tmp_path, 1, 2)
        DAMAGES[what](entry.path / name, other.path / name)
        assert not entry.complete()
        assert other.complete()
        caplog.clear()
        for each, work in entries(tmp_path, 1, 2):
            load_or_compute(each, work)
        (message,) = caplog.messages
        assert f"stage/{entry.key} is corrupt" in message
        assert (STRAY if what == "a file added" else Path(name).name) in message
        after = written(tmp_path)
        assert {path for path in after if after[path] != before.get(path)} == {entry.path}
        assert {path: results(path) for path in whole} == whole
    faults_tried(len(FILES))


@pytest.mark.fault("Storage", "hidden files left by desktops and network file systems")
def test_hidden_file_is_no_damage(tmp_path):
    """Nothing reads .DS_Store; a run of hours is not thrown away for it."""
    ((entry, compute),) = entries(tmp_path, 1)
    load_or_compute(entry, compute)
    (entry.path / "deep" / ".DS_Store").write_bytes(b"\0")
    (entry.path / ".nfs0001").write_bytes(b"")
    assert entry.complete()


# --- what somebody else may have written

RECORD = {"size": 5, "sha256": "0" * 64}
HOSTILE = {
    "path upwards": {"../../secret": RECORD},
    "path through a link": {"link/secret": RECORD},
    "escape in a name": {"\x1b[2J\nfake": RECORD},
    "files a list": ["value.json"],
}


@pytest.mark.fault("Storage", "a manifest with hostile content")
@pytest.mark.parametrize("files", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_manifest_is_corrupt_and_leads_nowhere(tmp_path, monkeypatch, caplog, files):
    """Whatever it lists: nothing outside the entry is opened or written."""
    ((entry, compute),) = entries(tmp_path / "store", 1)
    load_or_compute(entry, compute)
    secret = tmp_path / "secret"
    secret.write_bytes(b"12345")
    (entry.path / "link").symlink_to(tmp_path, target_is_directory=True)
    save_json({**entry.manifest(), "files": files}, entry.path / MANIFEST)
    opened, take = [], storing.checksum
    monkeypatch.setattr(storing, "checksum", lambda path: (opened.append(path), take(path))[1])
    ((again, compute),) = entries(tmp_path / "store", 1)
    assert not again.complete()
    assert all(path.resolve().is_relative_to(entry.path) for path in opened)
    load_or_compute(again, compute)
    (message,) = caplog.messages
    assert message.isprintable()
    assert len(message) < 1000
    assert again.complete()
    assert secret.read_bytes() == b"12345"
    assert not (again.path / "link").exists()


@pytest.mark.fault("Storage", "a manifest that is no manifest")
@pytest.mark.parametrize("text", [b"[" * 100_000, b"\xff\xfe{}", b"{}"], ids=["deep", "no UTF-8", "empty"])
def test_broken_manifest_is_corrupt(tmp_path, caplog, text):
    """It is named, and the entry computed anew."""
    ((entry, compute),) = entries(tmp_path, 1)
    load_or_compute(entry, compute)
    (entry.path / MANIFEST).write_bytes(text)
    load_or_compute(entry, compute)
    (message,) = caplog.messages
    assert MANIFEST in message
    assert len(message) < 1000
    assert entry.complete()


@pytest.mark.fault("Storage", "something that is no folder in an entry's place")
@pytest.mark.parametrize("kind", ["file", "dangling link", "link to a folder", "pipe inside"])
def test_what_stands_in_the_place_of_a_result_is_replaced(tmp_path, kind):
    """And what a link leads to is left alone. A pipe is not waited at."""
    ((entry, compute),) = entries(tmp_path / "store", 1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("kept")
    entry.path.parent.mkdir(parents=True)
    if kind == "file":
        entry.path.write_text("no folder")
    elif kind == "pipe inside":
        entry.path.mkdir()
        os.mkfifo(entry.path / MANIFEST)
    else:
        entry.path.symlink_to(elsewhere if kind == "link to a folder" else tmp_path / "nowhere")
    assert not entry.complete()
    load_or_compute(entry, compute)
    assert entry.complete()
    assert not entry.path.is_symlink()
    assert (elsewhere / "precious").read_text() == "kept"


@pytest.mark.fault("Storage", "a store behind a link")
def test_store_may_be_a_link(tmp_path):
    """To another disk, say: what is computed through the link is there without it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    ((entry, compute),) = entries(tmp_path / "link", 1)
    load_or_compute(entry, compute)
    ((direct, _),) = entries(tmp_path / "real", 1)
    assert direct.complete()


@pytest.mark.fault("Storage", "a lock file left by a dead process")
def test_lock_file_that_nobody_holds_is_free(tmp_path):
    """Whatever is in it, and whoever wrote it."""
    ((entry, compute),) = entries(tmp_path, 1)
    entry.path.parent.mkdir(parents=True)
    entry.path.with_name(f"{entry.key}.lock").write_text("4194304\n")
    with entry.lock(wait=False) as held:
        assert held
    load_or_compute(entry, compute)
    assert entry.complete()


@pytest.mark.fault("Storage", "a file damaged between its check and its use")
@pytest.mark.parametrize(
    ("name", "load"), [("table.parquet", load_table), ("tensors.safetensors", load_tensors), ("value.json", load_json)]
)
def test_file_that_is_damaged_after_its_check_is_named(tmp_path, name, load):
    """Whatever the format's library raises, it is one line that says which file, and what to do."""
    ((entry, compute),) = entries(tmp_path, 1)
    path = load_or_compute(entry, compute) / name
    assert entry.complete()
    truncate(path, path)
    assert_refused(lambda: load(path), str(path), "run again")
    assert not entries(tmp_path, 1)[0][0].complete(), "the next process does not take it for whole"


# --- a disk that refuses


def assert_refused(attempt: Callable[[], object], *words: str) -> None:
    """It ends in a message for users: one line that holds the words."""
    text = complaint(StoreError, attempt)
    assert [word for word in words if word not in text] == [], text


@contextmanager
def mounted(folder: Path, options: str):
    """A small file system of its own at `folder`, or skip where this user may not make one."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system in memory (root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


BIG = 4_000_000  # bytes, more than the small disk has; random ones, since tables are compressed
WORKS = {
    "table": lambda folder: save_table(pd.DataFrame({"x": [os.urandom(BIG)]}), folder / "big.parquet"),
    "tensors": lambda folder: save_tensors({"x": torch.zeros(BIG // 4)}, folder / "big.safetensors"),
    "text": lambda folder: save_json("x" * BIG, folder / "big.json"),
    "many files": lambda folder: [(folder / str(number)).touch() for number in range(1000)],
}


@pytest.mark.fault("Storage", "a full disk")
@pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)
def test_full_disk_is_said_and_costs_no_result(tmp_path, work):
    """A real one, of a megabyte. When there is room again the same store goes on."""
    with mounted(tmp_path / "disk", "size=1m,nr_inodes=200") as disk:
        (entry, compute), (other, _) = entries(disk, 1, 2)
        before = content(load_or_compute(entry, compute))
        assert_refused(lambda: load_or_compute(other, work), str(other.path), "No space left on device", "--store=DIR")
        assert content(entry.path) == before
        assert entries(disk, 1)[0][0].complete()
        assert [path for path in entry.path.parent.iterdir() if path.is_dir()] == [entry.path], "scratch is left"
        subprocess.run(["mount", "-o", "remount,size=32m,nr_inodes=100000", str(disk)], check=True)
        load_or_compute(other, work)
        assert other.complete()


REFUSING = {  # where the system's error arises: module and name
    "making the scratch folder": "pathlib.Path.mkdir",
    "writing the manifest": "pathlib.Path.write_text",
    "flushing to the disk": "gradinoc.disk.os.fsync",
    "setting permissions": "pathlib.Path.chmod",
    "the last step": "pathlib.Path.rename",
}


@pytest.mark.fault("Storage", "an error of the system at any point of writing")
@pytest.mark.parametrize("where", REFUSING.values(), ids=list(REFUSING))
def test_error_of_the_system_is_said_and_costs_no_result(tmp_path, monkeypatch, where):
    """Nothing half-written is left, nor anything that was there lost."""
    (entry, compute), (other, work) = entries(tmp_path, 1, 2)
    before = content(load_or_compute(entry, compute))

    def refuse(*_, **__):
        raise OSError(errno.EACCES, "refused here")

    with monkeypatch.context() as patch:
        patch.setattr(where, refuse)
        assert_refused(
            lambda: load_or_compute(other, lambda folder: (folder / "file").touch()), str(other.path), "refused here"
        )
    assert content(entry.path) == before
    assert not other.complete()
    load_or_compute(other, work)
    assert other.complete()
    assert {path for path in entry.path.parent.iterdir() if path.is_dir()} == {entry.path, other.path}


@pytest.mark.fault("Storage", "a failure of a computation that is not the disk's")
def test_other_error_of_a_computation_passes_as_it_is(tmp_path):
    """Only a full disk is the store's to explain."""
    ((entry, _),) = entries(tmp_path, 1)
    error = FileNotFoundError(errno.ENOENT, "No such file", "/model/config.json")

    def fail(_folder):
        raise error

    with pytest.raises(FileNotFoundError) as caught:
        load_or_compute(entry, fail)
    assert caught.value is error


@contextmanager
def as_nobody():
    """Permissions do not bind root: give it up inside the block."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


@pytest.fixture
def shared():
    """A folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="gradinoc-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.fault("Storage", "a store without permission to write")
def test_store_that_may_not_be_written_is_read_and_its_refusal_said(shared):
    """What another user left is used; what is missing is an error of one line, and changes nothing."""
    (entry, compute), (other, work) = entries(shared / "store", 1, 2)
    load_or_compute(entry, compute)
    before = content(shared)
    for folder in (shared / "store", shared / "store" / "stage"):
        folder.chmod(0o555)
    with as_nobody():
        (own, _), (missing, _) = entries(shared / "store", 1, 2)
        assert load_or_compute(own, compute) == entry.path
        assert_refused(lambda: load_or_compute(missing, work), str(other.path), "Permission denied", "--store=DIR")
        report = shared / "store" / "report.html"
        assert_refused(lambda: write_atomically(report, b"<html>"), "Permission denied", "--artifacts=DIR")
    for folder in (shared / "store", shared / "store" / "stage"):
        folder.chmod(0o755)
    assert content(shared) == before


@pytest.mark.fault("Storage", "a result that may not be read")
def test_result_that_may_not_be_read_is_not_taken_for_damage(shared):
    """It is somebody's, and whole: it is not thrown away, though the folder could be written to."""
    ((entry, compute),) = entries(shared / "store", 1)
    load_or_compute(entry, compute)
    before = content(shared)
    (entry.path / "table.parquet").chmod(0)
    (shared / "store" / "stage").chmod(0o777)
    entry.path.with_name(f"{entry.key}.lock").chmod(0o666)
    with as_nobody():
        ((own, _),) = entries(shared / "store", 1)
        assert_refused(lambda: load_or_compute(own, compute), str(entry.path), "Permission denied")
    (entry.path / "table.parquet").chmod(0o644)
    assert content(shared) == before


@pytest.mark.fault("Storage", "a disk that can only be read")
def test_read_only_disk_is_read_and_its_refusal_said(tmp_path):
    """A finished study needs no writing; what is missing is an error of one line."""
    with mounted(tmp_path / "disk", "size=1m") as disk:
        (entry, compute), (_, work) = entries(disk, 1, 2)
        load_or_compute(entry, compute)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        (own, _), (missing, _) = entries(disk, 1, 2)
        assert load_or_compute(own, compute) == entry.path
        assert_refused(
            lambda: load_or_compute(missing, work), str(missing.path), "Read-only file system", "--store=DIR"
        )


@pytest.mark.fault("Storage", "a store where none can be")
@pytest.mark.parametrize(
    ("name", "reason"),
    [("file/store", "Not a directory"), ("n" * 300, "name too long"), ("circle", "symbolic links")],
    ids=["below a file", "too long", "a link in a circle"],
)
def test_impossible_place_is_said(tmp_path, name, reason):
    """By the store and for artifacts alike: one line, with the path and the system's reason."""
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    ((entry, compute),) = entries(tmp_path / name, 1)
    assert not entry.complete()
    assert_refused(lambda: load_or_compute(entry, compute), reason, "--store=DIR")
    assert_refused(lambda: write_atomically(tmp_path / name / "report.html", b"<html>"), "--artifacts=DIR")
    assert (tmp_path / "file").read_text() == "no folder"


@pytest.mark.fault("Storage", "a folder where a lock should be")
def test_lock_that_cannot_be_made_is_said(tmp_path):
    """Instead of working without one."""
    ((entry, compute),) = entries(tmp_path, 1)
    entry.path.with_name(f"{entry.key}.lock").mkdir(parents=True)
    assert_refused(lambda: load_or_compute(entry, compute), str(entry.path), "directory")


# --- artifacts


@pytest.mark.fault("Storage", "a full disk under the artifacts")
def test_artifact_that_does_not_fit_leaves_the_old_one(tmp_path):
    """Never half of it, nor anything beside it."""
    with mounted(tmp_path / "disk", "size=1m") as disk:
        path = write_atomically(disk / "folder" / "report.html", b"old")
        assert_refused(
            lambda: write_atomically(path, os.urandom(BIG)), str(path), "No space left on device", "--artifacts=DIR"
        )
        assert content(disk) == {"folder/report.html": b"old"}


@pytest.mark.fault("Storage", "a loss of power after a rename")
@pytest.mark.parametrize("what", ["entry", "artifact"])
def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch, what):
    """Every file and every folder is synchronised before the rename: after it a power cut loses nothing."""
    synced, unsynced, renamed = set(), [], []
    real, renamers = os.fsync, {"entry": "rename", "artifact": "replace"}
    rename = getattr(Path, renamers[what])

    def fsync(descriptor):
        found = os.fstat(descriptor)
        synced.add((found.st_ino, found.st_mtime_ns))
        real(descriptor)

    def checked(path, target):
        parts = (path, *path.rglob("*")) if path.is_dir() else (path,)
        unsynced.extend(each for each in parts if (each.stat().st_ino, each.stat().st_mtime_ns) not in synced)
        renamed.append(Path(target))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, renamers[what], checked)
    if what == "entry":
        ((entry, compute),) = entries(tmp_path, 1)
        name = load_or_compute(entry, compute)
    else:
        name = write_atomically(tmp_path / "report.html", b"<html>")
    assert renamed == [name]
    assert unsynced == []


@pytest.mark.fault("Storage", "results that a group is to share, or nobody")
@pytest.mark.parametrize(("umask", "files", "folders"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)])
def test_who_may_read_is_what_the_umask_says(tmp_path, umask, files, folders):
    """Of results and artifacts, whatever the libraries that write them think."""
    before = os.umask(umask)
    try:
        ((entry, compute),) = entries(tmp_path / "store", 1)
        load_or_compute(entry, compute)
        write_atomically(tmp_path / "artifacts" / "report.html", b"<html>")
    finally:
        os.umask(before)
    for path in (*(tmp_path / "store").rglob("*"), *(tmp_path / "artifacts").rglob("*")):
        wanted = folders if path.is_dir() else files
        assert stat.S_IMODE(path.stat().st_mode) == wanted, f"{path}: {path.stat().st_mode:o}"


# --- names


@pytest.mark.fault("Storage", "blanks, quotes, other scripts or a line end in the store's path")
@pytest.mark.parametrize("name", ["é ü %41 'quoted\" 雪", "line\nend", "-rf"], ids=ascii)
def test_store_may_be_called_anything(tmp_path, name):
    """Written, found again, damaged, mended; and an error names it on one line."""
    ((entry, compute),) = entries(tmp_path / name, 1)
    load_or_compute(entry, compute)
    (entry.path / "table.parquet").write_bytes(b"")
    load_or_compute(entry, compute)
    assert entries(tmp_path / name, 1)[0][0].complete()
    (entry.path / "table.parquet").unlink()
    assert_refused(lambda: load_table(entry.path / "table.parquet"), "table.parquet")


@pytest.mark.fault("Storage", "a store's path that is no text")
def test_path_that_is_no_text_is_said(tmp_path):
    """The libraries that write tables and tensors know no such names: at once, and not after an hour."""
    assert_refused(lambda: entries(tmp_path / "\udcff", 1), "UTF-8", "--store=DIR")


# --- real studies


@pytest.fixture(scope="module")
def study(finished, tmp_path_factory):
    """A copy of the smallest study's store, and its tables."""
    folder = shutil.copytree(finished.store, tmp_path_factory.mktemp("study") / "store")
    with quick_collection():
        yield folder, tables(smallest(folder))


@pytest.mark.fault("Storage", "one file of a finished study damaged")
@pytest.mark.parametrize(
    ("damage", "pattern"),
    [(truncate, "training/*/adapter/adapter_model.safetensors"), (flip_a_bit, "directions/*/directions.safetensors")],
)
def test_damaged_study_is_mended(study, caplog, damage, pattern):
    """The step is named and alone computed again; the tables are what they were, to the last bit."""
    store, whole = study
    before, path = written(store), sorted(store.glob(pattern))[0]
    (place,) = (folder for folder in before if folder in path.parents)
    damage(path, path)
    again = tables(smallest(store))
    (message,) = [text for text in caplog.messages if "corrupt" in text]
    assert place.name in message
    assert path.name in message
    after = written(store)
    assert {folder for folder in after if after[folder] != before[folder]} == {place}
    assert_same(again, whole)


@pytest.mark.exhaustive
@pytest.mark.fault("Storage", "a disk that fills up in the middle of a study")
def test_study_goes_on_when_there_is_room_again(study, tmp_path):
    """What was finished is not computed again, and the tables are those of an undisturbed study."""
    with mounted(tmp_path / "disk", "size=400k") as disk, quick_collection():
        assert_refused(lambda: smallest(disk).evidence(), str(disk), "No space left on device", "intact")
        before = written(disk)
        assert before, "the disk was full before anything was finished"
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert_same(tables(smallest(disk)), study[1])
        after = written(disk)
        assert {folder: after[folder] for folder in before} == before
        assert len(after) > len(before)
