"""The steps that measure how much of the trait there is under the neutral prompt: before, amid and after training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from gradinoc.claims.tables import BASE, BASE_SEED, BEFORE, EARLY
from gradinoc.measure.drift import DOMAINS, measure_drift
from gradinoc.measure.fast import adapters_in_one_pass
from gradinoc.pipeline.context import Bench, Tell, adapted, stacked, trait_directions
from gradinoc.pipeline.store import load_table, save_table
from gradinoc.study.prompts import NEUTRAL


@dataclass(frozen=True)
class Subject:
    """A model to be measured: the folder of its adapter (None for the base model), and what it is called."""

    condition: str
    seed: int
    phase: str
    adapter: Path | None


BASE_MODEL = Subject(BASE, BASE_SEED, BEFORE, None)


def compute(bench: Bench, subjects: Sequence[Subject], directions: Path, folder: Path, tell: Tell) -> None:
    """Write responses, log-odds and projections of the base model, or of adapted `subjects` of one phase.

    Amid training everyday requests are left out. Subjects of a fused model are measured in one pass over all.
    """
    found = _measure(bench, subjects, directions, tell)
    for name, tables in zip(("drift", "responses"), zip(*found, strict=True), strict=True):
        save_table(pd.concat(tables, ignore_index=True), folder / f"{name}.parquet")


def _measure(
    bench: Bench, subjects: Sequence[Subject], directions: Path, tell: Tell
) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Drift and responses of each of the subjects."""
    layers = load_table(directions / "layers.parquet")
    band = {int(layer) for layer in layers.loc[layers["in_band"], "layer"]}
    axes = {layer: direction for layer, direction in trait_directions(directions).items() if layer in band}
    base, phase = bench.language_model.model, subjects[0].phase
    together = adapters_in_one_pass(base, subjects)
    found = []
    parts = iter(range(3 * len(together)))
    for group in together:
        adapters = [subject.adapter for subject in group if subject.adapter]
        with stacked(base, adapters) if len(adapters) > 1 else adapted(base, next(iter(adapters), None)) as model:
            tables = measure_drift(
                (model, bench.language_model.tokenizer),
                bench.splits,
                bench.trait,
                axes,
                bench.study.drift,
                bench.system(NEUTRAL),
                lambda part: tell(part, next(parts), 3 * len(together)),
                ["in_distribution"] if phase == EARLY else list(DOMAINS),
                copies=len(group),
            )
        for subject, (measures, responses) in zip(group, tables, strict=True):
            named = {"condition": subject.condition, "seed": subject.seed, "phase": phase}
            found.append((measures.assign(**named), responses.assign(**named)))
    return found
