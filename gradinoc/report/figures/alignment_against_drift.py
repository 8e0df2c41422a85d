"""Plot 7: whether runs with more early alignment drift more."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from scipy import stats

from gradinoc.claims.c4 import PRIMARY
from gradinoc.claims.measures import drift_by_run, early_alignment
from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import (
    BESIDE,
    HEIGHT,
    SOFT,
    height_beside,
    look,
    new_figure,
    not_measured,
    styled,
    wrapped,
)  # fmt: skip
from gradinoc.report.numbers import by_run, correlation, correlation_finding
from gradinoc.stats.effect import Array
from gradinoc.study.rules import Rules

SEED_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")


class Line(NamedTuple):
    """A least-squares line on a grid: `x`, `y` and the 95 % t interval of the mean response, `low` to `high`."""

    x: Array
    y: Array
    low: Array
    high: Array


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Each run's early band alignment against its drift, with the regression over all runs and its 95 % band."""
    early = by_run(early_alignment(evidence, rules.early_fraction, strict=False), "early")
    runs = early.merge(by_run(drift_by_run(evidence, PRIMARY, strict=False), "shift"), on=["condition", "seed"])
    runs = runs.sort_values(["condition", "seed"])
    beside = (*evidence.trained, *map(str, evidence.seeds))
    figure = new_figure("Early alignment against drift", height_beside(beside, HEIGHT + 0.6))
    axes = figure.add_subplot()
    axes.set(xlabel="early alignment (cosine)", ylabel="log-odds shift\n(nats/token)")
    if runs.empty:
        not_measured(axes, "drift")
        return Drawn(figure)
    _draw_runs(axes, runs, evidence)
    r, n = correlation(runs["early"], runs["shift"])
    groups = runs["condition"].nunique()
    title = f"r = {r:.2f}" if math.isfinite(r) else "r undefined"
    axes.set_title(f"{title}, {n} runs in {groups} conditions", loc="left")
    strength = f"r = {r:.2f}" if math.isfinite(r) else "r is undefined, since one side does not vary"
    caption = (
        f"A run's band alignment over its first {100 * rules.early_fraction:g} % of steps (cosine) against its shift "
        f"in trait log-odds (nats/token): {strength}, n = {n} runs; line and band are the regression over all runs "
        f"and its 95 % t interval. Runs are nested in conditions: {n} runs in {groups} clusters are not {n} "
        f"independent points."
    )
    who = "Runs with more early alignment"
    ways = (f"{who} drift more", f"{who} drift less", f"{who} are not shown to drift more or less")
    return Drawn(figure, caption, correlation_finding(r, n, ways, "runs"))


def _draw_runs(axes: Axes, runs: pd.DataFrame, evidence: Evidence) -> None:
    """A point a run, the regression behind them, and right of the panel a key of colours and markers."""
    line = fit_line(runs["early"], runs["shift"])
    if line is not None:
        axes.fill_between(line.x, line.low, line.high, color="#bbbbbb", alpha=0.4, linewidth=0)
        axes.plot(line.x, line.y, color=SOFT, linewidth=2)
    markers = {seed: SEED_MARKERS[place % len(SEED_MARKERS)] for place, seed in enumerate(evidence.seeds)}
    for condition, seed, early, shift in runs[["condition", "seed", "early", "shift"]].to_numpy():
        axes.plot(
            [early], [shift], marker=markers[seed], markersize=12, linestyle="",
            color=look(condition, evidence.conditions).colour, markeredgecolor="white", zorder=4,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(4))
    drawn = [name for name in evidence.trained if name in set(runs["condition"])]
    colours = [Patch(facecolor=look(name, evidence.conditions).colour, label=wrapped(name)) for name in drawn]
    seeds = [
        Line2D([], [], marker=marker, color=SOFT, label=f"seed {seed}", linestyle="", markersize=10)
        for seed, marker in markers.items()
    ]
    axes.legend(handles=[*colours, *seeds], **BESIDE)


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


FIGURE = StudyFigure("plot7_alignment_against_drift", ("C4",), draw)
