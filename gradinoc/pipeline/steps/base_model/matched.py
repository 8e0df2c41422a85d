"""The step that draws directions matched to an arm's own in the gradient energy that they hold."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from gradinoc.measure.directions.energy import Matched, gradient_moments, match_energy
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.base_model.directions import RESPONSES, band, named_directions
from gradinoc.pipeline.steps.base_model.gradients import frozen_directions
from gradinoc.pipeline.steps.finished_runs.learned import learned_directions
from gradinoc.pipeline.steps.step import DIRECTIONS, LEARNED, MATCHED, UNRELATED, Callback, Folders, Step, StepKey
from gradinoc.pipeline.steps.work import LEARN, Counting, Work
from gradinoc.pipeline.storage.contents import load_tensors, save_table, save_tensors
from gradinoc.study import arms
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.settings import COVARIANCE, INSTRUCTION, NULLS

BATCH = 4
CANDIDATES = 800  # covariance-matched directions that are looked at, besides all instruction contrasts


def wanted(context: StudyContext) -> dict[str, int]:
    """Return direction -> how many are drawn to match it, of those that arms draw for."""
    found: dict[str, int] = {}
    for arm in context.study.arms.values():
        if arm.draws:
            found[arm.direction] = max(arm.draws, found.get(arm.direction, 0))
    return found


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield the one step of this stage, where arms act along drawn directions."""
    draws = wanted(context)
    if not draws:
        return
    inputs = {
        "draws": draws,
        "instruction": context.study.nulls.instruction,
        "seed": context.study.nulls.seed,
        "system": context.systems[NEUTRAL],
        "examples": context.study.prompts.examples,
    }
    name = "directions matched in energy"
    yield Step(MATCHED, name, name, partial(compute, context), works, inputs, needs(tuple(draws)))


def needs(directions: tuple[str, ...]) -> tuple[StepKey, ...]:
    """Return the steps that these directions of arms, and others at random, come from."""
    return (DIRECTIONS, UNRELATED, *((LEARNED,) if arms.LEARNED in directions else ()))


def works(counting: Counting) -> Iterator[Work]:
    """Count the measured answers under the neutral prompt, forwards and back."""
    context = counting.context
    examples = context.splits.measure[: context.study.prompts.examples]
    yield counting.trained(counting.answers(examples, context.systems[NEUTRAL]), BATCH).to(LEARN)


def compute(context: StudyContext, folders: Folders, folder: Path, callback: Callback) -> None:
    """Write orthonormal rows of each match by layer, `[draws, layers, rank, hidden]`, and what they hold."""
    layers = band(folders[DIRECTIONS])
    examples = context.splits.measure[: context.study.prompts.examples]
    moments = gradient_moments(
        context.language_model.model,
        context.encoded(examples, context.prompts[NEUTRAL]),
        layers,
        context.pad,
        BATCH,
        lambda done, total: callback("gradients of example", done, total),
    )
    nulls = context.study.nulls.model_copy(update={COVARIANCE: CANDIDATES})
    random = frozen_directions(folders[DIRECTIONS], folders[UNRELATED], nulls)
    candidates, start = {}, len(random.ways) + len(random.traits)
    for null, count in random.draws.items():
        rows = {layer: random.rows[layer][start : start + count] for layer in layers}
        start += count
        if null in (COVARIANCE, INSTRUCTION):
            candidates[NULLS[null].label] = rows
    tensors, tables = {}, []
    for direction, count in wanted(context).items():
        own = own_directions(direction, folders)
        found = match_energy(moments, {layer: own[layer] for layer in layers}, candidates, count, nulls.seed)
        tensors[direction] = torch.stack([found.bases[layer] for layer in layers], dim=1).contiguous()
        tables.append(_table(found).assign(direction=direction))
    save_tensors(tensors, folder / "matched.safetensors")
    save_table(pd.concat(tables, ignore_index=True), folder / "energies.parquet")


def _table(found: Matched) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "draw": range(len(found.kinds)),
            "kind": found.kinds,
            "rank": found.rank,
            "energy": found.energies,
            "target": found.target,
        }
    )


def own_directions(direction: str, folders: Folders) -> dict[int, Tensor]:
    """Return layer -> unit vector `[hidden]` of a direction that arms act along."""
    if direction == arms.LEARNED:
        return learned_directions(folders[LEARNED])
    return named_directions(folders[DIRECTIONS])[RESPONSES if direction == arms.RESPONSES else arms.TRAIT]


def arm_directions(folders: Folders, direction: str, draw: int) -> dict[int, Tensor]:
    """Return layer of the band -> orthonormal rows `[rank, hidden]` that an arm acts along."""
    layers = band(folders[DIRECTIONS])
    if draw == arms.ITSELF:
        own = own_directions(direction, folders)
        return {layer: own[layer][None] for layer in layers}
    rows = load_tensors(folders[MATCHED] / "matched.safetensors")[direction][draw]  # (layers, rank, hidden)
    return dict(zip(layers, rows, strict=True))
