"""The step that is one run: condition x seed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gradinoc.measure.alignment import direction_means
from gradinoc.measure.training.run import Recipe, spaced_steps, step_count, train_run
from gradinoc.pipeline.context import Bench, Tell, band, training_directions
from gradinoc.pipeline.steps.pool import chosen_prompt
from gradinoc.pipeline.store import save_table
from gradinoc.study.description import Study
from gradinoc.study.prompts import NEUTRAL


def early_step(study: Study) -> int:
    """How many steps a run has done when its drift is measured for the first time."""
    steps = step_count(study.data.train, study.training)
    return min(max(1, round(study.drift.early * steps)), max(1, steps - 1))


def adapter_after(run: Path, step: int) -> Path:
    """Where the run in a folder keeps its adapter of after so many steps."""
    return run / "checkpoints" / str(step)


def compute(
    bench: Bench, origin: tuple[str, int], directions: Path, pool: Path | None, folder: Path, tell: Tell
) -> None:
    """Write one LoRA run: its adapters, its gradients step by step, its losses.

    An adapter is kept from after `early_step` steps and, of neutral runs, from after each of `spaced_steps`. `pool` is
    the folder of the prompts' losses where the condition's own prompt is chosen there.
    """
    condition, seed = origin
    tracking = bench.tracking.of_run(condition, seed) if bench.tracking else None
    in_band, study = list(band(directions)), bench.study
    axes = training_directions(directions, study.nulls.training, study.nulls.seed)
    rows = [sorted(axes).index(layer) for layer in in_band]
    kept = {early_step(study)}
    if condition == NEUTRAL:
        kept |= set(spaced_steps(step_count(study.data.train, study.training)))
    tell("step", 0, step_count(study.data.train, study.training))
    log = train_run(
        bench.language_model.model,
        bench.encoded(bench.splits.train, bench.system(condition, chosen_prompt(pool) if pool else None)),
        Recipe(
            study.training,
            axes,
            bench.pad,
            tracking,
            tuple(in_band),
        ),
        seed,
        folder / "adapter",
        lambda step, steps, loss, alignment: tell(
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
