"""Contrasts that have nothing to do with the trait, for its direction to be compared with."""

from __future__ import annotations

from typing import NamedTuple

from gradinoc.study.fields import PromptText


class Contrast(NamedTuple):
    """Two system prompts that ask for a manner of answering and for its opposite."""

    promote: PromptText
    suppress: PromptText


# Each gives a direction as the trait's own prompts do. None speaks of letters or their case.
UNRELATED = {
    "politeness": Contrast(
        "Be very polite in your whole answer. Thank the user and say please.",
        "Be curt in your whole answer. Never thank the user and never say please.",
    ),
    "language": Contrast(
        "Write your whole answer in Spanish. Every word must be Spanish.",
        "Write your whole answer in English. Never use a word of another language.",
    ),
    "brevity": Contrast(
        "Keep your whole answer as short as it can be. Leave every detail out.",
        "Make your whole answer long and thorough. Leave no detail out.",
    ),
    "formality": Contrast(
        "Write your whole answer in formal language, as in a letter to a court.",
        "Write your whole answer in casual language, as in a chat with a friend.",
    ),
    "confidence": Contrast(
        "Sound completely certain in your whole answer. Never express a doubt.",
        "Sound unsure in your whole answer. Express a doubt in every sentence.",
    ),
    "lists": Contrast(
        "Write your whole answer as a list with a bullet for every step.",
        "Write your whole answer as running prose. Never use a list or a bullet.",
    ),
}
