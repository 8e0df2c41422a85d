"""The step that measures how much of the trait a model shows under the neutral prompt: before, amid, after training."""

from __future__ import annotations

from pathlib import Path

from gradinoc.drift import DOMAINS, measure_drift
from gradinoc.evidence import EARLY
from gradinoc.stages.bench import Bench, Tell, adapted, trait_directions
from gradinoc.store import load_table, save_table
from gradinoc.study import NEUTRAL


def compute(
    bench: Bench, origin: tuple[str, int, str], directions: Path, adapter: Path | None, folder: Path, tell: Tell
) -> None:
    """Write responses, log-odds and projections of a run (`adapter` is its folder) or of the base model (None).

    `origin` is condition, seed and phase; amid training everyday requests are left out.
    """
    condition, seed, phase = origin
    layers = load_table(directions / "layers.parquet")
    band = {int(layer) for layer in layers.loc[layers["in_band"], "layer"]}
    parts = iter(range(3))
    with adapted(bench.language_model.model, adapter) as model:
        measures, responses = measure_drift(
            (model, bench.language_model.tokenizer),
            bench.splits,
            bench.trait,
            {layer: direction for layer, direction in trait_directions(directions).items() if layer in band},
            bench.study.drift,
            bench.system(NEUTRAL),
            lambda part: tell(part, next(parts), 3),
            ["in_distribution"] if phase == EARLY else list(DOMAINS),
        )
    named = {"condition": condition, "seed": seed, "phase": phase}
    save_table(measures.assign(**named), folder / "drift.parquet")
    save_table(responses.assign(**named), folder / "responses.parquet")
