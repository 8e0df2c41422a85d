"""The steps that measure drift during training: decision log-odds under the neutral prompt, at several steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from gradinoc.data.examples import Example
from gradinoc.measure.behaviour.decisions import decision_log_odds, decisions
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.finished_runs.runs import Subject, groups, models
from gradinoc.pipeline.steps.step import Callback, Folders, Step, StepKey
from gradinoc.pipeline.steps.training import adapter_after, checkpoint_steps
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.storage.contents import save_table
from gradinoc.study.prompts import NEUTRAL


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield a step for each group of runs, which measures their kept adapters."""
    settings = context.study.drift
    inputs = {"questions": settings.log_odds, "batch": settings.batch_size, "system": context.systems[NEUTRAL]}
    for group in groups(context):
        runs = group.runs
        yield Step(
            StepKey("checkpoints", group.condition, runs[0].seed), f"drift during training of {group.label}",
            "drift during training", partial(compute, context, runs), partial(works, len(runs)), inputs, runs,
        )  # fmt: skip


def works(runs: int, counting: Counting) -> Iterator[Work]:
    """Count decision log-odds of every kept adapter of so many runs."""
    context, settings = counting.context, counting.context.study.drift
    rows = max(1, settings.batch_size // runs)
    questions = context.splits.evaluation[: settings.log_odds]
    for _ in checkpoint_steps(context.study):
        yield counting.decided(questions, context.systems[NEUTRAL], rows).stacked(runs)


def compute(context: StudyContext, runs: Sequence[StepKey], folders: Folders, folder: Path, callback: Callback) -> None:
    """Write decision log-odds of each run's kept adapters by question."""
    settings, tokenizer = context.study.drift, context.language_model.tokenizer
    questions = context.splits.evaluation[: settings.log_odds]
    decided = decisions(tokenizer, questions, context.trait, context.systems[NEUTRAL])
    frames, kept = [], checkpoint_steps(context.study)
    for done, step in enumerate(kept):
        callback("checkpoint", done, len(kept))
        subjects = [Subject(run.condition, int(run.seed or 0), step, adapter_after(folders[run], step)) for run in runs]
        for model, group in models(context, subjects):
            rows = max(1, settings.batch_size // len(group))
            odds = decision_log_odds(model, decided, context.pad, rows, len(group)).reshape(len(group), -1)
            frames += [odds_table(subject, own, questions) for subject, own in zip(group, odds, strict=True)]
    save_table(pd.concat(frames, ignore_index=True), folder / "checkpoints.parquet")


def odds_table(subject: Subject, odds: object, questions: Sequence[Example]) -> pd.DataFrame:
    """Return condition, seed, step, example, log_odds, group of one model, without questions that decide nothing."""
    table = pd.DataFrame(
        {"example": range(len(questions)), "log_odds": odds, "group": [each.group for each in questions]}
    )
    return table.dropna(subset="log_odds").assign(condition=subject.condition, seed=subject.seed, step=subject.step)
