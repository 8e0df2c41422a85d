"""Runs with an intervention in a simulated study: what is true of them, and the tables that they alone have."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from gradinoc.claims.evidence.tables import ARMS, COLUMNS
from gradinoc.power.scenarios import Scenario, Sizes, depths
from gradinoc.study.arms import FULL, ITSELF, RESTORE, Arm, ArmRun, arm_runs
from gradinoc.study.prompts import INOCULATION

STRENGTHS = (-1.0, 0.5, 2.0)  # of projecting, besides all of the component
ENERGY = 0.002  # share of the gradient's energy along v
LEAK = 0.05
FALL = 0.02  # of the fall of its loss, by which a run with an intervention differs from its twin

Array = npt.NDArray[np.float64]


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
    as much back. Along a matched direction that is chance of the direction, the same for both. Drift goes with what is
    learned: of a run that learns less there is less.
    """
    rows, others = [], truth.noise.draw(rng, truth.noise.matched, sizes.matched)
    removed = 1 - float(prompts.loc[prompts["condition"] == INOCULATION, "left"].item())
    for run in planned(sizes):
        twin, restores = run.settings.prompt, run.settings.intervention == RESTORE
        place = int(prompts.index[prompts["condition"] == twin][0])
        own = truth.caused if truth.restored is None or not restores else truth.restored
        own = own if run.draw == ITSELF else float(others[run.draw])
        left = float(prompts["left"][place]) + (own if restores else -run.strength * own) * removed
        along = not restores and run.draw == ITSELF
        taken, learns = (run.strength, truth.learns) if along else (0.0, 1.0)
        rows.append((run.condition, run.seed, place, left * learns, taken, learns))
    return pd.DataFrame(rows, columns=["condition", "seed", "prompt", "left", "taken", "learns"])


def falls(latent_runs: pd.DataFrame, ordinary: int, falls: Array, rng: np.random.Generator) -> Array:
    """By how much each run's loss falls, those with an intervention nearly as the run of their prompt and seed."""
    prompts, seeds = (latent_runs[key].to_numpy() for key in ("prompt", "seed"))
    twins = {(prompts[run], seeds[run]): falls[run] for run in range(ordinary)}
    own = [twins[prompts[run], seeds[run]] for run in range(ordinary, len(latent_runs))]
    chance = 1 + rng.normal(0, FALL, len(own))
    return np.concatenate([falls[:ordinary], own * chance * latent_runs["learns"].to_numpy()[ordinary:]])


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
