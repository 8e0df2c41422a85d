"""A disk that refuses, is full or loses power: it takes one line, and costs no result."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch

from fixtures.small_study import assert_same
from fixtures.smallest import quick_collection, smallest, tables, written
from fixtures.stored import assert_refused, content, entries
from gradinoc.disk import write_atomically
from gradinoc.pipeline.storage.contents import save_json, save_table, save_tensors
from gradinoc.pipeline.storage.store import load_or_compute


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


# --- real studies


@pytest.fixture(scope="module")
def study(finished, tmp_path_factory):
    """A copy of the smallest study's store, and its tables."""
    folder = shutil.copytree(finished.store, tmp_path_factory.mktemp("study") / "store")
    with quick_collection():
        yield folder, tables(smallest(folder))


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
