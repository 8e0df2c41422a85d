"""Errors of the disk in one line; files that are written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from gradinoc.errors import StoreError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}  # errors of writing alone
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_address(name: str) -> bool:
    """Whether `name` is a web address, or another that no file has."""
    return ADDRESS.match(name) is not None


def as_typed(path: Path) -> str:
    """`path` as text, with both slashes of an address, of which `Path` keeps one."""
    return re.sub(r"\A([A-Za-z][A-Za-z0-9+.-]+:)/(?!/)", r"\1//", str(path))


def shipped(folder: str) -> Path:
    """Find `folder` ("datasets", "fixtures/organisms") of what the library brings: in the wheel, or in the checkout."""
    inside = Path(__file__).parent / "shipped" / folder
    return inside if inside.is_dir() else Path(__file__).resolve().parents[1] / folder


def cache_folder() -> Path:
    """Where converted models and measured speeds are kept: `GRADINOC_CACHE`, or `~/.cache/gradinoc`."""
    return Path(os.environ.get("GRADINOC_CACHE") or Path.home() / ".cache" / "gradinoc")


@contextmanager
def disk_errors(path: Path, option: str = "store") -> Iterator[None]:
    """Turn errors of the system inside the block, where only our own files are touched, into a `StoreError`.

    `option` is the command-line option that names another place than `path`.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise _refused(path, option, error.strerror or str(error)) from error
    except SafetensorError as error:
        raise _refused(path, option, str(error)) from error


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """Turn errors of a disk that takes no more inside the block, where a step computes, into a `StoreError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise _refused(path, "store", error.strerror or str(error)) from error
    except SafetensorError as error:  # has the system's error as text
        if "os error" not in str(error):
            raise
        raise _refused(path, "store", str(error)) from error


def write_atomically(path: Path, content: bytes, option: str = "artifacts") -> Path:
    """Write `content` beside `path` and rename it, so that no half-written file is ever seen; return `path`.

    Raises:
        StoreError: the system refuses; what was in `path` before is still there.
    """
    scratch = path.with_name(f".{secrets.token_hex(8)}")  # short: the name itself may be as long as the system allows
    with disk_errors(path, option):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with scratch.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            scratch.replace(path)
        finally:
            with suppress(OSError):
                scratch.unlink()
    return path


def encodable(path: Path, option: str) -> None:
    """Raise unless `path` is UTF-8 text: libraries that write tables and figures would fail on it later.

    Raises:
        StoreError: it is not, or it is an address ("s3://..."), for which a local folder would be made.
    """
    if is_address(as_typed(path)):
        raise StoreError(
            f"{as_typed(path)}: an address, to which nothing is written; name a folder with --{option}=DIR"
        )
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise StoreError(f"{path}: is no UTF-8 text; name another folder with --{option}=DIR") from error


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> dict[str, Path]:
    """Every file in `folder`, at any depth, by its path within it; a link, even to a folder, counts as a file."""
    found: dict[str, Path] = {}
    for place, folders, files in os.walk(folder, onerror=_raise):
        linked = [name for name in folders if Path(place, name).is_symlink()]
        for name in (*files, *linked):
            path = Path(place, name)
            found[path.relative_to(folder).as_posix()] = path
    return found


def settle(folder: Path) -> None:
    """Fsync everything in `folder`, and make files as readable to others as `folder` itself is.

    Some libraries write files that only their owner may read, whatever the user's umask says.
    """
    allowed = stat.S_IMODE(folder.stat().st_mode) & 0o666
    files = files_below(folder).values()
    for path in files:
        path.chmod(allowed)
    folders = [Path(place) for place, _, _ in os.walk(folder, topdown=False)]
    for path in (*files, *folders):
        sync(path)


def sync(path: Path) -> None:
    """Fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error


def _refused(path: Path, option: str, reason: str) -> StoreError:
    """Return an error with `reason`, the path, how much is free there, and what to do."""
    return StoreError(
        f"{path}: {reason} ({_free(path)}); what was finished before is intact. "
        f"Free space, see to it that the folder can be written to, or name another with --{option}=DIR, and run again"
    )


def _free(path: Path) -> str:
    for place in (path, *path.parents):
        with suppress(OSError):
            usage = shutil.disk_usage(place)
            return f"{usage.free / 1e6:,.0f} of {usage.total / 1e6:,.0f} MB are free"
    return "how much is free there is not known"
