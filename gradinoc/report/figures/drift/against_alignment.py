"""Plot 7: whether prompts under which gradients align more early on drift further."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.c4 import C4, by_prompt
from gradinoc.claims.evidence.measures import deciding_measure, drift_by_question, in_window, nulls_in_window
from gradinoc.claims.evidence.tables import DECISION, Evidence
from gradinoc.claims.rules.finding import Measured
from gradinoc.report.figures.lettering import fitted, score_label
from gradinoc.report.figures.prompts.families import HOLLOW, PLANNED, family_key, family_table, spread_of
from gradinoc.report.figures.prompts.points import draw_prompts, extremes, name_points
from gradinoc.report.figures.study_figure import Drawn, StudyFigure, told
from gradinoc.report.figures.style import FAINT, INK, LOOKS, PANEL, SOFT, new_figure, not_measured, styled, up_to
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, number, rounded, side
from gradinoc.stats.effect import Effect
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Early alignment against drift, a point a prompt; the raw slope as a line; neutral apart, hollow."""
    figure = new_figure("Early alignment against drift", 5.4)
    axes = figure.add_subplot()
    prompts, measure = if_measured(by_prompt, evidence), if_measured(deciding_measure, evidence, rules.ceiling)
    score = fitted(f"{score_label(evidence.trait)}, sampled", up_to(PANEL))
    label = "decision log-odds\n(nats)" if measure == DECISION else f"{score}\n(fraction)"
    axes.set(xlabel="alignment, first third of training (cosine)", ylabel=f"drift of {label}")
    if prompts is None or prompts.empty or measure is None:
        not_measured(axes, "alignment and drift")
        return Drawn(figure)
    measured = if_measured(C4.measure, evidence, rules)
    x, y = prompts["alignment"].to_dict(), prompts[measure].to_dict()
    table = family_table(
        evidence, list(x), **{str(name): prompts[name].to_dict() for name in prompts if name != "family"}
    )
    axes.axhline(0, color=FAINT, linewidth=1)
    raw = measured["slope.raw"] if measured and "slope.raw" in measured else None
    if raw is not None and math.isfinite(raw.estimate):
        _draw_slope(axes, prompts, raw, measure)
    draw_prompts(axes, evidence, x, y)
    random = if_measured(random_alignment, evidence)
    if random is not None:
        axes.plot(
            random,
            [0.03, 0.03],
            transform=axes.get_xaxis_transform(),
            color=SOFT,
            linewidth=6,
            alpha=0.5,
            solid_capstyle="butt",
        )
    _draw_neutral(axes, evidence, measure)
    axes.margins(0.09, 0.14)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    beside = (
        {"random\ndirections": {"color": SOFT, "linewidth": 6, "alpha": 0.5, "solid_capstyle": "butt"}}
        if random is not None
        else {}
    )
    neutral = {**HOLLOW, "markeredgecolor": LOOKS[Family.NEUTRAL].colour}
    family_key(axes, evidence, x, {"neutral runs\n(left out)": neutral, **beside})
    name_points(axes, evidence, x, y, [*PLANNED, *extremes(y), *extremes(x)])
    return Drawn(figure, _caption(prompts, measured, random, measure), _finding(measured, evidence), table)


def random_alignment(evidence: Evidence) -> tuple[float, float]:
    """The central 95 % of random directions' mean alignment over the runs in the first third of training."""
    return spread_of(nulls_in_window(evidence).mean(axis=1))


def _draw_slope(axes: Axes, prompts: pd.DataFrame, raw: Effect, measure: str) -> None:
    """The least-squares line whose slope C4 reports without covariates, through the prompts' means."""
    x, y = prompts["alignment"].to_numpy(dtype=float), prompts[measure].to_numpy(dtype=float)
    ends = np.array([x.min(), x.max()])
    axes.plot(ends, y.mean() + raw.estimate * (ends - x.mean()), color=INK, linewidth=2, zorder=1)


def _draw_neutral(axes: Axes, evidence: Evidence, measure: str) -> None:
    """Neutral runs, which no slope takes in: that any prompt differs from none says nothing of alignment."""
    aligned, drift = if_measured(in_window, evidence), if_measured(drift_by_question, evidence, measure)
    if aligned is None or drift is None or NEUTRAL not in drift or NEUTRAL not in aligned:
        return
    own = pd.DataFrame({"x": aligned[NEUTRAL], "y": drift[NEUTRAL].mean()}).dropna()
    style = LOOKS[Family.NEUTRAL]
    axes.plot(
        own["x"], own["y"], linestyle="", marker=style.marker, markersize=9, markerfacecolor="white",
        markeredgecolor=style.colour, markeredgewidth=1.8, zorder=3,
    )  # fmt: skip


def _caption(prompts: pd.DataFrame, measured: Measured | None, random: tuple[float, float] | None, measure: str) -> str:
    drift = (
        "decision log-odds (nats), scores being at their ceiling"
        if measure == DECISION
        else "the expected score (fraction)"
    )
    words = (
        f"Band alignment in the first third of training (cosine) against drift of {drift}, a "
        f"point a prompt, n = {len(prompts)} prompts; neutral runs are shown hollow and left out."
    )
    if random is not None:
        ends = f"{rounded(random[0])} to {rounded(random[1])}"
        words += f" The bar at the foot: central 95 % of random directions' alignment, {ends}."
    if measured is None or not measured.effects:
        return words
    raw, slope = measured["slope.raw"], measured["slope"]
    if math.isfinite(raw.estimate):
        words += f" Line: the slope without covariates, {told(raw)}."
    decides = told(slope, f"p = {number(slope.p)}") if math.isfinite(slope.estimate) else slope.method
    return f"{words} At equal elicitation, length and loss, which decides: {decides}."


def _finding(measured: Measured | None, evidence: Evidence) -> str:
    if measured is None or not measured.effects:
        return NOT_MEASURED
    slope = measured["slope"]
    if not math.isfinite(slope.estimate):
        return f"Whether prompts with more early alignment drift more cannot be told: {slope.method}."
    who = "At equal elicitation, length and loss prompts with more early alignment"
    way = side(slope, "drift more", "drift less", "are not shown to drift more or less")
    return f"{who} {way}: {told(slope, f'p = {number(slope.p)}', units='per unit of cosine')}."


FIGURE = StudyFigure("plot7_alignment_against_drift", ("C4",), draw)
