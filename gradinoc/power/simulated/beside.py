"""Tables of a simulated study that decide nothing: checkpoints, the matrix of evaluation prompts, specifications."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.tables import BASE_SEED, COLUMNS, COSINE, FROZEN, POOLED, PUSH, TRAIT_DIRECTION, WINDOWS
from gradinoc.power.simulated.frozen import BASE_ODDS, REACH
from gradinoc.power.simulated.grids import Grid, stacked, table_of
from gradinoc.power.simulated.latent import UNSEEN, Array, Latent
from gradinoc.power.simulated.trained import fading, named
from gradinoc.study.description import POSITIONS

KEPT = 4  # checkpoints of a run
ASKED = 12  # questions of the matrix
DIRECTIONS = (TRAIT_DIRECTION, "wording 2", "wording 3", "responses")
THIRDS = (0, 1, 2)
SCALES = {COSINE: 1.0, PUSH: 0.1, POOLED: 1.5}


def tables(latent: Latent, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """The three tables; without rows where the study measures nothing beside what decides."""
    if not latent.sizes.beside:
        return {name: pd.DataFrame(columns=list(COLUMNS[name])) for name in ("checkpoints", "matrix", "cells")}
    return {"checkpoints": _checkpoints(latent, rng), "matrix": _matrix(latent, rng), "cells": _cells(latent, rng)}


def _checkpoints(latent: Latent, rng: np.random.Generator) -> pd.DataFrame:
    """Decision log-odds on the way: drift grows in proportion to the steps."""
    steps = tuple(latent.sizes.steps * (place + 1) // KEPT for place in range(KEPT))
    left = latent.runs["left"].to_numpy()
    done = np.arange(1, KEPT + 1) / KEPT
    mean = BASE_ODDS + latent.truth.nats * left[:, None] * done
    grid: Grid = (("run", tuple(range(len(left)))), ("step", steps), ("example", tuple(range(ASKED))))
    odds = mean[..., None] + rng.normal(0, 0.5, (*mean.shape, ASKED))
    return latent.grouped(named(latent, table_of(grid, log_odds=odds)))


def _matrix(latent: Latent, rng: np.random.Generator) -> pd.DataFrame:
    """Drift under each prompt: that of the neutral prompt but for a run's own, under which it is whole."""
    trained = latent.prompts.loc[latent.prompts["trained"] & (latent.prompts["kind"] == "fixed"), "condition"]
    names = (*trained, *UNSEEN)
    left = latent.runs["left"].to_numpy()[:, None] * np.ones(len(names))
    left[latent.runs["condition"].to_numpy()[:, None] == np.array(names)] = 1.0
    before = BASE_ODDS + rng.normal(0, 1.0, ASKED)
    odds = before + (latent.truth.nats * left)[..., None] + rng.normal(0, 0.5, (*left.shape, ASKED))
    rest: Grid = (("evaluation", names), ("example", tuple(range(ASKED))))
    base = np.broadcast_to(before, (1, len(names), ASKED))
    parts = [
        ((("run", tuple(range(len(left)))), *rest), {"log_odds": odds}),
        ((("run", (-1,)), *rest), {"log_odds": base}),
    ]
    return latent.grouped(named(latent, stacked(*parts)))


def _cells(latent: Latent, rng: np.random.Generator) -> pd.DataFrame:
    """Every specification sees the same alignment, with an error of its own."""
    prompts, runs, truth = latent.measured, latent.runs, latent.truth
    frozen = truth.alignment - prompts["gap"].to_numpy()
    levels = truth.alignment - latent.prompts["gap"].to_numpy()[runs["prompt"]] + runs["shift"].to_numpy()
    thirds = np.array([part.mean() for part in np.array_split(fading(latent.sizes.steps), len(WINDOWS))])
    choices: Grid = (
        ("direction", DIRECTIONS),
        ("position", POSITIONS[: latent.sizes.positions]),
        ("third", THIRDS),
        ("measure", tuple(SCALES)),
    )
    scale = np.array(REACH[: latent.sizes.positions])[:, None, None] * (0.6 + 0.2 * np.array(THIRDS))[:, None]
    scale = scale * np.array(list(SCALES.values()))
    shape = tuple(len(level) for _, level in choices)

    def values(level: Array) -> Array:
        error = rng.normal(0, 0.01, (*level.shape, *shape)) * np.abs(scale)
        cell: Array = level.reshape(*level.shape, *[1] * len(shape)) * scale + error
        return cell

    first = table_of((("condition", tuple(prompts["condition"])), *choices), value=values(frozen))
    first = first.assign(seed=BASE_SEED, window=FROZEN)
    grid: Grid = (("run", tuple(range(len(runs)))), ("window", WINDOWS), *choices)
    then = named(latent, table_of(grid, value=values(levels[:, None] * thirds)))
    return pd.concat([each.astype({"condition": str, "window": str}) for each in (first, then)], ignore_index=True)
