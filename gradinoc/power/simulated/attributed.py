"""Tables of a simulated study that say where its drift comes from."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.tables import FULL, IN_ANSWER, IN_PROMPT, LEARNED, LORA, TRAIT_DIRECTION, WHOLE
from gradinoc.power.scenarios import depths
from gradinoc.power.simulated.grids import Grid, stacked, table_of
from gradinoc.power.simulated.latent import UNSEEN, Array, Latent
from gradinoc.power.simulated.trained import named, templates
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.settings import NULLS

PARTS = (0.6, 0.4)  # of what a run changes, in the first and in the second stretch of its steps
OWN = "own"
LEAST = 0.02  # of neutral runs' way, the shortest
STEEP, COSINE, BAND = 8.0, 0.1, 0.8  # norm of the gradient, neutral cosine, what goes by way of the band
MODULES = ("self_attn.v_proj", "mlp.down_proj")


def tables(latent: Latent, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """The tables attribution, lengths, modules, shares, share_nulls and kernel; modules alone decides nothing.

    None of a study that accounts for no question.
    """
    if not latent.sizes.attributed:
        return {}
    phi = _accounted(latent, rng)
    found = {
        "attribution": _attribution(latent, phi, rng),
        "lengths": _lengths(latent, rng),
        "kernel": _kernel(latent, rng),
        **_shares(latent, phi, rng),
    }
    return found | ({"modules": _modules(latent, phi.mean(axis=1))} if latent.sizes.beside else {})


def _steps(latent: Latent) -> Grid:
    steps = latent.sizes.steps
    return (("step", (max(1, steps // 2), steps)),)


def _runs(latent: Latent) -> Grid:
    return (("run", tuple(range(len(latent.runs)))),)


def _left(latent: Latent) -> Array:
    """What each run leaves of the neutral drift by log-odds [run]."""
    left: Array = latent.runs["left"].to_numpy()
    return left + latent.truth.disagree * (1 - left)


def relative(left: Array) -> Array:
    """How far runs went, of neutral runs' way: the size of what is left of the drift, which is never nothing."""
    return np.maximum(np.abs(left), LEAST)


def _accounted(latent: Latent, rng: np.random.Generator) -> Array:
    """What the steps of each run account for, nats [run, question]: the drift of its log-odds, over `accounts`."""
    truth, left = latent.truth, _left(latent)
    by_question = templates(latent, latent.sizes.attributed, rng)
    drift = truth.nats * (left[:, None] * by_question + truth.noise.draw(rng, truth.noise.account, *by_question.shape))
    phi: Array = drift / truth.accounts
    return phi


def _attribution(latent: Latent, phi: Array, rng: np.random.Generator) -> pd.DataFrame:
    """Under the neutral prompt, and under each run's own: what is learned there goes with drift as far as `learned`."""
    truth, conditions = latent.truth, latent.runs["condition"].to_numpy()
    others = np.flatnonzero(conditions != NEUTRAL)
    own = truth.nats * relative(_left(latent))[others] ** truth.learned
    own = (own * (1 + truth.noise.draw(rng, truth.noise.own, len(others))))[:, None]
    own = own * (1 + truth.noise.draw(rng, truth.noise.account, len(others), phi.shape[1])) / truth.accounts
    parts = []
    for evaluation, runs, values in ((NEUTRAL, range(len(phi)), phi), (OWN, others, own)):
        number = tuple(int(run) for run in runs)
        rest: Grid = (("evaluation", (evaluation,)), *_steps(latent), ("example", tuple(range(phi.shape[1]))))
        predicted = values[:, None, None] * np.array(PARTS)[:, None]
        error = truth.nats * truth.noise.accounted * rng.normal(size=predicted.shape)
        grid: Grid = (("run", number), *rest)
        parts.append((grid, {"predicted": predicted, "measured": truth.accounts * predicted + error}))
    table = named(latent, stacked(*parts))
    evaluation = table["evaluation"].astype(str).to_numpy()
    under = np.where(evaluation == OWN, table["condition"].astype(str), evaluation)
    return latent.grouped(table.assign(evaluation=under))


def _lengths(latent: Latent, rng: np.random.Generator) -> pd.DataFrame:
    """Phi = cosine x length x norm: the cosine goes with drift to the power `turned`, the length makes up the rest.

    Length and norm are the run's, whatever questions are asked.
    """
    truth, noise, size = latent.truth, latent.truth.noise, relative(_left(latent))
    most = abs(truth.nats / truth.accounts)
    slope = STEEP * np.exp(noise.draw(rng, noise.length, len(size)))
    length = most / (COSINE * STEEP) * size ** (1 - truth.turned) * np.exp(noise.draw(rng, noise.length, len(size)))
    grid: Grid = (*_runs(latent), ("evaluation", (NEUTRAL,)), *_steps(latent))
    parts = length[:, None, None] * np.array(PARTS)
    return named(latent, table_of(grid, length=parts, slope=slope[:, None, None]))


def _band(latent: Latent) -> tuple[int, ...]:
    return tuple(int(layer) for layer in np.flatnonzero(depths(latent.sizes.layers) >= 0.5))


def _shares(latent: Latent, phi: Array, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """The tables shares and share_nulls: parts of what goes by way of the band, and chance of prompts and questions."""
    truth, noise, sizes = latent.truth, latent.truth.noise, latent.sizes
    whole, prompt = BAND * phi, latent.runs["prompt"].to_numpy()

    def along(share: float) -> Array:
        """What goes along a direction [run, question]."""
        chance = noise.draw(rng, noise.along, prompt.max() + 1)[prompt]
        error = noise.draw(rng, noise.along, *whole.shape)
        value: Array = share * whole + truth.nats * (chance[:, None] + error)
        return value

    directions = {WHOLE: whole, TRAIT_DIRECTION: along(truth.carried)}
    if sizes.beside:
        directions[LEARNED] = along(0.5)
    positions = (IN_PROMPT, IN_ANSWER) if sizes.beside else (IN_ANSWER,)
    grid: Grid = (
        *_runs(latent), *_steps(latent), ("example", tuple(range(phi.shape[1]))), ("layer", _band(latent)),
        ("position", positions), ("direction", tuple(directions)),
    )  # fmt: skip
    value = np.stack(list(directions.values()), axis=-1)[
        :, None, :, None, None
    ]  # (runs, 1, questions, 1, 1, directions)
    value = value * np.array(PARTS)[:, None, None, None, None] / len(positions)
    table = latent.grouped(named(latent, table_of(grid, along=value)))
    return {"shares": table, "share_nulls": _nulls(latent, whole.mean(axis=1), rng)}


def _nulls(latent: Latent, whole: Array, rng: np.random.Generator) -> pd.DataFrame:
    truth, noise, prompt = latent.truth, latent.truth.noise, latent.runs["prompt"].to_numpy()
    count = latent.sizes.directions
    parts = []
    for null in NULLS:
        share = noise.draw(rng, noise.null_along.get(null, 5 * NULLS[null].spread), count)
        chance = truth.nats * noise.draw(rng, noise.along, prompt.max() + 1, count)[prompt]
        value = share * whole[:, None] + chance
        grid: Grid = (*_runs(latent), ("null", (null,)), ("draw", tuple(range(count))), ("layer", _band(latent)))
        parts.append((grid, {"along": value[:, None, :, None]}))
    return named(latent, stacked(*parts))


def _modules(latent: Latent, phi: Array) -> pd.DataFrame:
    layers = tuple(range(latent.sizes.layers))
    grid: Grid = (
        *_runs(latent), ("evaluation", (NEUTRAL,)), *_steps(latent), ("layer", layers), ("module", MODULES),
    )  # fmt: skip
    value = phi[:, None, None, None, None] * np.array(PARTS)[:, None, None] / (len(layers) * len(MODULES))
    return named(latent, table_of(grid, predicted=value))


def _kernel(latent: Latent, rng: np.random.Generator) -> pd.DataFrame:
    """Before training: what a prompt leaves of the neutral drift, as far as it is `foretold`; elicitation; chance."""
    truth, prompts = latent.truth, latent.measured
    told = truth.foretold * prompts["left"].to_numpy() - truth.elicited * prompts["elicitation"].to_numpy()
    trained = latent.prompts.loc[latent.prompts["trained"] & (latent.prompts["kind"] == "fixed"), "condition"]
    names = (*trained, *UNSEEN) if latent.sizes.beside else (NEUTRAL,)
    grid: Grid = (("condition", tuple(prompts["condition"])), ("evaluation", names), ("space", (FULL, LORA)))
    chance = truth.noise.draw(rng, truth.noise.kernel, *(len(levels) for _, levels in grid))
    value = 10 * (told[:, None, None] + chance)
    return table_of(grid, kernel=value, training_norm=np.array(2.0), evaluation_norm=np.array(STEEP))
