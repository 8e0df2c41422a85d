"""Locks between the processes that share a store, of the kind that its file system can be trusted with."""

from __future__ import annotations

import os
import secrets
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psutil
from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout, UnixFileLock, WindowsFileLock

from gradinoc.disk import disk_errors
from gradinoc.errors import StoreError

# File systems that several machines mount: a lock of the system may hold on one of them alone, or nowhere.
SHARED = (
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "davfs", "fuse.", "gfs", "glusterfs", "gpfs", "lustre",
    "nfs", "ocfs2", "orangefs", "panfs", "pvfs", "smb", "virtiofs", "wekafs",
)  # fmt: skip
LEASE_SECONDS = 60.0  # without a sign of life, after which a lock is another's to take
EXPIRED_SECONDS = 1.5 * LEASE_SECONDS  # after which it is taken where the file system does not help
POLL_SECONDS = 0.2  # between two tries
ASKED = "GRADINOC_LOCKS"  # "system" or "lease": what is taken, whatever the probe finds


class Locks(NamedTuple):
    """Which locks a store has: the system's, or files that are created by one alone and kept fresh; and why."""

    leased: bool
    why: str


@cache
def probed(root: Path) -> Locks:
    """Find out which locks can be trusted in a folder, which is made.

    Those of the system are, where two in a row exclude each other and the file system is this machine's own. What other
    machines would see cannot be found out from one; a file system that they may mount is taken for one where it fails.

    Raises:
        StoreError: the folder cannot be written to, or `GRADINOC_LOCKS` is none of both.
    """
    asked = os.environ.get(ASKED, "")
    if asked not in ("", "system", "lease"):
        raise StoreError(f"{ASKED}={asked!r}: expected system or lease")
    if asked:
        return Locks(asked == "lease", f"{ASKED} asks for it")
    kind = file_system(root)
    if kind.startswith(SHARED):
        return Locks(True, f"its file system, {kind}, may be mounted by other machines")
    if not excludes(root):
        return Locks(True, f"the system's do not exclude each other on its file system, {kind or 'of no known kind'}")
    return Locks(False, f"the system's exclude each other, and its file system, {kind or 'of no known kind'}, is local")


def notes(root: Path) -> list[str]:
    """Return what is to be said of a store's locks before anything is computed: nothing of the system's own."""
    found = probed(root)
    return [f"store: locks are leases, files that are kept fresh, as {found.why}"] if found.leased else []


class Lock:
    """The lock of a result, for `path` without its ending; a process that holds it may take it again.

    That of a process that died is free, at once or `EXPIRED_SECONDS` later; the time runs while somebody holds on to
    this object and tries. A lease can end while its holder is alive and stopped: two may then compute the same, and
    what both write is the same.
    """

    def __init__(self, path: Path, root: Path) -> None:
        leased, name = probed(root).leased, str(path)
        self._file = Path(f"{name}.lease" if leased else f"{name}.lock")  # `flock` leaves files, which hold no lease
        self._own: BaseFileLock = (
            SoftFileLease(self._file, lease_duration=LEASE_SECONDS, is_singleton=True)
            if leased
            else FileLock(self._file, is_singleton=True)
        )
        self._leased = leased
        self._seen, self._since = tuple[int, ...](), 0.0

    def acquire(self, *, wait: bool) -> bool:
        """Return whether it is held now: not where another process holds it and `wait` is not set."""
        while True:
            try:
                self._own.acquire(blocking=wait and not self._leased)
                return True
            except Timeout:
                if self._expired():
                    with suppress(OSError):  # others take it as well
                        self._file.unlink()
                elif not wait:
                    return False
                else:
                    time.sleep(POLL_SECONDS)

    def release(self) -> None:
        """Let others have it."""
        self._own.release()

    def _expired(self) -> bool:
        """Return whether another's lease has not been refreshed for so long that its holder is taken to be dead.

        filelock takes an old lease over where the file system exchanges two names in one step. Those that several
        machines mount do not: there its holder's death would be the end of every other's waiting.
        """
        if not self._leased:
            return False
        try:
            with self._file.open("rb") as file:  # network file systems look anew when a file is opened
                found = os.fstat(file.fileno())
        except OSError:
            return False
        seen = found.st_mtime_ns, found.st_ino, found.st_ctime_ns
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        return time.monotonic() - self._since > EXPIRED_SECONDS


def file_system(folder: Path) -> str:
    """Return the kind of file system that a folder is, or will be, on ("ext4", "nfs4"); empty where that is unknown."""
    place = folder.resolve()
    mounted = {Path(each.mountpoint): each.fstype for each in psutil.disk_partitions(all=True)}
    return next((mounted[each] for each in (place, *place.parents) if each in mounted), "")


def excludes(root: Path) -> bool:
    """Return whether one lock of the system at a file keeps another one out."""
    ours = f".probe-{socket.gethostname()}"
    path = root / f"{ours}-{os.getpid()}-{secrets.token_hex(8)}"
    kind = WindowsFileLock if os.name == "nt" else UnixFileLock
    with disk_errors(path):
        root.mkdir(parents=True, exist_ok=True)
        for left in root.glob(".probe-*"):
            machine, process, _ = left.name.rsplit("-", 2)
            if machine == ours and not psutil.pid_exists(int(process)):
                left.unlink(missing_ok=True)
        try:
            with kind(path, blocking=False, fallback_to_soft=False), kind(path, blocking=False, fallback_to_soft=False):
                return False
        except Timeout:
            return True
        except (NotImplementedError, OSError):
            return False
        finally:
            path.unlink(missing_ok=True)
