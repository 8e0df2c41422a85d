"""The step that steers the frozen base model along the trait's direction and others of the same length."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gradinoc.claims.evidence.tables import TRAIT_DRAW
from gradinoc.measure.behaviour.decisions import decisions
from gradinoc.measure.steering.effects import STRENGTHS, steering_effects, with_matched
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.steps.base_model.directions import band, half_lengths, trait_directions
from gradinoc.pipeline.steps.step import DIRECTIONS, Callback, Folders, Step, StepKey
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.storage.contents import load_tensors, save_table
from gradinoc.study.prompts import NEUTRAL


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield the one step of this stage."""
    inputs = {
        "steering": context.study.steering.model_dump(),
        "seed": context.study.nulls.seed,
        "system": context.systems[NEUTRAL],
    }
    yield Step(
        StepKey("steering"), "steering", "steering",
        lambda folders, folder, callback: compute(context, folders, folder, callback), works, inputs, (DIRECTIONS,),
    )  # fmt: skip


def works(counting: Counting) -> Iterator[Work]:
    """Count the first words of each ordinary answer with every vector, and once more along the trait's."""
    settings, context = counting.context.study.steering, counting.context
    questions, system = context.splits.calibration[: settings.questions], context.systems[NEUTRAL]
    moving = sum(strength != 0 for strength in STRENGTHS)
    yield counting.decided(questions, system, 1, after_prompt=True).times((1 + settings.draws) * moving)
    yield counting.decided(questions, system, 1, after_prompt=True).times(len(STRENGTHS))


def compute(context: StudyContext, folders: Folders, folder: Path, callback: Callback) -> None:
    """Write decision log-odds by direction and strength, and losses of either form along the trait's."""
    language_model, settings = context.language_model, context.study.steering
    directions = trait_directions(folders[DIRECTIONS])
    axes = {layer: directions[layer] for layer in band(folders[DIRECTIONS])}
    sides = load_tensors(folders[DIRECTIONS] / "contrasts.safetensors")
    promote, suppress = ({layer: sides[side][layer] for layer in axes} for side in ("promote", "suppress"))
    lengths = half_lengths(folders[DIRECTIONS])
    questions = context.splits.calibration[: settings.questions]
    found = steering_effects(
        language_model.model,
        decisions(language_model.tokenizer, questions, context.trait, context.systems[NEUTRAL]),
        with_matched(axes, promote, suppress, settings.draws, context.study.nulls.seed),
        {layer: lengths[layer] for layer in axes},
        on_done=lambda done, total: callback("steered question", done, total),
    )
    found["group"] = [questions[example].group for example in found["example"]]
    odds = found.dropna(subset="log_odds").drop(columns="loss")
    odds = odds.assign(draw=odds["direction"] + TRAIT_DRAW).drop(columns="direction")
    losses = found[found["direction"] == 0].dropna(subset="loss").drop(columns=["direction", "log_odds"])
    save_table(odds, folder / "steering.parquet")
    save_table(losses, folder / "steering_losses.parquet")
