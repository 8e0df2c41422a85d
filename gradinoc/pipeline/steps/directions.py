"""The step that finds the trait direction of every layer, and declares the band."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gradinoc.errors import ModelError
from gradinoc.measure.directions import (
    declare_band,
    layer_statistics,
    mean_difference,
    prompt_activations,
    separation,
    unmoved,
)
from gradinoc.models.blocks import decoder_blocks
from gradinoc.pipeline.context import StudyContext, save_loading
from gradinoc.pipeline.steps.step import DIRECTIONS, Callback, Step
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.pipeline.store import load_table, load_tensors, save_table, save_tensors
from gradinoc.stats.effect import split_half_cosine


def steps(context: StudyContext) -> Iterator[Step]:
    """Yield the one step of this stage."""
    trait = context.trait
    inputs = {"promote": trait.promote_system, "suppress": trait.suppress_system, **context.extraction_inputs}
    yield Step(
        DIRECTIONS, "directions", "directions",
        lambda _needed, folder, callback: compute(context, folder, callback), works, inputs,
    )  # fmt: skip


def works(counting: Counting) -> Iterator[Work]:
    """Count the direction questions under the promoting and the suppressing prompt."""
    trait, splits = counting.context.trait, counting.context.splits
    for side in (trait.promote_system, trait.suppress_system):
        yield counting.prompts(splits.direction, side)


def compute(context: StudyContext, folder: Path, callback: Callback) -> None:
    """Write the trait direction of every layer, the activations it is made of, its separation, the band, and notes.

    A layer at which the last prompt token sees nothing of the system prompt has none, NaN, and no part in anything.

    Half of the direction questions make the direction, a quarter declares the band, and a quarter, which had no part in
    either, is what gate G1 looks at.
    """
    language_model = context.extraction_model()
    model, tokenizer = language_model.model, language_model.tokenizer
    layers = list(range(len(decoder_blocks(model))))
    questions = [example.question for example in context.splits.direction]
    states: dict[str, dict[int, Tensor]] = {}
    systems = {"promote": context.trait.promote_system, "suppress": context.trait.suppress_system}
    for side, system in systems.items():
        callback("activations under prompt", len(states), len(systems))
        states[side] = prompt_activations(model, tokenizer, questions, system, layers)
    half, three_quarters = len(questions) // 2, 3 * len(questions) // 4

    def part(side: str, start: int, stop: int) -> dict[int, Tensor]:
        return {layer: rows[start:stop] for layer, rows in states[side].items()}

    promote, suppress = part("promote", 0, half), part("suppress", 0, half)
    seeing = [layer for layer in layers if not unmoved(promote[layer], suppress[layer])]
    if not seeing:
        raise ModelError(
            f"{context.study.model.id}: promoting and suppressing prompts give the same states at the last prompt "
            "token of every layer; expected a model that sees its system prompt there; give another model.id"
        )
    directions = {layer: mean_difference(promote[layer], suppress[layer]) for layer in seeing}
    declaring, gate = (
        separation(part("promote", start, stop), part("suppress", start, stop), directions)
        for start, stop in ((half, three_quarters), (three_quarters, len(questions)))
    )
    table = layer_statistics(declaring)
    table["auc"] = layer_statistics(gate)["auc"]
    table["split_half_cosine"] = [
        split_half_cosine((promote[layer] - suppress[layer]).numpy(), np.random.default_rng(0)) for layer in seeing
    ]
    table["in_band"] = table["layer"].isin(declare_band(table))
    nothing = torch.full_like(directions[seeing[0]], torch.nan)
    trait = torch.stack([directions.get(layer, nothing) for layer in layers])
    save_tensors({"trait": trait}, folder / "directions.safetensors")
    sides = {"promote": promote, "suppress": suppress}
    stacked = {side: torch.stack([rows[layer] for layer in layers]) for side, rows in sides.items()}
    save_tensors(stacked, folder / "contrasts.safetensors")  # (layers, questions, hidden)
    save_table(table, folder / "layers.parquet")
    save_table(gate, folder / "projections.parquet")
    blind = sorted(set(layers) - set(seeing))
    note = (
        f"layers {blind} see nothing of the system prompt at the last prompt token (windows or convolutions do not "
        "reach so far back): they have no direction, and are left out"
    )
    save_loading(language_model, folder, [note] if blind else [])


def trait_directions(folder: Path) -> dict[int, Tensor]:
    """Return layer -> trait direction, a unit vector `[hidden]`, from the folder of this step.

    Layers without one, since they see nothing of the system prompt, are left out.
    """
    rows = enumerate(load_tensors(folder / "directions.safetensors")["trait"])
    return {layer: row for layer, row in rows if bool(row.isfinite().all())}


def band(folder: Path) -> tuple[int, ...]:
    """Return the layers on which decisions rest, from the folder of this step."""
    table = load_table(folder / "layers.parquet")
    return tuple(int(layer) for layer in table.loc[table["in_band"], "layer"])
