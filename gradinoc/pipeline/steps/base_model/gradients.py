"""The steps that measure the frozen base model's gradients, one step a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gradinoc.claims.evidence.tables import COSINE, FROZEN, POOLED, PUSH
from gradinoc.data.examples import Example
from gradinoc.measure.directions.nulls import DRAWN, States
from gradinoc.measure.gradients.alignment import Measured, answer_losses, direction_means, measure_alignments
from gradinoc.measure.gradients.pooled import pooled
from gradinoc.pipeline.context import StudyContext, save_loading
from gradinoc.pipeline.steps.base_model.directions import named_directions, trait_directions
from gradinoc.pipeline.steps.base_model.unrelated import INSTRUCTIONS, TRAITS
from gradinoc.pipeline.steps.cells import cells
from gradinoc.pipeline.steps.step import DIRECTIONS, UNRELATED, Callback, Folders, Step, StepKey
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.storage.contents import load_tensors, save_table
from gradinoc.study.prompts import CONDITIONS
from gradinoc.study.settings import NullSettings

BATCH = 4  # examples a pass: with more, memory grows and no pass is faster


@dataclass(frozen=True)
class FrozenDirections:
    """Every direction along which gradients of the frozen model are measured.

    Attributes:
        rows: layer -> `[ways + traits + draws, hidden]`: the trait's direction, by every way of finding it, the
            unrelated traits', the random ones.
        ways: names of the ways, the trait's own first.
        traits: names of the unrelated traits, in order.
        draws: null -> how many rows it has, in order.
    """

    rows: dict[int, Tensor]
    ways: tuple[str, ...]
    traits: tuple[str, ...]
    draws: dict[str, int]


def frozen_directions(directions: Path, unrelated: Path, settings: NullSettings) -> FrozenDirections:
    """Return the trait's direction, the unrelated traits' and every random null, from the folders of the two steps."""
    ways = named_directions(directions)
    layers = sorted(trait_directions(directions))
    others = load_tensors(unrelated / TRAITS)
    sides = load_tensors(directions / "contrasts.safetensors")
    promote, suppress = ({layer: sides[side][layer] for layer in layers} for side in ("promote", "suppress"))
    means = load_tensors(unrelated / INSTRUCTIONS)["means"]
    states = States(promote, suppress, means)
    drawn = {null: DRAWN[null](states, count, settings.seed) for null, count in settings.draws.items()}
    rows = {
        layer: torch.cat([
            *(way[layer][None] for way in ways.values()), *(each[layer][None] for each in others.values()),
            *(drawn[null][layer] for null in settings.draws),
        ])
        for layer in layers
    }  # fmt: skip
    return FrozenDirections(rows, tuple(ways), tuple(others), settings.draws)


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield one step a measured prompt."""
    for name, system in context.systems.items():
        inputs = {
            "system": system,
            "nulls": context.study.nulls.model_dump(),
            "examples": len(measured_examples(context, name)),
        }  # fmt: skip
        yield Step(
            StepKey("gradients", name),
            f"gradients {name}",
            "gradients" if name in CONDITIONS else "gradients of further prompts",
            partial(compute, context, name), partial(works, name), inputs, (DIRECTIONS, UNRELATED),
        )  # fmt: skip


def measured_examples(context: StudyContext, name: str) -> Sequence[Example]:
    """Return the examples that are measured under a prompt: fewer under those that are no core condition's."""
    examples = context.splits.measure
    return examples if name in CONDITIONS else examples[: context.study.prompts.examples]


def works(name: str, counting: Counting) -> Iterator[Work]:
    """Count the measured answers under a prompt, forwards and back, and the ordinary ones forwards."""
    context = counting.context
    examples, system = measured_examples(context, name), context.systems[name]
    yield from counting.learned(counting.answers(examples, system), BATCH)
    yield counting.scored(counting.answers(examples, system, ordinary=True), BATCH)


def compute(context: StudyContext, name: str, folders: Folders, folder: Path, callback: Callback) -> None:
    """Write alignments by example for the trait and unrelated traits, means for random directions, losses, notes."""
    along = frozen_directions(folders[DIRECTIONS], folders[UNRELATED], context.study.nulls)
    examples, prompt = measured_examples(context, name), context.prompts[name]
    model = context.language_model.model
    callback("gradients of example", 0, len(examples))
    found = measure_alignments(
        model,
        context.encoded(examples, prompt),
        along.rows,
        context.pad,
        BATCH,
        on_batch=lambda done, total: callback("gradients of example", done, total),
        kept=len(along.ways) + len(along.traits),
    )
    ordinary = answer_losses(model, context.encoded(examples, prompt, ordinary=True), context.pad, BATCH)
    groups = [example.group for example in examples]
    losses = found.table.groupby("example")["loss"].first().to_numpy()
    tables = {
        "alignments": found.table.assign(group=[groups[example] for example in found.table["example"]]),
        "nulls": _random(found.means, along),
        "unrelated": _by_trait(found, along),
        "losses": pd.DataFrame(
            {"example": range(len(examples)), "trait_loss": losses, "ordinary_loss": ordinary, "group": groups}
        ),
        "cells": _cells(found, along),
    }
    for table, frame in tables.items():
        save_table(frame.assign(condition=name), folder / f"{table}.parquet")
    save_loading(context.language_model, folder)


def _random(means: Tensor, along: FrozenDirections) -> pd.DataFrame:
    """Return mean alignments `[layers, rows]` of the random directions: null, draw, layer, alignment."""
    start, frames = len(along.ways) + len(along.traits), []
    for null, count in along.draws.items():
        frames.append(direction_means(means[:, start : start + count], sorted(along.rows)).assign(null=null))
        start += count
    return pd.concat(frames, ignore_index=True)


def _by_trait(found: Measured, along: FrozenDirections) -> pd.DataFrame:
    """Return alignments with the unrelated traits' directions: trait, example, layer, alignment."""
    values = found.by_example[..., len(along.ways) :].numpy()
    layer, example, trait = (axis.ravel() for axis in np.indices(values.shape))
    return pd.DataFrame(
        {
            "trait": np.asarray(along.traits)[trait],
            "example": example,
            "layer": np.asarray(sorted(along.rows))[layer],
            "alignment": values.ravel(),
        }
    )


def _cells(found: Measured, along: FrozenDirections) -> pd.DataFrame:
    """Return the cells of the specification curve on the frozen model."""
    count = len(along.ways)
    mean = pooled(found.descent, {layer: rows[:count] for layer, rows in along.rows.items()})
    measures = {COSINE: found.at_positions[..., :count], PUSH: mean.push, POOLED: mean.alignment}
    return cells(measures, along.ways).assign(window=FROZEN, seed=-1)
