"""The step that asks, before any training, how far each prompt's training would move each behaviour."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from gradinoc.claims.evidence.tables import FULL, LORA
from gradinoc.measure.attribution.kernel import kernel_matrix
from gradinoc.measure.attribution.slopes import whole_weights
from gradinoc.measure.fast import fused_adapter
from gradinoc.measure.training.adapters import fresh_adapters
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.finished_runs.matrix import decided_under
from gradinoc.pipeline.steps.step import Callback, Folders, Step, StepKey
from gradinoc.pipeline.steps.work import TRAIN, Counting, Work
from gradinoc.pipeline.storage.contents import save_table
from gradinoc.study.prompts import NEUTRAL

BATCH = 4  # examples a pass, as `gradients`


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield the one step of this stage, where the study asks where drift comes from."""
    settings = context.study.attribution
    if not settings.questions:
        return
    inputs = {
        "questions": settings.questions,
        "examples": settings.examples,
        "prompts": context.systems,
        "evaluations": {key: list(prompt.templates) or prompt.text for key, prompt in context.evaluations.items()},
        "seed": context.study.seeds[0],
        "training": context.study.training.model_dump(include={"lora_rank", "lora_alpha"}),
        **context.extraction_inputs,
    }
    yield Step(
        StepKey("kernel"), "kernel before training", "kernel", partial(compute, context), works, inputs,
    )  # fmt: skip


def works(counting: Counting) -> Iterator[Work]:
    """Count losses under every prompt twice and decision log-odds under every evaluation prompt, with gradients."""
    context, settings = counting.context, counting.context.study.attribution
    questions = context.splits.evaluation[: settings.questions]
    for system in context.systems.values():
        answers = counting.answers(context.splits.measure[: settings.examples], system)
        yield counting.trained(answers, BATCH).times(2)
    for key, prompt in context.evaluations.items():
        work = counting.decided(questions, prompt.templates[0] if prompt.templates else prompt.text, BATCH)
        yield work.times(1 + (key == NEUTRAL)).to(TRAIN)


def compute(context: StudyContext, _needed: Folders, folder: Path, callback: Callback) -> None:
    """Write the kernel between every measured prompt and every evaluation prompt, through a fresh adapter.

    And that of the full weights of the same linear maps with the neutral prompt: a gradient of these takes as much
    memory as the weights, so that one alone is kept.
    """
    language_model, settings = context.extraction_model(), context.study.attribution
    model, pad = language_model.model, int(language_model.tokenizer.pad_token_id)
    examples = context.splits.measure[: settings.examples]
    training = {name: context.encoded(examples, context.prompts[name]) for name in context.systems}
    behaviours = {name: decided_under(context, name, settings.questions) for name in context.evaluations}
    callback("full weights")
    with whole_weights(model) as whole:
        full = kernel_matrix(whole, training, {NEUTRAL: behaviours[NEUTRAL]}, pad, BATCH)
    callback("fresh adapter")
    with fresh_adapters(model, context.study.seeds[:1], context.study.training) as (wrapped, _):
        wrapped.eval()
        with fused_adapter(wrapped):
            lora = kernel_matrix(wrapped, training, behaviours, pad, BATCH)
    table = pd.concat([full.assign(space=FULL), lora.assign(space=LORA)], ignore_index=True)
    table = table.rename(columns={"training": "condition"}).drop(columns="cosine")
    save_table(table, folder / "kernel.parquet")
