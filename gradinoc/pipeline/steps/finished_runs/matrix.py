"""The steps of the matrix: models trained under one prompt, evaluated under another. Nothing is trained here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from gradinoc.measure.behaviour.decisions import Decision, decision_log_odds, decisions
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.finished_runs.checkpoints import odds_table
from gradinoc.pipeline.steps.finished_runs.runs import Group, finished, groups, models
from gradinoc.pipeline.steps.step import Callback, Folders, Step, StepKey
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.storage.contents import save_table


def base_steps(context: StudyContext) -> Iterator[Step]:
    """Yield the step that evaluates the base model."""
    yield _step(context, None)


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield a step for each group of runs, which evaluates them under every evaluation prompt."""
    yield from (_step(context, group) for group in groups(context))


def _step(context: StudyContext, group: Group | None) -> Step:
    runs = group.runs if group else ()
    prompts = {key: list(prompt.templates) or prompt.text for key, prompt in context.evaluations.items()}
    settings = context.study.drift
    inputs = {"questions": settings.matrix, "batch": settings.batch_size, "prompts": prompts}
    key = StepKey("matrix", group.condition, runs[0].seed) if group else StepKey("matrix")
    return Step(
        key, f"matrix of {group.label if group else 'the base model'}", "matrix",
        partial(compute, context, runs), partial(works, max(1, len(runs))), inputs, runs,
    )  # fmt: skip


def works(copies: int, counting: Counting) -> Iterator[Work]:
    """Count decision log-odds of so many models under every evaluation prompt."""
    context, settings = counting.context, counting.context.study.drift
    rows, questions = max(1, settings.batch_size // copies), context.splits.evaluation[: settings.matrix]
    for prompt in context.evaluations.values():
        system = prompt.templates[0] if prompt.templates else prompt.text
        yield counting.decided(questions, system, rows).stacked(copies)


def compute(context: StudyContext, runs: Sequence[StepKey], folders: Folders, folder: Path, callback: Callback) -> None:
    """Write decision log-odds by model, evaluation prompt and question."""
    subjects = finished(runs, folders)
    settings, frames = context.study.drift, []
    questions = context.splits.evaluation[: settings.matrix]
    for model, group in models(context, subjects):
        rows = max(1, settings.batch_size // len(group))
        for done, key in enumerate(context.evaluations):
            callback("evaluation prompt", done, len(context.evaluations))
            decided = decided_under(context, key, len(questions))
            odds = decision_log_odds(model, decided, context.pad, rows, len(group)).reshape(len(group), -1)
            tables = [odds_table(subject, own, questions) for subject, own in zip(group, odds, strict=True)]
            frames += [table.assign(evaluation=key) for table in tables]
    save_table(pd.concat(frames, ignore_index=True).drop(columns="step"), folder / "matrix.parquet")


def decided_under(context: StudyContext, evaluation: str, count: int) -> list[Decision]:
    """Return where the answers to the first evaluation questions part, each under its own system message."""
    tokenizer, trait = context.tokenizer, context.trait
    messages = context.messages(context.evaluations[evaluation], count, context.study.data.seed)
    return [
        decisions(tokenizer, [question], trait, system)[0]
        for question, system in zip(context.splits.evaluation, messages, strict=False)
    ]
