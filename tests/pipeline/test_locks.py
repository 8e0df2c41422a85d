"""Locks of a store: the system's where they can be trusted, leases where they cannot; both keep others out."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import time

import pytest
from filelock import SoftFileLease, Timeout, UnixFileLock

from gradinoc.errors import StoreError
from gradinoc.pipeline.storage import locks
from gradinoc.pipeline.storage.store import Store, load_or_compute


@pytest.fixture(autouse=True)
def _anew(monkeypatch):
    """What was found out of a folder is found out again."""
    monkeypatch.delenv(locks.ASKED, raising=False)
    locks.probed.cache_clear()
    yield
    locks.probed.cache_clear()


def test_on_a_local_file_system_locks_are_the_systems(tmp_path):
    """Nothing is left of the probe, and the reason is told."""
    found = locks.probed(tmp_path / "store")
    assert not found.leased
    assert "is local" in found.why
    assert locks.notes(tmp_path / "store") == []
    assert [*(tmp_path / "store").iterdir()] == []
    assert kind_of_lock(tmp_path) == ".lock"


def kind_of_lock(folder):
    """The ending of the file that is there while a lock is held."""
    lock = locks.Lock(folder / "a", folder)
    assert lock.acquire(wait=False)
    try:
        return {path.suffix for path in folder.glob("a.*")}.pop()
    finally:
        lock.release()


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "lustre", "gpfs", "fuse.sshfs", "9p", "cifs", "smb3", "beegfs"])
def test_on_a_shared_one_they_are_leases(tmp_path, monkeypatch, kind):
    """Whatever the system's own locks do on this machine."""
    monkeypatch.setattr(locks, "file_system", lambda _folder: kind)
    assert locks.probed(tmp_path) == (True, f"its file system, {kind}, may be mounted by other machines")
    assert kind_of_lock(tmp_path) == ".lease"
    assert locks.notes(tmp_path) == [
        f"store: locks are leases, files that are kept fresh, as {locks.probed(tmp_path).why}"
    ]


def test_where_the_systems_do_not_exclude_each_other_they_are_leases(tmp_path, monkeypatch):
    """As on a network file system that takes every lock and holds none."""
    monkeypatch.setattr(UnixFileLock, "_acquire", lambda self: setattr(self._context, "lock_file_fd", 1))
    monkeypatch.setattr(UnixFileLock, "_release", lambda self: setattr(self._context, "lock_file_fd", None))
    found = locks.probed(tmp_path)
    assert found.leased
    assert "do not exclude each other" in found.why


def test_what_is_asked_for_is_taken(tmp_path, monkeypatch):
    """And what is neither is refused."""
    monkeypatch.setenv(locks.ASKED, "lease")
    assert locks.probed(tmp_path / "a").leased
    monkeypatch.setattr(locks, "file_system", lambda _folder: "nfs")
    monkeypatch.setenv(locks.ASKED, "system")
    assert not locks.probed(tmp_path / "b").leased
    monkeypatch.setenv(locks.ASKED, "mkdir")
    with pytest.raises(StoreError, match="expected system or lease"):
        locks.probed(tmp_path / "c")


def hold(root, held, seconds):
    """Hold the entry's lock for a while, in another process, which is told."""
    with Store(root).entry("stage", {}).lock():
        held.set()
        time.sleep(seconds)


@pytest.mark.parametrize("asked", ["system", "lease"])
def test_another_process_is_kept_out(tmp_path, monkeypatch, asked):
    """While it is held; the one that holds it may take it again; afterwards it is free."""
    monkeypatch.setenv(locks.ASKED, asked)
    spawning = multiprocessing.get_context("spawn")
    held = spawning.Event()
    other = spawning.Process(target=hold, args=(tmp_path, held, 3.0))
    other.start()
    assert held.wait(60)
    entry = Store(tmp_path).entry("stage", {})
    with entry.lock(wait=False) as taken:
        assert not taken
    other.join()
    with entry.lock(wait=False) as taken, entry.lock(wait=False) as again:
        assert taken
        assert again
    assert entry._lock is None  # nothing is kept of a lock that was let go


def test_results_are_computed_under_leases(tmp_path, monkeypatch):
    """Once, as under any lock; no lease is left behind."""
    monkeypatch.setenv(locks.ASKED, "lease")
    entry, computed = Store(tmp_path).entry("stage", {}), []

    def compute(folder):
        computed.append(folder)
        with pytest.raises(Timeout):
            SoftFileLease(entry.path.with_suffix(".lease"), lease_duration=locks.LEASE_SECONDS).acquire(timeout=0)
        (folder / "file").write_text("content")

    for _ in range(2):
        load_or_compute(entry, compute)
    assert len(computed) == 1
    assert [path.name for path in entry.path.parent.iterdir()] == [entry.key]


LEFT_ELSEWHERE = """
import os, socket, sys
socket.gethostname = lambda: "elsewhere"
from filelock import SoftFileLease
lease = SoftFileLease(sys.argv[1], lease_duration=float(sys.argv[2]))
lease.acquire()
os._exit(0)
"""


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchanges names", "does not"])
@pytest.mark.parametrize("wait", [True, False], ids=["waits", "asks again and again"])
@pytest.mark.fault("Concurrency", "the lease of a machine that died")
def test_lease_of_a_machine_that_died_is_anothers_in_time(tmp_path, monkeypatch, exchanges, wait):
    """Nobody can look whether a process of another machine lives; a file system of several may not exchange names.

    It is not taken before its time is up, nor where somebody keeps it fresh.
    """
    monkeypatch.setenv(locks.ASKED, "lease")
    monkeypatch.setattr(locks, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(locks, "EXPIRED_SECONDS", 1.5)
    if not exchanges:
        monkeypatch.setattr("filelock._soft.exchange_names", lambda *_: False)
    entry = Store(tmp_path).entry("stage", {})
    entry.path.parent.mkdir()
    left = entry.path.with_suffix(".lease")
    subprocess.run([sys.executable, "-c", LEFT_ELSEWHERE, str(left), "1.0"], check=True)
    assert "elsewhere" in left.read_text()
    began = time.monotonic()
    for _ in range(5):  # as long as its holder refreshes it
        with entry.lock(wait=False) as held:
            assert not held
        left.touch()
        time.sleep(0.4)
    refreshed = time.monotonic()
    while True:
        with entry.lock(wait=wait) as held:
            if held:
                break
        assert time.monotonic() - began < 20
        time.sleep(0.05)
    assert time.monotonic() - refreshed > 0.5


def test_what_locks_of_the_system_leave_holds_no_lease(tmp_path, monkeypatch):
    """A store that was begun on a local disk, and copied to a shared one: their files stay there, empty."""
    entry = Store(tmp_path).entry("stage", {})
    with entry.lock():
        pass
    assert entry.path.with_suffix(".lock").exists()
    locks.probed.cache_clear()
    monkeypatch.setenv(locks.ASKED, "lease")
    with Store(tmp_path).entry("stage", {}).lock(wait=False) as held:
        assert held


@pytest.mark.fault("Storage", "a manifest whose result would be put elsewhere")
@pytest.mark.parametrize("stage", ["../../elsewhere", "/elsewhere", "", ".", "a/b", "Stage"])
def test_stage_is_a_word(tmp_path, stage):
    """A manifest of somebody's may say anything: no result is put anywhere but into the store."""
    with pytest.raises(ValueError, match="expected a word"):
        Store(tmp_path / "store").entry(stage, {})


def test_probe_of_a_process_that_died_is_swept(tmp_path):
    """One that lives, or is another machine's, is left alone."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    here = f".probe-{socket.gethostname()}"
    left, alive = tmp_path / f"{here}-{dead.pid}-0", tmp_path / f"{here}-{os.getpid()}-0"
    elsewhere = {tmp_path / f"{machine}-{dead.pid}-0" for machine in (".probe-other", f"{here}-2")}
    for path in (left, alive, *elsewhere):
        path.touch()
    locks.probed(tmp_path)
    assert {*tmp_path.iterdir()} == {alive, *elsewhere}


@pytest.mark.parametrize("kind", ["system", "lease"])
@pytest.mark.parametrize("mark", ["", "~"])
def test_what_a_writer_left_that_died_is_removed_by_the_next(tmp_path, monkeypatch, kind, mark):
    """Whatever name it has where locks are of either kind; that of another result stays."""
    monkeypatch.setenv(locks.ASKED, kind)
    entry, other = (Store(tmp_path).entry("stage", {"seed": seed}) for seed in (1, 2))
    left = entry.path.parent / f".{entry.key}{mark}{'0123456789abcdef' if kind == 'lease' else ''}"
    theirs = entry.path.parent / f".{other.key}"
    for folder in (left, theirs):
        folder.mkdir(parents=True)
        (folder / "half.txt").write_text("half")
    load_or_compute(entry, lambda folder: (folder / "word.txt").write_text("whole") and None)
    assert entry.complete()
    assert not left.exists()
    assert theirs.exists()
