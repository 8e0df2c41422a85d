"""The step that finds the trait direction of every layer, and declares the band."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gradinoc.directions import (
    declare_band,
    layer_statistics,
    mean_difference,
    prompt_activations,
    separation,
)
from gradinoc.models import decoder_blocks
from gradinoc.stages.bench import Bench, Tell, save_loading
from gradinoc.statistics import split_half_cosine
from gradinoc.store import save_table, save_tensors


def compute(bench: Bench, folder: Path, tell: Tell) -> None:
    """Write the trait direction of every layer, the activations it is made of, its separation, the band, and notes.

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
    directions = {layer: mean_difference(promote[layer], suppress[layer]) for layer in layers}
    declaring, gate = (
        separation(part("promote", start, stop), part("suppress", start, stop), directions)
        for start, stop in ((half, three_quarters), (three_quarters, len(questions)))
    )
    table = layer_statistics(declaring)
    table["auc"] = layer_statistics(gate)["auc"]
    table["split_half_cosine"] = [
        split_half_cosine((promote[layer] - suppress[layer]).numpy(), np.random.default_rng(0)) for layer in layers
    ]
    table["in_band"] = table["layer"].isin(declare_band(table))
    trait = torch.stack([directions[layer] for layer in layers])
    save_tensors({"trait": trait}, folder / "directions.safetensors")
    sides = {
        side: torch.stack([rows[layer] for layer in layers])  # (layers, questions, hidden)
        for side, rows in (("promote", promote), ("suppress", suppress))
    }
    save_tensors(sides, folder / "contrasts.safetensors")
    save_table(table, folder / "layers.parquet")
    save_table(gate, folder / "projections.parquet")
    save_loading(language_model, folder)
