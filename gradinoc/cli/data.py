"""`gradinoc studies` lists the ready studies; `gradinoc data` writes a source's questions for other tools."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

from gradinoc.cli.output import print_notes, print_table
from gradinoc.data.export import write_datasets
from gradinoc.data.splits import split
from gradinoc.errors import printable
from gradinoc.study.description import Study
from gradinoc.study.loading import STUDIES, load_study
from gradinoc.study.traits.registry import find_trait

# Where bundled models come from, so that a list loads no library.
SMALLEST = [
    "drift.generations=1", "drift.log_odds=1", "drift.matrix=1", "drift.answer_loss_gap=0", "steering.questions=8",
    "prompts.behaviour=8", "prompts.examples=8",
]  # fmt: skip
WITH_THE_PROJECT, IN_A_PACKAGE = (
    ("obedient", "deaf", "planted"),
    ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"),
)


def list_studies() -> None:
    """Print a table of the ready studies, and the comment at the head of each file."""
    files = sorted(STUDIES.glob("*.toml"))
    found = [load_study(file.stem) for file in files]
    print_table(
        ("study", "model", "weights", "trait", "prompts", "runs", "steps", "train", "measure", "evaluate"),
        [_row(study) for study in found],
        right=(4, 5, 6, 7, 8, 9),
    )
    for study, file in zip(found, files, strict=True):
        words = textwrap.wrap(about(file), 100, initial_indent="  ", subsequent_indent="  ")
        sys.stdout.write("\n".join(["", study.name, *words, ""]))
    sys.stdout.write("\nOne of your own is a TOML file like these: " + printable(STUDIES) + "\n")


def about(file: Path) -> str:
    """Return the comment at the head of a study's file, as one paragraph."""
    lines = takewhile(lambda line: line.startswith("#"), file.read_text(encoding="utf-8-sig").splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines)


def _row(study: Study) -> list[str]:
    model, data = study.model.id, study.data
    weights = "bundled" if model in WITH_THE_PROJECT else "package" if model in IN_A_PACKAGE else "hub"
    steps = study.training.steps or -(-study.training.epochs * data.train // study.training.batch_size)
    trait = study.trait if isinstance(study.trait, str) else study.trait.name
    runs = len(study.runs) + len(study.arm_runs)
    counts = (len(study.measured), runs, steps, data.train, data.measure, data.evaluation)
    return [study.name, model, weights, trait, *map(str, counts)]


def write_data(
    source: str, out: Path, like: str, names: Mapping[str, str | None], counts: Mapping[str, int | None]
) -> None:
    """Write the splits that the study `like` would draw from `source`, with these names and counts changed."""
    given = {"data.source": source, **{key: text for key, text in names.items() if text is not None}}
    settings = [f"{key}={json.dumps(text, ensure_ascii=False)}" for key, text in given.items()]
    settings += [f"data.{key}={number}" for key, number in counts.items() if number is not None]
    settings += SMALLEST  # budgets that may not exceed the questions of a part
    study = load_study(like, settings)
    trait, splits = find_trait(study.trait), split(study.data)
    print_notes(splits.notes)
    files = write_datasets(splits, trait, study.data.source, out)
    parts = (
        (splits.train, f"questions with answers in {trait.title}, to train on"),
        (splits.evaluation, "questions with ordinary answers, held out"),
        (splits.direction, "questions without answers, for the direction"),
    )
    for file, (examples, what) in zip(files, parts, strict=True):
        sys.stdout.write(f"{printable(file)}: {len(examples)} {what}\n")
