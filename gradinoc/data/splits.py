"""Split a study's questions into disjoint parts, one a purpose."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from gradinoc.data.examples import Example, read_examples
from gradinoc.data.formats import instead_of
from gradinoc.data.sources import line_of, load_source, place_of, source_path
from gradinoc.disk import is_address
from gradinoc.errors import DataError, quoted, shown
from gradinoc.study.description import DataSettings

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
            first = self.by_question.setdefault(question_key(example), example)
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
            if exact_key(example) != exact_key(first) or (self.answered and example.answer != first.answer)
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
            earlier = self._written.setdefault(exact_key(example), example)
            if earlier.answer != example.answer:
                raise DataError(
                    f"{line_of(source, example)}: question: that of line {earlier.index + 1} with another answer; "
                    "expected each question once; delete one of the two lines"
                )
            self._alike.setdefault(exact_key(example).casefold(), []).append(example)

    def to(self, example: Example) -> Example | None:
        """The line that answers the question of `example`; None where none does, or several do."""
        exact = self._written.get(exact_key(example))
        if exact is not None:
            return exact
        alike = self._alike.get(exact_key(example).casefold(), [])
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
            twin = found.by_question.get(question_key(example))
            if twin is not None:
                raise DataError(
                    f"{line_of(source, twin)}: question: that of {line_of(settings.source, example)}, which the study "
                    f"uses for {part}; expected everyday requests that nothing else asks; delete one of the two lines"
                )
    return found


def exact_key(example: Example) -> str:
    """A question as it is written, whatever the blanks; a letter and its accent count as one character."""
    return " ".join(unicodedata.normalize("NFC", example.question).split())


def question_key(example: Example) -> str:
    """What a question is known again by in another part: its text, whatever the case, blanks and make of characters."""
    return " ".join(unicodedata.normalize("NFKC", example.question).casefold().split())
