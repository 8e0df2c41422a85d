"""Our training step with an intervention at every layer: `python training_arm.py KIND`, of `Intervention`'s kinds."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from stepping import MODEL, Task, serve_run, task

from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training.interventions import Intervention
from gradinoc.measure.training.run import Recipe, Run, train_runs

STRENGTH = 1.0


def load(_shape: str, dtype: str) -> Any:
    """The frozen model as a study loads it."""
    return load_model(MODEL, device="cpu", dtype=dtype).model


def run(given: Task) -> Any:
    """One run to its end; its log. The direction is the first that is logged; what is restored is its own component."""
    kind: Any = sys.argv[1]
    along = {layer: rows[0] for layer, rows in given.directions.items()}
    counterpart = given.examples if kind == "restore" else None
    recipe = Recipe(given.settings, given.directions, given.pad)
    with tempfile.TemporaryDirectory() as folder:
        one = Run(
            given.examples, 0, Path(folder), interventions=(Intervention(kind, along, STRENGTH),),
            counterpart=counterpart,
        )  # fmt: skip
        return train_runs(given.model, [one], recipe)[0]


def alignment() -> float:
    """The largest cosine of a logged gradient with the direction, of a run to its end."""
    return float(run(task()).table["alignment"].abs().max())


if __name__ == "__main__":
    serve_run(load, run, lambda log: list(log.losses), alignment=alignment)
