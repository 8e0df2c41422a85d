"""What the disk refuses, said in one line; files that are there whole or not at all."""

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

# What a write says when the disk, and not who writes, is at fault.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO}
# safetensors raises an error of its own, and says the system's number in words.
NUMBERED = re.compile(r"I/O error: (?P<reason>.*) \(os error (?P<number>\d+)\)")

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


@contextmanager
def disk_errors(path: Path, option: str = "store") -> Iterator[None]:
    """Whatever the system refuses inside the block becomes a `StoreError` about `path`.

    `option` is the command-line option that names another place.
    """
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise _refused(path, option, error.strerror or str(error)) from error
    except SafetensorError as error:
        raise _refused(path, option, _number_and_reason(error)[1]) from error


@contextmanager
def disk_failures(path: Path, option: str = "store") -> Iterator[None]:
    """The same for foreign code that writes into `path`: only what a disk that fails or is full can be the reason of.

    Every other error passes as it is, and so does one that names a file elsewhere.
    """
    try:
        yield
    except StoreError:
        raise
    except (OSError, SafetensorError) as error:
        number, reason = _number_and_reason(error)
        if number not in FULL or _elsewhere(error, path):
            raise
        raise _refused(path, option, reason) from error


def write_atomically(path: Path, content: bytes, option: str = "artifacts") -> Path:
    """`path`, holding `content`: written beside it, then renamed, so that no half-written file is ever seen.

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
    """Stop if `path` is no UTF-8 text: libraries that write tables and figures would, later and in their own words.

    Raises:
        StoreError: it is not, or it is an address, of which a folder of an odd name would be made here.
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
    """Have the system write all that is in `folder` to the disk, as readable to others as `folder` itself is.

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
    """Have the system write a file, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error


def _number_and_reason(error: Exception) -> tuple[int | None, str]:
    """The system's error number and words, where `error` holds them."""
    if isinstance(error, OSError):
        return error.errno, error.strerror or str(error)
    if said := NUMBERED.search(str(error)):
        return int(said["number"]), said["reason"]
    return None, str(error)


def _elsewhere(error: Exception, path: Path) -> bool:
    name = getattr(error, "filename", None)
    return isinstance(name, str) and path.parent not in Path(name).parents


def _refused(path: Path, option: str, reason: str) -> StoreError:
    """`reason` with what a user needs to know: which path, how much is free there, what to do."""
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
