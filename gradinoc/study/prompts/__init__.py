"""System prompts: conditions, families, contrasts, and what a trained model is evaluated under."""

from __future__ import annotations

from gradinoc.study.prompts.conditions import (
    CONDITIONS,
    INOCULATION,
    LOSS_MATCHED,
    NEUTRAL,
    PLACEHOLDERS,
    RESERVED,
    TRAIT,
    system_prompt,
)
from gradinoc.study.prompts.contrasts import UNRELATED, Contrast
from gradinoc.study.prompts.harmless import HARMLESS

__all__ = [
    "CONDITIONS", "HARMLESS", "INOCULATION", "LOSS_MATCHED", "NEUTRAL", "PLACEHOLDERS", "RESERVED", "TRAIT",
    "UNRELATED", "Contrast", "system_prompt",
]  # fmt: skip
