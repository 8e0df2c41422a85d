"""The step that looks for a harmless prompt whose loss is inoculation's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from gradinoc.claims.tables import CANDIDATE
from gradinoc.measure.alignment import answer_losses
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.step import POOL, Callback, Folders, Step, StepKey
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.store import load_table, save_table
from gradinoc.study.prompts import HARMLESS, INOCULATION, MATCHED

BATCH = 8  # answers a forward pass


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield the one step of this stage, if a condition's prompt is chosen by its loss."""
    if MATCHED in context.study.conditions.values():
        inputs = {"systems": {name: context.system(name) for name in context.study.conditions}}
        yield Step(
            POOL, "prompt pool", "prompt pool",
            lambda _needed, folder, callback: compute(context, folder, callback), works, inputs,
        )  # fmt: skip


def works(counting: Counting) -> Iterator[Work]:
    """Count the calibration answers under every candidate and every prompt of the study."""
    for system in (*counting.context.systems.values(), *HARMLESS):
        yield counting.scored(counting.answers(counting.context.splits.calibration, system), BATCH)


def compute(context: StudyContext, folder: Path, callback: Callback) -> None:
    """Write the losses of answers with the trait to the calibration questions, and the prompt that they choose.

    The candidates are the harmless prompts; the study's own conditions are measured beside them. Chosen is the
    candidate whose mean loss is closest to inoculation's, on questions that have no other use.
    """
    language_model, questions = context.language_model, context.splits.calibration
    own = context.systems
    prompts = [*own.items(), *((CANDIDATE, prompt) for prompt in HARMLESS)]
    losses = []
    for done, (_, system) in enumerate(prompts):
        callback("losses under prompt", done, len(prompts))
        encoded = context.encoded(questions, system)
        losses.append(answer_losses(language_model.model, encoded, context.pad, BATCH))
    target = losses[list(own).index(INOCULATION)].mean()
    gaps = [
        abs(row.mean() - target) if role == CANDIDATE else np.inf
        for (role, _), row in zip(prompts, losses, strict=True)
    ]
    chosen = int(np.argmin(gaps))
    frames = [
        pd.DataFrame(
            {"role": role, "prompt": system or "", "chosen": i == chosen, "example": np.arange(len(row)), "loss": row}
        )
        for i, ((role, system), row) in enumerate(zip(prompts, losses, strict=True))
    ]
    save_table(pd.concat(frames, ignore_index=True), folder / "pool.parquet")


def chosen_prompt(folder: Path) -> str:
    """Return the prompt that the step in `folder` chose."""
    table = load_table(folder / "pool.parquet")
    return str(table.loc[table["chosen"], "prompt"].iloc[0])


def pool_needed(context: StudyContext, condition: str) -> tuple[StepKey, ...]:
    """Return the key of this step if it chooses the condition's prompt, else nothing."""
    return (POOL,) if context.study.conditions[condition] == MATCHED else ()


def prompt_input(context: StudyContext, condition: str) -> str | None:
    """Return what decides a condition's prompt: the prompt, or that it is chosen by this step."""
    return MATCHED if pool_needed(context, condition) else context.system(condition)


def prompt_of(context: StudyContext, condition: str, folders: Folders) -> str | None:
    """Return the condition's system prompt, chosen in the folder of this step or given."""
    return context.system(condition, chosen_prompt(folders[POOL]) if POOL in folders else None)
