"""The step that measures the frozen base model's gradients under one condition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from gradinoc.measure.alignment import Measured, direction_means, measure_alignments
from gradinoc.pipeline.context import Bench, FrozenDirections, Tell, frozen_directions, save_loading
from gradinoc.pipeline.steps.pool import chosen_prompt
from gradinoc.pipeline.store import save_table


def compute(
    bench: Bench, condition: str, origins: tuple[Path, Path], pool: Path | None, folder: Path, tell: Tell
) -> None:
    """Write alignments by example for the trait and the unrelated traits, mean alignments for random directions, notes.

    `origins` are the folders of the trait's and the unrelated traits' directions, `pool` that of the prompts' losses
    where the condition's own prompt is chosen there.
    """
    system = bench.system(condition, chosen_prompt(pool) if pool else None)
    along = frozen_directions(*origins, bench.study.nulls)
    questions = bench.splits.measure
    tell("gradients of example", 0, len(questions))
    found = measure_alignments(
        bench.language_model.model,
        bench.encoded(questions, system),
        along.rows,
        bench.pad,
        on_batch=lambda done, total: tell("gradients of example", done, total),
        kept=1 + len(along.traits),
    )
    group = [questions[example].group for example in found.table["example"]]
    tables = {
        "alignments": found.table.assign(group=group),
        "nulls": _random(found.means, along),
        "unrelated": _by_trait(found, along),
    }
    for name, table in tables.items():
        save_table(table.assign(condition=condition), folder / f"{name}.parquet")
    save_loading(bench.language_model, folder)


def _random(means: Tensor, along: FrozenDirections) -> pd.DataFrame:
    """Mean alignments `[layers, rows]` of the random directions: null, draw, layer, alignment."""
    start, frames = len(along.traits), []
    for null, count in along.draws.items():
        frames.append(direction_means(means[:, start : start + count + 1], sorted(along.rows)).assign(null=null))
        start += count
    return pd.concat(frames, ignore_index=True)


def _by_trait(found: Measured, along: FrozenDirections) -> pd.DataFrame:
    """Alignments with the unrelated traits' directions: trait, example, layer, alignment."""
    values = found.by_example[..., 1:].numpy()
    layer, example, trait = (axis.ravel() for axis in np.indices(values.shape))
    return pd.DataFrame(
        {
            "trait": np.asarray(along.traits)[trait],
            "example": example,
            "layer": np.asarray(sorted(along.rows))[layer],
            "alignment": values.ravel(),
        }
    )
