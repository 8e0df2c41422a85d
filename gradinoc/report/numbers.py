"""How what claims measure is shown, of a study with gaps too: what is missing is left out, or NaN."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from gradinoc.claims.measures import band_mean, drift_by_question, question_groups, side_by_side
from gradinoc.claims.tables import AFTER, BASE, BEFORE, Evidence
from gradinoc.report.wording import side
from gradinoc.stats.clustered import Groups, grouped_mean
from gradinoc.stats.correlation import fisher_interval, pearson
from gradinoc.stats.effect import Effect, bare

PHASES = {BEFORE: "before", AFTER: "after"}  # of training, in words

Found = TypeVar("Found")


def if_measured(measure: Callable[..., Found], *given: Any) -> Found | None:
    """What `measure` of a claim finds; None where a table is empty or has holes: a figure says so, a claim fails."""
    try:
        return measure(*given)
    except (ValueError, KeyError):
        return None


def mean_interval(values: Any, groups: Any = None, unit: str = "examples") -> Effect:
    """The mean of the finite `values` with its 95 % t interval, clustered by `groups`; NaN and n 0 without values."""
    array = np.asarray(values, dtype=float)
    keep = np.isfinite(array)
    if not keep.any():
        return bare("mean", math.nan, 0, unit, "no values")
    labels = None if groups is None else np.asarray(pd.factorize(np.asarray(groups)[keep])[0], dtype=np.int64)
    return replace(grouped_mean(array[keep], labels, "mean"), unit=unit)


def groups_of(evidence: Evidence, examples: pd.Index, table: str = "alignments") -> Groups:
    """The groups of a table's `examples`; None where they were not recorded for each."""
    return if_measured(question_groups, evidence, table, examples)


def over_examples(evidence: Evidence, values: pd.Series) -> Effect:
    """The mean of `values`, index example, its interval clustered by what the examples were made from."""
    return mean_interval(values, groups_of(evidence, values.index))


def correlation(x: Any, y: Any) -> tuple[float, int]:
    """Pearson's r over the pairs without NaN, and their number; r is NaN where either side does not vary."""
    pairs = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    return pearson(*pairs.T) if len(pairs) >= 3 else math.nan, len(pairs)


def correlation_finding(r: float, n: int, ways: Sequence[str], unit: str) -> str:
    """A correlation by its sign, if its interval has one: more, less, or neither shown."""
    if not math.isfinite(r):
        return "One side does not vary, so there is no correlation."
    low, high = fisher_interval(r, n)
    way = side(replace(bare("r", r, n, unit, "Fisher's z"), low=low, high=high), *ways)
    return f"{way}: r = {r:.2f}, n = {n} {unit}.".replace("-", "−")


def by_run(values: pd.Series, name: str) -> pd.DataFrame:
    """Columns condition, seed, `name`: a series of runs (condition, seed) as a table, without what is missing."""
    return values.rename(name).rename_axis(["condition", "seed"]).reset_index().dropna(subset=[name])


def drift_course(evidence: Evidence, measure: str) -> pd.DataFrame:
    """Columns condition, seed, phase, value: the base model's mean, plus what each run moved by until each phase.

    Shifts are of the questions measured on both sides, so that phases which scored other questions compare.
    """
    frame = evidence.drift[(evidence.drift["measure"] == measure) & (evidence.drift["condition"] == BASE)]
    moved = by_run(drift_by_question(evidence, measure, strict=False).mean(), "shift")
    runs = pd.concat([moved.assign(phase=BEFORE, shift=0.0), moved.assign(phase=AFTER)], ignore_index=True)
    return runs.assign(value=frame["value"].mean() + runs["shift"])[["condition", "seed", "phase", "value"]]


def training_course(evidence: Evidence, points: int = 25) -> pd.DataFrame:
    """Band alignment by seed and step, a column a condition: over equal stretches of steps if more than `points`."""
    means = band_mean(evidence, "training", ["condition", "seed", "step"], "alignment", strict=False)
    steps = side_by_side(means, "training", evidence.trained, strict=False)
    if steps.empty:
        return steps
    step = steps.index.get_level_values("step")
    stretch = math.ceil((step.max() + 1) / points)
    middle = (step // stretch) * stretch + (stretch - 1) / 2
    return steps.groupby([steps.index.get_level_values("seed"), middle.rename("step")]).mean()
