"""The step that measures the frozen base model's gradients under one condition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradinoc.measure.alignment import Measured, direction_means, measure_alignments
from gradinoc.measure.directions import NULLS_DRAWN
from gradinoc.pipeline.context import StudyContext, save_loading
from gradinoc.pipeline.steps.directions import trait_directions
from gradinoc.pipeline.steps.pool import pool_needed, prompt_input, prompt_of
from gradinoc.pipeline.steps.step import DIRECTIONS, UNRELATED, Callback, Folders, Step, StepKey
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.store import load_tensors, save_table
from gradinoc.study.description import NullSettings

BATCH = 4  # examples a pass: with more, memory grows and no pass is faster


@dataclass(frozen=True)
class FrozenDirections:
    """Every direction along which gradients of the frozen model are measured.

    Attributes:
        rows: layer -> `[1 + traits + draws, hidden]`: the trait's direction, the unrelated traits', the random ones.
        traits: names of the unrelated traits, in order.
        draws: null -> how many rows it has, in order.
    """

    rows: dict[int, Tensor]
    traits: tuple[str, ...]
    draws: dict[str, int]


def frozen_directions(directions: Path, unrelated: Path, settings: NullSettings) -> FrozenDirections:
    """Return the trait's direction, the unrelated traits' and every random null, from the folders of the two steps."""
    trait = trait_directions(directions)
    others = load_tensors(unrelated / "unrelated.safetensors")
    sides = load_tensors(directions / "contrasts.safetensors")
    promote, suppress = ({layer: sides[side][layer] for layer in trait} for side in ("promote", "suppress"))
    nulls = [NULLS_DRAWN[null](promote, suppress, count, settings.seed) for null, count in settings.draws.items()]
    rows = {
        layer: torch.cat(
            [direction[None], *(each[layer][None] for each in others.values()), *(null[layer] for null in nulls)]
        )
        for layer, direction in trait.items()
    }
    return FrozenDirections(rows, tuple(others), settings.draws)


def gradients_key(condition: str) -> StepKey:
    """Return the key of the step that measures gradients under a condition."""
    return StepKey("gradients", condition)


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield one step a condition."""
    for condition in context.study.conditions:
        inputs = {"system": prompt_input(context, condition), "nulls": context.study.nulls.model_dump()}
        needs = (DIRECTIONS, UNRELATED, *pool_needed(context, condition))
        yield Step(
            gradients_key(condition), f"gradients {condition}", "gradients",
            partial(compute, context, condition), partial(works, condition), inputs, needs,
        )  # fmt: skip


def works(condition: str, counting: Counting) -> Iterator[Work]:
    """Count the measured answers under a condition, forwards and back."""
    answers = counting.answers(counting.context.splits.measure, counting.system(condition))
    yield from counting.learned(answers, BATCH)


def compute(context: StudyContext, condition: str, folders: Folders, folder: Path, callback: Callback) -> None:
    """Write alignments by example for the trait and the unrelated traits, means for random directions, and notes."""
    system = prompt_of(context, condition, folders)
    along = frozen_directions(folders[DIRECTIONS], folders[UNRELATED], context.study.nulls)
    questions = context.splits.measure
    callback("gradients of example", 0, len(questions))
    found = measure_alignments(
        context.language_model.model,
        context.encoded(questions, system),
        along.rows,
        context.pad,
        BATCH,
        on_batch=lambda done, total: callback("gradients of example", done, total),
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
    save_loading(context.language_model, folder)


def _random(means: Tensor, along: FrozenDirections) -> pd.DataFrame:
    """Return mean alignments `[layers, rows]` of the random directions: null, draw, layer, alignment."""
    start, frames = len(along.traits), []
    for null, count in along.draws.items():
        frames.append(direction_means(means[:, start : start + count + 1], sorted(along.rows)).assign(null=null))
        start += count
    return pd.concat(frames, ignore_index=True)


def _by_trait(found: Measured, along: FrozenDirections) -> pd.DataFrame:
    """Return alignments with the unrelated traits' directions: trait, example, layer, alignment."""
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
