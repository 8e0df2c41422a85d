"""A specification curve in numbers: in how many ways of measuring a contrast it has the sign that decides."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Curve:
    """What the cells of a specification curve say, each cell counting the same.

    Attributes:
        cells: how many could be measured; `missing` could not (NaN) and are in no share.
        missing: how many could not.
        positive: share of cells above zero.
        negative: share of cells below zero; the rest are exactly zero.
        declared: the estimate in the cell that was declared beforehand; NaN where it was not measured.
        agreeing: share of cells with the sign of the contrast that decides; NaN where that is missing or zero.
    """

    cells: int
    missing: int
    positive: float
    negative: float
    declared: float
    agreeing: float


def summarise(estimates: Mapping[Hashable, float], declared: Hashable, decides: float) -> Curve:
    """The shares of cells of each sign; `estimates`: cell -> contrast, in any units.

    `declared` is the cell that is marked, `decides` the contrast with whose sign cells agree: it need not be a cell's,
    where what decides is a mean over cells.

    Cells are no sample: they share data, so shares have no interval and no p. Source: Simonsohn, Simmons and Nelson,
    Nature Human Behaviour 4 (2020), whose curve this counts.

    Raises:
        ValueError: nothing could be measured.
    """
    values = np.array(list(estimates.values()), dtype=np.float64)
    measured = values[np.isfinite(values)]
    if not measured.size:
        raise ValueError(f"expected a measured cell, received {values.size} that are NaN or infinite")
    positive, negative = float(np.mean(measured > 0)), float(np.mean(measured < 0))
    agreeing = positive if decides > 0 else negative if decides < 0 else math.nan
    own = float(estimates.get(declared, math.nan))
    return Curve(measured.size, values.size - measured.size, positive, negative, own, agreeing)
