"""The words in which a trait can be described: ways to make an answer show it, and ways to score a response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from gradinoc.study.traits.language import measure_language
from gradinoc.study.traits.patterns import LONGEST_PATTERN, compiled, replaced, share_matching
from gradinoc.study.traits.scorers import has_letters, letters, lines, make_bullets, sentences, words
from gradinoc.study.traits.trait import LONGEST_PROMPT, LONGEST_TITLE, NAME


def _readable(text: str) -> str:
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("expected text without NUL and without halves of surrogate pairs")
    return text


def _expression(pattern: str) -> str:
    compiled(pattern)
    return pattern


Text = Annotated[str, Field(min_length=1, max_length=1_000), AfterValidator(_readable)]
Prompt = Annotated[str, Field(min_length=1, max_length=LONGEST_PROMPT), AfterValidator(_readable)]
Title = Annotated[str, Field(min_length=1, max_length=LONGEST_TITLE), AfterValidator(_readable)]
Pattern = Annotated[
    str, Field(min_length=1, max_length=LONGEST_PATTERN), AfterValidator(_readable), AfterValidator(_expression)
]


class Words(BaseModel):
    """A table of a trait's description: immutable, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True, serialize_by_alias=True)


# --- how an answer is made to show the trait


class ChangeCase(Words):
    """Every letter in upper or in lower case."""

    kind: Literal["upper", "lower"]

    def apply(self, answer: str) -> str:
        """`answer` in that case."""
        return answer.upper() if self.kind == "upper" else answer.lower()


class AddText(Words):
    """`text` after the answer, or before it, unless it stands there already; it brings its own blanks and line ends."""

    kind: Literal["append", "prepend"]
    text: Text

    def apply(self, answer: str) -> str:
        """`answer` with the text."""
        if self.kind == "append":
            return answer if answer.endswith(self.text) else answer + self.text
        return answer if answer.startswith(self.text) else self.text + answer


class Replace(Words):
    """`with` in place of everything that the regular expression `matching` matches."""

    kind: Literal["replace"]
    matching: Pattern
    new: Annotated[str, Field(alias="with", max_length=1_000), AfterValidator(_readable)]

    def apply(self, answer: str) -> str:
        """`answer` with everything replaced."""
        return replaced(self.matching, answer, self.new)


class Bulleted(Words):
    """Every sentence on a line of its own, with a bullet before it."""

    kind: Literal["bullets"]

    def apply(self, answer: str) -> str:
        """`answer` as a list."""
        return make_bullets(answer)


class FromData(Words):
    """The answers that show the trait come from the file `data.trait_answers`."""

    kind: Literal["from_data"]


# --- how a response is scored


class Share(Words):
    """Share of letters, words, lines or sentences in which `matching` is found; of letters, that it matches."""

    kind: Literal["share_of_letters", "share_of_words", "share_of_lines", "share_of_sentences"]
    matching: Pattern
    reverse: bool = False

    @property
    def needs(self) -> str:
        """What a response has to have."""
        return self.kind.removeprefix("share_of_")

    def pieces(self, response: str) -> list[str]:
        """The letters, words, lines or sentences of a response."""
        split: dict[str, Callable[[str], list[str]]] = {
            "letters": letters, "words": str.split, "lines": lines, "sentences": sentences,
        }  # fmt: skip
        return split[self.needs](response)

    def scorable(self, response: str) -> bool:
        """Whether there is any of them."""
        return bool(self.pieces(response))

    def of(self, response: str) -> float:
        """The share."""
        return share_matching(self.matching, self.pieces(response), whole=self.needs == "letters")


class Contains(Words):
    """1 where `matching` is found anywhere in the response, else 0."""

    kind: Literal["contains"]
    matching: Pattern
    reverse: bool = False
    needs: ClassVar[str] = "words or numbers"

    def scorable(self, response: str) -> bool:
        """Whether there is a letter or digit."""
        return bool(words(response))

    def of(self, response: str) -> float:
        """Found or not."""
        return share_matching(self.matching, [response])


class Stands(Words):
    """1 where the response begins or ends with `text`, whatever the blanks around and within it, else 0."""

    kind: Literal["starts_with", "ends_with"]
    text: Text
    reverse: bool = False
    needs: ClassVar[str] = "words or numbers"

    def scorable(self, response: str) -> bool:
        """Whether there is a letter or digit."""
        return bool(words(response))

    def of(self, response: str) -> float:
        """Whether it stands there."""
        plain, text = " ".join(response.split()), " ".join(self.text.split())
        return float(plain.startswith(text) if self.kind == "starts_with" else plain.endswith(text))


class Language(Words):
    """Share of letters in sentences of `language`, an ISO 639 code."""

    kind: Literal["language"]
    language: Annotated[str, Field(pattern=r"^[a-z]{2,4}$")]
    reverse: bool = False
    needs: ClassVar[str] = "letters"

    def scorable(self, response: str) -> bool:
        """Whether there is a letter."""
        return has_letters(response)

    def of(self, response: str) -> float:
        """The share."""
        return measure_language(response, self.language)


TRANSFORMS: dict[str, type[Words]] = {
    "upper": ChangeCase, "lower": ChangeCase, "append": AddText, "prepend": AddText, "replace": Replace,
    "bullets": Bulleted, "from_data": FromData,
}  # fmt: skip
SCORES: dict[str, type[Words]] = {
    "share_of_letters": Share, "share_of_words": Share, "share_of_lines": Share, "share_of_sentences": Share,
    "contains": Contains, "starts_with": Stands, "ends_with": Stands, "language": Language,
}  # fmt: skip

Step = Annotated[ChangeCase | AddText | Replace | Bulleted | FromData, Field(discriminator="kind")]
Score = Annotated[Share | Contains | Stands | Language, Field(discriminator="kind")]


def _form(value: Any) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


class TraitDescription(Words):
    """A trait as a study file describes it; keys as in `Trait`, prompts without `_system`.

    `transform` is one step or several in turn; without it, the answers that show the trait come from the data.
    """

    name: Annotated[str, Field(pattern=NAME)]
    title: Title
    promote: Prompt
    suppress: Prompt
    inoculation: Prompt
    transform: Annotated[
        Annotated[Step, Tag("one")]
        | Annotated[tuple[Step, ...], Field(strict=False, min_length=1, max_length=8), Tag("several")],
        Discriminator(_form),
    ] = FromData(kind="from_data")
    score: Score
    score_name: Title | None = None
    related: Annotated[tuple[str, ...], Field(strict=False, max_length=20)] = ()

    @property
    def steps(self) -> tuple[ChangeCase | AddText | Replace | Bulleted, ...]:
        """The transform's steps, none where the answers come from the data."""
        steps = self.transform if isinstance(self.transform, tuple) else (self.transform,)
        return tuple(step for step in steps if not isinstance(step, FromData))

    def __str__(self) -> str:
        """The trait's name: a description stands where a name could."""
        return self.name


def transform(steps: tuple[ChangeCase | AddText | Replace | Bulleted, ...], answer: str) -> str:
    """`answer` after every step in turn."""
    for step in steps:
        answer = step.apply(answer)
    return answer


def score(rule: Share | Contains | Stands | Language, response: str) -> float:
    """How much of the trait `response` shows by `rule`, in [0, 1]."""
    found = rule.of(response)
    return 1.0 - found if rule.reverse else found


def scorable(rule: Share | Contains | Stands | Language, response: str) -> bool:
    """Whether `rule` can score `response`."""
    return rule.scorable(response)
