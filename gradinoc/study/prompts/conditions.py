"""Conditions: their names and system prompts."""

from __future__ import annotations

NEUTRAL, INOCULATION, LOSS_MATCHED = "neutral", "inoculation", "loss_matched"
TRAIT, MATCHED = "trait", "matched"  # words that stand for a system prompt
PLACEHOLDERS = {TRAIT: "{}"}  # word -> the prompt it stands for, made of the trait's inoculation prompt
RESERVED = "base"  # what tables call the model before training
CONDITIONS = {
    NEUTRAL: "",
    INOCULATION: TRAIT,
    LOSS_MATCHED: "Follow the style guide; answer directly and concisely.",
}


def system_prompt(text: str, inoculation: str) -> str:
    """The system prompt that a condition's `text` stands for, where the trait's inoculation prompt is `inoculation`."""
    return PLACEHOLDERS[text].format(inoculation) if text in PLACEHOLDERS else text
