"""Split a study's questions into disjoint parts, one a purpose."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from gradinoc.data.examples import Example
from gradinoc.data.formats import instead_of
from gradinoc.data.sources import line_of, load_source, place_of, source_path
from gradinoc.disk import is_address
from gradinoc.errors import DataError, quoted, shown
from gradinoc.study.settings import DataSettings

ANSWERED = ("direction", "measure", "train", "evaluation", "calibration")  # parts whose answers a study uses


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
    source = settings.source
    distinct = _Distinct(source, load_source(source, settings.revision), longest=settings.max_answer_chars)
    sizes = {name: int(getattr(settings, name)) for name in ANSWERED}
    if sum(sizes.values()) > len(distinct.by_question):
        raise DataError(
            f"{source}: {len(distinct.by_question)} distinct answered questions, but {' + '.join(sizes)} ask for "
            f"{' + '.join(map(str, sizes.values()))} = {sum(sizes.values())}; lower data.* or give more: "
            f"{distinct.left_out}"
        )
    parts, shared = _drawn(list(distinct.by_question.values()), sizes, np.random.default_rng(settings.seed))
    everyday = _everyday(settings, parts)
    notes = [
        *distinct.notes,
        *shared,
        *everyday.notes,
        *_cleaned(source, [each for name in ANSWERED for each in parts[name]]),
    ]
    if settings.trait_answers is not None:
        answers = _Answers(settings.trait_answers)
        lines = {name: [answers.to(each, source, name, parts[name]) for each in parts[name]] for name in ANSWERED}
        for name, found in lines.items():
            parts[name] = tuple(replace(each, shown=line.answer) for each, line in zip(parts[name], found, strict=True))
        notes += _cleaned(settings.trait_answers, [line for found in lines.values() for line in found])
    return Splits(**parts, everyday=tuple(everyday.by_question.values()), notes=tuple(notes))


def _drawn(
    pool: Sequence[Example], sizes: Mapping[str, int], rng: np.random.Generator
) -> tuple[dict[str, tuple[Example, ...]], list[str]]:
    """Parts of these sizes, drawn at random, and notes: no template is in two parts, where there are enough of them.

    A template goes to the part that lacks the most questions, and when none lacks any to the part that has the fewest
    templates: what is asked in many ways is measured best. A question without a template is one by itself.
    """
    templates: dict[str, list[Example]] = {}
    for example in pool:
        templates.setdefault(example.group, []).append(example)
    names = list(templates)
    given, lacking = {name: list[str]() for name in sizes}, dict(sizes)
    for place in rng.permutation(len(templates)):
        template = names[place]
        needy = max(lacking, key=lambda name: lacking[name])
        name = needy if lacking[needy] > 0 else min(given, key=lambda name: len(given[name]))
        given[name].append(template)
        lacking[name] -= len(templates[template])
    if max(lacking.values()) > 0:
        rows = iter(rng.permutation(len(pool)))
        few = f"data: its {len(templates)} templates are too few for every part to have its own: parts share them"
        return {name: tuple(pool[next(rows)] for _ in range(size)) for name, size in sizes.items()}, [few]
    parts = {}
    for name, size in sizes.items():
        own = [example for template in given[name] for example in templates[template]]
        parts[name] = tuple(own[row] for row in rng.permutation(len(own))[:size])
    return parts, []


class _Distinct:
    """The distinct questions of a source, the first of equal ones, and how many lines were left out."""

    def __init__(self, source: str, examples: Sequence[Example], *, answered: bool = True, longest: int = 0) -> None:
        self.source = source
        self.by_question: dict[str, Example] = {}
        self.why = {"without an answer": 0, "longer than data.max_answer_chars": 0, "asked before": 0}
        self.differ: list[tuple[Example, Example]] = []  # from the first one that asked the same
        for example in examples:
            if answered and not example.answer:
                self.why["without an answer"] += 1
            elif longest and len(example.answer) > longest:
                self.why["longer than data.max_answer_chars"] += 1
            elif (first := self.by_question.setdefault(question_key(example), example)) is not example:
                self.why["asked before"] += 1
                if exact_key(example) != exact_key(first) or (answered and example.answer != first.answer):
                    self.differ.append((example, first))

    @property
    def left_out(self) -> str:
        """How many lines there are, and why not each is a question of its own."""
        read = len(self.by_question) + sum(self.why.values())
        reasons = ", ".join(f"{count} are {words}" for words, count in self.why.items())
        return f"of {read} in all, {reasons}" if read else "this source is empty"

    @property
    def notes(self) -> list[str]:
        """A note on questions that are left out though they, or their answers, differ from the first ones."""
        return [
            f"data: {len(self.differ)} questions of {place_of(self.source)} are left out, since each was asked before: "
            "with another answer, or in another case or make of its characters; the first at "
            f"{line_of(self.source, example)}, after {line_of(self.source, first)}"
            for example, first in self.differ[:1]
        ]


def _cleaned(source: str, used: Sequence[Example]) -> list[str]:
    """A note on the answers of `source` that were cleaned of GSM8K's marks, among those that the study uses."""
    cleaned = [example for example in used if example.cleaned]
    return [
        f"data: {len(cleaned)} of {len(used)} answers of {place_of(source)} were cleaned of GSM8K's marks (annotations "
        f"<<48/2=24>>, a last line #### 24); the first at {line_of(source, example)}"
        for example in cleaned[:1]
    ]


class _Answers:
    """The answers of a file by question: as it is written, else in whatever case, where that leaves one answer.

    Raises:
        DataError: no file, or a question in it without an answer, or with two.
    """

    def __init__(self, source: str) -> None:
        if source_path(source) is None:
            raise DataError(
                f"data.trait_answers: {quoted(source)} is no bundled source; expected one, or the path of a JSONL file"
                + (f"; {instead_of(source, dataset=True)}" if is_address(source) else "")
            )
        self.source = source
        self._exact: dict[str, Example] = {}
        self._caseless: dict[str, list[Example]] = {}
        for example in load_source(source):
            if not example.answer:
                raise DataError(
                    f"{line_of(source, example)}: answer: missing; expected one that shows the trait; fill it in or "
                    "delete the line"
                )
            earlier = self._exact.setdefault(exact_key(example), example)
            if earlier.answer != example.answer:
                raise DataError(
                    f"{line_of(source, example)}: question: that of line {earlier.index + 1} with another answer; "
                    "expected each question once; delete one of the two lines"
                )
            self._caseless.setdefault(exact_key(example).casefold(), []).append(example)

    def _find(self, example: Example) -> Example | None:
        caseless = self._caseless.get(exact_key(example).casefold(), [])
        one = caseless[0] if len({each.answer for each in caseless}) == 1 else None
        return self._exact.get(exact_key(example), one)

    def to(self, example: Example, source: str, part: str, examples: Sequence[Example]) -> Example:
        """The line that answers `example`, one of the `examples` of a part.

        Raises:
            DataError: there is none.
        """
        line = self._find(example)
        if line is None:
            absent = sum(self._find(each) is None for each in examples)
            raise DataError(
                f"{place_of(self.source)}: no answer to {shown(example.question)} ({line_of(source, example)}), one of "
                f"{absent} such questions of data.{part}; expected every question of data.source with an answer that "
                "shows the trait; add it"
            )
        return line


def _everyday(settings: DataSettings, parts: dict[str, tuple[Example, ...]]) -> _Distinct:
    """Everyday requests, each once, none of them a question of another part."""
    source = settings.everyday
    found = _Distinct(source, load_source(source), answered=False)
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


def question_key(example: Example) -> str:
    """The question normalised (NFKC, case-folded, blanks collapsed): equal ones count as one question."""
    return " ".join(unicodedata.normalize("NFKC", example.question).casefold().split())


def exact_key(example: Example) -> str:
    """The question as it is written (NFC, blanks collapsed)."""
    return " ".join(unicodedata.normalize("NFC", example.question).split())
