"""Tables of a simulated study that are measured on the frozen model."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.tables import PROMOTE, SUPPRESS, TRAIT_DRAW
from gradinoc.power.scenarios import BASE_SCORE, MIDDLE, depths
from gradinoc.power.simulated.grids import Grid, stacked, table_of
from gradinoc.power.simulated.latent import CORE, Array, Latent
from gradinoc.study.prompts import UNRELATED
from gradinoc.study.prompts.family import Family
from gradinoc.study.settings import NULLS

LOSS, ORDINARY_LOSS = 2.0, 1.5  # of the average example under the neutral prompt, nats/token
BASE_ODDS = -8.0  # decision log-odds of the average question under the neutral prompt
STRENGTHS = (-1.0, 0.0, 1.0, 2.0)
REACH = (1.0, 0.8, 1.1)  # alignment at each position, relative to the primary one


def layers(latent: Latent, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """The tables layers, and projections of 40 held-out prompts a side."""
    truth, depth = latent.truth, depths(latent.sizes.layers)
    table = pd.DataFrame(
        {
            "layer": range(len(depth)),
            "cohens_d": 6.0 * depth,
            "auc": 1 - (1 - truth.auc) * (2 - depth / depth[depth >= 0.5].min()).clip(1),
            "split_half_cosine": 1 - (1 - truth.split_half) * (2 - depth / depth[depth >= 0.5].min()).clip(1),
            "in_band": depth >= 0.5,
        }
    )
    grid = (("example", tuple(range(40))), ("side", (PROMOTE, SUPPRESS)), ("layer", tuple(range(len(depth)))))
    side = np.array([0.5, -0.5])[None, :, None] * 6.0 * depth + rng.normal(0, 1, (40, 2, len(depth)))
    return {"layers": table, "projections": table_of(grid, projection=side)}


def gradients(latent: Latent, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """The tables alignments and losses."""
    truth, noise, sizes, prompts = latent.truth, latent.truth.noise, latent.sizes, latent.measured
    shape = (len(prompts), sizes.examples)
    difficulty = noise.draw(rng, noise.difficulty, shape[1])
    loss = LOSS + difficulty - prompts["loss"].to_numpy()[:, None] + noise.draw(rng, noise.loss, *shape)
    apart = (prompts["gap"] - truth.slope * prompts["loss"]).to_numpy()[:, None]  # what loss does not take off
    level = truth.alignment - apart + truth.slope * (loss - LOSS) + truth.between * difficulty
    level = level + noise.draw(rng, noise.example, shape[1]) + noise.draw(rng, noise.alignment, *shape)
    level = level + by_template(latent, rng, prompts["family"], shape[1], (noise.family_template, noise.template))
    layered = level[..., None] * depths(sizes.layers) + noise.draw(rng, noise.layer, *shape, sizes.layers)
    columns = at_positions(layered, loss, sizes.positions, rng)
    names = tuple(prompts["condition"])
    parts = [
        (chosen, slice(*bounds), count)
        for chosen, bounds, count in ((CORE, (0, 3), sizes.examples), (names[3:], (3, None), sizes.shared))
        if chosen
    ]
    table = stacked(
        *(
            (
                (("condition", chosen), ("example", tuple(range(count))), *latent.places),
                {name: values[rows, :count] for name, values in columns.items()},
            )
            for chosen, rows, count in parts
        )
    )
    shared = sizes.shared
    ordinary = ORDINARY_LOSS + difficulty[:shared] + noise.draw(rng, noise.loss, shape[0], shared)
    losses = table_of(
        (("condition", names), ("example", tuple(range(shared)))), trait_loss=loss[:, :shared], ordinary_loss=ordinary
    )
    return {"alignments": latent.grouped(table), "losses": latent.grouped(losses)}


def by_template(
    latent: Latent, rng: np.random.Generator, families: pd.Series, questions: int, spreads: tuple[float, float]
) -> Array:
    """What templates add [prompts, questions]: alike for a family's prompts, and for one prompt."""
    groups, noise = latent.groups(questions), latent.truth.noise
    count = int(groups.max(initial=0)) + 1
    codes, found = pd.factorize(families)
    shared = noise.draw(rng, spreads[0], len(found), count)[codes]
    added: Array = (shared + noise.draw(rng, spreads[1], len(codes), count))[:, groups]
    return added


def at_positions(alignment: Array, loss: Array, positions: int, rng: np.random.Generator) -> dict[str, Array]:
    """The columns at every position, from alignments [..., layer] at the primary one and losses [...]."""
    cosine = alignment[..., None] * np.array(REACH[:positions])
    cosine[..., 1:] += rng.normal(0, 0.02, cosine[..., 1:].shape)
    norm = 0.05 * np.abs(loss)[..., None, None] * np.exp(rng.normal(0, 0.1, cosine.shape))
    losses = np.broadcast_to(loss[..., None, None], cosine.shape)
    return {"loss": losses, "alignment": cosine, "projection": cosine * norm, "grad_norm": norm}


def directions(latent: Latent, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """The tables nulls and unrelated: alignment falls with elicitation by an amount that is the direction's own."""
    noise, sizes, prompts = latent.truth.noise, latent.sizes, latent.measured
    elicitation, names = prompts["elicitation"].to_numpy(), tuple(prompts["condition"])
    spreads = np.array([noise.spread(null) for null in NULLS])
    fall = noise.draw(rng, 1.0, len(NULLS), sizes.directions) * spreads[:, None] / MIDDLE
    level = -fall[..., None] * elicitation + noise.draw(rng, noise.null_prompt, *fall.shape, len(prompts))
    grid: Grid = (("null", tuple(NULLS)), ("draw", tuple(range(sizes.directions))), ("condition", names))
    depth: Grid = (("layer", tuple(range(sizes.layers))),)
    nulls = table_of((*grid, *depth), alignment=level[..., None])
    return {"nulls": nulls, "unrelated": _unrelated(latent, rng, names, elicitation)}


def _unrelated(latent: Latent, rng: np.random.Generator, names: tuple[str, ...], elicitation: Array) -> pd.DataFrame:
    """The table unrelated; the first trait shows `unspecific` of the trait's own fall."""
    truth, noise, sizes = latent.truth, latent.truth.noise, latent.sizes
    fall = noise.draw(rng, noise.unrelated, len(UNRELATED)) / MIDDLE
    if truth.unspecific:
        fall[0] = truth.unspecific * (truth.fall + truth.slope * truth.loss)
    level = -fall[:, None] * elicitation + noise.draw(rng, noise.null_prompt, len(fall), len(names))
    by_example = level[..., None] + noise.draw(rng, noise.alignment, *level.shape, sizes.shared)
    grid: Grid = (("trait", tuple(UNRELATED)), ("condition", names), ("example", tuple(range(sizes.shared))))
    layered = by_example[..., None] * depths(sizes.layers)
    return table_of((*grid, ("layer", tuple(range(sizes.layers)))), alignment=layered)


def elicitation(latent: Latent, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """The tables elicitation and behaviour; the promoting and suppressing prompt are in both."""
    truth, noise, sizes, prompts = latent.truth, latent.truth.noise, latent.sizes, latent.measured
    sides = {PROMOTE: truth.promoted, SUPPRESS: 0.0}
    names, levels = (*prompts["condition"], *sides), np.array([*prompts["elicitation"], *sides.values()])
    common = noise.draw(rng, 1.0, sizes.elicitation)
    odds = BASE_ODDS + common + truth.odds * levels[:, None] + noise.draw(rng, noise.odds, len(names), len(common))
    asked = (("condition", names), ("example", tuple(range(sizes.elicitation))))
    shown = prompts["trained"] & prompts["family"].isin([Family.INOCULATION, Family.HARMLESS])
    shown &= (prompts["family"] == Family.HARMLESS) | (prompts["condition"] == CORE[1])
    shown |= prompts["condition"] == CORE[0]
    kept = np.array([*shown, True, True])
    some = tuple(np.array(names)[kept].tolist())
    score = bounded(BASE_SCORE + truth.behaviour * levels[kept, None] + np.zeros(sizes.behaviour), noise.behaviour, rng)
    behaved: Grid = (("condition", some), ("example", tuple(range(sizes.behaviour))), ("sample", (0,)))
    return {
        "elicitation": latent.grouped(table_of(asked, log_odds=odds)),
        "behaviour": latent.grouped(table_of(behaved, score=score[..., None])),
    }


def bounded(mean: Array, spread: float, rng: np.random.Generator) -> Array:
    """Scores between 0 and 1 of these means (first brought into it) and about this spread: Beta distributed."""
    mean = np.clip(mean, 0.0, 1.0)
    room = mean * (1 - mean)
    strength = np.maximum(room / max(spread, 1e-9) ** 2 - 1, 0.3)
    inside = (mean > 0) & (mean < 1)
    score: Array = rng.beta(np.where(inside, mean * strength, 1), np.where(inside, (1 - mean) * strength, 1))
    return np.where(inside, score, mean)


def steering(latent: Latent, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """The tables steering and steering_losses."""
    truth, noise, sizes = latent.truth, latent.truth.noise, latent.sizes
    slopes = np.concatenate([[truth.steering], noise.draw(rng, noise.steering, sizes.steered)])
    at, questions = np.array(STRENGTHS), tuple(range(sizes.steering))
    each = slopes[:, None] + by_template(latent, rng, pd.Series(range(len(slopes))), len(questions), (0.0, 0.3))
    base = BASE_ODDS + noise.draw(rng, 1.0, len(questions))
    odds = base + each[:, None] * at[:, None] + noise.draw(rng, 0.3, len(slopes), len(at), len(questions))
    draws = (TRAIT_DRAW, *range(sizes.steered))
    table = table_of((("draw", draws), ("strength", STRENGTHS), ("example", questions)), log_odds=odds)
    rise = truth.rise * np.abs(at)[:, None] / np.abs(at).max() * (1 + noise.draw(rng, 0.3, len(questions)))
    losses = table_of((("strength", STRENGTHS), ("example", questions)), loss=ORDINARY_LOSS + 0.1 * base + rise)
    return {"steering": latent.grouped(table), "steering_losses": latent.grouped(losses)}
