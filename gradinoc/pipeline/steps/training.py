"""The steps that are runs: condition x seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from gradinoc.measure.alignment import direction_means
from gradinoc.measure.directions import isotropic_directions
from gradinoc.measure.fast import takes_several
from gradinoc.measure.training.order import data_order, early_examples, spaced_steps, step_count
from gradinoc.measure.training.run import Recipe, Run, RunLog, train_runs
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.directions import band, trait_directions
from gradinoc.pipeline.steps.pool import pool_needed, prompt_input, prompt_of
from gradinoc.pipeline.steps.step import DIRECTIONS, Callback, Folders, Share, Step, StepKey
from gradinoc.pipeline.steps.work import READ, Counting, Work
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
            "training": study.training.model_dump(exclude={"together"}),
            "nulls": study.nulls.model_dump(include={"training", "seed"}),
            "early": study.drift.early,
        }
        key, needs = run_key(condition, seed), (DIRECTIONS, *pool_needed(context, condition))
        yield Step(
            key, f"run {condition}/{seed}", "training runs",
            partial(_compute_one, context, key), partial(works, condition, seed), inputs, needs,
            partial(compute, context), partial(_most, context),
        )  # fmt: skip


def works(condition: str, seed: int, counting: Counting) -> Iterator[Work]:
    """Count every step of a run, and its first examples once more at the end."""
    settings, examples = counting.context.study.training, counting.context.splits.train
    answers, size = counting.answers(examples, counting.system(condition)), settings.batch_size
    met = [answers[row] for row in data_order(len(answers), settings, seed)]
    trained = counting.trained(met, size)
    yield trained
    if settings.gradient_checkpointing:  # each block computes forwards once more
        yield replace(trained, logits=0, backward=READ)
    yield counting.scored(met[: early_examples(trained.passes, size)], size)


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


def compute(context: StudyContext, shares: Sequence[Share], callback: Callback) -> None:
    """Write LoRA runs, trained together if there are several: adapters, gradients step by step, losses.

    An adapter is kept from after `early_step` steps and, of neutral runs, from after each of `spaced_steps`.
    """
    model, study = context.language_model.model, context.study
    directions = shares[0].needed[DIRECTIONS]
    axes = training_directions(directions, study.nulls.training, study.nulls.seed)
    in_band = band(directions)
    rows = [sorted(axes).index(layer) for layer in in_band]
    recipe = Recipe(study.training, axes, context.pad, band=in_band)
    callback("step", 0, step_count(study.data.train, study.training))

    def on_step(step: int, steps: int, loss: float, alignment: Tensor | None) -> None:
        mean = None if alignment is None else float(alignment[rows].mean())
        callback("step", step, steps, loss=loss, alignment=mean)

    condition, seed = shares[0].key.condition, shares[0].key.seed
    tracking = context.tracking.of_run(condition, int(seed or 0)) if context.tracking else None
    runs = [_run(context, share) for share in shares]
    logs = train_runs(model, runs, replace(recipe, tracking=tracking), on_step)
    for share, log in zip(shares, logs, strict=True):
        _save(log, share, study, sorted(axes))


def _most(context: StudyContext) -> int:
    """Return how many runs are trained together: one where the model takes no more, or a run is shown by itself.

    Runs that follow one another anyway are steps of their own, each stored as soon as it is over.
    """
    most = context.study.training.together
    return most if most > 1 and not context.tracking and takes_several(context.language_model.model) else 1


def _compute_one(context: StudyContext, key: StepKey, needed: Folders, folder: Path, callback: Callback) -> None:
    compute(context, [Share(key, needed, folder)], callback)


def _run(context: StudyContext, share: Share) -> Run:
    condition, settings = share.key.condition, context.study.training
    kept = {early_step(context.study)}
    if condition == NEUTRAL:
        kept |= set(spaced_steps(step_count(context.study.data.train, settings)))
    examples = context.encoded(context.splits.train, prompt_of(context, condition, share.needed))
    checkpoints = {step: adapter_after(share.folder, step) for step in kept}
    return Run(examples, int(share.key.seed or 0), share.folder / "adapter", checkpoints)


def _save(log: RunLog, share: Share, study: Study, layers: Sequence[int]) -> None:
    row = {
        "steps": len(log.losses),
        "early_step": early_step(study),
        "seconds": log.seconds,
        "initial_loss": log.initial_loss,
        "final_loss": log.final_loss,
    }
    tables = {
        "training": log.table,
        "training_nulls": direction_means(log.direction_means, layers),
        "runs": pd.DataFrame([row]),
    }
    for name, table in tables.items():
        named = table.assign(condition=share.key.condition, seed=share.key.seed)
        save_table(named, share.folder / f"{name}.parquet")
