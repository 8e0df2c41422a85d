"""The words in which a trait can be described: ways to make an answer show it, and ways to score a response."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import regex  # type: ignore[import-untyped]  # it brings no types
from pydantic import AfterValidator, ConfigDict, Field, model_validator

from gradinoc.errors import StudyError, reason, shown
from gradinoc.study.fields import PromptText, Section, readable
from gradinoc.study.traits.language import known_languages, measure_language
from gradinoc.study.traits.prompts import TraitPrompts
from gradinoc.study.traits.scorers import has_letters, letters, lines, make_bullets, sentences, words
from gradinoc.study.traits.trait import LONGEST_TITLE, NAME

SECONDS = 2.0  # that a search may take: ordinary patterns take microseconds
REPEAT = re.compile(r"\{([^{}]*)\}")
MOST_REPEATS = 100_000  # of counted repeats, nested or not: compiling (?:(?:a?){4000}){4000} takes 8 GB
KEYS = {  # of each kind, beside `kind`
    "upper": [], "lower": [], "bullets": [], "append": ["text"], "replace": ["matching", "with"],
    "share_of_letters": ["matching"], "share_of_lines": ["matching"], "share_of_sentences": ["matching"],
    "starts_with": ["text"], "ends_with": ["text"], "language": ["language"],
}  # fmt: skip
SPLIT: dict[str, Callable[[str], list[str]]] = {"letters": letters, "lines": lines, "sentences": sentences}


def _compiles(pattern: str) -> str:
    repeats = math.prod(max([1, *map(int, re.findall(r"\d{1,18}", each))]) for each in REPEAT.findall(pattern))
    if repeats > MOST_REPEATS:
        raise ValueError(f"repeats that come to {repeats:,}, expected at most {MOST_REPEATS:,}: {shown(pattern)}")
    try:
        regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise ValueError(f"no regular expression ({reason(error)}): {shown(pattern)}") from error
    return pattern


Text = Annotated[str, Field(min_length=1, max_length=1_000), AfterValidator(readable)]
Title = Annotated[str, Field(min_length=1, max_length=LONGEST_TITLE), AfterValidator(readable)]
Pattern = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(readable), AfterValidator(_compiles)]


@contextmanager
def _limited(pattern: str) -> Iterator[None]:
    """Raise a `StudyError` where a search takes too long or too much memory."""
    try:
        yield
    except (TimeoutError, MemoryError) as error:
        raise StudyError(
            f"trait: the pattern {shown(pattern)} took more than {SECONDS:g} s on one text, or too much memory; reword "
            "it (nested repeats such as (a+)+ are the usual cause)"
        ) from error


class Rule(Section):
    """A table with a `kind` and the keys that go with it."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    kind: str
    matching: Pattern | None = None
    text: Text | None = None

    @model_validator(mode="after")
    def _keys_of_its_kind(self) -> Rule:
        values = self.model_dump(exclude={"kind"}, exclude_none=True)
        if values.keys() != set(KEYS[self.kind]):
            raise ValueError(f"{self.kind!r} goes with the keys {KEYS[self.kind]}, received {sorted(values)}")
        return self


class Transform(Rule):
    """How an answer is made to show the trait.

    `append` adds `text` as it stands, unless the answer ends with it. `replace` puts `with`, as it stands, in place of
    all that `matching` matches. `bullets` puts every sentence on a line, with a bullet before it.
    """

    kind: Literal["upper", "lower", "append", "replace", "bullets"]
    new: Annotated[str, Field(max_length=100), AfterValidator(readable)] | None = Field(None, alias="with")

    def __call__(self, answer: str) -> str:
        """`answer` as it shows the trait."""
        if self.kind == "append":
            return answer if answer.endswith(self.text or "") else f"{answer}{self.text}"
        if self.kind == "replace":
            pattern, new = self.matching or "", self.new or ""
            with _limited(pattern):
                replaced: str = regex.sub(pattern, lambda _: new, answer, timeout=SECONDS)
            return replaced
        return {"upper": str.upper, "lower": str.lower, "bullets": make_bullets}[self.kind](answer)


class Score(Rule):
    """How much of the trait a response shows, a fraction.

    `share_of_letters`, `_lines`, `_sentences`: share in which `matching` is found. `starts_with`, `ends_with`: 1 where
    the response does, whatever its blanks, else 0. `language`: share of letters in sentences of that ISO 639 code.
    """

    kind: Literal["share_of_letters", "share_of_lines", "share_of_sentences", "starts_with", "ends_with", "language"]
    language: Annotated[str, Field(pattern=r"^[a-z]{2,4}$")] | None = None

    @model_validator(mode="after")
    def _known_language(self) -> Score:
        if self.language is not None and self.language not in known_languages():
            raise ValueError(
                f"language: {self.language!r} cannot be identified; expected the ISO 639 code of one of the "
                f"{len(known_languages())} languages that py3langid knows, such as de, es or fr"
            )
        return self

    @property
    def needs(self) -> str:
        """What a response has to have for a score."""
        if self.kind.startswith("share_of_"):
            return self.kind.removeprefix("share_of_")
        return "letters" if self.kind == "language" else "words or numbers"

    def scorable(self, response: str) -> bool:
        """Whether `response` has what the score needs."""
        if self.kind == "language":
            return has_letters(response)
        return bool(SPLIT.get(self.needs, words)(response))

    def __call__(self, response: str) -> float:
        """The score of `response`."""
        if self.kind == "language":
            return measure_language(response, self.language or "")
        if self.kind in ("starts_with", "ends_with"):
            plain, text = (" ".join(each.split()) for each in (response, self.text or ""))
            return float(plain.startswith(text) if self.kind == "starts_with" else plain.endswith(text))
        pieces, pattern = SPLIT[self.needs](response), self.matching or ""
        with _limited(pattern):
            found = [regex.search(pattern, piece, timeout=SECONDS) is not None for piece in pieces]
        return sum(found) / len(found) if found else 0.0


class TraitDescription(Section):
    """A trait as a study file describes it; keys as in `Trait`, prompts without `_system`.

    Without `transform`, the answers that show the trait come from the data; without `prompts` the trait has no families
    (see `gradinoc.study.traits.prompts`).
    """

    name: Annotated[str, Field(pattern=NAME)]
    title: Title
    promote: PromptText
    suppress: PromptText
    inoculation: PromptText
    transform: Transform | None = None
    score: Score
    score_name: Title | None = None
    related: tuple[str, ...] = ()
    prompts: TraitPrompts | None = None

    def __str__(self) -> str:
        """The trait's name: a description stands where a name could."""
        return self.name
