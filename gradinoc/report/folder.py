"""A study's artifacts folder: whose it is, and what in it says so."""

from __future__ import annotations

import itertools
import json
import logging
import os
from pathlib import Path
from typing import Any

from filelock import FileLock

from gradinoc.disk import disk_errors, encodable, write_atomically
from gradinoc.study.description import DESCRIBES_NOTHING, Study

DESCRIPTION = "study.json"
FROZEN_PLAN = "frozen-plan.json"  # a copy of the one that was frozen before, if any
LOCK = ".gradinoc.lock"  # beside the artifacts of all studies
logger = logging.getLogger(__name__)


def prepare_folder(study: Study, folder: Path) -> None:
    """Make a study's artifacts folder; one that a study of another description left is moved aside, to `NAME.1`.

    Raises:
        StoreError: the folder cannot be made or written to, or its path is not UTF-8 text.
    """
    note, description = folder / DESCRIPTION, study.model_dump_json(indent=2).encode()
    with disk_errors(folder, "artifacts"):
        encodable(folder, "artifacts")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / LOCK):  # or a worker started at the same time would move the new folder aside
            if note.is_file() and _described(note.read_bytes()) != _described(description):
                beside = (folder.with_name(f"{folder.name}.{number}") for number in itertools.count(1))
                kept = next(place for place in beside if not os.path.lexists(place))
                folder.rename(kept)
                logger.warning("%s: of another description of the study; moved to %s", folder, kept)
            write_atomically(note, description)


def _described(content: bytes) -> Any:
    """Return what a description says that decides or measures anything; as it is, where it is none."""
    try:
        found = json.loads(content)
        return {key: value for key, value in found.items() if key not in DESCRIBES_NOTHING}
    except (ValueError, AttributeError):
        return content
