"""Runs with an intervention in a simulated study: what is true of them, and the tables that they alone have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.tables import ARMS, COLUMNS
from gradinoc.power.scenarios import Scenario, Sizes, depths
from gradinoc.study.arms import FULL, ITSELF, PROJECT, RESTORE, Arm, ArmRun, arm_runs
from gradinoc.study.prompts import INOCULATION

STRENGTHS = (-1.0, 0.5, 2.0)  # of projecting, besides all of the component
ENERGY = 0.002  # share of the gradient's energy along v
LEAK = 0.05


def planned(sizes: Sizes) -> list[ArmRun]:
    """The runs with an intervention of a study of these sizes: those of claim C5, or none."""
    if not sizes.matched:
        return []
    arms = {
        "removed": Arm(intervention="project", seeds=sizes.seeds),
        "dose": Arm(intervention="project", strengths=STRENGTHS, seeds=min(2, sizes.seeds)),
        "removed_matched": Arm(intervention="project", draws=sizes.matched),
        "restored": Arm(intervention="restore", prompt=INOCULATION, seeds=sizes.seeds),
        "restored_matched": Arm(intervention="restore", prompt=INOCULATION, draws=sizes.matched),
    }
    return [*arm_runs(arms, range(sizes.seeds))]


def runs(truth: Scenario, sizes: Sizes, prompts: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Every run with an intervention, as rows of `Latent.runs`; chance of seed and run is not in `left` yet.

    Removing a share of the component removes that share of what it causes of inoculation's effect; restoring it brings
    as much back. Along a matched direction that is chance of the direction.
    """
    rows = []
    removed = 1 - float(prompts.loc[prompts["condition"] == INOCULATION, "left"].item())
    for run in planned(sizes):
        twin = run.settings.prompt
        place = int(prompts.index[prompts["condition"] == twin][0])
        sign = 1.0 if run.settings.intervention == RESTORE else -run.strength
        own = truth.caused if run.draw == ITSELF else float(truth.noise.draw(rng, truth.noise.matched, 1)[0])
        left = float(prompts["left"][place]) + sign * own * removed
        taken = run.strength if run.settings.intervention == PROJECT and run.draw == ITSELF else 0.0
        rows.append((run.condition, run.seed, place, left, taken))
    return pd.DataFrame(rows, columns=["condition", "seed", "prompt", "left", "taken"])


def tables(
    truth: Scenario, sizes: Sizes, latent_runs: pd.DataFrame, rng: np.random.Generator
) -> Mapping[str, pd.DataFrame]:
    """The tables arms, energies and weights; empty where no run has an intervention."""
    found = {run.condition: run for run in planned(sizes)}
    if not found:
        return {}
    arms = [
        (name, run.arm, run.settings.prompt, run.settings.intervention, run.settings.direction, run.strength, run.draw)
        for name, run in found.items()
    ]
    band = np.flatnonzero(depths(sizes.layers) >= 0.5)
    runs_and_layers = latent_runs.loc[latent_runs.index.repeat(len(band)), ["condition", "seed", "taken"]]
    moved = 1 + truth.noise.draw(rng, 0.01, len(latent_runs))
    weights = runs_and_layers.assign(
        layer=np.tile(band, len(latent_runs)),
        moved=np.repeat(moved, len(band)),
        leak=LEAK * np.where(runs_and_layers["taken"] == FULL, 1 - truth.cut, 1.0),
    ).drop(columns="taken")
    energies = pd.DataFrame({"direction": "trait", "draw": range(sizes.matched), "kind": "simulated", "rank": 1})
    return {
        ARMS: pd.DataFrame(arms, columns=list(COLUMNS[ARMS])),
        "weights": weights.reset_index(drop=True),
        "energies": energies.assign(energy=ENERGY, target=ENERGY),
    }
