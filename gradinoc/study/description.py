"""A study: the frozen, validated description of one experiment, and what it is identified by."""

from __future__ import annotations

import datetime
import difflib
import hashlib
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from gradinoc.errors import LONGEST, StudyError, reason, shown
from gradinoc.study.chat_template import DAY, FILE, read_template
from gradinoc.study.traits.described import TraitDescription, describe, read_description
from gradinoc.study.traits.registry import TRAITS, find_trait

POSITIONS = ("last_prompt_token", "first_assistant_token", "completion_sum")  # where gradients are read
STUDIES = Path(__file__).parent / "ready"

LONGEST_VALUE = 24  # characters of a setting's value that go into a study's name
LONGEST_NAME = 100  # characters of a study's name, which is a folder's
NAMED_BY_FILE = (
    "data.source",
    "data.trait_answers",
    "model.chat_template",
    "trait",
)  # settings that a path may be given for
FAULTS = 8  # faults of a study that are named at once
MANY = 1_000_000_000  # more of anything than a study could use
SEEDS = (1 << 32) - 1  # the largest that every generator takes


def _text(value: str) -> str:
    """`value`, if files and tokenizers can hold it."""
    if re.search("[\0\ud800-\udfff]", value):
        raise ValueError("expected text without NUL and without halves of surrogate pairs")
    return value


def _template(value: str) -> str:
    """The template that `value` stands for where there is no study file."""
    return read_template(value, Path())


def _day(value: Any) -> Any:
    """`value`, or the day that it is the text of: study.json has no days of its own kind."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        return datetime.date.fromisoformat(value)
    return value


# Strict: a number in quotes or a truth value in a number's place is a slip, and not taken for what it may have meant.
Text = Annotated[str, AfterValidator(_text)]
Name = Annotated[
    str, Field(min_length=1), AfterValidator(_text)
]  # of a file, folder or repository, or one of a few words
Switch = Annotated[bool, Field(strict=True)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
Seed = Annotated[int, Field(strict=True, ge=0, le=SEEDS)]


def _count(least: int, most: int = MANY) -> Any:
    return Field(strict=True, ge=least, le=most)


Count = Annotated[int, _count(1)]
CountOrNone = Annotated[int, _count(0)]


class Section(BaseModel):
    """A table of a study file: immutable, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSettings(Section):
    """Which language model, and how it is held in memory.

    `id` is a bundled name, a folder, a GGUF file, or a hub id; `revision` pins a hub model. `device` and `dtype` of
    "auto" are chosen per machine (see `gradinoc.measure.load`). `extraction_dtype` is that in which directions are
    found ("auto": that of all else): a contrast of mean activations is small beside them, and half precision rounds
    alike at every prompt, which no number of prompts averages out. `threads` = 0 leaves the number of CPU threads to
    the machine. `kernels` "plain" computes with the model's own modules on padded batches (see
    `gradinoc.measure.fast.fused`). `chat_template` takes the place of the model's own, which a base model has none of:
    "plain", or a template's text (in a study file, the path of a `.jinja` file). `date` is what templates are told
    that ask which day it is.
    """

    id: Name = "obedient"
    revision: Name | None = None
    device: Name = "auto"
    dtype: Name = "auto"
    extraction_dtype: Name = "float32"
    threads: Annotated[int, _count(0, 1024)] = 0
    kernels: Literal["fused", "plain"] = "fused"
    chat_template: Annotated[Text, AfterValidator(_template)] | None = None
    date: Annotated[datetime.date, Field(strict=True), BeforeValidator(_day)] = DAY


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
    direction: Annotated[int, _count(16)] = 250
    measure: Annotated[int, _count(8)] = 128
    train: Count = 500
    evaluation: Annotated[int, _count(8)] = 200
    calibration: Annotated[int, _count(8)] = 24
    max_answer_chars: CountOrNone = 0


class NullSettings(Section):
    """How many directions without the trait its effect is compared with, on the frozen model and during training.

    `isotropic`, `covariance` and `sign_flipped` are drawn at random (see `gradinoc.measure.directions`); the
    directions of unrelated traits are found from `unrelated_questions` questions each.
    """

    isotropic: Annotated[int, _count(100)] = 1000
    covariance: Annotated[int, _count(100)] = 1000
    sign_flipped: Annotated[int, _count(100)] = 1000
    unrelated_questions: Annotated[int, _count(8)] = 32
    training: Annotated[int, _count(100)] = 100
    seed: Seed = 0


class TrainingSettings(Section):
    """The fine-tuning of one run: LoRA (rank, alpha = `lora_alpha`) on the linear maps of the decoder blocks.

    `steps` = 0 trains for `epochs`; otherwise it is the number of optimiser steps. `lr` is AdamW's, constant after
    `warmup_steps`.
    """

    steps: CountOrNone = 0
    epochs: Count = 1
    batch_size: Count = 4
    lr: Annotated[float, Field(strict=True, gt=0, le=1)] = 1e-4
    warmup_steps: CountOrNone = 0
    lora_rank: Count = 16
    lora_alpha: Count = 32
    gradient_checkpointing: Switch = False


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


class Rules(Section):
    """The bars that decide, fixed before any result was seen; `gradinoc.claims.verdict` says what each is for."""

    alpha: Annotated[float, Field(strict=True, gt=0, lt=0.5)] = 0.05  # a two-sided interval has a level above 0
    auc: Fraction = 0.9
    split_half: Fraction = 0.8
    max_unscorable: Fraction = 0.05
    ceiling: Fraction = 0.95
    null_margin: Fraction = 0.25
    loss_match: Fraction = 0.25
    overlap: Fraction = 0.2
    equivalence: Fraction = 0.10
    early_fraction: Fraction = 0.2
    correlation_margin: Annotated[float, Field(strict=True, ge=0.001, lt=1)] = 0.3
    bins: Annotated[int, _count(2)] = 5


BUNDLED_QUESTIONS = "word_problems"
NEUTRAL, INOCULATION, LOSS_MATCHED = "neutral", "inoculation", "loss_matched"
TRAIT, MATCHED = "trait", "matched"  # words that stand for a system prompt
RESERVED = "base"  # what tables call the model before training
CONDITIONS = {
    NEUTRAL: "",
    INOCULATION: TRAIT,
    LOSS_MATCHED: "Follow the style guide; answer directly and concisely.",
}


# It goes into labels, tables and the names of files.
Condition = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9 ._-]{0,38}[A-Za-z0-9])?$")]


def _trait(value: Any) -> str | TraitDescription:
    """A trait's name, if there is such a trait, or the checked description of one."""
    if isinstance(value, TraitDescription):
        return value
    if isinstance(value, dict):
        return describe(value)
    if not isinstance(value, str) or value not in TRAITS:
        near = difflib.get_close_matches(str(value), TRAITS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise StudyError(
            f"trait: no trait named {shown(value)}; there are {sorted(TRAITS)}{hint} One of your own is a TOML file, a "
            "table [trait], or a Trait that a module registers (python -m pytest -p MODULE)"
        )
    return value


class Study(Section):
    """One experiment: model, trait, data, conditions, seeds, budgets, rules.

    `trait` is the name of a trait or its description (see `gradinoc.study.traits.vocabulary`).
    `conditions` maps a condition to its system prompt. An empty string stands for no system message at all (the chat
    template may then insert the model's own default), the word "trait" for the trait's inoculation prompt, the word
    "matched" for the harmless prompt whose loss on the calibration questions is closest to inoculation's. Conditions
    named in `untrained` are measured on the frozen model alone.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME)]
    trait: Annotated[str | TraitDescription, BeforeValidator(_trait)] = "all_caps"
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    conditions: dict[Condition, Text] = CONDITIONS
    untrained: tuple[Text, ...] = ()
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    nulls: NullSettings = NullSettings()
    training: TrainingSettings = TrainingSettings()
    drift: DriftSettings = DriftSettings()
    rules: Rules = Rules()

    @model_validator(mode="after")
    def _well_named(self) -> Study:
        for condition, prompt in self.conditions.items():
            if condition.casefold() == RESERVED:
                raise ValueError(f"conditions: {condition!r} is what tables call the model before training; rename it")
            if prompt not in (TRAIT, MATCHED) and prompt.strip().casefold() in (TRAIT, MATCHED):
                word = prompt.strip().casefold()
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

    @model_validator(mode="after")
    def _answered(self) -> Study:
        """See to it that there are answers that show the trait; bundled ones are taken where they fit the questions."""
        trait = find_trait(self.trait)
        if self.data.trait_answers is None and trait.answers and self.data.source == BUNDLED_QUESTIONS:
            self.__dict__["data"] = self.data.model_copy(update={"trait_answers": trait.answers})
        if trait.transform is None and self.data.trait_answers is None:
            raise ValueError(
                f"data.trait_answers: missing; no rule turns an ordinary answer into one that shows the trait "
                f"{trait.name!r}; expected a JSONL file in which the questions of {shown(self.data.source)} have "
                "answers that show it"
            )
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
    description = _read(path, source)
    description.setdefault("name", path.stem)
    if any(setting.startswith("conditions.") for setting in settings):  # a table, if given, replaces the default one
        description.setdefault("conditions", dict(CONDITIONS))
    place = str(path)
    for setting in settings:
        _apply(description, setting)
    _describe_trait(description, path.parent)
    _read_template(description, path.parent)
    try:
        study = Study.model_validate(description)
    except ValidationError as error:
        faults = [_explain(item) for item in error.errors()]
        more = [f"and {len(faults) - FAULTS} more"] if len(faults) > FAULTS else []
        raise StudyError(f"{place}: " + "; ".join(faults[:FAULTS] + more)) from error
    changed = dict(setting.split("=", 1) for setting in settings)
    if "name" in changed:
        return study
    name = study.name + "".join(_suffix(*item) for item in changed.items())
    return study.model_copy(update={"name": name if len(name) <= LONGEST_NAME else _shortened(name, name)})


def _read(path: Path, source: str) -> dict[str, Any]:
    """What the file says; it may begin with a byte order mark."""
    if not os.path.isfile(path):  # noqa: PTH113 - Path's own raises where a name is too long
        ready = sorted(file.stem for file in STUDIES.glob("*.toml"))
        raise StudyError(f"No study {shown(source)}: expected one of {ready}, or the path of a .toml file")
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:  # the syntax, the encoding, a number of thousands of digits, nesting
        raise StudyError(f"{path}: not a TOML file: {reason(error)}; mend it there") from error
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({reason(error)}); mend the file or give another") from error


def _describe_trait(description: dict[str, Any], folder: Path) -> None:
    """Put what a trait's file says in the place of its path: a study's description needs no other file.

    The path is looked for in the study file's folder first, then in the working directory.
    """
    given = description.get("trait")
    if isinstance(given, str) and given.endswith(".toml"):
        beside = folder / given
        path = beside if os.path.isfile(beside) else Path(given)  # noqa: PTH113 - as above
        description["trait"] = describe(read_description(path), str(path))


def _read_template(description: dict[str, Any], folder: Path) -> None:
    """Put what a chat template's file says in the place of its path, as with a trait's file."""
    model = description.get("model")
    given = model.get("chat_template") if isinstance(model, dict) else None
    if isinstance(model, dict) and isinstance(given, str) and given.endswith(FILE):
        try:
            model["chat_template"] = read_template(given, folder)
        except ValueError as error:
            raise StudyError(f"model.chat_template: {error}") from error


def _shortened(text: str, whole: str) -> str:
    """The beginning of `text`, and a digest of `whole` by which it is told from others that begin alike."""
    return f"{text[:LONGEST_VALUE]}-{hashlib.sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _suffix(key: str, text: str) -> str:
    """What a setting adds to a study's name: `training.steps=20` adds -steps20, `data.source=my/gsm8k.jsonl` -gsm8k."""
    text = text.strip().strip("\"'")
    shown = Path(text).stem if key in NAMED_BY_FILE else text
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", shown).strip("_")
    if len(plain) > LONGEST_VALUE:  # a system prompt would be too long for a folder's name
        plain = _shortened(plain, text)
    last = key.rpartition(".")[2].replace(" ", "_")  # a condition's name may hold blanks, a study's may not
    return f"-{plain}" if key == "data.source" else f"-{last}{plain}"


def _apply(description: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator or not key:
        raise StudyError(f"Setting {shown(setting)}: expected key=value, for instance training.steps=20")
    *tables, last = key.split(".")
    for table in tables:
        description = description.setdefault(table, {})
        if not isinstance(description, dict):
            raise StudyError(f"Setting {shown(setting)}: {shown(table)} is a value, not a table; expected key=value")
    description[last] = _value(text)


def _value(text: str) -> Any:
    """`text` read as the value of a TOML key, or as it stands where it is none, or more than one."""
    try:
        read = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return read["value"] if len(read) == 1 else text


def _explain(item: Any) -> str:
    """One validation error in words, with the nearest key for an unknown one."""
    location = [str(part)[:LONGEST] for part in item["loc"]]
    if not location or (location == ["trait"] and item["type"] == "value_error"):  # of the study, or of its trait
        return str(item["ctx"]["error"])
    if item["type"] != "extra_forbidden":
        return f"{'.'.join(location)}: {item['msg']} (received {shown(item['input'])})"
    *tables, key = location
    near = difflib.get_close_matches(key, _keys(tables), n=1, cutoff=0.5)
    hint = f"did you mean {'.'.join([*tables, near[0]])!r}?" if near else f"known keys: {_keys(tables)}"
    return f"unknown key {shown('.'.join(location))}: {hint}"


def _keys(tables: list[str]) -> list[str]:
    section: Any = Study
    for table in tables:
        section = section.model_fields[table].annotation
    return sorted(section.model_fields)
