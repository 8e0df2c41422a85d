"""Plot 17: the contrast that decides, under every other choice that could have been declared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.evidence.tables import COSINE, FROZEN, POOLED, PUSH, TRAIT_DIRECTION, WINDOWS, Evidence
from gradinoc.claims.rules.specification import CELL, DECLARED, Specifications, curve_of
from gradinoc.report.figures.alignment.trait_against_others import draws_along
from gradinoc.report.figures.prompts.families import spread_of
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import FAINT, INK, SOFT, WIDE, new_figure, not_measured, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import rounded, shown
from gradinoc.study.description import POSITIONS
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules
from gradinoc.study.settings import INSTRUCTION, NULLS

MEASURES = {
    COSINE: "mean cosine",
    PUSH: "push\n(nats/token per hidden-state unit)",
    POOLED: "cosine of the mean gradient",
}
ABOVE, BELOW = "#0072B2", "#D55E00"
DOT = 3.4  # points, of a cell
RING: dict[str, Any] = {
    "linestyle": "", "marker": "o", "markersize": 13, "markerfacecolor": "none", "markeredgecolor": INK,
    "markeredgewidth": 2.2,
}  # fmt: skip
DASHED: dict[str, Any] = {"color": INK, "linewidth": 1.6, "linestyle": (0, (5, 2))}
GREY: dict[str, Any] = {"color": SOFT, "alpha": 0.22}
CHOICE = 0.235  # inches of a row of choices
THIRDS = {0: "lower third of layers", 1: "middle third of layers", 2: "upper third of layers"}
WORDS = {TRAIT_DIRECTION: "v, as declared", "responses": "v of responses", FROZEN: "frozen model"}
WORDS |= {window: f"{window} third of training" for window in WINDOWS}


def choices(cells: pd.DataFrame) -> list[tuple[str, str | int]]:
    """Every choice (column, value) of a cell but its measure, the declared one of each column first."""
    found: list[tuple[str, str | int]] = []
    orders: dict[str, tuple[str | int, ...]] = {
        "position": POSITIONS,
        "window": (FROZEN, *WINDOWS),
        "third": tuple(THIRDS),
    }
    for column in CELL[:-1]:
        present = list(pd.unique(cells[column]))
        order = [value for value in orders.get(column, (TRAIT_DIRECTION,)) if value in present]
        found += [(column, value) for value in (*order, *sorted(value for value in present if value not in order))]
    return found


def in_words(column: str, value: str | int) -> str:
    """A choice as the grid names it."""
    if column == "third":
        return THIRDS[int(value)]
    return WORDS.get(str(value)) or shown(str(value))


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """A column a measure: above, its cells sorted by size, below, the choices of each; C1's own as ring and line."""
    found = if_measured(curve_of, evidence)
    if found is None or found.cells.empty:
        figure = new_figure("Specification curve", width=WIDE)
        axes = figure.add_subplot()
        axes.set_xlabel("specifications, sorted (count)")
        not_measured(axes, "specifications")
        return Drawn(figure)
    cells = found.cells.rename("value").reset_index()
    rows = choices(cells)
    measures = [measure for measure in MEASURES if measure in set(cells["measure"])]
    heights = [3.0, CHOICE * (len(rows) + 2)]
    figure = new_figure("Specification curve: harmless − inoculating prompts", sum(heights) + 2.1, WIDE)
    panels = figure.subplots(2, len(measures), squeeze=False, sharex="col", height_ratios=heights)
    for column, measure in enumerate(measures):
        own = cells[cells["measure"] == measure].sort_values("value", ignore_index=True)
        _draw_curve(panels[0, column], own, measure)
        _draw_choices(panels[1, column], own, rows, named=column == 0)
    if measures[0] == COSINE:
        _draw_decides(panels[0, 0], evidence, found)
    _name_marks(figure, evidence, measures)
    table = cells.assign(declared=cells.index.isin(_declared(cells)))
    return Drawn(figure, _caption(evidence, found, rules), _finding(found), table)


def _draw_curve(axes: Axes, own: pd.DataFrame, measure: str) -> None:
    axes.axhline(0, color=FAINT, linewidth=1)
    for sign, colour, marker in ((1, ABOVE, "o"), (-1, BELOW, "v"), (0, SOFT, "o")):
        at = own.index[np.sign(own["value"]) == sign]
        axes.plot(
            at, own.loc[at, "value"], linestyle="", marker=marker, markersize=DOT, color=colour, markeredgewidth=0
        )
    declared = _declared(own)
    if len(declared):
        axes.plot([float(declared[0])], [float(own.loc[declared[0], "value"])], zorder=6, **RING)
    positive, negative = (100 * float((sign * own["value"] > 0).mean()) for sign in (1, -1))
    label, *unit = MEASURES[measure].split("\n")
    axes.set_title(f"{label}\n{positive:.0f} % above zero, {negative:.0f} % below", loc="left", fontsize=13)
    axes.set_ylabel(unit[0] if unit else "(cosine)", fontsize=13)
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _declared(own: pd.DataFrame) -> pd.Index:
    """The row of the declared cell; none where it is of another measure."""
    return own.index[(own[list(CELL)] == list(DECLARED)).all(axis=1)]


def _draw_choices(axes: Axes, own: pd.DataFrame, rows: list[tuple[str, str | int]], *, named: bool) -> None:
    """A mark where a cell took the row's choice; a gap between the columns of choices."""
    columns = list(dict.fromkeys(column for column, _ in rows))
    places = {row: place + 0.6 * columns.index(row[0]) for place, row in enumerate(rows)}
    for (column, value), height in places.items():
        at = own.index[own[column] == value]
        if height == 0 and len(declared := _declared(own)):
            axes.axvline(float(declared[0]), color=FAINT, linewidth=1, zorder=0)
        colours = np.where(own.loc[at, "value"] > 0, ABOVE, np.where(own.loc[at, "value"] < 0, BELOW, SOFT))
        axes.vlines(at, height - 0.36, height + 0.36, colors=list(colours), linewidth=1.1)
    axes.set_ylim(max(places.values()) + 0.7, -0.7)
    axes.set_yticks(list(places.values()), [in_words(*row) for row in rows] if named else [])
    axes.tick_params(axis="y", length=0, labelsize=12)
    axes.set_xlabel("specifications, sorted (count)", fontsize=13)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def random_cells(evidence: Evidence) -> tuple[float, float] | None:
    """The central 95 % of the same contrast along instruction contrasts: band mean, frozen model."""
    draws = if_measured(draws_along, evidence, INSTRUCTION)
    return None if draws is None else spread_of(draws)


def _draw_decides(axes: Axes, evidence: Evidence, found: Specifications) -> None:
    """What C1 decides by, the mean over the band, which is no cell; grey the same along instruction contrasts."""
    axes.axhline(found.decides, **DASHED, zorder=2)
    random = random_cells(evidence)
    if random is not None:
        axes.axhspan(*random, **GREY, linewidth=0, zorder=0)


def _name_marks(figure: Figure, evidence: Evidence, measures: list[str]) -> None:
    """A legend below the panels."""
    dots: dict[str, dict[str, Any]] = {
        "above zero": {"linestyle": "", "marker": "o", "color": ABOVE, "markersize": 2 * DOT},
        "below zero": {"linestyle": "", "marker": "v", "color": BELOW, "markersize": 2 * DOT},
    }
    if measures[0] == COSINE:
        dots["what decides: C1, mean over the band"] = DASHED
        dots["C1's choices, but the upper third of layers"] = RING
        if random_cells(evidence) is not None:
            dots[f"{NULLS[INSTRUCTION].label}, central 95 %"] = {**GREY, "linewidth": 9, "solid_capstyle": "butt"}
    handles = [Line2D([], [], label=label, **given) for label, given in dots.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=12.5, frameon=False)


def _caption(evidence: Evidence, found: Specifications, rules: Rules) -> str:
    curve, random = found.curve, random_cells(evidence)
    shade = ""
    if random is not None:
        shade = (
            f" Grey: where 95 % of {NULLS[INSTRUCTION].label} lie (band mean, frozen model), {rounded(random[0])} to "
            f"{rounded(random[1])}."
        )
    return (
        f"The mean of harmless prompts less that of inoculating ones in {curve.cells} specifications: four directions, "
        f"three positions, thirds of the layers, the frozen model and thirds of training, and three measures, each in "
        f"its own units and sorted by size (blue above zero, orange triangles below); below, the choices that each "
        f"cell took. Dashed: what decides, C1's mean over the band, {rounded(found.decides)}, which is no cell, since "
        f"cells have thirds of the layers and no band. Ringed: the cell of C1's own choices but for the layers, of "
        f"which it has the upper third, {rounded(curve.declared)}. {100 * curve.positive:.0f} % of cells lie above "
        f"zero, {100 * curve.negative:.0f} % below; the verdict warns where fewer than {100 * rules.signs:g} % have "
        f"the sign of what decides. Cells share data, so shares have no interval.{shade}{_harmless(evidence)}"
    )


def _harmless(evidence: Evidence) -> str:
    """How far single harmless prompts lie from each other in the ringed cell."""
    rows = evidence.cells[(evidence.cells[list(CELL)] == list(DECLARED)).all(axis=1)]
    values = rows.groupby("condition", observed=True)["value"].mean()
    own = values.reindex(list(evidence.family(Family.HARMLESS, list(values.index)))).dropna()
    if own.empty:
        return ""
    return f" Single harmless prompts lie from {rounded(own.min())} to {rounded(own.max())} in the ringed cell."


def _finding(found: Specifications) -> str:
    return (
        f"{100 * found.same_sign:.0f} % of {found.curve.cells} specifications have the sign of the contrast that "
        f"decides, {rounded(found.decides)}."
    )


FIGURE = StudyFigure("plot17_specification_curve", ("C1",), draw, wide=True)
