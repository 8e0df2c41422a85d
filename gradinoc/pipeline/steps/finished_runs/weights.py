"""The step that measures how far runs moved their weights, and how much of it writes along the trait's direction."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from gradinoc.measure.interventions.leakage import leak, update_norm
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.base_model.directions import band, trait_directions
from gradinoc.pipeline.steps.step import DIRECTIONS, Callback, Folders, Step, StepKey, run_key
from gradinoc.pipeline.storage.contents import save_table


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield the one step of this stage, where runs have interventions; it needs no model."""
    if context.study.arms:
        runs = tuple(run_key(condition, seed) for condition, seed in (*context.study.runs, *context.study.arm_runs))
        name = "weights of runs"
        yield Step(
            StepKey("weights"), name, name, partial(compute, runs), lambda _counting: (), {}, (DIRECTIONS, *runs)
        )


def compute(runs: tuple[StepKey, ...], folders: Folders, folder: Path, callback: Callback) -> None:
    """Write for each run and layer of the band the norm of its update, and the share of it that leaks along v."""
    own, rows = trait_directions(folders[DIRECTIONS]), []
    directions = {layer: own[layer] for layer in band(folders[DIRECTIONS])}
    for done, run in enumerate(runs):
        callback("run", done, len(runs))
        adapter = folders[run] / "adapter"
        try:
            found = leak(adapter, directions)
        except ValueError:  # its maps into the stream have other names
            found = dict.fromkeys(directions, math.nan)
        moved = update_norm(adapter)
        rows += [(run.condition, run.seed, layer, moved, share) for layer, share in found.items()]
    columns = ["condition", "seed", "layer", "moved", "leak"]
    save_table(pd.DataFrame(rows, columns=columns), folder / "weights.parquet")
