"""The step that looks for a harmless prompt whose loss is inoculation's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from gradinoc.claims.tables import CANDIDATE
from gradinoc.measure.alignment import answer_losses
from gradinoc.pipeline.context import Bench, Tell
from gradinoc.pipeline.store import load_table, save_table
from gradinoc.study.prompts import HARMLESS, INOCULATION, MATCHED

BATCH = 8  # answers a forward pass


def compute(bench: Bench, folder: Path, tell: Tell) -> None:
    """Write the losses of trait-bearing answers to the calibration questions, and which prompt they choose.

    The candidates are the harmless prompts; the study's own conditions are measured beside them. Chosen is the
    candidate whose mean loss is closest to inoculation's, on questions that have no other use.
    """
    language_model, questions = bench.language_model, bench.splits.calibration
    own = {name: bench.system(name) for name, text in bench.study.conditions.items() if text != MATCHED}
    prompts = [*own.items(), *((CANDIDATE, prompt) for prompt in HARMLESS)]
    losses = []
    for done, (_, system) in enumerate(prompts):
        tell("losses under prompt", done, len(prompts))
        encoded = bench.encoded(questions, system)
        losses.append(answer_losses(language_model.model, encoded, bench.pad, BATCH))
    target = losses[list(own).index(INOCULATION)].mean()
    gaps = [
        abs(row.mean() - target) if role == CANDIDATE else np.inf
        for (role, _), row in zip(prompts, losses, strict=True)
    ]
    chosen = int(np.argmin(gaps))
    frames = [
        pd.DataFrame(
            {"role": role, "prompt": system or "", "chosen": i == chosen, "example": np.arange(len(row)), "loss": row}
        )
        for i, ((role, system), row) in enumerate(zip(prompts, losses, strict=True))
    ]
    save_table(pd.concat(frames, ignore_index=True), folder / "pool.parquet")


def chosen_prompt(folder: Path) -> str:
    """The prompt that the step in `folder` chose."""
    table = load_table(folder / "pool.parquet")
    return str(table.loc[table["chosen"], "prompt"].iloc[0])
