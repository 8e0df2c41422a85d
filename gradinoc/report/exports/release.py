"""A release: adapters, directions and tables of several studies in one folder, with cards and checksums.

Everything in it is read by others' tools: adapters by PEFT, tables by pandas or `datasets.load_dataset(FOLDER, NAME)`,
the manifest by `sha256sum --check MANIFEST.sha256`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData

from gradinoc.disk import checksum, disk_errors, files_below, write_atomically
from gradinoc.errors import StudyError
from gradinoc.report.exports.cards import rendered
from gradinoc.report.exports.folders import whole_folder
from gradinoc.report.exports.record import NEEDED, Record
from gradinoc.report.folder import FROZEN_PLAN

MANIFEST, CARD = "MANIFEST.sha256", "README.md"
FOLDERS = ("adapters", "directions", "tables")  # of a study's artifacts
FILES = (*(name for name in NEEDED if "/" not in name), "report.html", "what-would-change-our-mind.md")
KINDS = {
    "adapters": "trained adapters, a folder each with a model card: `PeftModel.from_pretrained`",
    "directions": "the trait's direction in every layer: `gradinoc.load_directions`; GGUF for llama.cpp and repeng",
    "tables": "every table as Parquet, responses as JSON lines too",
}


def write_release(studies: Sequence[Path], folder: Path, license_name: str | None = None) -> Path:
    """Make `folder` the release of the studies whose artifacts are in these folders, and return its manifest.

    A release that is there is replaced as a whole, once the new one is complete, unless a file in it was changed;
    nothing else is. `license_name` (an identifier of the hub, such as "mit") is what its card says it may be used
    under; without one it says nothing.

    Raises:
        StudyError: artifacts lack a file or name a path of this machine, two studies have one name, or the folder holds
            something else.
        StoreError: the disk refuses.
    """
    records = [Record(study) for study in studies]
    for record in records:
        for name in (*FOLDERS, *FILES):
            if not (record.folder / name).exists():
                raise StudyError(f"{record.folder / name}: not there; expected a study's artifacts, with a report")
        record.ensure_publishable(_texts(record))
    names = [record.name for record in records]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise StudyError(f"{doubled}: two studies of that name; a release has a folder for each")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise StudyError(f"{folder}: holds something else than a release; name another folder")
    earlier = _listed(folder) if (folder / MANIFEST).is_file() else {}
    changed = (folder / name for name in (damaged(folder) if earlier else ()))
    if mine := next((path for path in changed if path.is_file()), None):
        raise StudyError(f"{mine}: changed since the release was made, or not of it; move it, or name another folder")
    with whole_folder(folder, "release", "out", earlier) as scratch:
        for record in records:
            _copy(record, scratch / record.name)
        write_atomically(scratch / CARD, _card(records, scratch, license_name).encode())
        lines = "".join(f"{digest}  {name}\n" for name, digest in checksums(scratch))
        write_atomically(scratch / MANIFEST, lines.encode())
    return folder / MANIFEST


def checksums(folder: Path) -> Iterator[tuple[str, str]]:
    """Each file of a release but the manifest, by its path in the folder, with its SHA-256."""
    for name, path in sorted(files_below(folder).items()):
        if name != MANIFEST:
            yield name, checksum(path)


def damaged(folder: Path) -> list[str]:
    """What differs from a release's manifest: files that changed, that are missing, that are in excess; none if whole.

    Raises:
        StudyError: there is no manifest.
        StoreError: a file cannot be read.
    """
    if not (folder / MANIFEST).is_file():
        raise StudyError(f"{folder / MANIFEST}: no such file; expected a release")
    with disk_errors(folder, "out"):
        wanted, found = _listed(folder), dict(checksums(folder))
    return sorted(name for name in wanted | found if wanted.get(name) != found.get(name))


def _listed(folder: Path) -> dict[str, str]:
    """Each file that a release's manifest lists, with its SHA-256."""
    lines = (folder / MANIFEST).read_text(encoding="utf-8", errors="replace").splitlines()
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _files(record: Record) -> tuple[str, ...]:
    """Files beside the folders of a study in a release: its plan too, where one was frozen."""
    return (*FILES, FROZEN_PLAN) if (record.folder / FROZEN_PLAN).is_file() else FILES


def _texts(record: Record) -> Iterator[str]:
    """Files of a study in a release that people read, by their path in its artifacts: not weights, not tables."""
    yield from _files(record)
    for folder in FOLDERS:
        for name, path in files_below(record.folder / folder).items():
            if path.suffix in (".json", ".md"):
                yield f"{folder}/{name}"


def _copy(record: Record, place: Path) -> None:
    for name in FOLDERS:
        shutil.copytree(record.folder / name, place / name)
    for name in _files(record):
        shutil.copyfile(record.folder / name, place / name)
    write_atomically(place / CARD, rendered("study_card.md.j2", record=record, kinds=KINDS).encode())


def _card(records: Sequence[Record], folder: Path, license_name: str | None) -> str:
    """A dataset card, whose front matter names every Parquet table as a configuration `STUDY.TABLE`.

    Descriptions hold checksums, because `datasets` 5.2.0 caches a local folder with configurations by its name and its
    front matter alone: without them, a second release of the same name would be answered with the first one's rows.
    """
    tables = [path for record in records for path in sorted((folder / record.name / "tables").glob("*.parquet"))]
    configs = [
        {"config_name": f"{path.parents[1].name}.{path.stem}", "data_files": path.relative_to(folder).as_posix(),
         "description": f"SHA-256 {checksum(path)}"}
        for path in tables
    ]  # fmt: skip
    data = DatasetCardData(
        license=license_name, pretty_name="gradinoc: studies of inoculation prompting", configs=configs,
        tags=["inoculation-prompting", "lora", "gradients", "gradinoc"],
    )  # fmt: skip
    adapters = {record.name: len([*(folder / record.name / "adapters").iterdir()]) for record in records}
    body = rendered("release_card.md.j2", records=records, license=license_name, adapters=adapters, manifest=MANIFEST,
                    version=version("gradinoc"))  # fmt: skip
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))
