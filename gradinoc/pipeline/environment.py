"""Where and with what a study was run: on what its report is written, on what its results were computed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradinoc.data.sources import source_path
from gradinoc.disk import checksum
from gradinoc.pipeline.provenance import provenance
from gradinoc.study.description import Study

NOTES, SELF_TESTS = "notes.json", "self_tests.json"  # of steps that load the model
DECIDED = ("device", "dtype", "overrides", "kernels")  # of what a step is determined by: how its machine was used


def environment(
    study: Study | None = None,
    manifests: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
    tried: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Time, platform, hardware, Python, package versions and git revision of this process; what is unknown is None.

    With a `study`, the data and weights that it asks for, and their checksums; with the `manifests` of the results
    that a report rests on, what these were computed by, which may have been other machines and versions; and the
    `notes` on the data and of how the model was loaded (see `loading_notes`), and what it was
    `tried` on then (see `self_tests`). Hosts' names are left out: a report is to be passed on.
    """
    known = _passed_on(provenance())
    if study is None:
        return known
    inputs = manifests[0]["inputs"] if manifests else {}
    return {
        **known,
        "data": {
            "source": study.data.source,
            "sha256": _file_checksum(study.data.source),
            "everyday": study.data.everyday,
            "everyday_sha256": _file_checksum(study.data.everyday),
            "trait_answers": study.data.trait_answers,
            "trait_answers_sha256": _file_checksum(study.data.trait_answers) if study.data.trait_answers else None,
            "splits": inputs.get("data"),  # of every question and answer in its place
        },
        "weights": {
            "model": study.model.id,
            "revision": study.model.revision,
            "fingerprint": inputs.get("model"),
        },
        "self_tests": dict(tried or {}),
        "computed_by": _computed_by(manifests),
        "notes": list(notes),
    }


def loading_notes(*folders: Path) -> list[str]:
    """What was decided or worked around while the model was loaded, each thing once, from those steps' folders."""
    return list(dict.fromkeys(str(note) for folder in folders for note in _kept(folder / NOTES, [])))


def self_tests(*folders: Path) -> dict[str, str]:
    """What the model was tried on while it was loaded, and what came of it, from those steps' folders."""
    return {name: told for folder in folders for name, told in _kept(folder / SELF_TESTS, {}).items()}


def _kept(file: Path, otherwise: Any) -> Any:
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else otherwise


def _passed_on(made_by: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in made_by.items() if name != "host"}


def _file_checksum(source: str) -> str | None:
    """SHA-256 of a data source where it is a file."""
    path = source_path(source)
    return checksum(path) if path is not None and path.is_file() else None


def _computed_by(manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many results there are, from when, and each different way in which some of them were computed."""
    ways: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        made_by = {**_passed_on(manifest["provenance"]), **{name: manifest["inputs"].get(name) for name in DECIDED}}
        made_by.pop("created")
        way = ways.setdefault(json.dumps(made_by, sort_keys=True), {"results": 0, **made_by})
        way["results"] += 1
    times = sorted(manifest["provenance"]["created"] for manifest in manifests)
    return {
        "results": len(manifests),
        "first": times[0] if times else None,
        "last": times[-1] if times else None,
        "ways": list(ways.values()),
    }
