"""The step that measures the frozen base model's gradients under one condition."""

from __future__ import annotations

from pathlib import Path

from gradinoc.gradients import direction_means, measure_alignments
from gradinoc.stages.bench import Bench, Tell, probe_directions
from gradinoc.store import save_table


def compute(bench: Bench, condition: str, directions: Path, folder: Path, tell: Tell) -> None:
    """Write alignments by example for the trait, and mean alignments for isotropic directions."""
    nulls = bench.study.nulls
    table, means = measure_alignments(
        bench.language_model.model,
        bench.trait_examples(bench.splits.measure, condition),
        probe_directions(directions, nulls.isotropic, nulls.seed),
        bench.pad,
        on_batch=lambda done, total: tell("gradients of example", done, total),
    )
    group = [bench.splits.measure[example].group for example in table["example"]]
    save_table(table.assign(condition=condition, group=group), folder / "alignments.parquet")
    save_table(direction_means(means).assign(null="isotropic", condition=condition), folder / "nulls.parquet")
