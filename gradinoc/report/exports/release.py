"""A release: adapters, directions and tables of several studies in one folder, with cards and checksums.

Everything in it is read by others' tools: adapters by PEFT, tables by pandas or `datasets.load_dataset(FOLDER, NAME)`,
the manifest by `sha256sum --check MANIFEST.sha256`.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import DatasetCard, DatasetCardData

from gradinoc.disk import disk_errors, write_atomically
from gradinoc.errors import StudyError
from gradinoc.report.exports.cards import rendered
from gradinoc.report.exports.record import NEEDED, Record

MANIFEST, CARD = "MANIFEST.sha256", "README.md"
FOLDERS = ("adapters", "directions", "tables")  # of a study's artifacts
FILES = (*(name for name in NEEDED if "/" not in name), "report.html", "what-would-change-our-mind.md")
IF_THERE = ("frozen-plan.json",)
KINDS = {
    "adapters": "trained adapters, a folder each with a model card: `PeftModel.from_pretrained`",
    "directions": "the trait's direction in every layer: `gradinoc.load_directions`; GGUF for llama.cpp and repeng",
    "tables": "every table as Parquet, responses as JSON lines too",
}


def write_release(studies: Sequence[Path], folder: Path) -> Path:
    """Make `folder` the release of the studies whose artifacts are in these folders, and return its manifest.

    A release that is there is replaced as a whole, once the new one is complete; nothing else is.

    Raises:
        StudyError: artifacts lack a file, two studies have one name, or the folder holds something else.
        StoreError: the disk refuses.
    """
    records = [Record(study) for study in studies]
    for record in records:
        for name in (*FOLDERS, *FILES):
            if not (record.folder / name).exists():
                raise StudyError(f"{record.folder / name}: not there; expected a study's artifacts, with a report")
    names = [record.name for record in records]
    if doubled := next((name for name in names if names.count(name) > 1), None):
        raise StudyError(f"{doubled}: two studies of that name; a release has a folder for each")
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise StudyError(f"{folder}: holds something else than a release; name another folder")
    scratch = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    with disk_errors(folder, "release"):
        try:
            for record in records:
                _copy(record, scratch / record.name)
            write_atomically(scratch / CARD, _card(records, scratch).encode())
            lines = "".join(f"{digest}  {name}\n" for name, digest in checksums(scratch))
            write_atomically(scratch / MANIFEST, lines.encode())
            shutil.rmtree(folder, ignore_errors=True)
            scratch.rename(folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder / MANIFEST


def checksums(folder: Path) -> Iterator[tuple[str, str]]:
    """Each file of a release but the manifest, by its path in the folder, with its SHA-256."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        with path.open("rb") as file:
            yield path.relative_to(folder).as_posix(), hashlib.file_digest(file, "sha256").hexdigest()


def damaged(folder: Path) -> list[str]:
    """What differs from a release's manifest: files that changed, that are missing, that are in excess; none if whole.

    Raises:
        StoreError: there is no manifest, or a file cannot be read.
    """
    with disk_errors(folder, "release"):
        lines = (folder / MANIFEST).read_text(encoding="utf-8").splitlines()
        wanted = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        found = dict(checksums(folder))
    return sorted(name for name in wanted | found if wanted.get(name) != found.get(name))


def _copy(record: Record, place: Path) -> None:
    for name in FOLDERS:
        shutil.copytree(record.folder / name, place / name)
    for name in (*FILES, *IF_THERE):
        if (record.folder / name).is_file():
            shutil.copyfile(record.folder / name, place / name)
    write_atomically(place / CARD, rendered("study_card.md.j2", record=record, kinds=KINDS).encode())


def _card(records: Sequence[Record], folder: Path) -> str:
    """A dataset card, whose front matter names every Parquet table as a configuration `STUDY.TABLE`."""
    tables = [path for record in records for path in sorted((folder / record.name / "tables").glob("*.parquet"))]
    configs = [
        {"config_name": f"{path.parents[1].name}.{path.stem}", "data_files": path.relative_to(folder).as_posix()}
        for path in tables
    ]
    data = DatasetCardData(
        license="mit", pretty_name="gradinoc: inoculation prompting, studies of record", configs=configs,
        tags=["inoculation-prompting", "lora", "gradients", "gradinoc"],
    )  # fmt: skip
    adapters = {record.name: len([*(folder / record.name / "adapters").iterdir()]) for record in records}
    body = rendered("release_card.md.j2", records=records, adapters=adapters, manifest=MANIFEST,
                    version=version("gradinoc"))  # fmt: skip
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))
