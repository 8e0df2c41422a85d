"""The steps that measure drift: how much of the trait a model shows, before and after training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from gradinoc.claims.evidence.tables import AFTER, BEFORE
from gradinoc.data.examples import showing
from gradinoc.measure.behaviour.drift import measure_drift
from gradinoc.models.chat.encoding import encode
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.base_model.directions import band, trait_directions
from gradinoc.pipeline.steps.finished_runs.runs import Group, Subject, finished, groups, models
from gradinoc.pipeline.steps.step import DIRECTIONS, Callback, Folders, Step, StepKey
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.storage.contents import save_table
from gradinoc.study.prompts import NEUTRAL

LABELS = {BEFORE: "drift of the base model", AFTER: "drift"}


def base_steps(context: StudyContext) -> Iterator[Step]:
    """Yield the step that measures the base model."""
    yield _step(context, BEFORE, None)


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield a step for each group of runs, which measures their adapters."""
    yield from (_step(context, AFTER, group) for group in groups(context))


def _step(context: StudyContext, phase: str, group: Group | None) -> Step:
    runs = group.runs if group else ()
    settings = context.study.drift.model_dump(exclude={"checkpoints", "matrix"})
    inputs = {"drift": settings, "system": context.systems[NEUTRAL], "seed": context.study.data.seed}
    return Step(
        StepKey("drift", group.condition, runs[0].seed, phase) if group else StepKey("drift", phase=phase),
        f"{LABELS[phase]} of {group.label}" if group else LABELS[phase],
        LABELS[phase],
        partial(_compute_step, context, phase, runs),
        partial(works, max(1, len(runs))),
        inputs,
        (DIRECTIONS, *runs),
    )


def works(copies: int, counting: Counting) -> Iterator[Work]:
    """Count responses, greedy and sampled, projections and log-odds of so many models, in one pass over all."""
    context = counting.context
    splits, settings, system = context.splits, context.study.drift, context.systems[NEUTRAL]
    held_out, everyday = splits.evaluation[: settings.generations], splits.everyday[: settings.everyday]
    for part, times in ((held_out, 1 + settings.samples), (everyday, 1)):
        for work in counting.written(part, system, settings.max_new_tokens, settings.batch_size):
            yield work.times(times).stacked(copies)
    yield counting.prompts([*held_out, *everyday], system).stacked(copies)
    rows = max(1, settings.batch_size // copies)
    yield counting.decided(splits.evaluation[: settings.log_odds], system, rows).stacked(copies)
    answers = [
        encode(counting.tokenizer, example.question, answer, system)
        for example in splits.evaluation[: settings.answer_loss_gap]
        for answer in (showing(example, context.trait), example.answer)
    ]
    yield counting.scored(answers, rows).stacked(copies)


def _compute_step(
    context: StudyContext, phase: str, runs: Sequence[StepKey], folders: Folders, folder: Path, callback: Callback
) -> None:
    compute(context, phase, finished(runs, folders), folders[DIRECTIONS], folder, callback)


def compute(
    context: StudyContext, phase: str, subjects: Sequence[Subject], directions: Path, folder: Path, callback: Callback
) -> None:
    """Write responses, scores, log-odds and projections of the base model, or of adapted `subjects` of one seed."""
    in_band = set(band(directions))
    axes = {layer: direction for layer, direction in trait_directions(directions).items() if layer in in_band}
    drift, responses = [], []
    for model, group in models(context, subjects):
        tables = measure_drift(
            (model, context.language_model.tokenizer),
            context.splits,
            context.trait,
            axes,
            context.study.drift,
            context.systems[NEUTRAL],
            callback,
            labels=[f"drift {subject.label}" for subject in group],
            seed=context.study.data.seed,
        )
        for subject, (measures, written) in zip(group, tables, strict=True):
            named = {"condition": subject.condition, "seed": subject.seed, "phase": phase}
            drift.append(measures.assign(**named))
            responses.append(written.assign(**named))
    save_table(pd.concat(drift, ignore_index=True), folder / "drift.parquet")
    save_table(pd.concat(responses, ignore_index=True), folder / "responses.parquet")
