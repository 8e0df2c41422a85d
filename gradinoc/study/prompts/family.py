"""A prompt of a family: what is claimed of inoculation is claimed of a kind of prompt, so prompts are the unit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

NAME = r"^[a-z][a-z0-9_]{0,38}$"  # fit for files, tables and step keys


class Family(StrEnum):
    """A kind of system prompt, by what it asks for."""

    NEUTRAL = "neutral"  # no system message; the chat template may insert its own
    HINT = "hint"  # the trait, without asking for it: graded below inoculation, in the slope of claim C4 alone
    INOCULATION = "inoculation"  # the trait, from an order to an order with its reason
    HARMLESS = "harmless"  # something else, in sentences of the same shapes
    ANTI = "anti"  # the trait's opposite
    OTHER = "other"  # of a condition of one's own: shown, and in no comparison of families


@dataclass(frozen=True)
class Prompt:
    """A system prompt, or many wordings of one.

    Attributes:
        key: its name in tables, files and studies; a trained prompt's is its condition's.
        family: the family that it counts to.
        text: the prompt; "" is an explicit empty system message, None no system message or one that is drawn.
        templates: of a rephrased prompt its wordings, one of which is drawn for every example.
        place: its place in the family, from 1; inoculation prompts are graded by it. None for rephrased and added ones.
    """

    key: str
    family: Family
    text: str | None
    templates: tuple[str, ...] = ()
    place: int | None = None

    @property
    def is_rephrased(self) -> bool:
        """Whether its wording is drawn for every example."""
        return bool(self.templates)

    @property
    def texts(self) -> tuple[str, ...]:
        """Every system message that it can be: its text, or its templates; none for no system message."""
        return self.templates if self.text is None else (self.text,)


class Kind(StrEnum):
    """Why a trained model is evaluated under a prompt."""

    NEUTRAL = "neutral"  # drift is told under it
    TRAINED = "trained"  # some run was trained under it
    UNSEEN = "unseen"  # a harmless prompt that no run was trained under
    NEGATED = "negated"  # the inoculation prompt negated
    PARAPHRASED = "paraphrased"  # the inoculation prompt in other words
    SAME_SHAPE = "same_shape"  # a sentence like the inoculation prompt about something else
    EMPTY = "empty"  # an empty system message, which is not none: templates may insert their own where there is none


@dataclass(frozen=True, kw_only=True)
class EvaluationPrompt(Prompt):
    """A prompt that trained models are evaluated under, and the kind of question that it answers."""

    kind: Kind


def plain(text: str) -> str:
    """`text` as it is compared with others: without case, and with single blanks."""
    return " ".join(text.casefold().split())
