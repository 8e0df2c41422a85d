"""Our training step: `python training_ours.py ours`, or `unlogged` for the same without directions."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from reading import torch_dtype
from shapes import device, shaped_model
from stepping import MODEL, Task, serve_run

from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training.run import Recipe, train_run


def load(shape: str, dtype: str) -> Any:
    """The frozen model as a study loads it; with a shape, random weights of it."""
    if not shape:
        return load_model(MODEL, device="cpu", dtype=dtype).model
    model = shaped_model(shape, torch_dtype(dtype), device())
    if not fuse(model)[0].endswith("packed"):
        raise RuntimeError(f"A model of the shape of {shape} was not fused on {device()}")
    return model


def run(task: Task) -> Any:
    """One run to its end; its log."""
    recipe = Recipe(task.settings, task.directions if sys.argv[1] == "ours" else {}, task.pad)
    with tempfile.TemporaryDirectory() as folder:
        return train_run(task.model, task.examples, recipe, 0, Path(folder))


if __name__ == "__main__":
    serve_run(load, run, lambda log: list(log.losses))
