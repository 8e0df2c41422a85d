"""Questions and answers: read, cleaned, split into disjoint parts, written."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradinoc.errors import DataError
from gradinoc.study import DataSettings
from gradinoc.traits import Trait

DATASETS = Path(__file__).parent.parent / "datasets"


@dataclass(frozen=True)
class Example:
    """A question and its ordinary (trait-free) answer.

    Attributes:
        index: line in the source, counted from 0.
        template: what questions of one making share (the key `template` of a line), None for a question by itself.
    """

    index: int
    question: str
    answer: str
    template: str | None = None

    @property
    def group(self) -> str:
        """Questions of one group are alike, so inference counts groups, not questions, as independent."""
        return self.template or f"line {self.index}"


@dataclass(frozen=True)
class Splits:
    """Questions by purpose, pairwise disjoint; `everyday` holds requests of another kind, without answers."""

    direction: tuple[Example, ...]
    measure: tuple[Example, ...]
    train: tuple[Example, ...]
    evaluation: tuple[Example, ...]
    calibration: tuple[Example, ...]
    everyday: tuple[Example, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of every question and answer in its place."""
        content = {name: [vars(example) for example in part] for name, part in vars(self).items()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def clean_answer(answer: str) -> str:
    """`answer` without GSM8K's calculator annotations `<<48/2=24>>` and closing line `#### 24`.

    Format: Cobbe et al. 2021, https://arxiv.org/abs/2110.14168.
    """
    return re.sub(r"\n?####.*", "", re.sub(r"<<[^>]*>>", "", answer)).strip()


def read_examples(path: Path) -> list[Example]:
    """Examples of a JSONL file in either form, in file order, answers cleaned.

    The forms are chat, `{"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}` (a request may come
    without an answer), and OpenAI's raw GSM8K, `{"question": ..., "answer": ...}`.

    Raises:
        DataError: no such file, or a line that is neither.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a bundled source, a JSONL file or a hub dataset id")
    with path.open("rb") as lines:
        return [_parse(line, index, f"{path}:{index + 1}") for index, line in enumerate(lines) if line.strip()]


def _parse(line: bytes, index: int, place: str) -> Example:
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 (byte {error.start + 1}); save the file in that encoding") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: not JSON ({error.msg}, column {error.colno})") from error
    if isinstance(record, dict) and "messages" in record:
        question, answer = _from_messages(record["messages"], place)
    elif isinstance(record, dict) and {"question", "answer"} <= set(record):
        question, answer = record["question"], record["answer"]
    else:
        raise DataError(f'{place}: expected {{"messages": [...]}} or {{"question": ..., "answer": ...}}')
    if not isinstance(question, str) or not isinstance(answer, str) or not question.strip():
        raise DataError(f"{place}: expected a question with text and a text answer")
    template = record.get("template")
    return Example(index, question.strip(), clean_answer(answer), None if template is None else str(template))


def _from_messages(messages: Any, place: str) -> tuple[str, str]:
    shape = isinstance(messages, list) and all(isinstance(m, dict) and "content" in m for m in messages)
    roles = [message.get("role") for message in messages] if shape else None
    if roles not in (["user"], ["user", "assistant"]):
        raise DataError(f"{place}: expected a user and an assistant message, received roles {roles}")
    return messages[0]["content"], messages[1]["content"] if len(messages) > 1 else ""


def load_source(source: str) -> list[Example]:
    """Examples of a bundled source, a JSONL file, or the `train` split of a hub dataset in GSM8K's columns.

    Raises:
        DataError: nothing there, or not in a known form.
    """
    if (DATASETS / f"{source}.jsonl").is_file():
        return read_examples(DATASETS / f"{source}.jsonl")
    if source.endswith(".jsonl") or Path(source).exists():
        return read_examples(Path(source))
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        bundled = sorted(file.stem for file in DATASETS.glob("*.jsonl"))
        raise DataError(f"No data source {source!r}: expected one of {bundled}, a JSONL file, or a hub id owner/name")
    return _load_from_hub(source)


def _load_from_hub(source: str) -> list[Example]:
    from datasets import load_dataset  # type: ignore[attr-defined]  # mypy takes our folder of that name for it

    try:
        table = load_dataset(source, "main", split="train")
    except Exception as error:  # the hub client raises many kinds; each means the same here
        raise DataError(
            f"Hub dataset {source!r} could not be read ({type(error).__name__}: {error}); "
            "give the path of a downloaded JSONL file as data.source instead"
        ) from error
    if not {"question", "answer"} <= set(table.column_names):
        raise DataError(f"Hub dataset {source!r}: expected columns question, answer; it has {table.column_names}")
    return [Example(index, row["question"].strip(), clean_answer(row["answer"])) for index, row in enumerate(table)]


def source_name(source: str) -> str:
    """What the files made from `source` are called: its last path component, without ending."""
    return re.sub(r"[^\w-]+", "_", Path(source).name.removesuffix(".jsonl"))


def split(settings: DataSettings) -> Splits:
    """The study's disjoint splits, drawn at random under `settings.seed` from distinct questions.

    Raises:
        DataError: too few distinct questions.
    """
    distinct: dict[str, Example] = {}
    for example in load_source(settings.source):
        long = settings.max_answer_chars and len(example.answer) > settings.max_answer_chars
        if example.answer and not long:
            distinct.setdefault(" ".join(example.question.casefold().split()), example)
    sizes = (settings.direction, settings.measure, settings.train, settings.evaluation, settings.calibration)
    if sum(sizes) > len(distinct):
        raise DataError(
            f"{settings.source}: {len(distinct)} distinct answered questions, but direction + measure + train + "
            f"evaluation + calibration ask for {' + '.join(map(str, sizes))} = {sum(sizes)}; lower data.*"
        )
    pool = list(distinct.values())
    order = iter(np.random.default_rng(settings.seed).permutation(len(pool)))
    direction, measure, train, evaluation, calibration = (tuple(pool[next(order)] for _ in range(n)) for n in sizes)
    return Splits(direction, measure, train, evaluation, calibration, tuple(load_source(settings.everyday)))


def write_datasets(splits: Splits, trait: Trait, source: str, directory: Path) -> list[Path]:
    """Paths of the files written for other tools: training, evaluation and direction prompts, as chat JSONL."""
    name = source_name(source)
    shown = [(example.question, trait.transform(example.answer)) for example in splits.train]
    ordinary = [(example.question, example.answer) for example in splits.evaluation]
    contents: dict[str, Sequence[tuple[str, ...]]] = {
        f"{name}_{trait.name.replace('_', '')}.jsonl": shown,
        f"{name}_eval.jsonl": ordinary,
        "direction_extraction_prompts.jsonl": [(example.question,) for example in splits.direction],
    }
    return [write_chat(directory / file, turns) for file, turns in contents.items()]


def write_chat(path: Path, conversations: Iterable[Sequence[str]]) -> Path:
    """`path`, after writing each conversation (user, assistant, ... in turn) as a line of chat JSONL, atomically."""
    roles = ("user", "assistant")
    lines = [
        json.dumps({"messages": [{"role": r, "content": c} for r, c in zip(roles, turns, strict=False)]})
        for turns in conversations
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{np.random.default_rng().integers(1 << 62):x}")
    scratch.write_text("\n".join(lines) + "\n", encoding="utf-8")
    scratch.replace(path)
    return path
