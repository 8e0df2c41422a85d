"""Simulated studies whose truth is known: the evidence that the decision rules are themselves tried on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.tables import COLUMNS, OF_STUDY, Evidence
from gradinoc.power.scenarios import SCENARIOS, Scenario, Sizes
from gradinoc.power.simulated import arms, attributed, beside, frozen, trained
from gradinoc.power.simulated.latent import Latent, draw, evaluated


def simulate(scenario: str | Scenario, rng: np.random.Generator, **sizes: Any) -> Evidence:
    """The evidence of one study in `scenario` (a name in `SCENARIOS`, or one of your own), of these `Sizes`."""
    return evidence_of(latent_of(scenario, rng, **sizes), rng)


def latent_of(scenario: str | Scenario, rng: np.random.Generator, **sizes: Any) -> Latent:
    """The true prompts and runs of one study; `evidence_of` with the same generator gives what `simulate` does."""
    return draw(SCENARIOS[scenario] if isinstance(scenario, str) else scenario, Sizes(**sizes), rng)


def evidence_of(latent: Latent, rng: np.random.Generator) -> Evidence:
    """What is measured of these prompts and runs: every table, with the errors of measurement."""
    tables = {name: pd.DataFrame(columns=list(COLUMNS[name])) for name in COLUMNS if name not in OF_STUDY}
    for make in (frozen.layers, frozen.gradients, frozen.directions, frozen.elicitation, frozen.steering):
        tables |= make(latent, rng)
    for make in (trained.training, trained.drift, beside.tables):
        tables |= make(latent, rng)
    tables |= arms.tables(latent.truth, latent.sizes, latent.runs, rng)
    tables |= attributed.tables(latent, rng.spawn(1)[0])  # of its own: what was drawn before is drawn as before
    runs = latent.runs
    return Evidence(
        prompts=_prompts(latent),
        **tables,
        planned_runs=tuple(zip(runs["condition"], (int(seed) for seed in runs["seed"]), strict=True)),
    ).without_arms()


def _prompts(latent: Latent) -> pd.DataFrame:
    """The table prompts."""
    prompts = pd.concat([latent.prompts, evaluated()], ignore_index=True)
    words = dict.fromkeys(("condition", "family", "kind"), str)
    table = prompts[["condition", "family", "kind", "tokens", "measured", "trained"]].astype(words)
    return table.assign(text="prompt " + table["condition"])
