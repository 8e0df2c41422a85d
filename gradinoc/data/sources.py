"""Questions and answers: found by source, split into disjoint parts, written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gradinoc.data.examples import Example, clean_answer, example_of, read_examples, showing
from gradinoc.disk import write_atomically
from gradinoc.errors import DataError, printable, quoted, reason, shown
from gradinoc.formats import OF_FILES, UNTOLD, instead_of, is_address
from gradinoc.study.description import DataSettings
from gradinoc.study.traits import Trait

__all__ = [
    "DATASETS", "DataError", "Example", "Splits", "clean_answer", "line_of", "load_source", "read_examples",
    "showing", "source_name", "source_path", "split", "write_chat", "write_datasets",
]  # fmt: skip

DATASETS = Path(__file__).parents[2] / "datasets"
BUNDLED = ("word_problems", "everyday_requests", "spanish_answers")  # never written over
ANSWERED = ("measure", "train", "evaluation", "calibration")  # parts whose answers a study uses


@dataclass(frozen=True)
class Splits:
    """Questions by purpose, pairwise disjoint; `everyday` holds requests of another kind, without answers.

    The examples of `ANSWERED` bring an answer that shows the trait where `data.trait_answers` is given. `notes` say
    what of the sources was left out or changed in reading.
    """

    direction: tuple[Example, ...]
    measure: tuple[Example, ...]
    train: tuple[Example, ...]
    evaluation: tuple[Example, ...]
    calibration: tuple[Example, ...]
    everyday: tuple[Example, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def parts(self) -> dict[str, tuple[Example, ...]]:
        """The questions of each purpose, by its name."""
        return {name: part for name, part in vars(self).items() if name != "notes"}

    @property
    def digest(self) -> str:
        """SHA-256 of every question and answer in its place."""
        content = {
            name: [{key: value for key, value in vars(example).items() if key != "cleaned"} for example in part]
            for name, part in self.parts.items()
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def source_path(source: str) -> Path | None:
    """The file that `source` stands for, whether or not it is there; None for a hub dataset or an address."""
    if is_address(source):
        return None
    bundled = DATASETS / f"{source}.jsonl"
    if os.path.isfile(bundled):  # noqa: PTH113 - Path's own raises where a name is too long
        return bundled
    path = Path(os.path.expanduser(source))  # noqa: PTH111 - Path's own raises where there is no such user
    there = bool(source) and os.path.exists(path)  # noqa: PTH110 - as above
    named = source.startswith((".", "/", "~")) or source.lower().endswith(OF_FILES)
    return path if there or named else None


def place_of(source: str) -> str:
    """What messages call `source`: a bundled one by its file, any other as it was given."""
    path = source_path(source)
    return printable(path if path is not None and path.parent == DATASETS else source)


def line_of(source: str, example: Example) -> str:
    """Where an example of `source` stands: file and line."""
    return f"{place_of(source)}:{example.index + 1}"


def load_source(source: str, revision: str | None = None) -> list[Example]:
    """Examples of a bundled source, a JSONL file, or the `train` split of a hub dataset in GSM8K's columns.

    Raises:
        DataError: nothing there, or not in a known form.
    """
    path = source_path(source)
    if path is not None:
        return read_examples(path, place_of(source))
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        bundled = sorted(file.stem for file in DATASETS.glob("*.jsonl"))
        raise DataError(
            f"No data source {quoted(source)}: expected one of {bundled}, a JSONL file, or a hub id owner/name"
            + (f"; {instead_of(source, dataset=True)}" if is_address(source) else "")
        )
    return _load_from_hub(source, revision)


def _load_from_hub(source: str, revision: str | None) -> list[Example]:
    from datasets import load_dataset  # type: ignore[attr-defined]  # mypy takes our folder of that name for it

    try:
        table = load_dataset(source, "main", split="train", revision=revision)
    except Exception as error:  # the hub client raises many kinds; each means the same here
        raise DataError(
            f"Hub dataset {source!r} could not be read ({reason(error)}); "
            "give the path of a downloaded JSONL file as data.source instead"
        ) from error
    if not {"question", "answer"} <= set(table.column_names):
        raise DataError(
            f"Hub dataset {source!r}: expected columns question, answer; it has {shown(table.column_names)}"
        )
    fields = [field for field in ("question", "answer", *UNTOLD) if field in table.column_names]
    return [
        example_of({field: row[field] for field in fields}, f"{source}:{index + 1}", index)
        for index, row in enumerate(table)
    ]


def source_name(source: str) -> str:
    """What the files made from `source` are called: its last path component, without ending."""
    return re.sub(r"[^\w-]+", "_", Path(source).name.removesuffix(".jsonl"))


def split(settings: DataSettings) -> Splits:
    """The study's disjoint splits, drawn at random under `settings.seed` from distinct questions.

    Everyday requests are the distinct ones of their own source, in its order.

    Raises:
        DataError: too few distinct questions, no everyday request, one that is a question of another split, or a
            question without its one answer in `settings.trait_answers`.
    """
    found = _Distinct(settings.source, longest=settings.max_answer_chars)
    for example in load_source(settings.source, settings.revision):
        found.add(example)
    distinct = found.by_question
    sizes = (settings.direction, settings.measure, settings.train, settings.evaluation, settings.calibration)
    if sum(sizes) > len(distinct):
        raise DataError(
            f"{settings.source}: {len(distinct)} distinct answered questions, but direction + measure + "
            f"train + evaluation + calibration ask for {' + '.join(map(str, sizes))} = {sum(sizes)}; lower data.* or "
            f"give more: {found.left_out}"
        )
    pool = list(distinct.values())
    order = iter(np.random.default_rng(settings.seed).permutation(len(pool)))
    direction, measure, train, evaluation, calibration = (tuple(pool[next(order)] for _ in range(n)) for n in sizes)
    parts = {
        "direction": direction,
        "measure": measure,
        "train": train,
        "evaluation": evaluation,
        "calibration": calibration,
    }
    everyday = _everyday(settings, parts)
    notes = [*found.notes, *everyday.notes]
    notes += _cleaned(settings.source, [example for part in ANSWERED for example in parts[part]])
    if settings.trait_answers is not None:
        bearing, used = _with_trait_answers(settings.source, settings.trait_answers, parts)
        parts |= bearing
        notes += _cleaned(settings.trait_answers, used)
    return Splits(**parts, everyday=tuple(everyday.by_question.values()), notes=tuple(notes))


class _Distinct:
    """The questions of a source that are told apart, the first of equal ones, and what became of the others."""

    def __init__(self, source: str, *, answered: bool = True, longest: int = 0) -> None:
        self.source, self.answered, self.longest = source, answered, longest
        self.by_question: dict[str, Example] = {}
        self.read = self.unanswered = self.long = 0
        self.again: list[tuple[Example, Example]] = []  # one that was asked before, and the first that asked it

    def add(self, example: Example) -> None:
        """Take `example`, unless it was asked before, has no answer where it needs one, or one that is too long."""
        self.read += 1
        if self.answered and not example.answer:
            self.unanswered += 1
        elif self.longest and len(example.answer) > self.longest:
            self.long += 1
        else:
            first = self.by_question.setdefault(_asked(example), example)
            if first is not example:
                self.again.append((example, first))

    @property
    def left_out(self) -> str:
        """How many lines there are, and why not each is a question of its own."""
        if not self.read:
            return "this source is empty"
        why = {"without an answer": self.unanswered, "longer than data.max_answer_chars": self.long}
        why["asked before"] = len(self.again)
        return f"of {self.read} in all, " + ", ".join(f"{count} are {words}" for words, count in why.items())

    @property
    def notes(self) -> list[str]:
        """A note on questions that are left out though they, or their answers, differ from the first ones."""
        differ = [
            (example, first)
            for example, first in self.again
            if _written(example) != _written(first) or (self.answered and example.answer != first.answer)
        ]
        if not differ:
            return []
        example, first = differ[0]
        return [
            f"data: {len(differ)} questions of {place_of(self.source)} are left out, since each was asked before: with "
            "another answer, or in another case or make of its characters; the first at "
            f"{line_of(self.source, example)}, after {line_of(self.source, first)}"
        ]


def _cleaned(source: str, used: Sequence[Example]) -> list[str]:
    """A note on the answers of `source` that were cleaned of GSM8K's marks, among those that the study uses."""
    cleaned = [example for example in used if example.cleaned]
    if not cleaned:
        return []
    return [
        f"data: {len(cleaned)} of {len(used)} answers of {place_of(source)} were cleaned of GSM8K's marks (annotations "
        f"<<48/2=24>>, a last line #### 24); the first at {line_of(source, cleaned[0])}"
    ]


def _with_trait_answers(
    source: str, answers: str, parts: dict[str, tuple[Example, ...]]
) -> tuple[dict[str, tuple[Example, ...]], list[Example]]:
    """The parts whose answers are used, each example with its question's answer in `answers`; those answers' lines."""
    path = source_path(answers)
    if path is None:
        raise DataError(
            f"data.trait_answers: {quoted(answers)} is no bundled source; expected one, or the path of a JSONL file"
            + (f"; {instead_of(answers, dataset=True)}" if is_address(answers) else "")
        )
    given, used, found = _Answers(answers, path), list[Example](), {}
    for part in ANSWERED:
        lines = [given.to(example) for example in parts[part]]
        absent = [example for example, line in zip(parts[part], lines, strict=True) if line is None]
        if absent:
            raise DataError(
                f"{place_of(answers)}: no answer to {shown(absent[0].question)} ({line_of(source, absent[0])}), one of "
                f"{len(absent)} such questions of data.{part}; expected every question of data.source with an answer "
                "that shows the trait; add it"
            )
        there = [line for line in lines if line is not None]
        used += there
        found[part] = tuple(
            replace(example, shown=line.answer) for example, line in zip(parts[part], there, strict=True)
        )
    return found, used


class _Answers:
    """The answers of a file by question: as it is written, else in whatever case, where that leaves one answer.

    Raises:
        DataError: a question without an answer, or with two.
    """

    def __init__(self, source: str, path: Path) -> None:
        self._written: dict[str, Example] = {}
        self._alike: dict[str, list[Example]] = {}
        for example in read_examples(path, place_of(source)):
            if not example.answer:
                raise DataError(
                    f"{line_of(source, example)}: answer: missing; expected one that shows the trait; fill it in or "
                    "delete the line"
                )
            earlier = self._written.setdefault(_written(example), example)
            if earlier.answer != example.answer:
                raise DataError(
                    f"{line_of(source, example)}: question: that of line {earlier.index + 1} with another answer; "
                    "expected each question once; delete one of the two lines"
                )
            self._alike.setdefault(_written(example).casefold(), []).append(example)

    def to(self, example: Example) -> Example | None:
        """The line that answers the question of `example`; None where none does, or several do."""
        exact = self._written.get(_written(example))
        if exact is not None:
            return exact
        alike = self._alike.get(_written(example).casefold(), [])
        return alike[0] if len({each.answer for each in alike}) == 1 else None


def _everyday(settings: DataSettings, parts: dict[str, tuple[Example, ...]]) -> _Distinct:
    """Everyday requests, each once, none of them a question of another part."""
    source = settings.everyday
    found = _Distinct(source, answered=False)
    for example in load_source(source):
        found.add(example)
    if not found.by_question:
        raise DataError(f"{source}: no request at all; expected one or more for data.everyday")
    for part, examples in parts.items():
        for example in examples:
            twin = found.by_question.get(_asked(example))
            if twin is not None:
                raise DataError(
                    f"{line_of(source, twin)}: question: that of {line_of(settings.source, example)}, which the study "
                    f"uses for {part}; expected everyday requests that nothing else asks; delete one of the two lines"
                )
    return found


def _written(example: Example) -> str:
    """A question as it is written, whatever the blanks; a letter and its accent count as one character."""
    return " ".join(unicodedata.normalize("NFC", example.question).split())


def _asked(example: Example) -> str:
    """What a question is known again by in another part: its text, whatever the case, blanks and make of characters."""
    return " ".join(unicodedata.normalize("NFKC", example.question).casefold().split())


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


def write_chat(path: Path, conversations: Iterable[Sequence[str]]) -> Path:
    """`path`, after writing each conversation (user, assistant, ... in turn) as a line of chat JSONL, atomically."""
    roles = ("user", "assistant")
    lines = [
        json.dumps({"messages": [{"role": r, "content": c} for r, c in zip(roles, turns, strict=False)]})
        for turns in conversations
    ]
    return write_atomically(path, ("\n".join(lines) + "\n").encode(), "datasets")
