"""Families of prompts: what a trait's inoculation is compared with, written before any of their results was seen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from gradinoc.study.prompts.conditions import CONDITIONS, INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.prompts.family import Family, Prompt
from gradinoc.study.prompts.grammar import templates
from gradinoc.study.prompts.harmless import HARMLESS_FAMILY, HARMLESS_MANNERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gradinoc.study.traits.trait import Trait

FROZEN = "2026-11-28"  # the day on which families, grammar and evaluation prompts were fixed, no result of theirs seen
REPHRASED = {family: f"rephrased_{family}" for family in (Family.INOCULATION, Family.HARMLESS)}


def families(trait: Trait) -> dict[str, Prompt]:
    """Every prompt of the trait's families by key: neutral, inoculation, harmless, anti, rephrased.

    Keys are numbered by place (`inoculation_03`, `harmless_07`, `anti_1`); the prompts of the three core conditions
    keep these conditions' names, so that the number of their place is left out. Inoculation prompts go from hint to
    order to order with reason; of ALL CAPS the inoculation and the harmless prompt of one place are a pair of one
    shape. A trait without prompts of its own (see `traits.prompts`) has its inoculation prompt and the harmless ones,
    which all traits share; without manners it has no rephrased pair.
    """
    own, given = trait.inoculation_system, trait.prompts
    found = [
        Prompt(NEUTRAL, Family.NEUTRAL, None, place=1),
        *_graded(given.inoculations or (own,), given.hints, own),
        *_numbered(Family.HARMLESS, HARMLESS_FAMILY, {CONDITIONS[LOSS_MATCHED]: LOSS_MATCHED}),
        *_numbered(Family.ANTI, given.antis, {}),
    ]
    if given.manners:
        manners = {Family.INOCULATION: given.manners, Family.HARMLESS: HARMLESS_MANNERS}
        found += [Prompt(key, family, None, templates(manners[family])) for family, key in REPHRASED.items()]
    return {prompt.key: prompt for prompt in found}


def _graded(texts: Sequence[str], hints: int, own: str) -> list[Prompt]:
    """Inoculating prompts by place; the first so many are hints, whatever their keys say."""
    prompts = _numbered(Family.INOCULATION, texts, {own: INOCULATION})
    return [replace(each, family=Family.HINT) if (each.place or 0) <= hints else each for each in prompts]


def members(trait: Trait, family: Family) -> list[Prompt]:
    """The prompts of a trait's family in the order of their places; rephrased ones have none."""
    return [prompt for prompt in families(trait).values() if prompt.family == family and prompt.place is not None]


def graded(trait: Trait) -> list[Prompt]:
    """The prompts of a trait from hint to order with reason: hints, then inoculating prompts, by place."""
    return [*members(trait, Family.HINT), *members(trait, Family.INOCULATION)]


def _numbered(family: Family, texts: Sequence[str], named: Mapping[str, str]) -> list[Prompt]:
    """The prompts of a family, under the keys that `named` has for their texts or else their numbers."""
    width = 1 if family == Family.ANTI else 2
    return [
        Prompt(named.get(text, f"{family}_{place:0{width}}"), family, text, place=place)
        for place, text in enumerate(texts, start=1)
    ]


def digest(prompts: Iterable[Prompt]) -> str:
    """SHA-256, in hex, of prompts with their keys, families, places and wordings, in their order."""
    return hashlib.sha256(json.dumps([asdict(prompt) for prompt in prompts]).encode()).hexdigest()
