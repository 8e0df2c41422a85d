"""What figures and tables show, as numbers: means with intervals, contrasts, shifts, correlations."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from gradinoc.claims.tables import AFTER, BASE, BEFORE, EARLY, Evidence
from gradinoc.stats.clustered import grouped_mean
from gradinoc.stats.effect import null_p
from gradinoc.study.prompts import INOCULATION
from gradinoc.study.rules import Rules

Array = np.ndarray[Any, np.dtype[np.float64]]
RULES = Rules()  # where a study's own are not at hand
PHASES = {BEFORE: "before", EARLY: "early", AFTER: "after"}  # of training, in words


class Mean(NamedTuple):
    """A mean with its 95 % t interval; the interval is NaN where `n` < 2, everything where `n` = 0."""

    estimate: float
    low: float
    high: float
    n: int


class Line(NamedTuple):
    """A least-squares line on a grid: `x`, `y` and the 95 % t interval of the mean response, `low` to `high`."""

    x: Array
    y: Array
    low: Array
    high: Array


def mean_interval(values: Any, groups: Any = None) -> Mean:
    """The mean of the finite `values` and its 95 % t interval, clustered where `groups` says who belongs together."""
    array = np.asarray(values, dtype=float)
    keep = np.isfinite(array)
    if not keep.any():
        return Mean(math.nan, math.nan, math.nan, 0)
    labels = None if groups is None else np.asarray(pd.factorize(np.asarray(groups)[keep])[0], dtype=np.int64)
    effect = grouped_mean(array[keep], labels, "mean")
    return Mean(effect.estimate, effect.low, effect.high, effect.n)


def template_of(evidence: Evidence, examples: Any) -> Any:
    """What the frozen model's `examples` were made from, one a value; None where that was not recorded."""
    if "group" not in evidence.alignments:
        return None
    return evidence.alignments.drop_duplicates("example").set_index("example")["group"].reindex(examples).to_numpy()


def correlation(x: Any, y: Any) -> tuple[float, int]:
    """Pearson's r over the pairs without NaN, and their number; r is NaN where either side does not vary."""
    pairs = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return math.nan, len(pairs)
    centred = pairs - pairs.mean(axis=0)
    return float((centred[:, 0] @ centred[:, 1]) / np.sqrt((centred**2).sum(axis=0).prod())), len(pairs)


def fit_line(x: Any, y: Any) -> Line | None:
    """The regression of `y` on `x` over the range of `x`; None with fewer than three points or a constant `x`."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    keep = np.isfinite(x) & np.isfinite(y)
    x, y, n = x[keep], y[keep], int(keep.sum())
    if n < 3 or np.ptp(x) == 0:
        return None
    centre, scatter = x.mean(), ((x - x.mean()) ** 2).sum()
    slope = ((x - centre) * (y - y.mean())).sum() / scatter
    residual = y - y.mean() - slope * (x - centre)
    grid = np.linspace(x.min(), x.max(), 60)
    fitted = y.mean() + slope * (grid - centre)
    error = np.sqrt((residual**2).sum() / (n - 2)) * np.sqrt(1 / n + (grid - centre) ** 2 / scatter)
    half = stats.t.ppf(0.975, n - 2) * error
    return Line(grid, fitted, fitted - half, fitted + half)


def in_band(evidence: Evidence, table: str, by: list[str]) -> pd.DataFrame:
    """Columns `by` and `alignment`: the mean over the band's layers at the primary position."""
    frame: pd.DataFrame = getattr(evidence, table)
    frame = frame[frame["layer"].isin(evidence.band) & (frame["position"] == evidence.primary_position)]
    return frame.groupby(by, sort=True)["alignment"].mean().reset_index()


def contrasts(evidence: Evidence) -> pd.DataFrame:
    """D = alignment(other) - alignment(inoculation), band mean, frozen base model: index example, columns other."""
    means = in_band(evidence, "alignments", ["condition", "example"])
    wide = means.pivot_table(index="example", columns="condition", values="alignment")
    wide = wide.reindex(columns=list(evidence.conditions))
    return wide.drop(columns=INOCULATION).sub(wide[INOCULATION], axis=0)


def null_effects(evidence: Evidence) -> pd.DataFrame:
    """Columns null, draw and one per other condition: T(u), the contrast with null direction u for v."""
    frame = evidence.nulls[evidence.nulls["layer"].isin(evidence.band)]
    wide = frame.pivot_table(index=["null", "draw"], columns="condition", values="alignment", sort=False)
    wide = wide.reindex(columns=list(evidence.conditions))
    return wide.drop(columns=INOCULATION).sub(wide[INOCULATION], axis=0).reset_index()


def exceedance(effect: float, null: Any) -> float:
    """The p of the plan, (1 + #{T(u) >= T(v)}) / (1 + K), NaN without an effect or without draws."""
    draws = np.asarray(null, dtype=float)
    draws = draws[np.isfinite(draws)]
    return null_p(effect, draws) if len(draws) and math.isfinite(effect) else math.nan


def paired_losses(evidence: Evidence) -> pd.DataFrame:
    """Loss in nats/token on the frozen base model: index example, one column per condition."""
    wide = evidence.alignments.pivot_table(index="example", columns="condition", values="loss", aggfunc="first")
    return wide.reindex(columns=list(evidence.conditions))


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


def scored_responses(evidence: Evidence) -> pd.DataFrame:
    """The responses before and after training that have a score and a projection."""
    frame = evidence.responses
    return frame[frame["phase"].isin([BEFORE, AFTER])].dropna(subset=["projection", "score"])


def early_alignment(evidence: Evidence, fraction: float = RULES.early_fraction) -> pd.DataFrame:
    """Columns condition, seed, early: mean band alignment over a run's first `fraction` of steps (at least one)."""
    steps = in_band(evidence, "training", ["condition", "seed", "step"])
    last = steps.groupby(["condition", "seed"])["step"].transform("max") + 1
    early = steps[steps["step"] < np.maximum(1, np.ceil(fraction * last - 1e-9))]  # 0.2 * 35 is a hair above 7
    means: pd.DataFrame = early.groupby(["condition", "seed"])["alignment"].mean().reset_index()
    return means.rename(columns={"alignment": "early"})


def early_and_drift(evidence: Evidence, measure: str, fraction: float = RULES.early_fraction) -> pd.DataFrame:
    """Columns condition, seed, early, shift: one row per run that has both."""
    return early_alignment(evidence, fraction).merge(shifts(evidence, measure), on=["condition", "seed"])


def training_course(evidence: Evidence, points: int = 25) -> pd.DataFrame:
    """Columns condition, seed, step, alignment: band mean, over equal stretches of steps if more than `points`."""
    steps = in_band(evidence, "training", ["condition", "seed", "step"])
    if steps.empty:
        return steps
    stretch = math.ceil((steps["step"].max() + 1) / points)
    middle = (steps["step"] // stretch) * stretch + (stretch - 1) / 2
    return steps.assign(step=middle).groupby(["condition", "seed", "step"])["alignment"].mean().reset_index()


def training_differences(evidence: Evidence, points: int = 25) -> pd.DataFrame:
    """Alignment minus inoculation's, paired by seed and step: index (seed, step), a column for each other run.

    Over equal stretches of steps if there are more than `points`, as in `training_course`.
    """
    course = training_course(evidence, points)
    wide = course.pivot_table(index=["seed", "step"], columns="condition", values="alignment")
    wide = wide.reindex(columns=list(evidence.trained))
    return wide.drop(columns=INOCULATION).sub(wide[INOCULATION], axis=0).dropna(how="all")
