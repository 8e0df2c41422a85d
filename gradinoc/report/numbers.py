"""How what claims measure is shown, of a study with gaps too: what is missing is left out, or NaN."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.measures import drift_by_question, question_groups
from gradinoc.claims.evidence.tables import AFTER, BASE, BEFORE, Evidence
from gradinoc.stats.clustered import Groups, grouped_mean
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
