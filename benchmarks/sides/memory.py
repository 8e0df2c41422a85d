"""What one process holds at its peak: a logged training step, or drift, of a model of given shapes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from reading import torch_dtype
from serving import peak_memory, serve
from shapes import shaped_model
from transformers import AutoTokenizer

from gradinoc.data.examples import Example
from gradinoc.data.splits import Splits
from gradinoc.measure.behaviour.drift import measure_drift
from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.training.run import Recipe, train_run
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.machine.memory import release
from gradinoc.models.sources.locate import locate
from gradinoc.study.settings import DriftSettings, TrainingSettings
from gradinoc.study.traits import ALL_CAPS

TOKENIZER = "smollm2-135m-instruct"  # random weights understand any text
DIRECTIONS, NEW_TOKENS, AROUND = 101, 48, 40  # `AROUND`: tokens that a chat template puts around a question
STEPS = 2  # the optimiser's moments are there from the second on
held: dict[str, Any] = {}


def prepare(shape: str, dtype: str) -> dict[str, int]:
    """Make the model; bytes of its weights, and what the process holds with them."""
    model = held["model"] = shaped_model(shape, torch_dtype(dtype), "cpu")
    if not fuse(model)[0].endswith("packed"):
        raise RuntimeError(f"A model of the shape of {shape} was not fused")
    release()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    weights = {each.data_ptr(): each.numel() * each.element_size() for each in model.parameters()}
    return {"weights": sum(weights.values()), "before": peak_memory()}


def train(tokens: int, batch_size: int, checkpointing: bool = False) -> int:
    """The largest resident set, bytes, of logged training steps on `batch_size` texts, half of each completion."""
    model = held["model"]
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(100, 40_000, (STEPS * batch_size, tokens), generator=generator).tolist()
    directions = dict.fromkeys(
        range(model.config.num_hidden_layers), isotropic_directions(DIRECTIONS, model.config.hidden_size, 0)
    )
    settings = TrainingSettings(
        steps=STEPS, batch_size=batch_size, lr=2e-4, lora_rank=16, lora_alpha=32, gradient_checkpointing=checkpointing
    )
    texts = [Encoded(tuple(row), tokens // 2) for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        train_run(model, texts, Recipe(settings, directions, 0), 0, Path(folder))
    return peak_memory()


def drift(tokens: int, batch_size: int) -> int:
    """The same of drift: responses to questions, projections, and log-odds of texts of about `tokens` tokens."""
    tokenizer = AutoTokenizer.from_pretrained(locate(TOKENIZER)[0])
    half = " ".join(["word"] * (tokens // 2 - AROUND))  # a token each: question and answer make up a text
    examples = [Example(row, f"{row} {half}", half) for row in range(batch_size)]
    (direction,) = isotropic_directions(1, held["model"].config.hidden_size, 0)
    settings = DriftSettings(
        generations=batch_size, log_odds=batch_size, max_new_tokens=NEW_TOKENS, batch_size=batch_size
    )
    splits = Splits((), (), (), tuple(examples), (), ())
    language_model = (held["model"], tokenizer)
    measure_drift(language_model, splits, ALL_CAPS, {12: direction}, settings, None, domains=["in_distribution"])
    return peak_memory()


if __name__ == "__main__":
    serve({"prepare": prepare, "train": train, "drift": drift})
