"""A study: the frozen, validated description of one experiment."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from gradinoc.errors import shown
from gradinoc.study.arms import Arm, ArmName, ArmRun, arm_runs, check_arms
from gradinoc.study.fields import Condition, Section, Seed, Text
from gradinoc.study.prompts import CONDITIONS, INOCULATION, LOSS_MATCHED, NEUTRAL, PLACEHOLDERS, RESERVED, system_prompt
from gradinoc.study.prompts.family import Family, Prompt
from gradinoc.study.prompts.settings import PromptSettings
from gradinoc.study.rules import Published, Rules
from gradinoc.study.settings import (
    AttributionSettings,
    DataSettings,
    DriftSettings,
    EngineSettings,
    ModelSettings,
    NullSettings,
    SteeringSettings,
    TrainingSettings,
)
from gradinoc.study.traits.registry import TRAITS, checked_trait, find_trait
from gradinoc.study.traits.vocabulary import TraitDescription

POSITIONS = ("last_prompt_token", "first_assistant_token", "completion_sum")  # where gradients are read
BUNDLED_QUESTIONS = "word_problems"
LONGEST_NAME = 100  # characters of a study's name, which is a folder's
BUDGETS = {  # how many questions a measurement takes -> of those of which there are so many
    "drift.generations": "data.evaluation",
    "drift.log_odds": "data.evaluation",
    "drift.answer_loss_gap": "data.evaluation",
    "drift.matrix": "data.evaluation",
    "attribution.questions": "data.evaluation",
    "attribution.examples": "data.measure",
    "steering.questions": "data.calibration",
    "prompts.behaviour": "data.calibration",
    "prompts.examples": "data.measure",
}
DESCRIBES_NOTHING = ("published", "engine")  # fields that decide and measure nothing


class Study(Section):
    """One experiment: model, trait, data, conditions, seeds, budgets, rules.

    `trait` is the name of a trait or its description (see `gradinoc.study.traits.vocabulary`).
    `conditions` maps a condition, trained with every seed, to its system prompt. An empty string stands for no system
    message at all (the chat template may then insert the model's own default), the word "trait" for the trait's
    inoculation prompt. `prompts` names further ones, of the trait's families, trained with the first seed alone. `arms`
    are runs with an intervention while they train (see `gradinoc.study.arms`). `engine` is what a worker of a cluster
    is to have.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME)]
    trait: Annotated[str | TraitDescription, BeforeValidator(checked_trait)] = "all_caps"
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    conditions: dict[Condition, Text] = CONDITIONS
    prompts: PromptSettings = PromptSettings()
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    nulls: NullSettings = NullSettings()
    training: TrainingSettings = TrainingSettings()
    steering: SteeringSettings = SteeringSettings()
    drift: DriftSettings = DriftSettings()
    attribution: AttributionSettings = AttributionSettings()
    arms: dict[ArmName, Arm] = Field(default_factory=dict)
    rules: Rules = Rules()
    engine: EngineSettings = EngineSettings()
    published: Published = Published()

    @model_validator(mode="after")
    def _well_named(self) -> Study:
        for condition, prompt in self.conditions.items():
            if condition.casefold() == RESERVED:
                raise ValueError(f"conditions: {condition!r} is what tables call the model before training; rename it")
            word = prompt.strip().casefold()
            if word != prompt and word in PLACEHOLDERS:
                raise ValueError(f"conditions.{condition}: expected a prompt, or {word!r} exactly, received {prompt!r}")
        return self

    @model_validator(mode="after")
    def _coherent(self) -> Study:
        absent = {NEUTRAL, INOCULATION, LOSS_MATCHED} - set(self.conditions)
        if absent:
            raise ValueError(f"conditions: {sorted(absent)} missing; the claims compare these three")
        for budget, source in BUDGETS.items():
            asked, there = (attrgetter(name)(self) for name in (budget, source))
            if asked > there:
                raise ValueError(f"{budget}: more than {source}, which is {there}; lower it")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(
                f"seeds: {shown(list(self.seeds))} repeats a seed; a run is identified by condition and seed"
            )
        return self

    @model_validator(mode="after")
    def _armed(self) -> Study:
        check_arms(self.arms, self.seeds, self.conditions)
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

    @model_validator(mode="before")
    @classmethod
    def _all_there_is(cls, given: Any) -> Any:
        """Let budgets that are not given take as many questions as there are, where the default is more."""
        if not isinstance(given, dict):
            return given
        tables = {name: table for name, table in given.items() if isinstance(table, dict)}
        for budget, source in BUDGETS.items():
            (name, field), (table, count) = (each.split(".") for each in (budget, source))
            there = tables.get(table, {}).get(count)
            left_out = name not in given or (name in tables and field not in tables[name])
            if left_out and isinstance(there, int) and there < cls.model_fields[name].default.model_dump()[field]:
                tables[name] = {**tables.get(name, {}), field: there}
        return {**given, **tables}

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
        known = self.prompts_known
        return {key: known[key] for key in self.prompts.to_train(known)}

    @property
    def measured(self) -> dict[str, Prompt]:
        """Every prompt that is measured on the frozen model, by key: the conditions', then the families'."""
        found = {name: self._of_condition(name) for name in self.conditions}
        return found | {key: prompt for key, prompt in self.prompts_measured.items() if not prompt.templates}

    @property
    def trained(self) -> dict[str, Prompt]:
        """Every prompt that runs are trained under, by key."""
        return {name: self._of_condition(name) for name in self.conditions} | self.prompts_trained

    def _of_condition(self, name: str) -> Prompt:
        known = self.prompts_known
        text = system_prompt(self.conditions[name], find_trait(self.trait).inoculation_system) or None
        return known.get(name, Prompt(name, Family.OTHER, text))

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Every (prompt, seed), seed by seed: the order in which runs are taken up.

        Conditions have all seeds, further prompts the first: prompts before seeds.
        """
        further = [(key, self.seeds[0]) for key in self.prompts_trained]
        return [*((name, self.seeds[0]) for name in self.conditions), *further,
                *((name, seed) for seed in self.seeds[1:] for name in self.conditions)]  # fmt: skip

    @property
    def arm_runs(self) -> dict[tuple[str, int], ArmRun]:
        """Every run with an intervention, by condition and seed; they are taken up after `runs`."""
        return {(run.condition, run.seed): run for run in arm_runs(self.arms, self.seeds)}
