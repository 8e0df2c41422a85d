"""Rephrased prompts: one meaning in 128 wordings, of which one is drawn for every example."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from gradinoc.errors import StudyError, shown
from gradinoc.study.prompts.family import Prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

OPENINGS = (
    "Please {}.", "Always {}.", "Be sure to {}.", "Remember to {}.",
    "From here on {}.", "Your job is to {}.", "It is a house rule to {}.", "The user expects you to {}.",
)  # fmt: skip
VERBS = ("answer", "reply", "respond", "answer each question")
MANNERS = 4  # phrases of a trait that end the sentence, such as "in block capitals"


def templates(manners: Sequence[str]) -> tuple[str, ...]:
    """Every sentence of an opening, a verb and one of `manners`, the last of which changes fastest.

    Sentence n has the same opening and verb whatever the manners are, if there are as many.
    """
    return tuple(opening.format(f"{verb} {manner}") for opening, verb, manner in product(OPENINGS, VERBS, manners))


def draw_templates(prompt: Prompt, examples: int, generator: np.random.Generator) -> list[str]:
    """One template of the rephrased `prompt` for each of `examples` examples, each drawn by itself.

    Generators of one seed draw the same numbers: the rephrased inoculation and the rephrased harmless prompt then give
    an example sentences of one opening and verb.

    Raises:
        StudyError: the prompt is not a rephrased one.
    """
    if not prompt.templates:
        raise StudyError(f"prompt {shown(prompt.key)}: expected one with templates to draw from, a rephrased one")
    return [prompt.templates[number] for number in generator.integers(len(prompt.templates), size=examples)]
