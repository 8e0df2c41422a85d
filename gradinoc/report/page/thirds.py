"""When the drift comes: the accounted difference between harmless and inoculating runs by third of training."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from gradinoc.claims.evidence.measures import HARMLESS, INOCULATING
from gradinoc.claims.evidence.sources import difference_by, in_band, prompts_of
from gradinoc.claims.evidence.tables import TRAIT_DIRECTION, WHOLE, WINDOWS, Evidence
from gradinoc.claims.evidence.wide import band_of
from gradinoc.report.numbers import if_measured
from gradinoc.report.page.grid import Column, Grid, grid
from gradinoc.study.prompts import NEUTRAL

STRETCHES = 3  # between kept adapters: of fewer, thirds would tell of no course
COLUMNS = (
    Column("third", "third of training", numeric=False), Column("steps", "steps", numeric=False),
    Column("phi", "in all (φ)", "nats"), Column(WHOLE, "through the band", "nats"),
    Column(TRAIT_DIRECTION, "along v", "nats"),
)  # fmt: skip


def third_grid(evidence: Evidence) -> Grid:
    """The difference in accounted neutral drift by third of training: phi, through the band, along v; and in all."""
    phi = if_measured(_accounted, evidence)
    found = [] if phi is None or len(phi) < STRETCHES else _rows(evidence, phi)
    kept = ", ".join(f"{step:g}" for step in ([] if phi is None else phi.index))
    about = (
        "Harmless − inoculating runs, neutral drift that steps account for (nats of decision log-odds), mean over "
        f"questions and prompts{prompt_counts(evidence)}; through the band and along v mean over its layers. Estimates "
        f"without intervals. Measured at the start and after {kept} steps; within a stretch each step counts alike. "
        "Columns of the band rest on gradients at these points, each for half of the steps on either side: they show "
        "the course smoothed."
    )
    return grid("By third of training", COLUMNS, found, about)


def prompt_counts(evidence: Evidence) -> str:
    """How many prompts of either family were trained under and accounted for."""
    names = {family: if_measured(prompts_of, evidence, family) or () for family in (HARMLESS, INOCULATING)}
    return f", n = {' and '.join(f'{len(own)} {family}' for family, own in names.items())} prompts"


def _rows(evidence: Evidence, phi: pd.Series) -> list[dict[str, str | float]]:
    end = float(phi.index[-1])
    courses = {"phi": in_thirds(phi, [0.0, *phi.index])}
    for direction in (WHOLE, TRAIT_DIRECTION):
        along = if_measured(_along, evidence, direction)
        missing = np.full(len(WINDOWS), math.nan)
        courses[direction] = missing if along is None else in_thirds(along, _edges(along.index, end))
    bounds = np.linspace(0, end, len(WINDOWS) + 1)
    names = {window: f"{low:.3g} to {high:.3g}" for window, low, high in zip(WINDOWS, bounds, bounds[1:], strict=False)}
    rows: list[dict[str, str | float]] = [
        {"third": window, "steps": steps, **{key: float(values[place]) for key, values in courses.items()}}
        for place, (window, steps) in enumerate(names.items())
    ]
    return [*rows, {"third": "all", "steps": f"0 to {end:g}", **{key: sum(each) for key, each in courses.items()}}]


def in_thirds(stretches: pd.Series, edges: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """What falls in each third of the steps, of values by stretch between `edges` [stretches + 1], spread evenly."""
    places = np.asarray(edges, dtype=np.float64)
    so_far = np.concatenate([[0.0], np.cumsum(stretches.to_numpy(dtype=np.float64))])
    return np.diff(np.interp(np.linspace(0, places[-1], len(WINDOWS) + 1), places, so_far))


def _edges(points: pd.Index, end: float) -> list[float]:
    """From where to where each kept adapter speaks for the steps beside it: the middles between them."""
    steps = points.to_numpy(dtype=np.float64)
    return [0.0, *((steps[:-1] + steps[1:]) / 2), end]


def _accounted(evidence: Evidence) -> pd.Series:
    """Index last step of a stretch: difference in phi, nats."""
    rows = evidence.attribution[evidence.attribution["evaluation"] == NEUTRAL]
    return difference_by(evidence, rows, "step", "predicted", rows["example"].nunique())["difference"].sort_index()


def _along(evidence: Evidence, direction: str) -> pd.Series:
    """Index step of a kept adapter: difference along a direction, band mean, nats."""
    rows = in_band(evidence, direction)
    count = len(band_of(evidence)) * rows["example"].nunique()
    return difference_by(evidence, rows, "step", "along", count)["difference"].sort_index()
