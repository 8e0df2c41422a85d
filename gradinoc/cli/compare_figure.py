"""The figure of a comparison: what two studies found, row by row."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradinoc.cli.comparison import ONE, OTHER
from gradinoc.report.figures.lettering import drawable, fitted
from gradinoc.report.figures.style import FAINT, PANEL, Look, broken, new_figure, not_measured, styled, up_to
from gradinoc.report.wording import shown
from gradinoc.study.prompts import INOCULATION, NEUTRAL

FIRST, SECOND = Look("#000000", "o", "-"), Look("#CC79A7", "D", "-")  # no condition's colours
ROW, AROUND = 0.5, 1.0  # inches of a row, and of what a panel has around them
APART = 0.16  # rows, from the middle to either study
WORDS = 22  # characters of a line of a row's name
LEGEND = 5.4  # inches, of a study's name
EFFECTS = {  # as tables name them -> as the figure does
    f"alignment, {NEUTRAL} - {INOCULATION}": "frozen model",
    f"alignment in training, {NEUTRAL} - {INOCULATION}": "in training",
    "alignment at equal loss, regression": "at equal loss, by regression",
    "alignment at equal loss, within examples": "at equal loss, within examples",
}
PANELS = {"score": "drift in the {score}", "log_odds": "drift in log-odds (nats/token)"}


@styled
def plot_comparison(table: pd.DataFrame, names: tuple[str, str], score: str) -> Figure:
    """Alignment's difference with its intervals, and drift by condition with the range of its runs, of two studies.

    `table` is that of `comparison`, `score` what the traits' score is called. What only one study has is drawn alone.
    """
    claims = table[(table["part"] == "claim") & table["quantity"].isin(list(EFFECTS))].drop_duplicates("quantity")
    claims = claims.assign(row=claims["quantity"].map(EFFECTS))
    claims = claims.sort_values("row", key=lambda rows: rows.map(list(EFFECTS.values()).index), kind="stable")
    drift = table[table["part"] == "drift"]
    drift = drift.assign(row=drift["item"].map(shown))
    parts = [(f"alignment, {NEUTRAL} − {INOCULATION}", claims)]
    for measure, title in PANELS.items():
        title = fitted(title.format(score=drawable(score)), up_to(PANEL))
        parts.append((title, drift[drift["quantity"] == measure]))
    heights = [max(1, len(rows)) * ROW + AROUND for _, rows in parts]
    figure = new_figure("Two studies side by side", sum(heights) + 1.9)
    panels = figure.subplots(len(parts), 1, height_ratios=heights)
    for axes, (title, rows) in zip(panels, parts, strict=True):
        axes.set_title(title, loc="left")
        _draw(axes, rows, title)
    panels[0].set_xlabel("mean and interval,\nat each study's level")
    panels[-1].set_xlabel("mean and range of the runs")
    handles = [
        panels[0].plot([], [], color=drawn.colour, marker=drawn.marker, linewidth=2, label=broken(name, 48, 2, LEGEND))[
            0
        ]
        for drawn, name in ((FIRST, names[0]), (SECOND, names[1]))
    ]
    figure.legend(handles=handles, loc="outside lower left", frameon=False)
    return figure


def _draw(axes: Axes, rows: pd.DataFrame, title: str) -> None:
    """A row each: the first study above the second, with a line from low to high."""
    if rows.empty:
        not_measured(axes, title)
        return
    places = np.arange(len(rows), dtype=float)
    axes.axvline(0, color=FAINT, linewidth=1)
    for side, drawn, aside in ((ONE, FIRST, -APART), (OTHER, SECOND, APART)):
        middle, low, high = (rows[f"{side}{end}"].to_numpy(dtype=float) for end in ("", "_low", "_high"))
        axes.hlines(places + aside, low, high, color=drawn.colour, linewidth=2.4)
        axes.plot(middle, places + aside, color=drawn.colour, marker=drawn.marker, linestyle="none", markersize=8)
    axes.set_yticks(places, [broken(name, WORDS, 2) for name in rows["row"]])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=5)
