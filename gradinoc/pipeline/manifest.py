"""What makes a stored result the one that is asked for, and as it was written: keys, manifests, checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradinoc.disk import checksum, files_below
from gradinoc.errors import reason, shown

MANIFEST = "manifest.json"
LAYOUT = 2  # part of every key: what was stored in another layout is not looked at
# What the system says of a file that is damaged; anything else (a permission, say) is no reason to compute anew.
DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO}

Look = tuple[int, int, int, int]  # inode, size, times of change of content and of the file: new ones if it was touched
Seen = dict[str, tuple[Look, str]]  # path -> how the file looked when it had which checksum


class Checked:
    """The files of the entry `key` in `folder`, checked against its manifest.

    A checksum is taken when a file is first met, and again when it looks different; `seen` remembers.
    """

    def __init__(self, folder: Path, key: str, seen: Seen) -> None:
        self._folder, self._key, self._seen = folder, key, seen
        self._listed = dict[Look, dict[str, Any]]()

    def fault(self) -> str | None:
        """What is wrong, naming the file; None if nothing is.

        No file is opened that is not listed in the manifest and found in the folder.

        Raises:
            OSError: whether something is wrong cannot be found out.
        """
        try:
            files, found = self._files(), files_below(self._folder)
            for name, expected in files.items():
                if fault := self._file_fault(found.get(name), expected):
                    return f"{shown(name)}: {fault}"
        except OSError as error:
            if error.errno not in DAMAGE:
                raise
            return f"{shown(Path(str(error.filename)).name)}: {error.strerror}"
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return f"{MANIFEST!r}: {reason(error)}"
        # Nothing reads hidden files; desktops and network file systems leave some.
        strange = [name for name in found if name not in {*files, MANIFEST} and "/." not in f"/{name}"]
        return f"{shown(strange[0])}: was not written with the others" if strange else None

    def _files(self) -> dict[str, Any]:
        """The files that the manifest lists, after seeing that it is as it was written, and belongs here."""
        path = self._folder / MANIFEST
        look = _look(path)
        if look not in self._listed:
            text = path.read_bytes()
            manifest = json.loads(text)
            stage, inputs, files = (manifest[name] for name in ("stage", "inputs", "files"))
            if entry_key(stage, inputs) != self._key:
                raise ValueError("does not belong to this key")
            if manifest_text(stage, inputs, files, manifest["provenance"]).encode() != text:
                raise ValueError("is not as it was written")
            self._listed = {look: dict(files)}
        return self._listed[look]

    def _file_fault(self, path: Path | None, expected: Mapping[str, Any]) -> str | None:
        if path is None:
            return "missing"
        look, size, sha256 = _look(path), expected["size"], expected["sha256"]
        if look[1] != size:
            return f"{look[1]} bytes instead of {shown(size)}"
        if self._seen.get(str(path)) != (look, sha256):
            if checksum(path) != sha256:
                return "checksum does not match"
            self._seen[str(path)] = (look, sha256)
        return None


def entry_key(stage: str, inputs: Any) -> str:
    """SHA-256, in hex, of stage and inputs in canonical JSON."""
    text = canonical_json({"layout": LAYOUT, "stage": stage, "inputs": inputs})
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def manifest_text(stage: str, inputs: Any, files: Any, made_by: Any) -> str:
    """A manifest; the last thing it holds is the checksum of all the rest."""
    content = {"stage": stage, "inputs": inputs, "files": files, "provenance": made_by}
    own = hashlib.sha256(canonical_json(content).encode("ascii")).hexdigest()
    return json.dumps({**content, "sha256": own}, indent=2, allow_nan=False) + "\n"


def canonical_json(value: Any) -> str:
    """JSON text that is the same for the same content: sorted keys, no blanks, ASCII.

    Raises:
        TypeError: something that is not str, bool, int, float, None, list, tuple or a mapping with str keys.
        ValueError: NaN or infinity, which equal nothing and so identify nothing.
    """
    return json.dumps(_plain(value, "inputs"), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, str | bool) or type(value) is int:
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}: a key needs finite numbers; use None for what is missing")
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{place}]") for place, item in enumerate(value)]
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{where} has keys that are not strings: {odd}")
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    raise TypeError(f"{where} is a {type(value).__name__}: a key needs str, bool, int, float, None, lists and mappings")


def _look(path: Path) -> Look:
    """How a file looks without reading it.

    Raises:
        OSError: it is not there, or no plain file.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EISDIR, "is not a plain file", str(path))
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
