"""A study: the frozen, validated description of one experiment, and what it is identified by."""

from __future__ import annotations

import difflib
import hashlib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from gradinoc.errors import StudyError
from gradinoc.traits import TRAITS

STUDIES = Path(__file__).parent / "studies"

LONGEST_VALUE = 24  # characters of a setting's value that go into a study's name

Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A table of a study file: immutable, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSettings(Section):
    """Which language model, and how it is held in memory.

    `id` is a bundled name, a folder, or a hub id; `revision` pins a hub model. `device` and `dtype` of
    "auto" are chosen per machine (see `gradinoc.models`). `extraction_dtype` is that in which directions are found
    ("auto": that of all else): a contrast of mean activations is small beside them, and half precision rounds alike at
    every prompt, which no number of prompts averages out. `threads` = 0 leaves the number of CPU threads to the
    machine. `kernels` "plain" computes with the model's own modules on padded batches (see `gradinoc.fused`).
    """

    id: str = "obedient"
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    extraction_dtype: str = "float32"
    threads: NonNegativeInt = 0
    kernels: Literal["fused", "plain"] = "fused"


class DataSettings(Section):
    """Where questions and answers come from, and how many go to each purpose (all disjoint by question).

    `source` is a bundled name, a JSONL file (chat, or `question`/`answer`), or a hub dataset id. `direction` questions
    are shared among fitting the direction (half), declaring the band (a quarter) and gate G1 (a quarter). `calibration`
    questions choose the prompt of a condition that is "matched".
    `max_answer_chars` leaves longer answers out (0: none).
    """

    source: str = "word_problems"
    everyday: str = "everyday_requests"
    seed: NonNegativeInt = 0
    direction: Annotated[int, Field(ge=16)] = 250
    measure: Annotated[int, Field(ge=8)] = 128
    train: PositiveInt = 500
    evaluation: Annotated[int, Field(ge=8)] = 200
    calibration: Annotated[int, Field(ge=8)] = 24
    max_answer_chars: NonNegativeInt = 0


class NullSettings(Section):
    """How many directions without the trait its effect is compared with, on the frozen model and during training.

    `isotropic`, `covariance` and `sign_flipped` are drawn at random (see `gradinoc.directions`); the directions of
    unrelated traits are found from `unrelated_questions` questions each.
    """

    isotropic: Annotated[int, Field(ge=100)] = 1000
    covariance: Annotated[int, Field(ge=100)] = 1000
    sign_flipped: Annotated[int, Field(ge=100)] = 1000
    unrelated_questions: Annotated[int, Field(ge=8)] = 32
    training: Annotated[int, Field(ge=100)] = 100
    seed: NonNegativeInt = 0


class TrainingSettings(Section):
    """The fine-tuning of one run: LoRA (rank, alpha = `lora_alpha`) on every linear map of the decoder blocks.

    `steps` = 0 trains for `epochs`; otherwise it is the number of optimiser steps. `lr` is AdamW's, constant after
    `warmup_steps`.
    """

    steps: NonNegativeInt = 0
    epochs: PositiveInt = 1
    batch_size: PositiveInt = 4
    lr: PositiveFloat = 1e-4
    warmup_steps: NonNegativeInt = 0
    lora_rank: PositiveInt = 16
    lora_alpha: PositiveInt = 32
    gradient_checkpointing: bool = False


class DriftSettings(Section):
    """How much is evaluated before and after: generations per domain and their length, and answers scored.

    `early` is the share of a run's steps after which its drift is measured too, everyday requests left out.
    """

    generations: PositiveInt = 200
    everyday: PositiveInt = 80
    max_new_tokens: PositiveInt = 64
    log_odds: PositiveInt = 200
    batch_size: PositiveInt = 32
    early: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Rules(Section):
    """The bars that decide, fixed before any result was seen; `gradinoc.verdict` says what each is for."""

    alpha: Fraction = 0.05
    auc: Fraction = 0.9
    split_half: Fraction = 0.8
    max_letterless: Fraction = 0.05
    ceiling: Fraction = 0.95
    null_margin: Fraction = 0.25
    loss_match: Fraction = 0.25
    overlap: Fraction = 0.2
    equivalence: Fraction = 0.10
    early_fraction: Fraction = 0.2
    correlation_margin: Fraction = 0.3
    bins: Annotated[int, Field(ge=2)] = 5


NEUTRAL, INOCULATION, LOSS_MATCHED = "neutral", "inoculation", "loss_matched"
TRAIT, MATCHED = "trait", "matched"  # words that stand for a system prompt
CONDITIONS = {
    NEUTRAL: "",
    INOCULATION: TRAIT,
    LOSS_MATCHED: "Follow the style guide; answer directly and concisely.",
}


class Study(Section):
    """One experiment: model, trait, data, conditions, seeds, budgets, rules.

    `conditions` maps a condition to its system prompt. An empty string stands for no system message at all (the chat
    template may then insert the model's own default), the word "trait" for the trait's inoculation prompt, the word
    "matched" for the harmless prompt whose loss on the calibration questions is closest to inoculation's. Conditions
    named in `untrained` are measured on the frozen model alone.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    trait: str = "all_caps"
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0, 1, 2)
    conditions: dict[str, str] = CONDITIONS
    untrained: tuple[str, ...] = ()
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    nulls: NullSettings = NullSettings()
    training: TrainingSettings = TrainingSettings()
    drift: DriftSettings = DriftSettings()
    rules: Rules = Rules()

    @model_validator(mode="after")
    def _coherent(self) -> Study:
        absent = {NEUTRAL, INOCULATION, LOSS_MATCHED} - set(self.conditions)
        if absent:
            raise ValueError(f"conditions: {sorted(absent)} missing; the claims compare these three")
        for condition in self.untrained:
            if condition not in self.conditions or condition in CONDITIONS:
                others = sorted(set(self.conditions) - set(CONDITIONS))
                raise ValueError(f"untrained: {condition!r} is not one of the further conditions {others}")
        if [*self.conditions.values()].count(MATCHED) > 1:
            raise ValueError("conditions: more than one is 'matched'; they would have the same prompt")
        if MATCHED in (self.conditions[NEUTRAL], self.conditions[INOCULATION]):
            raise ValueError("conditions: neutral and inoculation cannot be 'matched': it is chosen by their losses")
        if self.trait not in TRAITS:
            raise ValueError(f"trait: no trait named {self.trait!r}; there are {sorted(TRAITS)}")
        for budget in ("generations", "log_odds"):
            if getattr(self.drift, budget) > self.data.evaluation:
                raise ValueError(f"drift.{budget}: more than data.evaluation, which is {self.data.evaluation}")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} repeats a seed; a run is identified by condition and seed")
        return self

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Every (condition, seed), seed by seed: the order in which runs are taken up."""
        return [
            (condition, seed) for seed in self.seeds for condition in self.conditions if condition not in self.untrained
        ]


def load_study(source: str, settings: tuple[str, ...] | list[str] = ()) -> Study:
    """The study called `source` (a ready study's name, or the path of a TOML file) with `key=value` settings applied.

    A setting's key is dotted (`data.source`), its value is read as TOML where that is possible, else as a string.
    Settings that leave `name` alone are added to it, so that artifacts do not take the place of the plain study's.

    Raises:
        StudyError: no such study, not TOML, or a key or value that does not fit; a typo in a key names the nearest key.
    """
    path = Path(source) if source.endswith(".toml") else STUDIES / f"{source}.toml"
    if not path.is_file():
        ready = sorted(file.stem for file in STUDIES.glob("*.toml"))
        raise StudyError(f"No study {source!r}: expected one of {ready}, or the path of a .toml file")
    try:
        description = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: not a TOML file: {error}") from error
    description.setdefault("name", path.stem)
    if any(setting.startswith("conditions.") for setting in settings):  # a table, if given, replaces the default one
        description.setdefault("conditions", dict(CONDITIONS))
    for setting in settings:
        _apply(description, setting)
    try:
        study = Study.model_validate(description)
    except ValidationError as error:
        raise StudyError(f"{path}: " + "; ".join(_explain(item) for item in error.errors())) from error
    changed = dict(setting.split("=", 1) for setting in settings)
    if "name" in changed:
        return study
    return study.model_copy(update={"name": study.name + "".join(_suffix(*item) for item in changed.items())})


def _suffix(key: str, text: str) -> str:
    """What a setting adds to a study's name: `training.steps=20` adds -steps20, `data.source=my/gsm8k.jsonl` -gsm8k."""
    text = text.strip().strip("\"'")
    shown = Path(text).stem if key == "data.source" else text
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", shown).strip("_")
    if len(plain) > LONGEST_VALUE:  # a system prompt would be too long for a folder's name
        plain = f"{plain[:LONGEST_VALUE]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    return f"-{plain}" if key == "data.source" else f"-{key.rpartition('.')[2]}{plain}"


def _apply(description: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise StudyError(f"Setting {setting!r}: expected key=value, for instance training.steps=20")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, last = key.split(".")
    for table in tables:
        description = description.setdefault(table, {})
        if not isinstance(description, dict):
            raise StudyError(f"Setting {setting!r}: {table!r} is a value, not a table")
    description[last] = value


def _explain(item: Any) -> str:
    """One validation error in words, with the nearest key for an unknown one."""
    location = [str(part) for part in item["loc"]]
    if not location:  # of the study as a whole
        return str(item["ctx"]["error"])
    if item["type"] != "extra_forbidden":
        return f"{'.'.join(location)}: {item['msg']} (received {item['input']!r})"
    *tables, key = location
    near = difflib.get_close_matches(key, _keys(tables), n=1, cutoff=0.5)
    hint = f"did you mean {'.'.join([*tables, near[0]])!r}?" if near else f"known keys: {_keys(tables)}"
    return f"unknown key {'.'.join(location)!r}: {hint}"


def _keys(tables: list[str]) -> list[str]:
    section: Any = Study
    for table in tables:
        section = section.model_fields[table].annotation
    return sorted(section.model_fields)
