"""What the stages of a study share: its questions under its prompts, and its model, loaded when first needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from gradinoc.chat import Encoded, encode
from gradinoc.data import Example, Splits
from gradinoc.directions import isotropic_directions
from gradinoc.models import LanguageModel, load_model
from gradinoc.store import load_tensors
from gradinoc.study import Study
from gradinoc.traits import Trait, find_trait

Tell = Callable[[str, int, int], None]  # (what is at work, how much of it is done, how much there is)


@dataclass(frozen=True)
class Bench:
    """A study with its questions at hand."""

    study: Study
    splits: Splits

    @cached_property
    def language_model(self) -> LanguageModel:
        """The frozen base model, one for the life of the bench."""
        settings = self.study.model
        return load_model(settings.id, revision=settings.revision, device=settings.device, dtype=settings.dtype)

    @property
    def trait(self) -> Trait:
        """The trait under study."""
        return find_trait(self.study.trait)

    @property
    def pad(self) -> int:
        """Id of the padding token."""
        return int(self.language_model.tokenizer.pad_token_id)

    def system(self, condition: str) -> str | None:
        """The system prompt of a condition, None for no system message."""
        text = self.study.conditions[condition]
        return (self.trait.inoculation_system if text == "trait" else text) or None

    def trait_examples(self, examples: Sequence[Example], condition: str) -> list[Encoded]:
        """Questions under the condition's prompt, with the answers that show the trait."""
        tokenizer, system = self.language_model.tokenizer, self.system(condition)
        return [encode(tokenizer, e.question, self.trait.transform(e.answer), system) for e in examples]


def trait_directions(folder: Path) -> dict[int, Tensor]:
    """Layer -> trait direction, a unit vector `[hidden]`, from the folder of the directions step."""
    return dict(enumerate(load_tensors(folder / "directions.safetensors")["trait"]))


def probe_directions(folder: Path, count: int, seed: int) -> dict[int, Tensor]:
    """Layer -> unit rows `[1 + count, hidden]`: the trait direction, then isotropic ones, the same at every layer."""
    trait = trait_directions(folder)
    random = isotropic_directions(count, len(trait[0]), seed)
    return {layer: torch.cat([direction[None], random]) for layer, direction in trait.items()}
