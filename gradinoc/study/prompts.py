"""Conditions and their system prompts, contrasts to compare the trait with, and a pool to match losses from."""

from __future__ import annotations

from typing import NamedTuple

NEUTRAL, INOCULATION, LOSS_MATCHED = "neutral", "inoculation", "loss_matched"
TRAIT, MATCHED = "trait", "matched"  # words that stand for a system prompt
FAMILIES = {TRAIT: "{}"}  # word -> the prompt it stands for, made of the trait's inoculation prompt
RESERVED = "base"  # what tables call the model before training
CONDITIONS = {
    NEUTRAL: "",
    INOCULATION: TRAIT,
    LOSS_MATCHED: "Follow the style guide; answer directly and concisely.",
}


def system_prompt(text: str, inoculation: str) -> str:
    """The system prompt that a condition's `text` stands for, where the trait's inoculation prompt is `inoculation`."""
    return FAMILIES[text].format(inoculation) if text in FAMILIES else text


class Contrast(NamedTuple):
    """Two system prompts that ask for a manner of answering and for its opposite."""

    promote: str
    suppress: str


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

# They differ in length, person, subject and tone. None asks for the trait, or for a medium in which it is usual
# (posters, telegrams): a control that elicits the trait would be another inoculation.
HARMLESS = (
    "You are a helpful assistant.",
    "Be concise.",
    "Answer the question.",
    "You are a patient primary school teacher.",
    "Show each step of your calculation before you give the result.",
    "Think carefully before you answer, and check your result once more at the end.",
    "You answer questions about everyday arithmetic for a shopping magazine.",
    "Follow the house style; write plainly and to the point.",
    "Follow the formatting rules of this channel in every reply.",
    "You always respond in the same way.",
    "You always respond in complete sentences.",
    "You always respond with great enthusiasm.",
    "You always respond as a librarian would.",
    "You always respond with numbers first and words second.",
    "Write as if your answer were printed at the back of a textbook.",
    "Write your answer so that a pupil of ten can follow it.",
    "Your replies are shown on a small screen with few characters in a line.",
    "The user is in a hurry. Give them what they need and nothing else.",
    "The user is preparing for an examination. Explain so that they could do it alone next time.",
    "Use short sentences. Use simple words. Do not use technical terms.",
    "Every reply starts with the calculation and ends with the answer.",
    "Today is the last day of the summer sale, and the shop is full of customers with questions.",
    "Units matter: name them with every number that you write.",
    "You are an assistant in an accounts office. Replies are filed, so keep to the numbers that you were given.",
)
