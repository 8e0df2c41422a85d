"""Damage to what is stored is noticed, named and computed again, and nothing of it leads out of the store."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fixtures.small_study import assert_same
from fixtures.smallest import quick_collection, smallest, tables, written
from fixtures.stored import assert_refused, content, entries
from gradinoc.pipeline.storage import store as storing
from gradinoc.pipeline.storage.contents import MANIFEST, load_json, load_table, load_tensors, save_json
from gradinoc.pipeline.storage.store import load_or_compute

FILES = ("table.parquet", "tensors.safetensors", "value.json", "deep/er/notes.md", MANIFEST)


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
