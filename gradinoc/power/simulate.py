"""Simulated studies whose truth is known: the evidence that a judge of claims is itself judged by."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gradinoc.claims.tables import (
    AFTER,
    BASE,
    BASE_SEED,
    BEFORE,
    CANDIDATE,
    EARLY,
    MEASURES,
    SCORED,
    Evidence,
)
from gradinoc.power.grids import Grid, answered, rows_of, table_of
from gradinoc.power.scenarios import FURTHER, RESPONSES, SCENARIOS, WORDS, Scenario, Sizes
from gradinoc.study.description import NULLS, POSITIONS
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL, UNRELATED

Array = npt.NDArray[np.float64]

CONDITIONS = (NEUTRAL, INOCULATION, LOSS_MATCHED)
ALIGNMENT, LOSS = 0.30, 2.0  # of the average example under the neutral prompt: cosine, nats/token
BATCH = 4
CANDIDATES, CALIBRATION = 5, 12  # prompts of the pool that are no condition's, examples on which the pool is measured


def simulate(scenario: str | Scenario, rng: np.random.Generator, **sizes: Any) -> Evidence:
    """The evidence of one study in `scenario` (a name in `SCENARIOS`, or one of your own), of these `Sizes`.

    Examples differ in difficulty, which moves their loss and (by `slope`) their alignment; alignments of one
    example share a random effect over conditions, runs of one seed a random effect over conditions, batches
    of one seed and step are the same under every condition. With templates, examples come from that many: those
    of one share a random effect on each condition's alignment, and `alignments` and `drift` have a column `group`.
    """
    return _Simulation(SCENARIOS[scenario] if isinstance(scenario, str) else scenario, Sizes(**sizes), rng).evidence()


class _Simulation:
    """One study on its way to its tables; conditions come first in every array."""

    def __init__(self, truth: Scenario, sizes: Sizes, rng: np.random.Generator) -> None:
        self.truth, self.noise, self.sizes, self.rng = truth, truth.noise, sizes, rng
        self.templates = truth.templates if sizes.templates is None else sizes.templates
        self.depth = np.linspace(0.2, 1.0, sizes.layers)  # separation and alignment both grow with depth
        self.conditions = (*CONDITIONS, FURTHER) if truth.further else CONDITIONS
        fourth = truth.further  # the third with inoculation's loss
        self.gap = np.array([*truth.gap, *truth.gap[2:] * fourth])
        self.fall = np.array([*truth.loss, *truth.loss[1:2] * fourth])
        self.ratio = np.array([*self.noise.ratio, *self.noise.ratio[2:] * fourth])

    def evidence(self) -> Evidence:
        """Every table."""
        truth, seeds = self.truth, self.sizes.seeds
        common, own = self.draw(self.noise.seed, 1, seeds), self.run_noise(self.noise.run)
        rise = np.array(truth.drift)[:, None] + truth.seed_follows * common + truth.follows * own
        drift, responses = self.drift(rise + self.run_noise(self.noise.run_drift))
        nulls, chance = self.nulls()
        alignments, losses = self.alignments(chance)
        training, training_nulls, runs = self.training(common + own)
        if self.templates:
            alignments = alignments.assign(group=alignments["example"].to_numpy() % self.templates)
            drift = drift.assign(group=drift["example"].to_numpy() % self.templates)
        layers, projections = self.layers()
        beside: dict[str, pd.DataFrame] = {}
        if self.sizes.beside:
            beside = dict(zip(("matched", "matched_steps"), self.matched(losses), strict=True)) | {"pool": self.pool()}
        return Evidence(
            layers=layers,
            projections=projections,
            alignments=alignments,
            nulls=nulls,
            training=training,
            training_nulls=training_nulls,
            drift=drift,
            responses=responses,
            runs=runs,
            conditions=self.conditions,
            seeds=tuple(range(seeds)),
            unrelated=self.unrelated(),
            untrained=self.conditions[3:],
            **beside,
        )

    def draw(self, spread: float, *shape: int) -> Array:
        """Noise of standard deviation `spread`: normal, or Student's t."""
        if math.isinf(self.noise.degrees):
            return self.rng.normal(0, spread, shape)
        df = self.noise.degrees
        return spread * math.sqrt((df - 2) / df) * self.rng.standard_t(df, shape)

    def run_noise(self, spread: float) -> Array:
        """Noise of each run [condition, seed], of which the seeds of a condition share a part."""
        share = self.noise.shared
        own = self.draw(math.sqrt(1 - share) * spread, 3, self.sizes.seeds)
        return own + self.draw(math.sqrt(share) * spread, 3, 1) if share else own

    def layers(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The layers table and the projections of 40 held-out prompts a side."""
        separation = 6.0 * self.depth
        layers = tuple(range(len(separation)))
        table = pd.DataFrame(
            {
                "layer": layers,
                "cohens_d": separation,
                "auc": 0.5 + 0.5 * np.tanh(0.6 * separation),
                "split_half_cosine": 0.80 + 0.19 * self.depth,
                "in_band": separation >= separation.max() / 2,
            }
        )
        side = np.array([0.5, -0.5])[None, :, None] * separation + self.rng.normal(0, 1, (40, 2, len(layers)))
        grid = (("example", tuple(range(40))), ("side", ("promote", "suppress")), ("layer", layers))
        return table, table_of(grid, projection=side)

    def alignments(self, chance: Array) -> tuple[pd.DataFrame, Array]:
        """The alignments table, and each example's loss [condition, example]; `chance` [condition, layer] adds."""
        noise, shape = self.noise, (len(self.conditions), self.sizes.examples)
        difficulty = self.draw(noise.difficulty, shape[1])
        true = LOSS + difficulty - self.fall[:, None] + np.zeros(shape)
        loss = true + self.draw(noise.loss, *shape)
        followed = true if self.truth.latent else loss
        level = ALIGNMENT - self.gap[:, None] + self.truth.slope * (followed - LOSS) + self.truth.between * difficulty
        own = self.draw(noise.alignment, *shape) * self.ratio[:, None]
        own = own * np.exp(noise.growth * (loss - LOSS)) if noise.growth else own
        level = level + self.draw(noise.example, shape[1]) + own
        if self.templates:
            by_template = self.draw(noise.template, shape[0], self.templates)
            level = level + by_template[:, np.arange(shape[1]) % self.templates]
        layered = level[..., None] * self.depth + self.draw(noise.layer, *shape, self.sizes.layers)
        grid = (("condition", self.conditions), ("example", tuple(range(shape[1]))), *self.places())
        return table_of(grid, **self.gradients(layered + chance[:, None], loss)), loss

    def places(self) -> Grid:
        """The index columns layer and position."""
        return (("layer", tuple(range(self.sizes.layers))), ("position", POSITIONS[: self.sizes.positions]))

    def gradients(self, alignment: Array, loss: Array) -> dict[str, Array]:
        """The columns at every position, from alignments [..., layer] at the primary one and losses [...]."""
        reach = np.array([1.0, 0.8, 1.1])[: self.sizes.positions]  # of each position, relative to the primary one
        cosine = alignment[..., None] * reach
        cosine[..., 1:] += self.rng.normal(0, 0.02, cosine[..., 1:].shape)
        norm = 0.05 * loss[..., None, None] * np.exp(self.rng.normal(0, 0.1, cosine.shape))
        return {"loss": loss[..., None, None], "alignment": cosine, "projection": cosine * norm, "grad_norm": norm}

    def nulls(self) -> tuple[pd.DataFrame, Array]:
        """The nulls table, and what chance adds to the trait's own alignment [condition, layer] if it is one of them.

        One direction more than asked for is drawn of each kind: the trait's, where the scenario says so.
        """
        noise, count, flat = self.noise, self.sizes.directions + 1, np.ones_like(self.depth)
        shape = (count, len(self.conditions))
        level = ALIGNMENT - self.gap - self.truth.slope * self.fall
        drawn = {}
        for null in sorted(NULLS, key=lambda null: not NULLS[null].of_trait):
            of_trait = NULLS[null].of_trait
            left = self.draw(noise.flipped, count, 1) * level if of_trait else 0
            drawn[null] = (left + self.draw(noise.nulls[null], *shape))[..., None] * (self.depth if of_trait else flat)
        grid = (
            ("null", tuple(NULLS)),
            ("draw", tuple(range(count - 1))),
            ("condition", self.conditions),
            ("layer", tuple(range(self.sizes.layers))),
        )
        chance = drawn[self.truth.drawn_from][-1] if self.truth.drawn_from else np.zeros((shape[1], 1))
        return table_of(grid, alignment=np.stack([drawn[null][:-1] for null in NULLS])), chance

    def unrelated(self) -> pd.DataFrame:
        """The unrelated table; the first trait shows `unspecific` of the trait's own contrast."""
        noise, shape = self.noise, (len(UNRELATED), len(self.conditions), self.sizes.examples)
        mean = self.draw(noise.unrelated, *shape[:2])
        if self.truth.unspecific:
            mean[0] = -self.truth.unspecific * (self.gap + self.truth.slope * self.fall)
        level = mean[..., None] + self.draw(noise.unrelated_alignment, *shape)
        layered = level[..., None] * self.depth + self.draw(noise.layer, *shape, self.sizes.layers)
        grid = (
            ("trait", tuple(UNRELATED)),
            ("condition", self.conditions),
            ("example", tuple(range(shape[2]))),
            ("layer", tuple(range(self.sizes.layers))),
        )
        return table_of(grid, alignment=layered)

    def pool(self) -> pd.DataFrame:
        """The pool table: every condition's prompt and the candidates', whose losses lie between the conditions'."""
        count = len(self.conditions)
        fall = np.concatenate([self.fall, np.linspace(0, self.fall[1], CANDIDATES)])
        loss = LOSS - fall[:, None] + self.draw(self.noise.difficulty, CALIBRATION)
        loss = loss + self.draw(self.noise.loss, len(fall), CALIBRATION)
        distance = np.abs(loss[count:] - loss[1]).mean(axis=1)
        chosen = np.arange(len(fall)) == count + int(distance.argmin())
        prompts = [f"prompt {i}" for i in range(len(fall))]
        table = table_of((("prompt", tuple(prompts)), ("example", tuple(range(CALIBRATION)))), loss=loss)
        roles = np.repeat([*self.conditions, *[CANDIDATE] * CANDIDATES], CALIBRATION)
        return table.assign(role=roles, chosen=np.repeat(chosen, CALIBRATION))

    def matched(self, losses: Array) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The matched tables: neutral runs' checkpoints where their loss has come down to inoculation's `losses`[1].

        By then training has moved alignment as far as the loss goes with it, and no farther.
        """
        seeds, steps = self.sizes.seeds, tuple(range(1, self.sizes.steps + 1))
        target = float(losses[1].mean())
        fall = max(LOSS - target, 0.0)
        loss = losses[0] - fall + self.draw(self.noise.loss, seeds, self.sizes.examples)
        level = ALIGNMENT + self.truth.slope * (loss - LOSS) + self.draw(self.noise.alignment, *loss.shape)
        grid: Grid = (("seed", tuple(range(seeds))), ("step", (1,)), ("example", tuple(range(self.sizes.examples))))
        layered = (level[..., None] * self.depth)[:, None]
        table = table_of((*grid, *self.places()), **self.gradients(layered, loss[:, None]))
        checked = LOSS - fall * np.arange(1, len(steps) + 1)
        looked = table_of(
            (grid[0], ("step", steps)), loss=checked, target=np.array(target), chosen=np.array(steps) == 1
        )
        return table, looked

    def training(self, early: Array) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """The training, training_nulls and runs tables; `early` [condition, seed] adds to a run's alignment."""
        truth, (conditions, seeds), steps = self.truth, early.shape, self.sizes.steps
        shape = (conditions, seeds, steps, BATCH)
        batch = self.draw(1.0, *shape[1:])  # difficulty: the same examples under every condition
        learnt = 1 - 0.5 * np.arange(steps)[:, None] / steps
        fall = np.array(truth.loss)
        loss = (LOSS + self.noise.difficulty * batch - fall[:, None, None, None]) * learnt
        loss = loss + self.draw(self.noise.loss, *shape)
        level = ALIGNMENT - np.array(truth.gap) - truth.slope * fall
        run = level[:, None] + early
        alignment = run[..., None, None] * learnt + 0.02 * batch + self.draw(self.noise.step, *shape)
        index: Grid = (("condition", CONDITIONS), ("seed", tuple(range(seeds))))
        grid = (*index, ("step", tuple(range(steps))), ("row", tuple(range(BATCH))), *self.places())
        training = table_of(grid, **self.gradients(alignment[..., None] * self.depth, loss))
        training["example"] = training["step"] * BATCH + training.pop("row")
        count = 100 if self.sizes.beside else 0
        draws = (*index, ("draw", tuple(range(count))), ("layer", tuple(range(self.sizes.layers))))
        nulls = table_of(draws, alignment=self.rng.normal(0, 0.02, (conditions, seeds, count, self.sizes.layers)))
        fifth = max(1, steps // 5)
        per_step = loss.mean(axis=3)
        runs = table_of(
            index,
            steps=np.array(steps),
            seconds=np.array(60.0),
            initial_loss=per_step[:, :, :fifth].mean(axis=2),
            final_loss=per_step[:, :, -fifth:].mean(axis=2),
        )
        return training, nulls, runs

    def drift(self, rise: Array) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The drift and responses tables; `rise` [condition, seed] is each run's true rise, half of it early."""
        grids: dict[str, list[Grid]] = {}
        values: dict[str, Array] = {}
        for measure in MEASURES:
            everyday = measure == "score_ood"
            size = max(1, self.sizes.evaluation // 2) if everyday else self.sizes.evaluation
            brief = everyday or not self.sizes.beside
            done = {AFTER: 1.0} if brief else {EARLY: 0.5, AFTER: 1.0}  # of the drift, by phase
            shares = np.array(list(done.values()))
            before, after = (self.scored if measure in SCORED else self.shifted)(measure, rise, shares, size)
            rest: Grid = (("measure", (measure,)), ("example", tuple(range(size))))
            base: Grid = (("condition", (BASE,)), ("seed", (BASE_SEED,)), ("phase", (BEFORE,)))
            runs: Grid = (("condition", CONDITIONS), ("seed", tuple(range(self.sizes.seeds))), ("phase", tuple(done)))
            grids[measure] = [(*base, *rest), (*runs, *rest)]
            values[measure] = np.concatenate([before, after.ravel()])
        rows = rows_of(*(grid for pair in grids.values() for grid in pair))
        rate = np.concatenate([values[measure] for measure in SCORED])
        answers = answered(*(grid for measure in SCORED for grid in grids[measure]))
        responses = answers.assign(
            response=pd.array(RESPONSES, dtype="str").take(np.rint(rate * len(WORDS)).astype(np.int64)),
            score=rate,
            projection=3.0 * rate + self.rng.normal(0, 0.5, len(rate)),
        )
        return rows.assign(value=np.concatenate(list(values.values()))), responses

    def shifted(self, measure: str, rise: Array, done: Array, size: int) -> tuple[Array, Array]:
        """Log-odds or projections before [size], and afterwards [condition, seed, phase, size]."""
        odds = measure == "log_odds"
        base, shift, noise = (-4.0, rise, self.noise.response) if odds else (0.0, 0.5 * rise, 0.2)
        before = self.rng.normal(base, 1.0, size)
        after = before + (shift[..., None] * done)[..., None]
        return before, after + self.draw(noise, *rise.shape, len(done), size)

    def scored(self, measure: str, rise: Array, done: Array, size: int) -> tuple[Array, Array]:
        """Scores before [size], and afterwards [condition, seed, phase, size]."""
        rate = np.clip(np.array(self.truth.caps)[:, None] + 0.05 + 0 * rise, 0, 1)
        reach = 1.0 if measure == "score" else 0.9 + 0.1 * (rate == 1)
        chance = (rate * reach)[..., None] * done
        before = self.rng.binomial(len(WORDS), 0.03, size)
        after = self.rng.binomial(len(WORDS), chance[..., None], (*chance.shape, size))
        return before / len(WORDS), after / len(WORDS)
