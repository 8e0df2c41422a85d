"""What figures and tables show, as numbers, of a study with gaps too: what is missing is left out, or NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from gradinoc.claims.tables import AFTER, BASE, BEFORE, EARLY, Evidence
from gradinoc.report.wording import side
from gradinoc.stats.clustered import grouped_mean
from gradinoc.stats.correlation import fisher_interval
from gradinoc.stats.effect import Effect, bare
from gradinoc.stats.equal_loss import Paired
from gradinoc.study.prompts import INOCULATION, NEUTRAL

PHASES = {BEFORE: "before", EARLY: "early", AFTER: "after"}  # of training, in words


def mean_interval(values: Any, groups: Any = None, unit: str = "examples") -> Effect:
    """The mean of the finite `values` with its 95 % t interval, clustered by `groups`; NaN and n 0 without values."""
    array = np.asarray(values, dtype=float)
    keep = np.isfinite(array)
    if not keep.any():
        return bare("mean", math.nan, 0, unit, "no values")
    labels = None if groups is None else np.asarray(pd.factorize(np.asarray(groups)[keep])[0], dtype=np.int64)
    return replace(grouped_mean(array[keep], labels, "mean"), unit=unit)


def template_of(evidence: Evidence, examples: Any) -> Any:
    """What the frozen model's `examples` were made from, one a value; None where that was not recorded."""
    if "group" not in evidence.alignments:
        return None
    return evidence.alignments.drop_duplicates("example").set_index("example")["group"].reindex(examples).to_numpy()


def over_examples(evidence: Evidence, values: pd.Series) -> Effect:
    """The mean of `values`, index example, its interval clustered by what the examples were made from."""
    return mean_interval(values, template_of(evidence, values.index))


def correlation(x: Any, y: Any) -> tuple[float, int]:
    """Pearson's r over the pairs without NaN, and their number; r is NaN where either side does not vary."""
    pairs = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return math.nan, len(pairs)
    centred = pairs - pairs.mean(axis=0)
    return float((centred[:, 0] @ centred[:, 1]) / np.sqrt((centred**2).sum(axis=0).prod())), len(pairs)


def correlation_finding(r: float, n: int, ways: Sequence[str], unit: str) -> str:
    """A correlation by its sign, if its interval has one: more, less, or neither shown."""
    if not math.isfinite(r):
        return "One side does not vary, so nothing can be said of how they go together."
    low, high = fisher_interval(r, n)
    way = side(replace(bare("r", r, n, unit, "Fisher's z"), low=low, high=high), *ways)
    return f"{way}: r = {r:.2f}, n = {n} {unit}.".replace("-", "−")


def in_band(evidence: Evidence, table: str, by: list[str]) -> pd.DataFrame:
    """Columns `by` and `alignment`: the mean over the band's layers at the primary position."""
    frame: pd.DataFrame = getattr(evidence, table)
    frame = frame[frame["layer"].isin(evidence.band) & (frame["position"] == evidence.primary_position)]
    return frame.groupby(by, sort=True)["alignment"].mean().reset_index()


def minus_inoculation(evidence: Evidence, table: str, by: list[str]) -> pd.DataFrame:
    """Band mean alignment of a table of directions, minus inoculation's: index `by`, columns other conditions."""
    frame: pd.DataFrame = getattr(evidence, table)
    frame = frame[frame["layer"].isin(evidence.band)]
    wide = frame.pivot_table(index=by, columns="condition", values="alignment", sort=False)
    wide = wide.reindex(columns=list(evidence.conditions)).astype(float)
    return wide.drop(columns=INOCULATION).sub(wide[INOCULATION], axis=0)


def contrasts(evidence: Evidence) -> pd.DataFrame:
    """D = alignment(other) - alignment(inoculation), band mean, frozen base model: index example, columns other."""
    means = in_band(evidence, "alignments", ["condition", "example"])
    wide = means.pivot_table(index="example", columns="condition", values="alignment")
    wide = wide.reindex(columns=list(evidence.conditions))
    return wide.drop(columns=INOCULATION).sub(wide[INOCULATION], axis=0)


def paired_losses(evidence: Evidence) -> pd.DataFrame:
    """Loss in nats/token on the frozen base model: index example, one column per condition."""
    wide = evidence.alignments.pivot_table(index="example", columns="condition", values="loss", aggfunc="first")
    return wide.reindex(columns=list(evidence.conditions))


def loss_gaps(losses: pd.Series) -> pd.Series:
    """By condition, how far its mean loss is from inoculation's, as a share of neutral's distance."""
    distance = abs(losses[NEUTRAL] - losses[INOCULATION])
    gaps: pd.Series = (losses - losses[INOCULATION]).abs() / (distance if distance > 0 else math.nan)
    return gaps


def pairs_with_loss(evidence: Evidence) -> Paired | None:
    """Alignment and loss of every example under neutral and inoculation; None where losses have no common range."""
    means = in_band(evidence, "alignments", ["condition", "example"])
    alignment = means.pivot_table(index="example", columns="condition", values="alignment")
    columns = [NEUTRAL, INOCULATION]
    alignment, losses = alignment.reindex(columns=columns), paired_losses(evidence).reindex(columns=columns)
    both = alignment.join(losses.add_suffix("_loss"), how="inner").dropna().astype(float)
    if both.empty:
        return None
    groups = template_of(evidence, both.index)
    labels = None if groups is None else np.asarray(pd.factorize(groups)[0], dtype=np.int64)
    pairs = Paired(both[columns].to_numpy(), both[[f"{name}_loss" for name in columns]].to_numpy(), labels)
    return pairs if pairs.common.any(axis=0).all() else None


def shifts(evidence: Evidence, measure: str, phase: str = AFTER) -> pd.DataFrame:
    """Columns condition, seed, pre, post, shift: means over the examples measured before training and in `phase`."""
    frame = evidence.drift[evidence.drift["measure"] == measure]
    before = frame[(frame["phase"] == BEFORE) & (frame["condition"] == BASE)][["example", "value"]]
    after = frame[frame["phase"] == phase]
    pairs = after.merge(before, on="example", suffixes=("_post", "_pre")).dropna(subset=["value_pre", "value_post"])
    means = pairs.groupby(["condition", "seed"], sort=True)[["value_pre", "value_post"]].mean().reset_index()
    means.columns = pd.Index(["condition", "seed", "pre", "post"])
    return means.assign(shift=means["post"] - means["pre"])


def drift_course(evidence: Evidence, measure: str) -> pd.DataFrame:
    """Columns condition, seed, phase, value: the base model's mean, plus what each run moved by until each phase.

    Shifts are of the examples measured on both sides, so that phases which scored other examples compare.
    """
    frame = evidence.drift[(evidence.drift["measure"] == measure) & (evidence.drift["condition"] == BASE)]
    base = frame["value"].mean()
    moved = [shifts(evidence, measure, phase).assign(phase=phase) for phase in (EARLY, AFTER)]
    runs = pd.concat([part for part in moved if len(part)] or moved[:1], ignore_index=True)
    still = runs.drop_duplicates(["condition", "seed"]).assign(phase=BEFORE, shift=0.0)
    runs = pd.concat([still, runs], ignore_index=True) if len(runs) else runs
    return runs.assign(value=base + runs["shift"])[["condition", "seed", "phase", "value"]]


def early_alignment(evidence: Evidence, fraction: float) -> pd.DataFrame:
    """Columns condition, seed, early: mean band alignment over a run's first `fraction` of steps (at least one)."""
    steps = in_band(evidence, "training", ["condition", "seed", "step"])
    last = steps.groupby(["condition", "seed"])["step"].transform("max") + 1
    early = steps[steps["step"] < np.maximum(1, np.ceil(fraction * last - 1e-9))]  # 0.2 * 35 is a hair above 7
    means: pd.DataFrame = early.groupby(["condition", "seed"])["alignment"].mean().reset_index()
    return means.rename(columns={"alignment": "early"})


def training_course(evidence: Evidence, points: int = 25) -> pd.DataFrame:
    """Columns condition, seed, step, alignment: band mean, over equal stretches of steps if more than `points`."""
    steps = in_band(evidence, "training", ["condition", "seed", "step"])
    if steps.empty:
        return steps
    stretch = math.ceil((steps["step"].max() + 1) / points)
    middle = (steps["step"] // stretch) * stretch + (stretch - 1) / 2
    return steps.assign(step=middle).groupby(["condition", "seed", "step"])["alignment"].mean().reset_index()
