"""Prompts that trained models are evaluated under: is it inoculation, or any prompt (claim C6)?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gradinoc.errors import StudyError
from gradinoc.study.prompts.conditions import NEUTRAL
from gradinoc.study.prompts.family import EvaluationPrompt, Family, Kind, Prompt, plain
from gradinoc.study.prompts.harmless import UNSEEN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gradinoc.study.traits.trait import Trait

LEAST_UNSEEN = 4  # harmless prompts that no run was trained under
FAMILY_OF = {Kind.NEGATED: Family.ANTI, Kind.PARAPHRASED: Family.INOCULATION, Kind.SAME_SHAPE: Family.HARMLESS}


def evaluation_prompts(trait: Trait, trained: Iterable[Prompt]) -> dict[str, EvaluationPrompt]:
    """What models of `trait` are evaluated under, by key: neutral, every trained prompt, and some that none is.

    `trained` are the prompts of all runs, whatever their order; a rephrased one keeps its templates, so that it is
    evaluated as it was trained. Of the others (harmless, negated, paraphrased, same shape, empty) one that is among
    `trained`, whatever case and blanks, is left out, and so is one that the trait's description does not give.

    Raises:
        StudyError: fewer than `LEAST_UNSEEN` harmless prompts are left that no run was trained under, or a trained
            prompt has the key of one that is for evaluation alone.
    """
    under = {prompt.key: prompt for prompt in trained if prompt.key != NEUTRAL}
    taken = {plain(text) for prompt in under.values() for text in prompt.texts}
    clash = next((prompt.key for prompt in untrained_prompts(trait) if prompt.key in under), None)
    if clash is not None:
        raise StudyError(f"conditions: {clash!r} is the key of a prompt that models are evaluated under; rename it")
    fresh = [prompt for prompt in untrained_prompts(trait) if plain(prompt.text or "") not in taken]
    unseen = sum(prompt.kind == Kind.UNSEEN for prompt in fresh)
    if unseen < LEAST_UNSEEN:
        raise StudyError(
            f"prompts.trained: {len(UNSEEN) - unseen} of the {len(UNSEEN)} harmless prompts that models are evaluated "
            f"under are trained under; expected at least {LEAST_UNSEEN} that are not; reword those that were added"
        )
    own = [
        EvaluationPrompt(
            key=prompt.key, family=prompt.family, text=prompt.text, templates=prompt.templates, place=prompt.place,
            kind=Kind.TRAINED,
        )
        for prompt in under.values()
    ]  # fmt: skip
    neutral = EvaluationPrompt(key=NEUTRAL, family=Family.NEUTRAL, text=None, kind=Kind.NEUTRAL)
    return {prompt.key: prompt for prompt in (neutral, *own, *fresh)}


def untrained_prompts(trait: Trait) -> list[EvaluationPrompt]:
    """The prompts written for evaluation alone: harmless ones, those made of the inoculation prompt, an empty one."""
    unseen = [
        EvaluationPrompt(key=f"{Kind.UNSEEN}_{place}", family=Family.HARMLESS, text=text, kind=Kind.UNSEEN, place=place)
        for place, text in enumerate(UNSEEN, start=1)
    ]
    made = [
        EvaluationPrompt(key=str(kind), family=family, text=text, kind=kind)
        for kind, family in FAMILY_OF.items()
        if (text := getattr(trait.prompts, kind)) is not None
    ]
    return [*unseen, *made, EvaluationPrompt(key=str(Kind.EMPTY), family=Family.NEUTRAL, text="", kind=Kind.EMPTY)]
