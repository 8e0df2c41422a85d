"""Where drift comes from: what C7 and its gate, their figures and the report read from the tables of attribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.measures import HARMLESS, INOCULATING, question_groups, run_families
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.evidence.wide import band_of, by_run, once, over_seeds
from gradinoc.stats.effect import Array, finite
from gradinoc.stats.families import Families
from gradinoc.stats.shares.shapley import product_shares
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.prompts.family import Family

OWN = "own"  # in place of an evaluation prompt: that under which each run was trained
TURN, SIZE, STEEPNESS = "turn", "size", "steepness"  # factors of phi: cosine, length of the way, norm of the gradient
LEARNED_LESS, TRANSFER = (
    "learned",
    "transfer",
)  # factors of phi: what is learned under the own prompt, what of it reaches


def _under(evidence: Evidence, table: pd.DataFrame, evaluation: str) -> pd.DataFrame:
    return table[table["evaluation"] == (table["condition"] if evaluation == OWN else evaluation)]


@once
def accounted(evidence: Evidence, evaluation: str = NEUTRAL, column: str = "predicted") -> pd.DataFrame:
    """What the steps of each run account for, over the whole run, nats: index example, a column a run.

    `column` "measured" is the change as it is; `evaluation` is a prompt's key, or `OWN`.
    """
    rows = _under(evidence, evidence.attribution, evaluation)
    sums = rows.groupby(["condition", "seed", "example"], observed=True, sort=False)[column].sum().reset_index()
    wide = by_run(sums, column)
    finite(wide.to_numpy(), f"Evidence table 'attribution', column {column!r}, evaluation {evaluation!r}")
    return wide


@once
def points(evidence: Evidence) -> pd.DataFrame:
    """Every run, evaluation prompt and kept adapter: change since the start, nats, `predicted` and `measured`."""
    keys = ["condition", "seed", "evaluation", "step"]
    means = evidence.attribution.groupby(keys, observed=True)[["predicted", "measured"]].mean()
    return means.groupby(level=keys[:-1]).cumsum().reset_index()


@once
def ways(evidence: Evidence) -> pd.DataFrame:
    """Length of the way of a run's weights, and norm of the neutral gradient, mean on it: index (condition, seed)."""
    rows = _under(evidence, evidence.lengths, NEUTRAL)
    rows = rows.assign(steep=rows["length"] * rows["slope"])
    sums = rows.groupby(["condition", "seed"], observed=True)[["length", "steep"]].sum()
    return sums.assign(slope=sums["steep"] / sums["length"])[["length", "slope"]]


def families_of(evidence: Evidence, wide: pd.DataFrame, table: str = "attribution") -> Families:
    """Runs of a table with a column a run by family: [prompts, questions], [seeds, questions] for neutral."""
    return run_families(evidence, wide, question_groups(evidence, table, wide.index))


@dataclass(frozen=True)
class Factors:
    """Neutral phi of harmless and inoculating prompts as a product, and how its difference splits among the factors.

    Attributes:
        parts: factor -> family -> [prompts, questions]: harmless mean - inoculating mean is the factor's part.
        whole: the same of phi itself: the sum of the parts.
        turns: cosine of update and gradient, by question.
    """

    parts: dict[str, Families]
    whole: Families
    turns: Families


@once
def factors(evidence: Evidence) -> Factors:
    """Phi = cosine x length of the way x norm of the gradient, split by Shapley over pairs of prompts."""
    phi, way = families_of(evidence, accounted(evidence)), ways(evidence)
    by_prompt = way.groupby(level="condition", observed=True).mean()
    scales = {}
    for family in (HARMLESS, INOCULATING):
        rows = by_prompt.loc[prompts_of(evidence, family)].to_numpy(dtype=np.float64)
        scales[family] = rows[:, :1], rows[:, 1:]  # [prompts, 1] each
    turns = {
        family: phi.values[family] / (length * slope)  # noqa: PD011 - no frame
        for family, (length, slope) in scales.items()
    }
    sides = {family: [turns[family], *scales[family]] for family in scales}
    parts = _split((TURN, SIZE, STEEPNESS), sides, phi)
    return Factors(parts, _sum(parts), Families(turns, phi.groups))


@once
def transfer_factors(evidence: Evidence) -> Factors:
    """Phi = what is learned under the run's own prompt x how much of it reaches neutral, split in the same way."""
    phi, own = families_of(evidence, accounted(evidence)), families_of(evidence, accounted(evidence, OWN))
    learned = {key: own.values[key].mean(axis=1, keepdims=True) for key in (HARMLESS, INOCULATING)}  # noqa: PD011
    reaching = {key: phi.values[key] / learned[key] for key in learned}  # noqa: PD011
    parts = _split((TRANSFER, LEARNED_LESS), {key: [reaching[key], learned[key]] for key in learned}, phi)
    return Factors(parts, _sum(parts), Families(reaching, phi.groups))


def prompts_of(evidence: Evidence, family: str) -> list[str]:
    """The prompts of a family that runs were trained under, in the order of `families_of`."""
    trained = over_seeds(accounted(evidence))
    rows = evidence.prompts
    return [name for name in evidence.family(Family(family), list(rows["condition"])) if name in trained]


def _split(names: tuple[str, ...], sides: dict[str, list[Array]], phi: Families) -> dict[str, Families]:
    """Each factor's part of the difference of two families' means, as tables whose contrast it is.

    A part is a mean over pairs of a harmless and an inoculating prompt. A prompt's row is its mean over partners, less
    half of the mean over all, so that rows differ as the part depends on them.
    """
    first = [each[:, None] for each in sides[HARMLESS]]  # [prompts, 1, questions]
    second = [each[None] for each in sides[INOCULATING]]
    found = {}
    for name, pairs in zip(names, product_shares(second, first), strict=True):
        table = np.broadcast_to(pairs, np.broadcast_shapes(pairs.shape, (1, 1, phi.questions)))
        half = table.mean(axis=(0, 1)) / 2
        found[name] = Families(
            {HARMLESS: table.mean(axis=1) - half, INOCULATING: half - table.mean(axis=0)}, phi.groups
        )
    return found


def _sum(parts: dict[str, Families]) -> Families:
    first, *rest = parts.values()
    tables = dict(first.values)
    for part in rest:
        tables = {key: table + part.values[key] for key, table in tables.items()}  # noqa: PD011
    return Families(tables, first.groups)


@once
def along(evidence: Evidence, direction: str) -> pd.DataFrame:
    """What went along a direction (or `WHOLE`) over the whole run, band mean, nats: index example, a column a run."""
    rows = evidence.shares
    rows = rows[(rows["direction"] == direction) & rows["layer"].isin(band_of(evidence))]
    sums = rows.groupby(["condition", "seed", "example"], observed=True, sort=False)["along"].sum() / len(
        band_of(evidence)
    )
    wide = by_run(sums.reset_index(), "along")
    finite(wide.to_numpy(), f"Evidence table 'shares', direction {direction!r}")
    return wide


@once
def along_nulls(evidence: Evidence, null: str) -> pd.DataFrame:
    """The same along each direction of a null, mean over examples: index draw, a column a prompt."""
    rows = evidence.share_nulls
    rows = rows[(rows["null"] == null) & rows["layer"].isin(band_of(evidence))]
    means = rows.groupby(["draw", "condition"], observed=True)["along"].mean()
    return means.unstack("condition")  # noqa: PD010 - a series has no pivot_table
