"""Figures of what happens during training: alignment, its difference to inoculation's, and drift, by step or phase."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.style import (
    FAINT,
    Look,
    height_beside,
    label_ends,
    look,
    new_figure,
    not_measured,
    styled,
    up_to,
    wrapped,
)
from gradinoc.report.figures.summaries import PHASES, drift_course, mean_interval, training_course, training_differences
from gradinoc.study.lettering import fitted, score_label

LEVELS = {"score": ("{score}, held-out", "(fraction)"), "log_odds": ("trait log-odds", "(nats/token)")}
HALF = 2.2  # inches, of a label beside one of two panels


@styled
def plot_alignment_over_training(evidence: Evidence) -> Figure:
    """Band alignment by optimiser step: thin a run, thick the mean over seeds with its 95 % t interval."""
    course = training_course(evidence).dropna(subset=["alignment"])
    figure = new_figure("Alignment over training", height_beside(evidence.trained))
    axes = figure.add_subplot()
    axes.set(xlabel="optimiser step", ylabel="alignment (cosine)")
    if course.empty:
        not_measured(axes, "training")
        return figure
    axes.axhline(0, color=FAINT, linewidth=1)
    ends = []
    for condition in evidence.trained:
        runs = course[course["condition"] == condition]
        wide = runs.pivot_table(index="step", columns="seed", values="alignment")
        if len(wide):
            ends.append(_draw_course(axes, wide, condition, look(condition, evidence.conditions)))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    label_ends(axes, ends)
    axes.set_title(_seeds(course["seed"].nunique()), loc="left")
    return figure


@styled
def plot_training_difference(evidence: Evidence) -> Figure:
    """Alignment minus inoculation's in training, paired by seed and step: thin a seed, thick the mean over seeds."""
    differences = training_differences(evidence)
    figure = new_figure("Difference to inoculation, in training", height_beside(evidence.trained))
    axes = figure.add_subplot()
    axes.set(xlabel="optimiser step", ylabel="alignment minus\ninoculation's (cosine)")
    if differences.empty:
        not_measured(axes, "training")
        return figure
    axes.axhline(0, color=FAINT, linewidth=1)
    ends = []
    for condition in differences:
        wide = differences[condition].dropna().unstack("seed")  # noqa: PD010 - a series has no pivot_table
        if len(wide):
            ends.append(_draw_course(axes, wide, str(condition), look(str(condition), evidence.conditions)))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    label_ends(axes, ends)
    axes.set_title(_seeds(differences.index.get_level_values("seed").nunique()), loc="left")
    return figure


def _draw_course(axes: Axes, wide: pd.DataFrame, condition: str, style: Look) -> tuple[float, float, str, str]:
    """Draw steps by seeds, the mean over seeds and its interval; where the mean ends, its name and ink."""
    for seed in wide:
        axes.plot(wide.index, wide[seed], color=style.colour, alpha=0.35, linewidth=1)
    means = [mean_interval(row) for row in wide.to_numpy(dtype=float)]
    if wide.shape[1] > 2:  # two seeds' t interval is 13 standard errors wide: it would hide the lines
        axes.fill_between(
            wide.index, [mean.low for mean in means], [mean.high for mean in means],
            color=style.colour, alpha=0.15, linewidth=0,
        )  # fmt: skip
    axes.plot(wide.index, [mean.estimate for mean in means], color=style.colour, linestyle=style.line)
    return float(wide.index[-1]), means[-1].estimate, wrapped(condition), style.ink


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count > 1)}{', 95 % interval' * (count > 2)}"


@styled
def plot_drift_over_training(evidence: Evidence) -> Figure:
    """The responses' score and log-odds by phase of training, neutral prompt: a point a run, lines the means."""
    figure = new_figure("Drift over training, neutral prompt", 2 * height_beside(evidence.trained, 3.2))
    panels = figure.subplots(2, 1, sharex=True)
    measured = set(evidence.drift["phase"])
    for axes, (measure, (label, unit)) in zip(panels, LEVELS.items(), strict=True):
        label = fitted(label.format(score=score_label(evidence.trait)), up_to(HALF))
        axes.set_ylabel(f"{label}\n{unit}")
        axes.set_xlabel("phase of training" if axes is panels[-1] else "")
        course = drift_course(evidence, measure).dropna(subset=["value"])
        if course.empty:
            not_measured(axes, "drift")
            continue
        ends = _draw_phases(axes, course, evidence)
        named = [word + "\n(not measured)" * (phase not in measured) for phase, word in PHASES.items()]
        axes.set_xticks(range(len(PHASES)), named)
        axes.set_xlim(-0.25, len(PHASES) - 0.75)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        label_ends(axes, ends)
    return figure


def _draw_phases(axes: Axes, course: pd.DataFrame, evidence: Evidence) -> list[tuple[float, float, str, str]]:
    """Draw each condition's runs by phase, beside one another; where its line ends, its name and ink."""
    order, ends = list(PHASES), []
    offsets = np.linspace(-0.06, 0.06, len(evidence.trained)) if len(evidence.trained) > 1 else [0.0]
    for condition, offset in zip(evidence.trained, offsets, strict=True):
        runs = course[course["condition"] == condition]
        if runs.empty:
            continue
        style = look(condition, evidence.conditions)
        after = runs[runs["phase"] != order[0]]
        places = np.array([order.index(phase) for phase in after["phase"]]) + offset
        axes.scatter(places, after["value"], s=34, marker=style.marker, color=style.colour, alpha=0.55, linewidth=0)
        means = runs.groupby("phase")["value"].mean().reindex([phase for phase in order if phase in set(runs["phase"])])
        x = np.array([order.index(phase) for phase in means.index], dtype=float) + offset * (np.arange(len(means)) > 0)
        axes.plot(x, means, color=style.colour, linestyle=style.line, zorder=3)
        ends.append((float(x[-1]), float(means.iloc[-1]), wrapped(condition), style.ink))
    return ends
