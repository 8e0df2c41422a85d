"""Figures of the fine-tuned runs: how far they drift, whether early alignment tells, what projection means."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.tables import BASE, Evidence
from gradinoc.report.figures.rows import MANY, draw_rows, name_rows, rows_height
from gradinoc.report.figures.style import (
    BESIDE,
    FAINT,
    HEIGHT,
    PANEL,
    SOFT,
    height_beside,
    look,
    new_figure,
    not_measured,
    sentence,
    styled,
    up_to,
    wrapped,
)  # fmt: skip
from gradinoc.report.figures.summaries import (
    RULES,
    Array,
    correlation,
    early_and_drift,
    fit_line,
    scored_responses,
    shifts,
)  # fmt: skip
from gradinoc.study.lettering import fitted, score_label
from gradinoc.study.rules import Rules

UNITS = {
    "score": ("{score} shift", "(fraction)"),
    "score_ood": ("{score} shift, everyday", "(fraction)"),
    "log_odds": ("log-odds shift", "(nats/token)"),
    "projection": ("projection shift", "(hidden-state units)"),
}
SEED_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")


def _by_condition(evidence: Evidence, measure: str) -> dict[str, Array]:
    """The shift of every run, by trained condition; no values where it was not measured."""
    runs = shifts(evidence, measure)
    return {name: runs.loc[runs["condition"] == name, "shift"].to_numpy(dtype=float) for name in evidence.trained}


@styled
def plot_projection_shift(evidence: Evidence) -> Figure:
    """The shift of the projection on v by condition: a point a seed, their mean with its 95 % t interval."""
    figure = new_figure("Projection shift under the neutral prompt", rows_height(len(evidence.trained)))
    axes = figure.add_subplot()
    axes.axvline(0, color=FAINT, linewidth=1)
    draw_rows(axes, evidence, _by_condition(evidence, "projection"))
    name_rows(axes, evidence, evidence.trained)
    axes.set_xlabel("after − before training\n(hidden-state units)")
    return figure


@styled
def plot_score_shift(evidence: Evidence) -> Figure:
    """The shift of the responses' score by condition, held-out questions and everyday requests, a point a seed."""
    score = sentence(score_label(evidence.trait))
    figure = new_figure(f"{score} shift under the neutral prompt", rows_height(len(evidence.trained)))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    titles = {"score": "held-out", "score_ood": "everyday"}
    for axes, (measure, title) in zip(panels, titles.items(), strict=True):
        axes.axvline(0, color=FAINT, linewidth=1)
        draw_rows(axes, evidence, _by_condition(evidence, measure))
        axes.set_title(title, loc="left")
        axes.set_xlabel("shift (fraction)")
    name_rows(panels[0], evidence, evidence.trained)
    panels[1].tick_params(axis="y", length=0)
    return figure


@styled
def plot_alignment_against_drift(evidence: Evidence, measure: str = "log_odds", rules: Rules = RULES) -> Figure:
    """Each run's early band alignment against its drift, with the regression over all runs and its 95 % band."""
    runs = early_and_drift(evidence, measure, rules.early_fraction)
    figure = new_figure(
        "Early alignment against drift", height_beside((*evidence.trained, *map(str, evidence.seeds)), HEIGHT + 0.6)
    )
    axes = figure.add_subplot()
    label, unit = UNITS[measure]
    axes.set(
        xlabel="early alignment (cosine)",
        ylabel=f"{fitted(label.format(score=score_label(evidence.trait)), up_to(PANEL))}\n{unit}",
    )
    if runs.empty:
        not_measured(axes, "drift")
        return figure
    line = fit_line(runs["early"], runs["shift"])
    if line is not None:
        axes.fill_between(line.x, line.low, line.high, color="#bbbbbb", alpha=0.4, linewidth=0)
        axes.plot(line.x, line.y, color=SOFT, linewidth=2)
    for condition, seed, early, shift in runs[["condition", "seed", "early", "shift"]].to_numpy():
        axes.plot(
            [early], [shift], marker=_seed_marker(seed, evidence), markersize=12, linestyle="",
            color=look(condition, evidence.conditions).colour, markeredgecolor="white", zorder=4,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(4))
    _key(axes, [name for name in evidence.trained if name in set(runs["condition"])], evidence)
    r, n = correlation(runs["early"], runs["shift"])
    strength = f"r = {r:.2f}" if math.isfinite(r) else "r undefined"
    axes.set_title(f"{strength}, {n} runs in {runs['condition'].nunique()} conditions", loc="left")
    return figure


def _key(axes: Axes, conditions: list[str], evidence: Evidence) -> None:
    """Right of the panel: which colour is which condition, and which marker is which seed."""
    colours = [Patch(facecolor=look(name, evidence.conditions).colour, label=wrapped(name)) for name in conditions]
    markers = [
        Line2D(
            [], [], marker=_seed_marker(seed, evidence), color=SOFT, label=f"seed {seed}",
            linestyle="", markersize=10,
        ) for seed in evidence.seeds
    ]  # fmt: skip
    axes.legend(handles=[*colours, *markers], **BESIDE)


def _seed_marker(seed: int, evidence: Evidence) -> str:
    return SEED_MARKERS[evidence.seeds.index(seed) % len(SEED_MARKERS)]


@styled
def plot_projection_against_score(evidence: Evidence) -> Figure:
    """Every generated response: the band projection before it against its score, with r."""
    frame = scored_responses(evidence)
    score = score_label(evidence.trait)
    figure = new_figure(f"Projection and {score} of responses", height_beside((*evidence.trained, BASE)))
    axes = figure.add_subplot()
    label = fitted(f"{score} (fraction)", up_to(PANEL))
    axes.set(xlabel="projection (hidden-state units)", ylabel=label, ylim=(-0.06, 1.06))
    if frame.empty:
        not_measured(axes, "responses")
        return figure
    order = [name for name in (*evidence.trained, BASE) if name in set(frame["condition"])]
    for condition in order:
        group, style = frame[frame["condition"] == condition], look(condition, evidence.conditions)
        axes.scatter(
            group["projection"], group["score"], s=28, marker="o" if condition == BASE else style.marker,
            color=style.colour, alpha=0.4, linewidth=0, rasterized=len(frame) > MANY,
            label="before" if condition == BASE else wrapped(condition),
        )  # fmt: skip
    key = axes.legend(markerscale=1.9, **BESIDE)
    for handle in key.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    r, n = correlation(frame["projection"], frame["score"])
    axes.set_title(f"r = {r:.2f}, n = {n}" if math.isfinite(r) else f"r undefined, n = {n}", loc="left")
    return figure
