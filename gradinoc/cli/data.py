"""`gradinoc data`: a source's questions as the files that other tools train and evaluate on."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from gradinoc.cli.session import say
from gradinoc.data.export import write_datasets
from gradinoc.data.splits import split
from gradinoc.errors import printable
from gradinoc.study.loading import load_study
from gradinoc.study.traits.registry import find_trait


def write_data(
    source: str, out: Path, like: str, names: Mapping[str, str | None], counts: Mapping[str, int | None]
) -> None:
    """Write the splits that the study `like` would draw from `source`, with these names and counts changed."""
    given = {"data.source": source, **{key: text for key, text in names.items() if text is not None}}
    settings = [f"{key}={json.dumps(text, ensure_ascii=False)}" for key, text in given.items()]
    settings += [f"data.{key}={number}" for key, number in counts.items() if number is not None]
    settings += ["drift.generations=1", "drift.log_odds=1"]  # what is evaluated is none of a data set's business
    study = load_study(like, settings)
    trait, splits = find_trait(study.trait), split(study.data)
    say(splits.notes)
    files = write_datasets(splits, trait, study.data.source, out)
    parts = (
        (splits.train, f"questions with answers in {trait.title}, to train on"),
        (splits.evaluation, "questions with ordinary answers, held out"),
        (splits.direction, "questions without answers, for the direction"),
    )
    for file, (examples, what) in zip(files, parts, strict=True):
        sys.stdout.write(f"{printable(file)}: {len(examples)} {what}\n")
