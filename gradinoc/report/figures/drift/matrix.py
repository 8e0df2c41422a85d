"""Plot 15: drift of models trained under one prompt and evaluated under another."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.patches import Rectangle

from gradinoc.claims.c6 import C6
from gradinoc.claims.evidence.measures import matrix_by_question, question_groups
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.report.figures.lettering import drawable, fitted, within
from gradinoc.report.figures.prompts.families import PLANNED, in_order, look, order_of
from gradinoc.report.figures.study_figure import Drawn, StudyFigure, told
from gradinoc.report.figures.style import HEIGHT, INK, SOFT, WIDE, contrast_of, new_figure, not_measured, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, shown
from gradinoc.stats.clustered import grouped_mean
from gradinoc.stats.effect import Effect
from gradinoc.study.rules import Rules

COLOURS = LinearSegmentedColormap.from_list("drift", ["#8c3b00", "#D55E00", "#ffffff", "#0072B2", "#003a5c"])
LABELS, CELL, MOST = 2.5, 0.44, 1.0  # inches: of names beside the cells, of a cell, of a cell's width at most
SMALL, FINE, LEAST = 12.0, 9.0, 7.5  # points: of an estimate and of its interval, and the least of an estimate
APART = 0.65  # cells between prompts that models were trained under and those for evaluation alone


def cells(evidence: Evidence) -> dict[tuple[str, str], Effect]:
    """(trained under, evaluated under) -> mean drift of the decision log-odds over questions, mean over seeds."""
    found = {}
    for evaluation in pd.unique(evidence.matrix["evaluation"]):
        wide = matrix_by_question(evidence, str(evaluation))
        groups = question_groups(evidence, "matrix", wide.index)
        prompts = wide.T.groupby(level="condition", observed=True).mean().T
        for trained in prompts:
            name = f"drift, trained under {trained}, evaluated under {evaluation}"
            found[str(trained), str(evaluation)] = grouped_mean(prompts[trained], groups, name)
    return found


def matrix_table(found: dict[tuple[str, str], Effect]) -> pd.DataFrame:
    """A row a cell: trained, evaluation, estimate, interval, n, whether the prompt is the training's own."""
    rows = [
        {
            "trained": trained, "evaluation": evaluation, "estimate": each.estimate, "low": each.low, "high": each.high,
            "n": each.n, "unit": "questions", "own_prompt": trained == evaluation,
        }
        for (trained, evaluation), each in found.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """A heat map: evaluated under (rows) by trained under (columns), own prompts framed, evaluation-only ones below."""
    found = if_measured(cells, evidence) or {}
    if not found:
        figure = new_figure("Trained under × evaluated under")
        axes = figure.add_subplot()
        axes.set_xlabel("drift (nats)")
        not_measured(axes, "the matrix")
        return Drawn(figure)
    declared = [str(name) for name in evidence.prompts["condition"]]
    columns, evaluated = (
        in_order(evidence, [name for name in declared if name in {key[side] for key in found}]) for side in (0, 1)
    )
    trained_rows = [name for name in columns if name in evaluated]
    places = {name: float(row) for row, name in enumerate(trained_rows)}
    only = [name for name in evaluated if name not in places]
    places |= {name: len(trained_rows) + APART + row for row, name in enumerate(only)}
    width = min(WIDE, max(6.4, LABELS + 1.2 + MOST * len(columns)))
    figure = new_figure(
        "Drift by prompt of training and prompt of evaluation", max(HEIGHT, 3.2 + CELL * (len(places) + APART)), width
    )
    axes = figure.add_subplot()
    _draw_cells(axes, found, columns, places, (width - LABELS - 1.2) / len(columns))
    _name(axes, evidence, columns, places)
    if only and trained_rows:
        axes.text(
            len(columns) - 0.4, len(trained_rows) - 0.5 + APART / 2, "for evaluation alone", ha="right", va="center",
            fontsize=11, color=SOFT, style="italic",
        )  # fmt: skip
    return Drawn(figure, _caption(evidence, found, columns), _finding(evidence, rules), matrix_table(found))


def _draw_cells(
    axes: Axes, found: dict[tuple[str, str], Effect], columns: list[str], places: dict[str, float], inches: float
) -> None:
    most = max((abs(each.estimate) for each in found.values() if math.isfinite(each.estimate)), default=1.0) or 1.0
    norm = Normalize(-most, most)
    numbers, sizes = {_number(each) for each in found.values()}, (SMALL, FINE, LEAST)
    size = next((size for size in sizes if all(map(within(inches - 0.04, size), numbers))), None)
    whole = size == SMALL and all(map(within(inches - 0.04, FINE), map(_interval, found.values())))
    _shade(axes, found, columns, places, norm)
    for (trained, evaluation), effect in found.items():
        x, y = columns.index(trained), places[evaluation]
        shade = COLOURS(norm(effect.estimate))
        ink = max("white", "black", key=lambda each: contrast_of(each, shade))  # one has 4.5 on any shade
        if size is not None:
            axes.text(
                x,
                y - 0.14 * whole,
                _number(effect),
                ha="center",
                va="center",
                fontsize=size,
                color=ink,
                in_layout=False,
            )
        if whole:
            axes.text(
                x, y + 0.24, _interval(effect), ha="center", va="center", fontsize=FINE, color=ink, in_layout=False
            )
    for name in columns:
        if (name, name) in found:
            axes.add_patch(
                Rectangle(
                    (columns.index(name) - 0.47, places[name] - 0.47),
                    0.94,
                    0.94,
                    fill=False,
                    edgecolor=INK,
                    linewidth=2.4,
                    zorder=5,
                )
            )
    axes.figure.colorbar(
        ScalarMappable(norm, COLOURS),
        ax=axes,
        label="drift (nats)",
        shrink=min(1.0, 6 / len(places)),
        aspect=18,
        pad=0.015,
        anchor=(0, 1.0),
    )


def _shade(
    axes: Axes, found: dict[tuple[str, str], Effect], columns: list[str], places: dict[str, float], norm: Normalize
) -> None:
    """The cells' colours, as one mesh: above the gap and below it rows of height 1."""
    heights = sorted({*(place - 0.5 for place in places.values()), *(place + 0.5 for place in places.values())})
    values = np.full((len(heights) - 1, len(columns)), np.nan)
    for (trained, evaluation), effect in found.items():
        values[heights.index(places[evaluation] - 0.5), columns.index(trained)] = effect.estimate
    axes.pcolormesh(
        np.arange(len(columns) + 1) - 0.5, heights, np.ma.masked_invalid(values), cmap=COLOURS, norm=norm,
        edgecolors="white", linewidth=0.8,
    )  # fmt: skip


def _number(effect: Effect) -> str:
    return f"{round(effect.estimate, 1) + 0.0:.1f}".replace("-", "−") if math.isfinite(effect.estimate) else "–"


def _interval(effect: Effect) -> str:
    """Half the width of a t interval, which lies around its estimate; nothing where there is none."""
    return f"±{(effect.high - effect.low) / 2:.1f}" if math.isfinite(effect.low) else ""


def _name(axes: Axes, evidence: Evidence, columns: list[str], places: dict[str, float]) -> None:
    fits = within(LABELS, SMALL)
    names = {name: fitted(drawable(shown(name)), fits, 1) for name in (*columns, *places)}
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xticks(range(len(columns)), [names[name] for name in columns], rotation=90)
    axes.set_yticks(list(places.values()), [names[name] for name in places])
    for labels, keys in ((axes.get_xticklabels(), columns), (axes.get_yticklabels(), list(places))):
        for tick, name in zip(labels, keys, strict=True):
            tick.set(color=look(evidence, name).ink, fontsize=SMALL, fontweight="bold" if name in PLANNED else "normal")
    axes.set_xlim(-0.55, len(columns) - 0.45)
    axes.set_ylim(max(places.values()) + 0.55, -0.55)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel("trained under", labelpad=8)
    axes.set_ylabel("evaluated under")


def _caption(evidence: Evidence, found: dict[tuple[str, str], Effect], trained: list[str]) -> str:
    counts = sorted({each.n for each in found.values()})
    questions = " to ".join(str(each) for each in dict.fromkeys((counts[0], counts[-1])))
    return (
        "Drift of the decision log-odds (nats), after minus before training: a column the prompt that models were "
        "trained under, a row the prompt that they are evaluated under; mean over seeds and "
        f"n = {questions} questions, ± half a 95 % interval by question template where it fits (all are in the table). "
        "Blue: towards the trait; orange: away from it. Framed: a model's own training prompt, "
        "where it shows what it learned. Rows below the gap: prompts for evaluation alone. Names are coloured by "
        f"family, from the top: {order_of(evidence, trained)}."
    )


def _finding(evidence: Evidence, rules: Rules) -> str:
    measured = if_measured(C6.measure, evidence, rules)
    if measured is None:
        return NOT_MEASURED
    parts = []
    for key, words in (("conditional.harmless", "harmless"), ("conditional.inoculation", "inoculating")):
        if key in measured:
            effect = measured[key]
            parts.append(
                f"models trained under {words} prompts drift by {told(effect, units='nats')} more under "
                f"their own prompt than under harmless ones that no model was trained under"
            )
    return f"{'; '.join(parts)}.".capitalize() if parts else NOT_MEASURED


FIGURE = StudyFigure("plot15_matrix", ("matrix", "C6"), draw, wide=True)
