"""Sides of the together job: runs trained in one pass over the frozen weights, or one after another."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from reading import torch_dtype
from serving import peak_memory, serve
from shapes import shaped_model

from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training.run import Recipe, Run, RunLog, train_runs
from gradinoc.models.chat.encoding import Encoded
from gradinoc.study.settings import TrainingSettings

MODEL, BATCH, DIRECTIONS = "smollm2-135m-instruct", 4, 101
held: dict[str, Any] = {}


def prepare(dtype: str, work: str, runs: int, steps: int, shape: str = "") -> None:
    """Load the model, or make one of a shape on the CUDA device; `work` holds the examples of each condition."""
    if shape:
        model = shaped_model(shape, torch_dtype(dtype), "cuda")
        if not fuse(model)[0].endswith("packed"):
            raise RuntimeError(f"A model of the shape of {shape} was not fused on {torch.cuda.get_device_name()}")
    else:
        model = load_model(MODEL, device="cpu", dtype=dtype).model
    conditions = [
        [Encoded(tuple(ids), prompt) for ids, prompt in examples]
        for examples in json.loads(Path(work).read_text(encoding="utf-8"))
    ]
    along = isotropic_directions(DIRECTIONS, model.config.hidden_size, 0)
    settings = TrainingSettings(steps=steps, batch_size=BATCH, lr=2e-4, lora_rank=16, lora_alpha=32)
    held["recipe"] = Recipe(settings, {layer: along.clone() for layer in range(model.config.num_hidden_layers)}, 0)
    held["model"], held["conditions"], held["runs"] = model, conditions, runs


def train() -> list[RunLog]:
    """Train every run, as the side is asked to."""
    with tempfile.TemporaryDirectory() as folder:
        runs = [
            Run(held["conditions"][place % len(held["conditions"])], place, Path(folder) / str(place))
            for place in range(held["runs"])
        ]
        groups = [runs] if sys.argv[1] == "together" else [[run] for run in runs]
        logs = [log for group in groups for log in train_runs(held["model"], group, held["recipe"])]
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return logs


def losses() -> list[float]:
    """Losses of every run by step, run by run."""
    return [loss for log in train() for loss in log.losses]


def repeat() -> None:
    """Every run once."""
    train()


if __name__ == "__main__":
    serve({"prepare": prepare, "repeat": repeat, "losses": losses, "memory": peak_memory})
