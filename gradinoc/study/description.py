"""A study: the frozen, validated description of one experiment."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gradinoc.errors import shown
from gradinoc.study.chat_template import DAY, read_template
from gradinoc.study.fields import Condition, Count, CountOrNone, Name, Section, Seed, Switch, Text, whole
from gradinoc.study.prompts import CONDITIONS, INOCULATION, LOSS_MATCHED, MATCHED, NEUTRAL, PLACEHOLDERS, RESERVED
from gradinoc.study.prompts.family import Prompt
from gradinoc.study.prompts.settings import PromptSettings
from gradinoc.study.rules import Rules
from gradinoc.study.traits.registry import TRAITS, checked_trait, find_trait
from gradinoc.study.traits.vocabulary import TraitDescription

POSITIONS = ("last_prompt_token", "first_assistant_token", "completion_sum")  # where gradients are read
BUNDLED_QUESTIONS = "word_problems"
LONGEST_NAME = 100  # characters of a study's name, which is a folder's


def _template(value: str) -> str:
    """The template that `value` stands for where there is no study file."""
    return read_template(value, Path())


def _day(value: Any) -> Any:
    """`value`, or the day that it is the text of: study.json has no days of its own kind."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        return datetime.date.fromisoformat(value)
    return value


class ModelSettings(Section):
    """Which language model, and how it is held in memory.

    `id` is a bundled name, a folder, a GGUF file, or a hub id; `revision` pins a hub model. `device` and `dtype` of
    "auto" are chosen per machine (see `gradinoc.measure.load`). `extraction_dtype` is that in which directions are
    found ("auto": that of all else): a contrast of mean activations is small beside them, and half precision rounds
    alike at every prompt, which no number of prompts averages out. `threads` = 0 leaves the number of CPU threads to
    the machine. `kernels` "plain" computes with the model's own modules on padded batches (see
    `gradinoc.measure.fast.fused`). `chat_template` takes the place of the model's own, which a base model has none of:
    "plain", or a template's text (in a study file, the path of a `.jinja` file). `date` is what templates are told
    that ask which day it is. `published_dtype` is that of the numbers that were published of a ready study.
    """

    id: Name = "obedient"
    revision: Name | None = None
    device: Name = "auto"
    dtype: Name = "auto"
    extraction_dtype: Name = "float32"
    threads: Annotated[int, whole(0, 1024)] = 0
    kernels: Literal["fused", "plain"] = "fused"
    chat_template: Annotated[Text, AfterValidator(_template)] | None = None
    date: Annotated[datetime.date, Field(strict=True), BeforeValidator(_day)] = DAY
    published_dtype: Name | None = None


class DataSettings(Section):
    """Where questions and answers come from, and how many go to each purpose (all disjoint by question).

    `source` is a bundled name, a JSONL file (chat, or `question`/`answer`), or a hub dataset id, which
    `revision` (a commit, tag or branch) pins. `trait_answers` is a bundled name or a JSONL file in which the same
    questions have answers that show the trait; they take the place of the trait's transform. `direction` questions
    are shared among fitting the direction (half), declaring the band (a quarter) and gate G1 (a quarter). `calibration`
    questions choose the prompt of a condition that is "matched".
    `max_answer_chars` leaves out questions whose ordinary answer is longer (0: none).
    """

    source: Name = "word_problems"
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    trait_answers: Name | None = None
    everyday: Name = "everyday_requests"
    seed: Seed = 0
    direction: Annotated[int, whole(16)] = 250
    measure: Annotated[int, whole(8)] = 128
    train: Count = 500
    evaluation: Annotated[int, whole(8)] = 200
    calibration: Annotated[int, whole(8)] = 24
    max_answer_chars: CountOrNone = 0


@dataclass(frozen=True)
class Null:
    """A kind of direction without the trait, drawn at random (see `gradinoc.measure.directions.NULLS_DRAWN`).

    Attributes:
        label: what readers see.
        spread: in simulated studies, the sd of the mean alignment (cosine) of such a direction under one condition.
        of_trait: whether a draw holds a random share of the trait's own direction, and so grows with depth as that.
    """

    label: str
    spread: float
    of_trait: bool = False


ISOTROPIC = "isotropic"
NULLS = {
    ISOTROPIC: Null("isotropic", 0.004),
    "covariance": Null("covariance-matched", 0.006),
    "sign_flipped": Null("sign-flipped", 0.006, of_trait=True),
}  # a key names the draws in tables, and their number in a study file


class NullSettings(Section):
    """How many directions without the trait its effect is compared with, on the frozen model and during training.

    Of each of `NULLS`, a field of its name; the directions of unrelated traits are found from `unrelated_questions`
    questions each.
    """

    isotropic: Annotated[int, whole(100)] = 1000
    covariance: Annotated[int, whole(100)] = 1000
    sign_flipped: Annotated[int, whole(100)] = 1000
    unrelated_questions: Annotated[int, whole(8)] = 32
    training: Annotated[int, whole(100)] = 100
    seed: Seed = 0

    @property
    def draws(self) -> dict[str, int]:
        """How many directions are drawn of each kind."""
        return {null: getattr(self, null) for null in NULLS}


class TrainingSettings(Section):
    """The fine-tuning of one run: LoRA (rank, alpha = `lora_alpha`) on the linear maps of the decoder blocks.

    `steps` = 0 trains for `epochs`; otherwise it is the number of optimiser steps. `lr` is AdamW's, constant after
    `warmup_steps`. `together` runs are trained in one pass over the frozen weights; each is what it is alone, but for
    rounding.
    """

    steps: CountOrNone = 0
    epochs: Count = 1
    batch_size: Count = 4
    lr: Annotated[float, Field(strict=True, gt=0, le=1)] = 1e-4
    warmup_steps: CountOrNone = 0
    lora_rank: Count = 16
    lora_alpha: Count = 32
    gradient_checkpointing: Switch = False
    together: Count = 1


class DriftSettings(Section):
    """How much is evaluated before and after: generations per domain and their length, and answers scored.

    `early` is the share of a run's steps after which its drift is measured too, everyday requests left out.
    """

    generations: Count = 200
    everyday: Count = 80
    max_new_tokens: Count = 64
    log_odds: Count = 200
    batch_size: Count = 32
    early: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.5


class SecondarySettings(Section):
    """Stages on which no decision rests: what is off is not computed, and its effects and figures are left out.

    `matched_checkpoints` measures neutral runs where their loss has come down to inoculation's first; `early_drift`
    measures every run at its midpoint too.
    """

    matched_checkpoints: Switch = True
    early_drift: Switch = True


class Study(Section):
    """One experiment: model, trait, data, conditions, seeds, budgets, rules.

    `trait` is the name of a trait or its description (see `gradinoc.study.traits.vocabulary`).
    `conditions` maps a condition to its system prompt. An empty string stands for no system message at all (the chat
    template may then insert the model's own default), the word "trait" for the trait's inoculation prompt, the word
    "matched" for the harmless prompt whose loss on the calibration questions is closest to inoculation's. Conditions
    named in `untrained` are measured on the frozen model alone. `prompts` names further ones, of the trait's families.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME)]
    trait: Annotated[str | TraitDescription, BeforeValidator(checked_trait)] = "all_caps"
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    conditions: dict[Condition, Text] = CONDITIONS
    untrained: tuple[Text, ...] = ()
    prompts: PromptSettings = PromptSettings()
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    nulls: NullSettings = NullSettings()
    training: TrainingSettings = TrainingSettings()
    drift: DriftSettings = DriftSettings()
    secondary: SecondarySettings = SecondarySettings()
    rules: Rules = Rules()

    @model_validator(mode="after")
    def _well_named(self) -> Study:
        for condition, prompt in self.conditions.items():
            if condition.casefold() == RESERVED:
                raise ValueError(f"conditions: {condition!r} is what tables call the model before training; rename it")
            word = prompt.strip().casefold()
            if word != prompt and word in (*PLACEHOLDERS, MATCHED):
                raise ValueError(f"conditions.{condition}: expected a prompt, or {word!r} exactly, received {prompt!r}")
        if len(set(self.untrained)) != len(self.untrained):
            raise ValueError(f"untrained: {shown(list(self.untrained))} repeats a condition; name each once")
        return self

    @model_validator(mode="after")
    def _coherent(self) -> Study:
        absent = {NEUTRAL, INOCULATION, LOSS_MATCHED} - set(self.conditions)
        if absent:
            raise ValueError(f"conditions: {sorted(absent)} missing; the claims compare these three")
        for condition in self.untrained:
            if condition not in self.conditions or condition in CONDITIONS:
                others = sorted(set(self.conditions) - set(CONDITIONS))
                raise ValueError(f"untrained: {shown(condition)} is not one of the further conditions {others}")
        if [*self.conditions.values()].count(MATCHED) > 1:
            raise ValueError("conditions: more than one is 'matched'; they would have the same prompt")
        if MATCHED in (self.conditions[NEUTRAL], self.conditions[INOCULATION]):
            raise ValueError("conditions: neutral and inoculation cannot be 'matched': it is chosen by their losses")
        for budget in ("generations", "log_odds"):
            if getattr(self.drift, budget) > self.data.evaluation:
                raise ValueError(
                    f"drift.{budget}: more than data.evaluation, which is {self.data.evaluation}; lower it"
                )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(
                f"seeds: {shown(list(self.seeds))} repeats a seed; a run is identified by condition and seed"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _bundled_answers(cls, given: Any) -> Any:
        """Take the bundled answers that show the trait, where they fit the questions and no others are named."""
        name = given.get("trait") if isinstance(given, dict) else None
        answers = TRAITS[name].answers if isinstance(name, str) and name in TRAITS else None
        data = given.get("data", {}) if answers else None
        if isinstance(data, DataSettings):
            data = data.model_dump()
        if not isinstance(data, dict) or data.get("source", BUNDLED_QUESTIONS) != BUNDLED_QUESTIONS:
            return given
        return {**given, "data": {**data, "trait_answers": data.get("trait_answers") or answers}}

    @model_validator(mode="after")
    def _answered(self) -> Study:
        """Check that there are answers that show the trait."""
        trait = find_trait(self.trait)
        if trait.transform is None and self.data.trait_answers is None:
            raise ValueError(
                f"data.trait_answers: missing; no rule turns an ordinary answer into one that shows the trait "
                f"{trait.name!r}; expected a JSONL file in which the questions of {shown(self.data.source)} have "
                "answers that show it"
            )
        return self

    @model_validator(mode="after")
    def _known_prompts(self) -> Study:
        if self.prompts != PromptSettings():
            self.prompts.check(find_trait(self.trait), self.conditions)
        return self

    @property
    def prompts_known(self) -> dict[str, Prompt]:
        """Key -> prompt: those of the core conditions and of every family, whether measured or not."""
        return self.prompts.known(find_trait(self.trait), self.conditions)

    @property
    def prompts_measured(self) -> dict[str, Prompt]:
        """Key -> prompt that is measured on the frozen model besides those of the conditions."""
        return self.prompts.chosen(self.prompts_known)

    @property
    def prompts_trained(self) -> dict[str, Prompt]:
        """Key -> prompt that is trained under, with one seed, besides those of the conditions."""
        return {key: prompt for key, prompt in self.prompts_measured.items() if key in self.prompts.trained}

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Every (condition, seed), seed by seed: the order in which runs are taken up."""
        return [
            (condition, seed) for seed in self.seeds for condition in self.conditions if condition not in self.untrained
        ]
