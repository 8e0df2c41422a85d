"""Sections of a study: model, data, directions without the trait, steering, training, drift, attribution."""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gradinoc.study.chat_template import DAY, read_template
from gradinoc.study.fields import Count, CountOrNone, Name, Section, Seed, Switch, Text, whole
from gradinoc.study.prompts import HARMLESS


def _template(value: str) -> str:
    """The template that `value` stands for where there is no study file."""
    return read_template(value, Path())


def _day(value: Any) -> Any:
    """`value`, or the day that it is the text of: study.json has no days of its own kind."""
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        return datetime.date.fromisoformat(value)
    return value


def fault_in_map(device_map: str | None, kernels: str) -> str | None:
    """What is wrong with asking for `device_map` and `kernels` at once, in words; None if nothing is."""
    if device_map is None or kernels == "plain":
        return None
    return (
        f"device_map: {device_map!r} spreads a model over devices, and kernels read the weights of all blocks on "
        "one; set model.kernels=plain too, or leave device_map out"
    )


class ModelSettings(Section):
    """Which language model, and how it is held in memory.

    `id` is a bundled name, a folder, a GGUF file, or a hub id; `revision` pins a hub model. `device` and `dtype` of
    "auto" are chosen per machine (see `gradinoc.measure.loading.load`). `extraction_dtype` is that in which directions
    are found ("auto": that of all else): a contrast of mean activations is small beside them, and half precision rounds
    alike at every prompt, which no number of prompts averages out. `threads` = 0 leaves the number of CPU threads to
    the machine. `kernels` "plain" computes with the model's own modules on padded batches (see
    `gradinoc.measure.fast.fused`). `device_map` spreads a model that no device holds over all there are, as accelerate
    does it; it needs plain kernels. `chat_template` takes the place of the model's own, which a base model has none of:
    "plain", or a template's text (in a study file, the path of a `.jinja` file). `date` is what templates are told
    that ask which day it is.
    """

    id: Name = "obedient"
    revision: Name | None = None
    device: Name = "auto"
    dtype: Name = "auto"
    extraction_dtype: Name = "float32"
    threads: Annotated[int, whole(0, 1024)] = 0
    kernels: Literal["fused", "plain"] = "fused"
    device_map: Literal["auto", "balanced", "sequential"] | None = None
    chat_template: Annotated[Text, AfterValidator(_template)] | None = None
    date: Annotated[datetime.date, Field(strict=True), BeforeValidator(_day)] = DAY

    @model_validator(mode="after")
    def _spread(self) -> Self:
        if fault := fault_in_map(self.device_map, self.kernels):
            raise ValueError(fault)
        return self


DATA_FILES = ("source", "everyday", "trait_answers")  # settings of data that may name a file


class DataSettings(Section):
    """Where questions and answers come from, and how many go to each purpose (all disjoint by question).

    `source` is a bundled name, a JSONL file (chat, or `question`/`answer`), or a hub dataset id, which
    `revision` (a commit, tag or branch) pins. `trait_answers` is a bundled name or a JSONL file in which the same
    questions have answers that show the trait; they take the place of the trait's transform. `direction` questions
    are shared among fitting the direction (half), declaring the band (a quarter) and gate G1 (a quarter). `calibration`
    questions show what prompts elicit from the frozen model, and what steering does.
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
    calibration: Annotated[int, whole(8)] = 128
    max_answer_chars: CountOrNone = 0


@dataclass(frozen=True)
class Null:
    """A kind of direction without the trait, drawn at random (see `gradinoc.measure.directions.nulls`).

    Attributes:
        label: what readers see, in the plural.
        spread: in simulated studies, the sd of the mean alignment (cosine) of such a direction under one prompt.
    """

    label: str
    spread: float


ISOTROPIC, COVARIANCE, INSTRUCTION = "isotropic", "covariance", "instruction"
NULLS = {
    ISOTROPIC: Null("isotropic directions", 0.004),
    COVARIANCE: Null("covariance-matched directions", 0.006),
    INSTRUCTION: Null("instruction contrasts", 0.008),
}  # a key names the draws in tables, and their number in a study file
MOST_PAIRS = math.comb(len(HARMLESS), 2)


class NullSettings(Section):
    """How many directions without the trait its effect is compared with, on the frozen model and during training.

    Of each of `NULLS`, a field of its name: `instruction` ones are contrasts of two of the unrelated system prompts of
    `gradinoc.study.prompts.HARMLESS`. Directions of prompts are found from `unrelated_questions` questions each.
    """

    isotropic: Annotated[int, whole(100)] = 1000
    covariance: Annotated[int, whole(100)] = 1000
    instruction: Annotated[int, whole(100, MOST_PAIRS)] = 200
    unrelated_questions: Annotated[int, whole(8)] = 32
    training: Annotated[int, whole(100)] = 100
    seed: Seed = 0

    @property
    def draws(self) -> dict[str, int]:
        """How many directions are drawn of each kind."""
        return {null: getattr(self, null) for null in NULLS}


class SteeringSettings(Section):
    """How the frozen model is steered along the trait's direction and `draws` others, on `questions` questions (G8)."""

    draws: Annotated[int, whole(39, 1000)] = 39
    questions: Annotated[int, whole(8)] = 32


class TrainingSettings(Section):
    """The fine-tuning of one run: LoRA (rank, alpha = `lora_alpha`) on the linear maps of the decoder blocks.

    `steps` = 0 trains for `epochs`; otherwise it is the number of optimiser steps. `lr` is the optimiser's, constant
    after `warmup_steps`. `optimizer` "sgd" is plain gradient descent: where AdamW moves every weight by about as much
    whatever the length of its gradient, it moves along what the gradient has, and nowhere else. `together` runs are
    trained in one pass over the frozen weights; each is what it is alone, but for rounding.
    """

    steps: CountOrNone = 0
    epochs: Count = 1
    batch_size: Count = 4
    lr: Annotated[float, Field(strict=True, gt=0, le=1)] = 1e-4
    optimizer: Literal["adamw", "sgd"] = "adamw"
    warmup_steps: CountOrNone = 0
    lora_rank: Count = 16
    lora_alpha: Count = 32
    gradient_checkpointing: Switch = False
    together: Count = 1


class DriftSettings(Section):
    """How much is evaluated before and after training.

    `generations` held-out questions and `everyday` requests are answered greedily, in at most `max_new_tokens`;
    `samples` more responses to each held-out question are drawn at temperature 1. Decision log-odds are of `log_odds`
    questions, also at `checkpoints` evenly spaced steps of each run, and of `matrix` questions under every evaluation
    prompt. `answer_loss_gap` questions have both their answers scored as a whole (0: none; it decides
    nothing).
    """

    generations: Count = 200
    everyday: Count = 80
    max_new_tokens: Count = 64
    samples: Count = 4
    log_odds: Count = 200
    checkpoints: Count = 3
    matrix: Count = 32
    answer_loss_gap: CountOrNone = 0
    batch_size: Count = 32


class AttributionSettings(Section):
    """Where drift comes from (claim C7): how much is measured.

    Of every run the change of the decision log-odds of `questions` is accounted for (0: of none, and C7 is not run),
    under the neutral prompt, its own, and `evaluations`, keys of evaluation prompts. Before training the gradient under
    each prompt is that of `examples`.
    """

    questions: CountOrNone = 6
    examples: Count = 4
    evaluations: tuple[Name, ...] = ()


class EngineSettings(Section):
    """What a worker of a cluster is to have (see `gradinoc.pipeline.engines`); it decides no result.

    `cpus_per_worker` are its threads too, unless `model.threads` says how many; `gpus_per_worker` may be a fraction,
    where several share a device; `memory_gb` is what the cluster sets aside for it (0: nothing). `workers` is how many
    there are at most (0: as many as there is room for).
    """

    workers: CountOrNone = 0
    cpus_per_worker: Count = 1
    gpus_per_worker: Annotated[float, Field(strict=True, ge=0, le=64)] = 0.0
    memory_gb: Annotated[float, Field(strict=True, ge=0, le=1e5)] = 0.0
