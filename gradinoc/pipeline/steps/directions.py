"""The step that finds the trait direction of every layer, and declares the band."""

from __future__ import annotations

from collections.abc import Sequence
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
from gradinoc.pipeline.context import Bench, Tell, save_loading
from gradinoc.pipeline.store import save_table, save_tensors
from gradinoc.stats.effect import split_half_cosine


def compute(bench: Bench, folder: Path, tell: Tell) -> None:
    """Write the trait direction of every layer, the activations it is made of, its separation, the band, and notes.

    A layer at which the last prompt token sees nothing of the system prompt has none, NaN, and no part in anything.

    Half of the direction questions make the direction, a quarter declares the band, and a quarter, which had no part in
    either, is what gate G1 looks at.
    """
    language_model = bench.extraction_model()
    model, tokenizer = language_model.model, language_model.tokenizer
    layers = list(range(len(decoder_blocks(model))))
    questions = [example.question for example in bench.splits.direction]
    states: dict[str, dict[int, Tensor]] = {}
    systems = {"promote": bench.trait.promote_system, "suppress": bench.trait.suppress_system}
    for side, system in systems.items():
        tell("activations under prompt", len(states), len(systems))
        states[side] = prompt_activations(model, tokenizer, questions, system, layers)
    half, three_quarters = len(questions) // 2, 3 * len(questions) // 4

    def part(side: str, start: int, stop: int) -> dict[int, Tensor]:
        return {layer: rows[start:stop] for layer, rows in states[side].items()}

    promote, suppress = part("promote", 0, half), part("suppress", 0, half)
    seeing = [layer for layer in layers if not unmoved(promote[layer], suppress[layer])]
    if not seeing:
        raise ModelError(
            f"{bench.study.model.id}: promoting and suppressing prompts give the same states at the last prompt token "
            "of every layer; expected a model that sees its system prompt there; give another model.id"
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
    sides = {
        side: torch.stack([rows[layer] for layer in layers])  # (layers, questions, hidden)
        for side, rows in (("promote", promote), ("suppress", suppress))
    }
    save_tensors(sides, folder / "contrasts.safetensors")
    save_table(table, folder / "layers.parquet")
    save_table(gate, folder / "projections.parquet")
    save_loading(language_model, folder, _blind(sorted(set(layers) - set(seeing))))


def _blind(layers: Sequence[int]) -> list[str]:
    """Note (none, if there are none) on layers that have no direction."""
    if not layers:
        return []
    return [
        f"layers {list(layers)} see nothing of the system prompt at the last prompt token (windows or convolutions do "
        "not reach so far back): they have no direction, and are left out"
    ]
