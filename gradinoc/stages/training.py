"""The step that is one run: condition x seed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from gradinoc.gradients import direction_means
from gradinoc.stages.bench import Bench, Tell, probe_directions
from gradinoc.store import save_table
from gradinoc.train_lora import Recipe, train_run


def compute(bench: Bench, origin: tuple[str, int], directions: Path, folder: Path, tell: Tell) -> None:
    """Write one LoRA run: its adapter, its gradients step by step, its losses."""
    condition, seed = origin
    nulls = bench.study.nulls
    probes = probe_directions(directions, nulls.training, nulls.seed)
    log = train_run(
        bench.language_model.model,
        bench.trait_examples(bench.splits.train, condition),
        Recipe(bench.study.training, probes, bench.pad),
        seed,
        folder / "adapter",
        lambda step, steps, loss: tell(f"loss {loss:.3f}, step", step, steps),
    )
    row = {
        "steps": len(log.losses),
        "seconds": log.seconds,
        "initial_loss": log.initial_loss,
        "final_loss": log.final_loss,
    }
    tables = {
        "training": log.table,
        "training_nulls": direction_means(log.direction_means),
        "runs": pd.DataFrame([row]),
    }
    for name, table in tables.items():
        save_table(table.assign(condition=condition, seed=seed), folder / f"{name}.parquet")
