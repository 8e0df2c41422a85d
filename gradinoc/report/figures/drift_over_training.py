"""Plot 14: what a model shows of the trait before, early in and after training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.tables import AFTER, BEFORE, EARLY, Evidence
from gradinoc.report.figures.lettering import fitted, score_label
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import (
    height_beside,
    label_ends,
    look,
    new_figure,
    not_measured,
    styled,
    up_to,
    wrapped,
)  # fmt: skip
from gradinoc.report.numbers import PHASES, drift_course
from gradinoc.report.wording import listed, rounded, sentence, shown
from gradinoc.study.rules import Rules

LEVELS = {"score": ("{score}, held-out", "(fraction)"), "log_odds": ("trait log-odds", "(nats/token)")}
HALF = 2.2  # inches, of a label beside one of two panels


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """The responses' score and log-odds by phase of training, neutral prompt: a point a run, lines the means."""
    figure = new_figure("Drift over training, neutral prompt", 2 * height_beside(evidence.trained, 3.2))
    panels = figure.subplots(2, 1, sharex=True)
    courses = {measure: drift_course(evidence, measure).dropna(subset=["value"]) for measure in LEVELS}
    for axes, (measure, (label, unit)) in zip(panels, LEVELS.items(), strict=True):
        label = fitted(label.format(score=score_label(evidence.trait)), up_to(HALF))
        axes.set_ylabel(f"{label}\n{unit}")
        axes.set_xlabel("phase of training" if axes is panels[-1] else "")
        if courses[measure].empty:
            not_measured(axes, "drift")
        else:
            _draw_panel(axes, courses[measure], evidence)
    means = {
        measure: course.groupby(["condition", "phase"])["value"].mean()
        for measure, course in courses.items()
        if len(course)
    }
    return Drawn(figure, _caption(evidence, means), _finding(evidence, means)) if means else Drawn(figure)


def _draw_panel(axes: Axes, course: pd.DataFrame, evidence: Evidence) -> None:
    measured = set(evidence.drift["phase"])
    ends = _draw_phases(axes, course, evidence)
    named = [word + "\n(not measured)" * (phase not in measured) for phase, word in PHASES.items()]
    axes.set_xticks(range(len(PHASES)), named)
    axes.set_xlim(-0.25, len(PHASES) - 0.75)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    label_ends(axes, ends)


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


def _caption(evidence: Evidence, means: dict[str, pd.Series]) -> str:
    names = {
        "score": f"{sentence(evidence.trait.score_name)}, held-out questions (fraction)",
        "log_odds": "Trait log-odds (nats/token)",
    }
    parts = []
    for measure, found in means.items():
        runs = {name: found[name] for name in evidence.trained if name in found.index.get_level_values("condition")}
        parts.append(f"{names[measure]}: {listed((name, _phases(values)) for name, values in runs.items())}.")
    early = "" if EARLY in set(evidence.drift["phase"]) else " Nothing was measured early in training."
    return (
        f"What a model shows of the trait under the neutral prompt before, early in and after training, a point a run, "
        f"lines the means over seeds (n = {len(evidence.seeds)}).{early} {' '.join(parts)}"
    )


def _phases(means: pd.Series) -> str:
    return ", ".join(f"{word} {means[phase]:.3f}" for phase, word in PHASES.items() if phase in means)


def _finding(evidence: Evidence, means: dict[str, pd.Series]) -> str:
    names = {"score": f"the {evidence.trait.score_name}", "log_odds": "the mean trait log-odds"}
    parts = []
    for measure, found in means.items():
        ends = ", ".join(
            f"{rounded(found[condition, BEFORE])} to {rounded(found[condition, AFTER])} under {shown(condition)}"
            for condition in evidence.trained
            if (condition, AFTER) in found
        )
        parts.append(f"{names[measure]} goes from {ends}")
    return f"{sentence('; '.join(parts))}."


FIGURE = StudyFigure("plot14_drift_over_training", ("drift", "C4"), draw)
