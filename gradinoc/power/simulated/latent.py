"""What is true of each prompt and run of one simulated study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from gradinoc.claims.evidence.tables import FIXED, REPHRASED
from gradinoc.power.scenarios import GRADES, MIDDLE, Scenario, Sizes
from gradinoc.power.simulated import arms
from gradinoc.power.simulated.grids import Grid
from gradinoc.study.description import POSITIONS
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.prompts.family import Family, Kind

Array = npt.NDArray[np.float64]

CORE = (NEUTRAL, INOCULATION, LOSS_MATCHED)
FAMILIES = (Family.INOCULATION, Family.HARMLESS, Family.ANTI)
OPPOSITE = -0.2  # elicitation of prompts that ask for the opposite
UNSEEN = tuple(f"unseen_{number}" for number in range(1, 5))  # harmless prompts for evaluation alone


@dataclass(frozen=True)
class Latent:
    """The truth of one study.

    Attributes:
        truth: its scenario, with the direction that was drawn where the scenario draws one.
        sizes: how much it measures.
        prompts: a row a prompt that is measured or trained under: condition, family, kind, tokens, measured, trained;
            elicitation (full inoculation: 1), `loss` and `gap` that it takes off loss and alignment (nats/token, cosine
            at depth 1), `left` share of the neutral drift.
        runs: a row a run: condition, seed, `prompt` (its row in `prompts`), `shift` of its alignment by chance
            (cosine), `left` share of the neutral drift, `taken` share of the gradient's component along v; those with
            an intervention come last.
    """

    truth: Scenario
    sizes: Sizes
    prompts: pd.DataFrame
    runs: pd.DataFrame

    @property
    def templates(self) -> int:
        """From how many templates questions come; 0: each stands by itself."""
        return self.truth.templates if self.sizes.templates is None else self.sizes.templates

    @property
    def measured(self) -> pd.DataFrame:
        """The prompts that are measured on the frozen model."""
        return self.prompts[self.prompts["measured"]].reset_index(drop=True)

    @property
    def ordinary(self) -> int:
        """How many runs have no intervention."""
        return len(self.runs) - len(arms.planned(self.sizes))

    @property
    def places(self) -> Grid:
        """The index columns layer and position."""
        return (("layer", tuple(range(self.sizes.layers))), ("position", POSITIONS[: self.sizes.positions]))

    def groups(self, questions: int) -> npt.NDArray[np.int64]:
        """The template of each of so many questions [questions]; each its own where there are none."""
        return np.arange(questions) % (self.templates or max(questions, 1))

    def grouped(self, table: pd.DataFrame) -> pd.DataFrame:
        """`table` with the template of its examples in a column `group`, where there are templates."""
        return table.assign(group=table["example"].to_numpy() % self.templates) if self.templates else table


def draw(truth: Scenario, sizes: Sizes, rng: np.random.Generator) -> Latent:
    """The true prompts and runs of one study: what the scenario says, and chance."""
    noise = truth.noise
    if truth.drawn_from:
        truth = replace(truth, fall=float(noise.draw(rng, noise.spread(truth.drawn_from) / MIDDLE, 1)[0]))
    for name in truth.by_chance:
        spread = {"steering": noise.steering, "alignment": noise.training_null, "caused": noise.matched}[name]
        drawn: dict[str, Any] = {name: float(noise.draw(rng, spread, 1)[0])}
        truth = replace(truth, **drawn)
    prompts = _prompts(truth, sizes, rng)
    return Latent(truth, sizes, prompts, _runs(truth, sizes, prompts, rng))


def _prompts(truth: Scenario, sizes: Sizes, rng: np.random.Generator) -> pd.DataFrame:
    """Every prompt with what is true of it; the plan's own three come first."""
    table, noise = _names(sizes), truth.noise
    count = len(table)
    inoculating = (table["family"] == Family.INOCULATION).to_numpy()
    told = (table["family"] != Family.NEUTRAL).to_numpy()
    elicitation = noise.draw(rng, noise.prompt_elicitation, count) * told
    elicitation += OPPOSITE * (table["family"] == Family.ANTI).to_numpy()
    elicitation[inoculating] = rng.uniform(*GRADES, int(inoculating.sum()))
    if truth.core is not None:
        elicitation[1] = truth.core
    scale = np.where(inoculating, noise.ratio, 1.0) * told
    loss = truth.loss * elicitation + noise.draw(rng, noise.prompt_loss, count) * told
    own = noise.draw(rng, noise.prompt_alignment, count) * scale
    gap = truth.fall * elicitation + truth.any_prompt * told + truth.slope * loss + own
    removed = truth.conditional * told + truth.follows * gap + truth.elicits * elicitation
    left = 1 - removed + noise.draw(rng, noise.prompt_drift, count) * scale
    tokens = np.where(told, rng.integers(15, 50, count), 0).astype(np.float64)
    return table.assign(tokens=tokens, elicitation=elicitation, loss=loss, gap=gap, left=left)


def _names(sizes: Sizes) -> pd.DataFrame:
    """The prompts of a study's design: condition, family, kind, measured, trained."""
    rows = [(name, family, FIXED, True, True) for name, family in zip(CORE, (Family.NEUTRAL, *FAMILIES), strict=False)]
    for family, count, trained in zip(
        FAMILIES, (sizes.inoculating, sizes.harmless, sizes.opposite), sizes.trained, strict=True
    ):
        first = 0 if family is Family.ANTI else 1  # the plan's own is the first of its family
        rows += [(f"{family}_{place:02}", family, FIXED, True, place < trained) for place in range(first, count)]
    if sizes.rephrased:
        pair = (Family.INOCULATION, Family.HARMLESS)
        rows += [(f"rephrased_{family}", family, REPHRASED, False, True) for family in pair]
    return pd.DataFrame(rows, columns=["condition", "family", "kind", "measured", "trained"])


def _runs(truth: Scenario, sizes: Sizes, prompts: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Every run: the plan's own prompts with every seed, the others with the first."""
    noise = truth.noise
    trained = prompts[prompts["trained"]]
    rows = [
        (name, seed, place)
        for place, name in zip(trained.index, trained["condition"], strict=True)
        for seed in range(sizes.seeds if name in CORE else 1)
    ]
    table = pd.DataFrame(rows, columns=["condition", "seed", "prompt"])
    table = table.assign(left=prompts["left"].to_numpy()[table["prompt"]], taken=0.0, learns=1.0)
    table = pd.concat([table, arms.runs(truth, sizes, prompts, rng)], ignore_index=True) if sizes.matched else table
    seed = table["seed"].to_numpy()
    shift = noise.draw(rng, noise.seed, sizes.seeds)[seed] + noise.draw(rng, noise.run, len(table))
    chance = noise.draw(rng, noise.seed_drift, sizes.seeds)[seed] + noise.draw(rng, noise.run_drift, len(table))
    left = table["left"].to_numpy() + truth.follows * shift + chance
    return table.assign(shift=shift, left=left)


def evaluated() -> pd.DataFrame:
    """The prompts that are for evaluation alone: columns of `Latent.prompts`."""
    rows = [(name, Family.HARMLESS, Kind.UNSEEN, False, False) for name in UNSEEN]
    return pd.DataFrame(rows, columns=["condition", "family", "kind", "measured", "trained"]).assign(tokens=20.0)
