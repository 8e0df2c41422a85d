"""Where drift comes from: what C7 and its gate, their figures and the report read from the tables of attribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.measures import HARMLESS, INOCULATING, question_groups, run_families
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.evidence.wide import band_of, by_run, cube_of, once, over_seeds, side_by_side
from gradinoc.stats.effect import Array, finite
from gradinoc.stats.families import Families
from gradinoc.stats.shares.shapley import product_shares
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.prompts.family import Family

OWN = "own"  # in place of an evaluation prompt: that under which each run was trained
OF_RUN = ["condition", "seed", "evaluation"]
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
def stretches(evidence: Evidence) -> pd.DataFrame:
    """Every run, evaluation prompt and stretch up to a kept adapter: its change, nats, `predicted` and `measured`."""
    means = evidence.attribution.groupby([*OF_RUN, "step"], observed=True)[["predicted", "measured"]].mean()
    return means.reset_index()


@once
def points(evidence: Evidence) -> pd.DataFrame:
    """Every run, evaluation prompt and kept adapter: change since the start, nats, `predicted` and `measured`."""
    found = stretches(evidence)
    changes = ["predicted", "measured"]
    return found.assign(**found.groupby(OF_RUN, observed=True)[changes].cumsum())


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
        turns: the first factor, by question: cosine of update and gradient, or what reaches neutral.
    """

    parts: dict[str, Families]
    whole: Families
    turns: Families


@once
def factors(evidence: Evidence) -> Factors:
    """Phi = cosine x length of the way x norm of the gradient, split by Shapley over pairs of prompts.

    The length is the run's, whatever is asked. The norm is that of the mean gradient over questions, has no rows by
    question and is taken as known. What questions do to it alike in all runs leaves shares as they are, and what they
    do to one prompt's is in the spread of prompts. What they do to one family's norm is in no interval: it goes from
    the turn to the norm. In 570 simulated studies of `effect` the turn's interval covers 97 % without it, 86 % where it
    is 2 % of either family's norm, and 67 % where it is 4; the size's 96 % in each.
    """
    phi, way = families_of(evidence, accounted(evidence)), ways(evidence)
    by_prompt = way.groupby(level="condition", observed=True).mean()
    sides = {}
    for family in (HARMLESS, INOCULATING):
        rows = by_prompt.loc[prompts_of(evidence, family)].to_numpy(dtype=np.float64)
        length, slope = rows[:, :1], rows[:, 1:]  # [prompts, 1] each
        sides[family] = [phi[family] / (length * slope), length, slope]
    return _factors((TURN, SIZE, STEEPNESS), sides, phi)


@once
def transfer_factors(evidence: Evidence, column: str = "predicted") -> Factors:
    """Phi = what is learned under the run's own prompt x how much of it reaches neutral (T), split in the same way.

    T = phi / own is a ratio of two means over questions. A question's row is linear in both, T + (phi_q - T own_q) /
    own: the rows' mean is T, and they vary with questions as T does (delta method). `column` "measured" splits the
    change as it is.
    """
    phi, own = (families_of(evidence, accounted(evidence, under, column)) for under in (NEUTRAL, OWN))
    sides = {}
    for family in (HARMLESS, INOCULATING):
        learned, under_neutral = own[family], phi[family]
        level = learned.mean(axis=1, keepdims=True)
        reached = under_neutral.mean(axis=1, keepdims=True) / level
        sides[family] = [reached + (under_neutral - reached * learned) / level, learned]
    return _factors((TRANSFER, LEARNED_LESS), sides, phi)


def prompts_of(evidence: Evidence, family: str) -> list[str]:
    """The prompts of a family that runs were trained under, in the order of `families_of`."""
    trained = over_seeds(accounted(evidence))
    rows = evidence.prompts
    return [name for name in evidence.family(Family(family), list(rows["condition"])) if name in trained]


def _factors(names: tuple[str, ...], sides: dict[str, list[Array]], phi: Families) -> Factors:
    """The split of a product whose factors are `sides`, family -> [prompts, questions or 1] each; the first `turns`."""
    parts = _split(names, sides, phi)
    return Factors(parts, _sum(parts), Families({family: first for family, (first, *_) in sides.items()}, phi.groups))


def _split(names: tuple[str, ...], sides: dict[str, list[Array]], phi: Families) -> dict[str, Families]:
    """Each factor's part of the difference of two families' means, as tables whose contrast it is.

    A part is a mean over pairs of a harmless and an inoculating prompt. A prompt's row is its mean over partners, less
    half of the mean over all, so that rows differ as the part depends on them. By question a part is linear in each
    factor: Shapley's value at the factors' means over questions, and for each factor that at what the question adds.
    """
    pair = [
        [each[:, None] for each in sides[HARMLESS]],  # [prompts, 1, questions or 1]
        [each[None] for each in sides[INOCULATING]],
    ]
    means = [[each.mean(axis=-1, keepdims=True) for each in side] for side in pair]
    parts = product_shares(means[1], means[0])
    for number in range(len(names)):
        first, second = (
            [each - mean if place == number else mean for place, (each, mean) in enumerate(zip(*side, strict=True))]
            for side in zip(pair, means, strict=True)
        )
        if first[number].shape[-1] > 1:
            parts = [part + added for part, added in zip(parts, product_shares(second, first), strict=True)]
    found = {}
    for name, pairs in zip(names, parts, strict=True):
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
        tables = {key: table + part[key] for key, table in tables.items()}
    return Families(tables, first.groups)


def in_band(evidence: Evidence, direction: str) -> pd.DataFrame:
    """The rows of `shares` of a direction (or `WHOLE`) at the band's layers."""
    rows = evidence.shares
    return rows[(rows["direction"] == direction) & rows["layer"].isin(band_of(evidence))]


@once
def along(evidence: Evidence, direction: str) -> pd.DataFrame:
    """What went along a direction (or `WHOLE`) over the whole run, band mean, nats: index example, a column a run."""
    rows = in_band(evidence, direction)
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
    cube, _ = cube_of(rows, ("draw", "condition"), "along")
    return side_by_side(cube, "share_nulls", [str(name) for name in cube.levels[1]], strict=False)


def difference_by(evidence: Evidence, rows: pd.DataFrame, key: str, column: str, count: int = 1) -> pd.DataFrame:
    """Sums of `column` of runs' `rows` over `count`: index `key`, columns harmless, inoculating, difference.

    Mean over seeds, then over a family's prompts; the difference is harmless - inoculating.

    Raises:
        ValueError: no row, or a value that is not finite.
        KeyError: a prompt that runs were trained under has no row.
    """
    finite(rows[column].to_numpy(), f"column {column!r} by {key}")
    sums = rows.groupby([key, "condition", "seed"], observed=True, sort=False)[column].sum() / count
    means = sums.groupby(level=[key, "condition"], sort=False).mean().reset_index()
    wide = means.pivot_table(index=key, columns="condition", values=column, sort=False)
    harmless, inoculating = (wide[prompts_of(evidence, family)].mean(axis=1) for family in (HARMLESS, INOCULATING))
    return pd.DataFrame({"harmless": harmless, "inoculating": inoculating, "difference": harmless - inoculating})
