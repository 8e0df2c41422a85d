"""Panels with one condition a row: every value a point, its mean and interval above the points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.measures import drift_by_run
from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.style import FAINT, HEIGHT, INK, SOFT, look, wrapped
from gradinoc.report.numbers import mean_interval
from gradinoc.report.wording import by_condition, estimated, listed
from gradinoc.stats.effect import Array

CROWD = 12  # points above which they are drawn small and pale
MANY = 400  # points above which they go into the SVG as pixels


def rows_height(rows: int) -> float:
    """The height in inches of a figure with so many rows."""
    return max(HEIGHT, 2.2 + 0.72 * rows)


def name_rows(axes: Axes, evidence: Evidence, conditions: Sequence[str]) -> None:
    """Conditions down the y axis, the first on top, each name in its own colour."""
    axes.set_yticks(range(len(conditions)), [wrapped(condition, 11) for condition in conditions])
    for tick, condition in zip(axes.get_yticklabels(), conditions, strict=True):
        tick.set(color=look(condition, evidence.conditions).ink, fontweight="bold")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(conditions) - 0.45, -0.55)


def jitter(count: int, width: float) -> Array:
    """Offsets in [-width, width] that keep points apart, the same on every call (golden-ratio sequence)."""
    golden: Array = np.arange(1, count + 1, dtype=np.float64) * np.float64(0.6180339887498949)
    return np.asarray((golden % 1.0 * 2.0 - 1.0) * width, dtype=np.float64)


def draw_rows(
    axes: Axes, evidence: Evidence, values: Mapping[str, Array], reference: str = "", groups: Any = None
) -> None:
    """Draw `values`, one condition a row, with mean and 95 % t interval; what is missing, or `reference`, is named.

    `groups`, one a value, says which values are alike, so that intervals allow for it.
    """
    axes.xaxis.set_major_locator(MaxNLocator(3 if len(axes.figure.axes) > 1 else 4))  # ticks of a half panel touch
    for row, (condition, points) in enumerate(values.items()):
        alike = None if groups is None or not len(points) else groups[np.isfinite(points)]
        points = points[np.isfinite(points)]
        if not len(points):
            axes.text(
                0.5, row, "reference" if condition == reference else "not measured", ha="center", va="center",
                transform=axes.get_yaxis_transform(), color=SOFT,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
            )  # fmt: skip
            continue
        style, crowded = look(condition, evidence.conditions), len(points) > CROWD
        axes.scatter(
            points, row + jitter(len(points), 0.27 if crowded else 0.16), s=14 if crowded else 60,
            marker=style.marker, color=style.colour, alpha=0.35 if crowded else 0.75, linewidth=0,
            rasterized=len(points) > MANY,
        )  # fmt: skip
        mean = mean_interval(points, alike)
        if math.isfinite(mean.low):
            axes.plot(
                [mean.low, mean.high],
                [row, row],
                color=INK,
                linewidth=5,
                alpha=0.55,
                solid_capstyle="butt",
                zorder=4,
            )
        axes.plot([mean.estimate], [row], marker="|", markersize=20, color=INK, markeredgewidth=2.6, zorder=5)


def draw_shifts(axes: Axes, evidence: Evidence, measure: str) -> None:
    """How far every run moved by `measure`, a trained condition a row; zero as a line."""
    runs = drift_by_run(evidence, measure, strict=False)
    moved = {name: runs[name].to_numpy(dtype=float) for name in evidence.trained}
    axes.axvline(0, color=FAINT, linewidth=1)
    draw_rows(axes, evidence, moved)


def shifts_in_words(evidence: Evidence, measure: str) -> str:
    """The mean shift of each trained condition with its interval over seeds."""
    runs = drift_by_run(evidence, measure, strict=False)
    if runs.empty:
        return "not measured"
    return listed((name, estimated(mean_interval(runs[name], unit="seeds"))) for name in evidence.trained)


def mean_shifts(evidence: Evidence, measure: str) -> str:
    """The mean shift of each trained condition that was measured; empty where none was."""
    means = drift_by_run(evidence, measure, strict=False).mean().dropna()
    return by_condition((name, means[name]) for name in evidence.trained if name in means)
