"""The steps that measure what a prompt elicits from the frozen base model: decision log-odds, and sampled responses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from gradinoc.claims.evidence.tables import PROMOTE, SUPPRESS
from gradinoc.measure.behaviour.decisions import decision_log_odds, decisions
from gradinoc.measure.behaviour.scores import scored_samples
from gradinoc.models.chat.encoding import encode_prompt
from gradinoc.models.generate import sample_copies
from gradinoc.models.sampling import Sampling
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.step import Callback, Folders, Step, StepKey
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.storage.contents import save_table
from gradinoc.study.prompts import CONDITIONS
from gradinoc.study.prompts.family import Family

BATCH = 16  # questions a forward pass


def systems(context: StudyContext) -> dict[str, str | None]:
    """Return the prompts that are measured, by key, and the two that define the direction."""
    trait = context.trait
    return {**context.systems, PROMOTE: trait.promote_system, SUPPRESS: trait.suppress_system}


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield one step a prompt."""
    settings = context.study.prompts.model_dump(include={"behaviour", "samples"})
    for name, system in systems(context).items():
        inputs = {
            "system": system,
            "settings": settings,
            "new": context.study.drift.max_new_tokens,
            "answered": _answers(context, name),
        }
        yield Step(
            StepKey("elicitation", name), f"elicitation {name}", "elicitation",
            partial(compute, context, name), partial(works, name), inputs,
        )  # fmt: skip


def _answers(context: StudyContext, name: str) -> bool:
    """Whether responses are sampled under a prompt: those that gate G7 compares."""
    prompt = context.prompts.get(name)
    trained_harmless = prompt is not None and prompt.family is Family.HARMLESS and name in context.study.trained
    return trained_harmless or name in (PROMOTE, SUPPRESS, *CONDITIONS)


def works(name: str, counting: Counting) -> Iterator[Work]:
    """Count the calibration questions with the first words of their answers, and sampled responses."""
    context = counting.context
    system, questions, settings = systems(context)[name], context.splits.calibration, context.study.prompts
    yield counting.decided(questions, system, BATCH)
    if _answers(context, name):
        asked = questions[: settings.behaviour]
        drift = context.study.drift
        for work in counting.written(asked, system, drift.max_new_tokens, drift.batch_size):
            yield work.times(settings.samples)


def compute(context: StudyContext, name: str, _needed: Folders, folder: Path, callback: Callback) -> None:
    """Write the decision log-odds of every calibration question, and scores of sampled responses to the first ones."""
    language_model, questions = context.language_model, context.splits.calibration
    model, tokenizer = language_model.model, language_model.tokenizer
    system, settings, drift = systems(context)[name], context.study.prompts, context.study.drift
    callback("decision log-odds")
    decided = decisions(tokenizer, questions, context.trait, system)
    odds = decision_log_odds(model, decided, context.pad, BATCH)
    table = pd.DataFrame({"example": range(len(odds)), "log_odds": odds, "group": [each.group for each in questions]})
    save_table(table.dropna(subset="log_odds").assign(condition=name), folder / "elicitation.parquet")
    if not _answers(context, name):
        return
    callback("responses")
    asked = questions[: settings.behaviour]
    prompts = [encode_prompt(tokenizer, each.question, system) for each in asked]
    sampling = Sampling(settings.samples, drift.max_new_tokens, context.study.data.seed)
    (written,) = sample_copies(model, tokenizer, prompts, sampling, drift.batch_size, [f"behaviour {name}"])
    save_table(scored_samples(written, asked, context.trait).assign(condition=name), folder / "behaviour.parquet")
