"""Plot 19: whether the steps of a run account for the change of its decision log-odds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.evidence.sources import points
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.gates.accounts import G10
from gradinoc.claims.rules.finding import Measured
from gradinoc.report.figures.prompts.families import HOLLOW, family_key, family_of, in_order, look
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import FAINT, SOFT, new_figure, not_measured, note, signed, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, rounded
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules

FULL = {**HOLLOW, "markerfacecolor": SOFT, "markeredgecolor": "white", "markeredgewidth": 0.8}


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Measured change against accounted change, a point a run, kept adapter and prompt; own prompts hollow."""
    figure = new_figure("Do a run's steps account for its drift?", 5.4)
    axes = figure.add_subplot()
    axes.set(xlabel="accounted change of log-odds (nats)", ylabel="measured change of log-odds\n(nats)")
    measured_points = if_measured(points, evidence) if len(evidence.attribution) else None
    found = pd.DataFrame() if measured_points is None else measured_points.dropna()
    if found.empty:
        not_measured(axes, "what a run's steps account for")
        return Drawn(figure)
    found = found.assign(family=[str(family_of(evidence, name)) for name in found["condition"]])
    _draw_points(axes, evidence, found)
    measured = if_measured(G10.measure, evidence, rules)
    if measured is not None and measured.effects:
        note(axes, f"slope {signed(measured['slope'].estimate)}\nR² {signed(measured['r2'].estimate)}")
    family_key(axes, evidence, found["condition"].unique(), {"under neutral": FULL, "under own\nprompt": HOLLOW})
    return Drawn(figure, _caption(found, rules), _finding(measured), found)


def _draw_points(axes: Axes, evidence: Evidence, found: pd.DataFrame) -> None:
    ends = found[["predicted", "measured"]].to_numpy()
    low, high = min(0.0, float(ends.min())), max(0.0, float(ends.max()))
    axes.plot([low, high], [low, high], color=FAINT, linewidth=1.2, zorder=0)
    for name in in_order(evidence, found["condition"].unique()):
        style, rows = look(evidence, name), found[found["condition"] == name]
        for neutral in (False, True):
            here = rows[(rows["evaluation"] == NEUTRAL) == neutral]
            axes.plot(
                here["predicted"], here["measured"], linestyle="", marker=style.marker, markersize=8, alpha=0.85,
                markerfacecolor=style.colour if neutral else "white", label=f"_{name}",
                markeredgecolor="white" if neutral else style.colour, markeredgewidth=0.8 if neutral else 1.6,
                zorder=4 if neutral else 3,
            )  # fmt: skip
    axes.margins(0.06, 0.08)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _caption(found: pd.DataFrame, rules: Rules) -> str:
    runs = len(found[["condition", "seed"]].drop_duplicates())
    worst = float(np.abs(found["measured"] - found["predicted"]).max())
    low, high = rules.accounted
    return (
        f"A point a run, adapter kept during training and evaluation prompt, n = {len(found)} points of {runs} runs; "
        "filled under the neutral prompt, hollow under the run's own. Across: the sum, over the optimiser's steps so "
        "far, of step times gradient of the decision log-odds (nats). Up: how far the log-odds moved (nats). Mean over "
        f"questions. Line: both equal; the farthest point is {rounded(worst)} nats off it. G10 asks for a slope of "
        f"{low:g} to {high:g} and R² of at least {rules.accounted_r2:g}. A point holds those before it, so points of a "
        "run are not independent."
    )


def _finding(measured: Measured | None) -> str:
    if measured is None:
        return NOT_MEASURED
    if not measured.effects:
        return measured.statement
    slope, r2 = measured["slope"], measured["r2"]
    return (
        f"Per nat that a run's steps account for, decision log-odds moved by {rounded(slope.estimate)} nats; R² "
        f"{rounded(r2.estimate)} (n = {slope.n} points)."
    )


FIGURE = StudyFigure("plot19_accounting", ("sources", "G10"), draw)
