"""The table `[prompts]` of a study file: which prompts of the families are measured and trained under."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from gradinoc.errors import shown
from gradinoc.study.faults import nearest
from gradinoc.study.fields import Count, PromptText, Section, whole
from gradinoc.study.prompts.conditions import CONDITIONS, PLACEHOLDERS, RESERVED, system_prompt
from gradinoc.study.prompts.evaluation import evaluation_prompts, untrained_prompts
from gradinoc.study.prompts.families import families
from gradinoc.study.prompts.family import NAME, Family, Prompt, plain

if TYPE_CHECKING:
    from gradinoc.study.traits.trait import Trait

ALL, TRAINED = "all", "trained"
# Trained under besides the conditions, with the first seed, where a trait has them. Standard: hints, about as many
# inoculating as harmless prompts, one that asks for the opposite, the rephrased pair. Few: for studies of a minute.
SETS = {
    "standard": (
        "inoculation_01", "inoculation_05", "inoculation_06", "inoculation_08", "inoculation_09", "inoculation_10",
        "harmless_02", "harmless_04", "harmless_06", "harmless_07", "harmless_10",
        "anti_1", "rephrased_inoculation", "rephrased_harmless",
    ),
    "few": (
        "inoculation_01", "inoculation_05", "inoculation_06", "inoculation_09", "inoculation_10",
        "harmless_03", "harmless_05", "harmless_09", "rephrased_inoculation", "rephrased_harmless",
    ),
}  # fmt: skip
ADDED_TO = tuple(map(str, (Family.INOCULATION, Family.HARMLESS, Family.ANTI)))


def _keys_or(words: Sequence[str], value: Any) -> Any:
    if isinstance(value, list | tuple) and all(isinstance(key, str) for key in value):
        return tuple(value)
    if value not in words:
        raise ValueError(f"expected {' or '.join(map(repr, words))}, or a list of keys, received {shown(value)}")
    return value


_measured, _trained = partial(_keys_or, (ALL, TRAINED)), partial(_keys_or, (*SETS, ALL))


class PromptSettings(Section):
    """Which prompts a study looks at besides those of its conditions; keys are listed in docs/prompts.md.

    `measured` are measured on the frozen model: "all", those "trained" under, or a list of keys besides these.
    `trained` are trained under with the first seed: one of `SETS`, "all", or a list of keys. `add` has prompts of one's
    own, family -> key -> text; `remove` takes away those with its keys.
    Gradients under each are those of the first `examples` questions of data.measure (all of them under the core
    conditions); under some, `samples` responses to each of `behaviour` calibration questions are drawn.
    """

    measured: Annotated[Literal["all", "trained"] | tuple[str, ...], BeforeValidator(_measured)] = "all"
    trained: Annotated[Literal["standard", "few", "all"] | tuple[str, ...], BeforeValidator(_trained)] = "standard"
    add: dict[str, dict[str, PromptText]] = Field(default_factory=dict)
    remove: tuple[str, ...] = ()
    examples: Annotated[int, whole(8)] = 32
    behaviour: Annotated[int, whole(8)] = 64
    samples: Count = 1

    def known(self, trait: Trait, conditions: Mapping[str, str]) -> dict[str, Prompt]:
        """Every prompt that the study knows, by key: the trait's families, without what is removed, with what is added.

        A prompt of a core condition is what the study's `conditions` say that it is.
        """
        found: dict[str, Prompt] = {}
        for key, prompt in families(trait).items():
            if key not in CONDITIONS:
                found[key] = prompt
            else:
                text = system_prompt(conditions[key], trait.inoculation_system) or None
                found[key] = prompt if text == prompt.text else replace(prompt, text=text, place=None)
        found = {key: prompt for key, prompt in found.items() if key not in self.remove}
        for family, added in self.add.items():
            found |= {key: Prompt(key, Family(family), text) for key, text in added.items()}
        return found

    def chosen(self, known: Mapping[str, Prompt]) -> dict[str, Prompt]:
        """Those of the `known` prompts that are measured, in their order."""
        further = () if self.measured == TRAINED else self.measured
        wanted = {*known} if self.measured == ALL else {*further, *self.to_train(known)}
        return {key: prompt for key, prompt in known.items() if key in wanted and key not in CONDITIONS}

    def to_train(self, known: Mapping[str, Prompt]) -> tuple[str, ...]:
        """The keys of those of the `known` prompts that are trained under besides the conditions'."""
        if isinstance(self.trained, tuple):
            return self.trained
        return tuple(key for key in SETS.get(self.trained, known) if key in known and key not in CONDITIONS)

    def check(self, trait: Trait, conditions: Mapping[str, str]) -> None:
        """Refuse keys that there are not, and prompts that are named or worded as others are.

        Raises:
            ValueError: the message names the field, the key, and what to do.
        """
        self._check_added(trait, conditions)
        _check_keys("remove", self.remove, families(trait))
        known = self.known(trait, conditions)
        for field, given in (("measured", self.measured), ("trained", self.trained)):
            keys = () if isinstance(given, str) else given
            gone = next((key for key in keys if key in self.remove), None)
            if gone is not None:
                raise ValueError(f"prompts.{field}: {gone!r} is in prompts.remove; take it out of one of them")
            _check_keys(field, keys, known)
        chosen, names = self.chosen(known), {name.casefold(): name for name in conditions}
        clash = next((key for key in chosen if key in names), None)
        if clash is not None:
            raise ValueError(f"conditions: {names[clash]!r} is the key of a measured prompt; rename the condition")
        own = {name: system_prompt(text, trait.inoculation_system) for name, text in conditions.items()}
        texts = {name: (text,) for name, text in own.items()}
        _check_texts(texts | {key: prompt.texts for key, prompt in chosen.items()})
        evaluation_prompts(trait, [known[key] for key in self.to_train(known)])

    def _check_added(self, trait: Trait, conditions: Mapping[str, str]) -> None:
        """Refuse added prompts of no family that takes them, under names that are taken, or that are no prompts."""
        evaluated = (prompt.key for prompt in untrained_prompts(trait))
        taken = Counter([*{*families(trait), *evaluated, *map(str.casefold, conditions), RESERVED}])
        taken += Counter(key for added in self.add.values() for key in added)
        directions = {plain(side) for pair in trait.contrasts for side in pair}
        for family, added in self.add.items():
            if family not in ADDED_TO:
                near = nearest(family, [*ADDED_TO])
                hint = f"did you mean {near!r}?" if near else f"prompts can be added to {', '.join(ADDED_TO)}"
                raise ValueError(f"prompts.add: no family {shown(family)}; {hint}")
            for key, text in added.items():
                fault = _fault(key, text, taken[key] > 1)
                if plain(text) in directions:
                    fault = f"{shown(text)} defines the trait direction, and would say nothing of it; reword it"
                if fault:
                    raise ValueError(f"prompts.add.{family}: {fault}")


def _fault(key: str, text: str, is_taken: bool) -> str | None:
    if not re.fullmatch(NAME, key):
        return f"expected names of at most 39 lower-case letters, digits and underscores, received {shown(key)}"
    if is_taken:
        return f"{key!r} is the name of another prompt or condition; choose another"
    if not text.strip() or plain(text) in PLACEHOLDERS:
        return f"{key}: expected a prompt, received {shown(text)}"
    return None


def _check_keys(field: str, keys: Sequence[str], known: Mapping[str, Prompt]) -> None:
    if len(set(keys)) < len(keys):
        raise ValueError(f"prompts.{field}: {shown(list(keys))} repeats a key; name each once")
    for key in keys:
        if key in CONDITIONS:
            why = "which the claims compare" if field == "remove" else f"{field} in every study"
            raise ValueError(f"prompts.{field}: {key!r} is a core condition, {why}; leave it out here")
        if key not in known:
            further = [other for other in known if other not in CONDITIONS]
            near = nearest(key, further)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(further)}"
            raise ValueError(f"prompts.{field}: no prompt has the key {shown(key)}; {hint}")


def _check_texts(prompts: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse two prompts with the same text: their difference would be chance, and be called an effect."""
    first: dict[str, str] = {}
    for name, texts in prompts.items():
        for text in texts:
            other = first.setdefault(plain(text), name)
            if other != name:
                raise ValueError(f"prompts: {other!r} and {name!r} are both {shown(text)}; leave one out or reword it")
