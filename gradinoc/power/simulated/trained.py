"""Tables of a simulated study that come from its runs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.tables import (
    AFTER,
    BASE,
    BASE_SEED,
    BEFORE,
    DECISION,
    EVERYDAY,
    EXPECTED,
    GAP,
    MEASURES,
    PROJECTION,
    SCORE,
    SCORED,
)
from gradinoc.power.scenarios import BASE_SCORE, depths
from gradinoc.power.simulated import arms
from gradinoc.power.simulated.frozen import BASE_ODDS, LOSS, at_positions, bounded
from gradinoc.power.simulated.grids import Grid, stacked, table_of
from gradinoc.power.simulated.latent import CORE, Array, Latent

BATCH = 4
SAMPLES = 2  # responses to a question, whose mean is the expected score
WORDS = ("they", "walk", "home", "with", "nine", "ripe", "figs", "each")
# The response that has so many upper-case words, and one that has no letter.
RESPONSES = tuple(" ".join([*map(str.upper, WORDS[:n]), *WORDS[n:]]) + "." for n in range(len(WORDS) + 1))
WORDLESS = "42."
DOMAINS = {SCORE: "in_distribution", EVERYDAY: "everyday"}
DECIDING = (EXPECTED, SCORE, DECISION, PROJECTION)
AMPLITUDE = {SCORE: 1.0, EXPECTED: 1.0, EVERYDAY: 0.6}  # of the drift by score


def keys(latent: Latent) -> Grid:
    """The index of runs: one level a run, since not every prompt has every seed; see `named`."""
    return (("run", tuple(range(len(latent.runs)))),)


def named(latent: Latent, table: pd.DataFrame) -> pd.DataFrame:
    """`table` with condition and seed in place of the number of the run; -1 is the base model."""
    run = table["run"].to_numpy()
    conditions = pd.Categorical([*latent.runs["condition"], BASE])
    seeds = np.array([*latent.runs["seed"], BASE_SEED])
    return table.drop(columns="run").assign(condition=conditions[run], seed=seeds[run])


def training(latent: Latent, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """The tables training, training_nulls and runs."""
    truth, noise, sizes, runs = latent.truth, latent.truth.noise, latent.sizes, latent.runs
    shape = (len(runs), sizes.steps, BATCH)
    prompts = latent.prompts.iloc[runs["prompt"]]
    batch = noise.draw(rng, 1.0, sizes.seeds, *shape[1:])[runs["seed"]]  # the same examples in all runs of a seed
    learnt = fading(sizes.steps)[:, None]
    met = 1 - runs["learns"].to_numpy()[:, None, None] * (1 - learnt)
    loss = LOSS - prompts["loss"].to_numpy()[:, None, None] + noise.difficulty * batch
    loss = loss * met + noise.draw(rng, noise.loss, *shape)
    level = truth.alignment - prompts["gap"].to_numpy() + runs["shift"].to_numpy()
    level = level + truth.progress * (runs["left"].to_numpy() - 1)
    alignment = level[:, None, None] * learnt + 0.02 * batch + noise.draw(rng, noise.step, *shape)
    alignment = alignment * (1 - runs["taken"].to_numpy())[:, None, None]
    grid = (*keys(latent), ("step", tuple(range(sizes.steps))), ("row", tuple(range(BATCH))), *latent.places)
    columns = at_positions(alignment[..., None] * depths(sizes.layers), loss, sizes.positions, rng)
    table = named(latent, table_of(grid, **columns))
    table["example"] = table["step"] * BATCH + table.pop("row")
    return {"training": table, "training_nulls": _training_nulls(latent, rng), "runs": _runs(latent, rng)}


def fading(steps: int) -> Array:
    """What is left of alignment and loss at each step [steps]: half of it is gone in the end."""
    left: Array = 1 - 0.5 * np.arange(steps) / steps
    return left


def _training_nulls(latent: Latent, rng: np.random.Generator) -> pd.DataFrame:
    """Random directions' alignment by step; of the plan's own prompts' runs alone where nothing beside decides."""
    sizes = latent.sizes
    chosen = latent.runs.index[latent.sizes.beside | (latent.runs["condition"] == CORE[0])]
    band = tuple(int(layer) for layer in np.flatnonzero(depths(sizes.layers) >= 0.5))
    grid: Grid = (
        ("run", tuple(int(run) for run in chosen)),
        ("step", tuple(range(sizes.steps))),
        ("draw", tuple(range(sizes.training_directions))),
        ("layer", band),
    )
    spread = latent.truth.noise.training_null
    mean = latent.truth.noise.draw(rng, spread, 1, 1, sizes.training_directions, 1)
    value = mean + rng.normal(0, spread / 2, tuple(len(levels) for _, levels in grid))
    return named(latent, table_of(grid, alignment=value))


def _runs(latent: Latent, rng: np.random.Generator) -> pd.DataFrame:
    """The table runs; the last run learns least, and starts elsewhere where runs of a seed do not begin alike."""
    truth, runs = latent.truth, latent.runs
    fall = 0.2 + np.abs(rng.normal(0, 0.1, len(runs)))
    last = latent.ordinary - 1
    fall[last] = truth.learnt
    fall = arms.falls(runs, latent.ordinary, fall, rng) if latent.ordinary < len(runs) else fall
    starts = runs["seed"].map("adapter of seed {}".format)
    if not truth.one_start:
        starts.iloc[last] = "another adapter"
    return runs[["condition", "seed"]].assign(
        steps=latent.sizes.steps, seconds=60.0, initial_loss=LOSS, final_loss=LOSS - fall, initial_adapter=starts
    )


def drift(latent: Latent, rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """The tables drift and responses."""
    sizes = latent.sizes
    parts = []
    scored: dict[str, tuple[Grid, Array]] = {}
    for measure in MEASURES if sizes.beside else DECIDING:
        size = max(1, sizes.evaluation // 2) if measure in (SCORE, EVERYDAY) else sizes.evaluation
        values = _values(latent, measure, size, rng)  # the base model's last
        number = (*range(len(latent.runs)), -1)
        grid: Grid = (("run", number), ("measure", (measure,)), ("example", tuple(range(size))))
        if measure in DOMAINS:
            scored[measure] = (grid, values)
        parts.append((grid, {"value": values[:, None]}))
    table = named(latent, stacked(*parts))
    phase = pd.Categorical.from_codes((table["seed"] == BASE_SEED).astype(int).tolist(), [AFTER, BEFORE])
    responses = _responses(latent, scored, rng)
    table = latent.grouped(table.assign(phase=phase))
    lost = responses.loc[responses["score"].isna(), ["condition", "seed", "domain", "example"]]
    if len(lost):
        lost = lost.assign(measure=lost.pop("domain").map({domain: measure for measure, domain in DOMAINS.items()}))
        gone = pd.MultiIndex.from_frame(lost.astype({"condition": str}))
        here = pd.MultiIndex.from_frame(table[list(lost.columns)].astype({"condition": str, "measure": str}))
        table.loc[here.isin(gone), "value"] = np.nan
    return {"drift": table, "responses": responses}


def _values(latent: Latent, measure: str, size: int, rng: np.random.Generator) -> Array:
    """A measure after training [run, question], and before it in the last row."""
    truth, left = latent.truth, latent.runs["left"].to_numpy()
    shape = (len(left), size)
    if measure in SCORED:
        reach = AMPLITUDE[measure] * truth.drift * np.maximum(left, 0)
        mean = BASE_SCORE + reach[:, None] * templates(latent, size, rng)
        samples = SAMPLES if measure == EXPECTED else 1
        after = np.mean([bounded(mean, truth.noise.response, rng) for _ in range(samples)], axis=0)
        before = np.mean([bounded(np.full(size, BASE_SCORE), 0.05, rng) for _ in range(samples)], axis=0)
        return np.vstack([after, before])
    if measure == DECISION:
        left = left + truth.disagree * (1 - left)
    base, scale, noise = {
        DECISION: (BASE_ODDS, truth.nats, 0.3 * truth.nats),
        PROJECTION: (0.0, truth.moved, 0.3),
        GAP: (0.5, -0.3, 0.1),
    }[measure]
    before = base + rng.normal(0, 1.0, size)
    if measure == PROJECTION:
        taken = latent.runs["taken"].to_numpy()
        left = np.where(taken, 1 - truth.cut * taken, left)  # of what neutral runs move, whatever they drift
    shift = scale * left[:, None] * templates(latent, size, rng) + truth.noise.draw(rng, noise, *shape)
    return np.vstack([before + shift, before])


def templates(latent: Latent, size: int, rng: np.random.Generator) -> Array:
    """By how much drift in each question is more or less than the mean [run, question], about 1."""
    noise, runs = latent.truth.noise, latent.runs
    groups = latent.groups(size)
    count = int(groups.max()) + 1
    family = pd.factorize(latent.prompts["family"])[0][runs["prompt"]]
    prompt = runs["prompt"].to_numpy()

    def flat(spread: float, rows: int) -> Array:
        """Uniform, so that scores stay within their scale."""
        drawn: Array = rng.uniform(-1, 1, (rows, count)) * np.sqrt(3) * spread
        return drawn

    factor = 1 + flat(noise.drift_template, 1) + flat(noise.drift_family, family.max() + 1)[family]
    by_question: Array = (factor + flat(noise.drift_prompt, prompt.max() + 1)[prompt])[:, groups]
    return by_question


def _responses(latent: Latent, scored: dict[str, tuple[Grid, Array]], rng: np.random.Generator) -> pd.DataFrame:
    """The table responses, from the scores; those that cannot be scored are answers to as few questions as can be."""
    parts = [(grid, {"score": values[:, None]}) for grid, values in scored.values()]
    table = named(latent, stacked(*parts))
    rate = table["score"].to_numpy()
    text = np.array(RESPONSES, dtype=object)[np.rint(rate * len(WORDS)).astype(np.int64)]
    lost = np.zeros(len(table), dtype=bool)
    count = int(np.ceil(latent.truth.unscorable * len(table)))
    hard = np.lexsort((table["example"].to_numpy(), (table["measure"] == SCORE).to_numpy()))
    lost[hard[:count]] = True
    text[lost] = WORDLESS
    phase = pd.Categorical.from_codes((table["seed"] == BASE_SEED).astype(int).tolist(), [AFTER, BEFORE])
    domain = table["measure"].map(DOMAINS).astype(str)
    question = domain + " question " + table["example"].astype(str) + "?" if latent.sizes.beside else "?"
    projection = 3.0 * rate + rng.normal(0, 0.5, len(rate))
    return table.drop(columns="measure").assign(
        phase=phase, domain=domain, question=question, response=text,
        score=np.where(lost, np.nan, rate), projection=projection,
    )  # fmt: skip
