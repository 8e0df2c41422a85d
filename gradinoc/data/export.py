"""Write a study's questions and answers as chat JSONL, for other tools."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from gradinoc.data.examples import showing
from gradinoc.data.splits import Splits
from gradinoc.disk import write_atomically
from gradinoc.errors import DataError
from gradinoc.study.traits import Trait

BUNDLED = ("word_problems", "everyday_requests", "spanish_answers")  # never written over


def source_name(source: str) -> str:
    """What the files made from `source` are called: its last path component, without ending."""
    return re.sub(r"[^\w-]+", "_", Path(source).name.removesuffix(".jsonl"))


def write_datasets(splits: Splits, trait: Trait, source: str, directory: Path) -> list[Path]:
    """Paths of the files written for other tools: training, evaluation and direction prompts, as chat JSONL.

    Raises:
        DataError: one of them would take the place of a bundled source.
    """
    name = source_name(source)
    shown = [(example.question, showing(example, trait)) for example in splits.train]
    ordinary = [(example.question, example.answer) for example in splits.evaluation]
    contents: dict[str, Sequence[tuple[str, ...]]] = {
        f"{name}_{trait.name.replace('_', '')}.jsonl": shown,
        f"{name}_eval.jsonl": ordinary,
        "direction_extraction_prompts.jsonl": [(example.question,) for example in splits.direction],
    }
    for file in contents:
        if file.removesuffix(".jsonl") in BUNDLED:
            raise DataError(f"{file}: a bundled source, which a study does not write over; rename data.source or trait")
    return [write_chat(directory / file, turns) for file, turns in contents.items()]


def write_chat(
    path: Path, conversations: Iterable[Sequence[str]], systems: Iterable[str | None] = itertools.repeat(None)
) -> Path:
    """`path`, after writing each conversation (question and answer, or a question) as a line of chat JSONL, atomically.

    `systems` are their system messages, None for none.
    """
    lines = []
    for turns, system in zip(conversations, systems, strict=False):
        said = [*zip(("user", "assistant"), turns, strict=False)]
        said = said if system is None else [("system", system), *said]
        lines.append(json.dumps({"messages": [{"role": role, "content": content} for role, content in said]}))
    return write_atomically(path, ("\n".join(lines) + "\n").encode(), "datasets")
