"""The step that measures how much of the trait a model shows under the neutral prompt, before or after training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel

from gradinoc.drift import measure_drift
from gradinoc.stages.bench import Bench, Tell, trait_directions
from gradinoc.store import load_table, save_table
from gradinoc.study import NEUTRAL


def compute(
    bench: Bench, origin: tuple[str, int], directions: Path, adapter: Path | None, folder: Path, tell: Tell
) -> None:
    """Write responses, log-odds and projections of a run (`adapter` is its folder) or of the base model (None)."""
    layers = load_table(directions / "layers.parquet")
    band = {int(layer) for layer in layers.loc[layers["in_band"], "layer"]}
    parts = iter(range(3))
    with _adapted(bench.language_model.model, adapter) as model:
        measures, responses = measure_drift(
            (model, bench.language_model.tokenizer),
            bench.splits,
            bench.trait,
            {layer: direction for layer, direction in trait_directions(directions).items() if layer in band},
            bench.study.drift,
            bench.system(NEUTRAL),
            lambda part: tell(part, next(parts), 3),
        )
    condition, seed = origin
    named = {"condition": condition, "seed": seed, "phase": "pre" if adapter is None else "post"}
    save_table(measures.assign(**named), folder / "drift.parquet")
    save_table(responses.assign(**named), folder / "responses.parquet")


@contextmanager
def _adapted(base: PreTrainedModel, adapter: Path | None) -> Iterator[PreTrainedModel | PeftModel]:
    """The base model with an adapter in place inside the block, and as it was after it."""
    if adapter is None:
        yield base
        return
    wrapped = PeftModel.from_pretrained(base, str(adapter))
    try:
        yield wrapped.eval()
    finally:
        wrapped.unload()
