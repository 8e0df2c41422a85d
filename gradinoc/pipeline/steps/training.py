"""The steps that are runs: prompt x seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradinoc.claims.evidence.tables import COSINE, POOLED, PUSH, WINDOWS
from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.measure.fast import takes_several
from gradinoc.measure.steering.steered import increments
from gradinoc.measure.training.interventions import Intervention, takes_a_pass_beside
from gradinoc.measure.training.order import data_order, early_examples, step_count
from gradinoc.measure.training.run import Recipe, Run, RunLog, train_runs
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.base_model.directions import band, half_lengths, named_directions
from gradinoc.pipeline.steps.base_model.matched import arm_directions, needs
from gradinoc.pipeline.steps.cells import cells
from gradinoc.pipeline.steps.step import DIRECTIONS, MATCHED, Callback, Folders, Share, Step, StepKey, run_key
from gradinoc.pipeline.steps.work import READ, Counting, Work
from gradinoc.pipeline.storage.contents import save_table
from gradinoc.study.arms import RESTORE, STEER, ArmRun
from gradinoc.study.description import Study
from gradinoc.study.prompts import NEUTRAL


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield one step a run."""
    for condition, seed in context.study.runs:
        yield _step(context, condition, seed)


def arm_steps(context: StudyContext) -> Iterator[Step]:
    """Yield one step a run with an intervention."""
    for condition, seed in context.study.arm_runs:
        yield _step(context, condition, seed)


def _step(context: StudyContext, condition: str, seed: int) -> Step:
    study, prompt, key = context.study, context.trained_under(condition, seed), run_key(condition, seed)
    arms = context.arms(condition, seed)
    inputs = {
        "seed": seed,
        "system": list(prompt.templates) or prompt.text,
        "training": study.training.model_dump(exclude={"together"}),
        "nulls": study.nulls.model_dump(include={"training", "seed"}),
        "checkpoints": checkpoint_steps(study),
        **(_intervention_inputs(context, arms) if arms else {}),
    }
    needed = dict.fromkeys(chain([DIRECTIONS], *map(_needed, arms)))
    return Step(
        key, f"run {condition}/{seed}", "runs of arms" if arms else "training runs",
        partial(_compute_one, context, key), partial(works, condition, seed), inputs, (*needed,),
        partial(compute, context), partial(_most, context),
    )  # fmt: skip


def _intervention_inputs(context: StudyContext, runs: Sequence[ArmRun]) -> dict[str, Any]:
    what = [[run.settings.intervention, run.settings.direction, run.strength, run.draw] for run in runs]
    return {"interventions": what, "counterpart": context.systems[NEUTRAL] if _restores(runs) else ""}


def _restores(runs: Sequence[ArmRun]) -> bool:
    return any(run.settings.intervention == RESTORE for run in runs)


def _needed(run: ArmRun) -> tuple[StepKey, ...]:
    """Return the steps whose results an intervention reads."""
    return (*needs((run.settings.direction,)), *((MATCHED,) if run.settings.draws else ()))


def works(condition: str, seed: int, counting: Counting) -> Iterator[Work]:
    """Count every step of a run, and its first examples once more at the end."""
    settings, examples = counting.context.study.training, counting.context.splits.train
    prompt = counting.context.trained_under(condition, seed)
    messages = counting.context.messages(prompt, len(examples), seed)
    answers, size = counting.answers_under(examples, messages), settings.batch_size
    met = [answers[row] for row in data_order(len(answers), settings, seed)]
    trained = counting.trained(met, size)
    yield trained
    for arm in counting.context.arms(condition, seed):
        if takes_a_pass_beside(arm.settings.intervention, arm.strength):
            yield trained
    if _restores(counting.context.arms(condition, seed)):  # the same answers under the neutral prompt, too
        again = counting.answers(examples, counting.context.systems[NEUTRAL])
        yield counting.trained([again[row] for row in data_order(len(again), settings, seed)], size)
    if settings.gradient_checkpointing:  # each block computes forwards once more
        yield replace(trained, logits=0, backward=READ)
    yield counting.scored(met[: early_examples(trained.passes, size)], size)


def checkpoint_steps(study: Study) -> list[int]:
    """Return after how many steps the drift of each run is measured, besides at its end: evenly spaced."""
    steps, count = step_count(study.data.train, study.training), study.drift.checkpoints
    return sorted({max(1, round(steps * part / (count + 1))) for part in range(1, count + 1)} - {steps})


def adapter_after(run: Path, step: int) -> Path:
    """Return where the run in a folder keeps its adapter of after so many steps."""
    return run / "checkpoints" / str(step)


def training_directions(folder: Path, count: int, seed: int) -> tuple[dict[int, Tensor], tuple[str, ...]]:
    """Return layer -> unit rows `[ways + count, hidden]`, and the ways of finding the trait direction by name.

    The trait's own direction comes first, then other ways of finding it, then isotropic ones, one draw for all layers.
    """
    ways = named_directions(folder)
    own = next(iter(ways.values()))
    random = isotropic_directions(count, len(next(iter(own.values()))), seed)
    rows = {layer: torch.cat([*(way[layer][None] for way in ways.values()), random]) for layer in own}
    return rows, tuple(ways)


def compute(context: StudyContext, shares: Sequence[Share], callback: Callback) -> None:
    """Write LoRA runs, trained together if there are several: adapters, gradients step by step, losses.

    An adapter is kept from after each of `checkpoint_steps`.
    """
    model, study = context.language_model.model, context.study
    directions = shares[0].needed[DIRECTIONS]
    axes, ways = training_directions(directions, study.nulls.training, study.nulls.seed)
    in_band = band(directions)
    rows = [sorted(axes).index(layer) for layer in in_band]
    recipe = Recipe(study.training, axes, context.pad, band=in_band, kept=len(ways))
    callback("step", 0, step_count(study.data.train, study.training))

    def on_step(step: int, steps: int, loss: float, alignment: Tensor | None) -> None:
        mean = None if alignment is None else float(alignment[rows].mean())
        callback("step", step, steps, loss=loss, alignment=mean)

    condition, seed = shares[0].key.condition, shares[0].key.seed
    tracking = context.tracking.of_run(condition, int(seed or 0)) if context.tracking else None
    runs = [_run(context, share) for share in shares]
    logs = train_runs(model, runs, replace(recipe, tracking=tracking), on_step)
    for share, log in zip(shares, logs, strict=True):
        _save(log, share, Logged(sorted(axes), in_band, ways))


def _most(context: StudyContext) -> int:
    """Return how many runs are trained together: one where the model takes no more, or a run is shown by itself.

    Runs that follow one another anyway are steps of their own, each stored as soon as it is over.
    """
    most = context.study.training.together
    return most if most > 1 and not context.tracking and takes_several(context.language_model.model) else 1


def _compute_one(context: StudyContext, key: StepKey, needed: Folders, folder: Path, callback: Callback) -> None:
    compute(context, [Share(key, needed, folder)], callback)


def _run(context: StudyContext, share: Share) -> Run:
    condition, seed = share.key.condition, int(share.key.seed or 0)
    examples = context.encoded(context.splits.train, context.trained_under(condition, seed), seed)
    checkpoints = {step: adapter_after(share.folder, step) for step in checkpoint_steps(context.study)}
    arms = context.arms(condition, seed)
    counterpart = context.encoded(context.splits.train, context.prompts[NEUTRAL]) if _restores(arms) else None
    interventions = [_intervention(arm, share.needed) for arm in arms]
    return Run(examples, seed, share.folder / "adapter", checkpoints, interventions, counterpart)


def _intervention(arm: ArmRun, folders: Folders) -> Intervention:
    """Return what is done to a run of an arm."""
    kind, rows = arm.settings.intervention, arm_directions(folders, arm.settings.direction, arm.draw)
    if kind == STEER:  # in half-distances between the prompts
        lengths = half_lengths(folders[DIRECTIONS])
        rows = increments({layer: lengths[layer] * each[0] for layer, each in rows.items()})
    return Intervention(kind, rows, arm.strength)


@dataclass(frozen=True)
class Logged:
    """What a run's log is of: every logged layer, those of the band, the ways of finding the trait direction."""

    layers: Sequence[int]
    band: Sequence[int]
    ways: tuple[str, ...]


def _save(log: RunLog, share: Share, logged: Logged) -> None:
    row = {
        "steps": len(log.losses),
        "seconds": log.seconds,
        "initial_loss": log.initial_loss,
        "final_loss": log.final_loss,
        "initial_adapter": log.initial_adapter,
    }
    tables = {
        "training": log.table,
        "training_nulls": _random(log, logged),
        "cells": pd.concat(_cells(log, logged), ignore_index=True),
        "runs": pd.DataFrame([row]),
    }
    for name, table in tables.items():
        named = table.assign(condition=share.key.condition, seed=share.key.seed)
        save_table(named, share.folder / f"{name}.parquet")


def _random(log: RunLog, logged: Logged) -> pd.DataFrame:
    """Return mean alignments with random directions, by step and layer of the band: step, draw, layer, alignment."""
    assert log.steps is not None
    rows = [list(logged.layers).index(layer) for layer in logged.band]
    values = log.steps.alignment[:, rows, len(logged.ways) :].numpy()
    step, layer, draw = (axis.ravel() for axis in np.indices(values.shape))
    return pd.DataFrame(
        {"step": step, "draw": draw, "layer": np.asarray(logged.band)[layer], "alignment": values.ravel()}
    )


def _cells(log: RunLog, logged: Logged) -> Iterator[pd.DataFrame]:
    """Yield the cells of the specification curve in each third of training: means over its steps."""
    assert log.steps is not None
    at = log.steps.at_positions
    for window, steps in zip(WINDOWS, np.array_split(np.arange(len(log.losses)), len(WINDOWS)), strict=True):
        if len(steps):
            mean = {COSINE: at.alignment, PUSH: at.push, POOLED: at.push / log.steps.norm[..., None]}
            yield cells({name: values[steps].mean(0) for name, values in mean.items()}, logged.ways).assign(
                window=window
            )
