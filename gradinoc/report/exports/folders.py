"""Folders that are written as a whole, take the place of an earlier one, and never that of something else."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from gradinoc.disk import disk_errors, files_below
from gradinoc.errors import StudyError


@contextmanager
def whole_folder(place: Path, what: str, option: str, known: Collection[str] = ()) -> Iterator[Path]:
    """A new folder to write `what` into; when the block has ended, it takes the place of the folder that is there.

    Where the block fails, everything is as it was. A file that is there and is neither in the new folder nor `known` (a
    path in it) is somebody's own, and nothing is replaced. `option` is the command-line option that names the place.

    Raises:
        StudyError: such a file is there, or the place is no folder, or the one that the process is in.
        StoreError: the disk refuses.
    """
    place = Path(os.path.abspath(place))  # noqa: PTH100 - resolve() would follow a link, which is what is replaced then
    if Path.cwd().is_relative_to(place) or (os.path.lexists(place) and (place.is_symlink() or not place.is_dir())):
        raise StudyError(
            f"{place}: expected a folder that is not there yet, or an earlier {what}; name another with --{option}"
        )
    token = secrets.token_hex(4)
    scratch, old = (place.with_name(f".{place.name}-{token}-{age}") for age in ("new", "old"))
    with disk_errors(place, option):
        scratch.mkdir(parents=True)
        try:
            yield scratch
            if place.is_dir():
                if theirs := sorted(files_below(place).keys() - files_below(scratch).keys() - {*known}):
                    raise StudyError(f"{place / theirs[0]}: not of this {what}; move it, or name another folder")
                place.rename(old)
            try:
                scratch.rename(place)
            except OSError:
                if old.is_dir():
                    old.rename(place)
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
