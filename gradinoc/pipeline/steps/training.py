"""The step that is one run: condition x seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from gradinoc.measure.alignment import direction_means
from gradinoc.measure.directions import isotropic_directions
from gradinoc.measure.training.run import EARLY, Recipe, data_order, spaced_steps, step_count, train_run
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.directions import band, trait_directions
from gradinoc.pipeline.steps.pool import pool_needed, prompt_input, prompt_of
from gradinoc.pipeline.steps.step import DIRECTIONS, Callback, Folders, Step, StepKey
from gradinoc.pipeline.steps.work import READ, TRAIN, Counting, Work
from gradinoc.pipeline.store import save_table
from gradinoc.study.description import Study
from gradinoc.study.prompts import NEUTRAL


def run_key(condition: str, seed: int) -> StepKey:
    """Return the key of the run of a condition and seed."""
    return StepKey("training", condition, seed)


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield one step a run."""
    study = context.study
    for condition, seed in study.runs:
        inputs = {
            "seed": seed,
            "system": prompt_input(context, condition),
            "training": study.training.model_dump(),
            "nulls": study.nulls.model_dump(include={"training", "seed"}),
            "early": study.drift.early,
        }
        yield Step(
            run_key(condition, seed), f"run {condition}/{seed}", "training runs",
            partial(compute, context, condition, seed), partial(works, condition, seed),
            inputs, (DIRECTIONS, *pool_needed(context, condition)),
        )  # fmt: skip


def works(condition: str, seed: int, counting: Counting) -> Iterator[Work]:
    """Count every step of a run, and its first examples once more at the end."""
    settings, examples = counting.context.study.training, counting.context.splits.train
    answers, size = counting.answers(examples, counting.system(condition)), settings.batch_size
    met = [answers[row] for row in data_order(len(answers), settings, seed)]
    learned = counting.learned(met, size, TRAIN)
    yield learned
    if settings.gradient_checkpointing:  # each block computes forwards once more
        yield replace(learned, logits=0, backward=READ)
    yield counting.scored(met[: size * max(1, round(EARLY * learned.passes))], size)


def early_step(study: Study) -> int:
    """Return after how many steps the drift of a run is measured for the first time."""
    steps = step_count(study.data.train, study.training)
    return min(max(1, round(study.drift.early * steps)), max(1, steps - 1))


def adapter_after(run: Path, step: int) -> Path:
    """Return where the run in a folder keeps its adapter of after so many steps."""
    return run / "checkpoints" / str(step)


def training_directions(folder: Path, count: int, seed: int) -> dict[int, Tensor]:
    """Return layer -> unit rows `[1 + count, hidden]`: the trait direction, then isotropic ones, one draw for all."""
    trait = trait_directions(folder)
    random = isotropic_directions(count, len(next(iter(trait.values()))), seed)
    return {layer: torch.cat([direction[None], random]) for layer, direction in trait.items()}


def compute(
    context: StudyContext, condition: str, seed: int, folders: Folders, folder: Path, callback: Callback
) -> None:
    """Write one LoRA run: its adapters, its gradients step by step, its losses.

    An adapter is kept from after `early_step` steps and, of neutral runs, from after each of `spaced_steps`.
    """
    tracking = context.tracking.of_run(condition, seed) if context.tracking else None
    in_band, study = band(folders[DIRECTIONS]), context.study
    axes = training_directions(folders[DIRECTIONS], study.nulls.training, study.nulls.seed)
    rows = [sorted(axes).index(layer) for layer in in_band]
    kept = {early_step(study)}
    if condition == NEUTRAL:
        kept |= set(spaced_steps(step_count(study.data.train, study.training)))
    callback("step", 0, step_count(study.data.train, study.training))
    log = train_run(
        context.language_model.model,
        context.encoded(context.splits.train, prompt_of(context, condition, folders)),
        Recipe(study.training, axes, context.pad, tracking, in_band),
        seed,
        folder / "adapter",
        lambda step, steps, loss, alignment: callback(
            "step", step, steps, loss=loss, alignment=None if alignment is None else float(alignment[rows].mean())
        ),
        {step: adapter_after(folder, step) for step in kept},
    )
    row = {
        "steps": len(log.losses),
        "early_step": early_step(study),
        "seconds": log.seconds,
        "initial_loss": log.initial_loss,
        "final_loss": log.final_loss,
    }
    tables = {
        "training": log.table,
        "training_nulls": direction_means(log.direction_means, sorted(axes)),
        "runs": pd.DataFrame([row]),
    }
    for name, table in tables.items():
        save_table(table.assign(condition=condition, seed=seed), folder / f"{name}.parquet")
