"""Plot 17: the contrast that decides, under every other choice that could have been declared."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.specification import CELL, DECLARED, Specifications, curve_of
from gradinoc.claims.tables import COSINE, FROZEN, POOLED, PUSH, TRAIT_DIRECTION, WINDOWS, Evidence
from gradinoc.report.figures.alignment.trait_against_others import draws_along
from gradinoc.report.figures.prompts.families import spread_of
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import FAINT, INK, SOFT, WIDE, new_figure, not_measured, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import rounded, shown
from gradinoc.study.description import INSTRUCTION, NULLS, POSITIONS
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules

MEASURES = {
    COSINE: "mean cosine",
    PUSH: "push\n(nats/token per hidden-state unit)",
    POOLED: "cosine of the mean gradient",
}
ABOVE, BELOW = "#0072B2", "#D55E00"
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
    """A column a measure: above, its cells sorted by size, the declared one ringed; below, the choices of each cell."""
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
    figure = new_figure("Specification curve: harmless − inoculating prompts", sum(heights) + 1.5, WIDE)
    panels = figure.subplots(2, len(measures), squeeze=False, sharex="col", height_ratios=heights)
    for column, measure in enumerate(measures):
        own = cells[cells["measure"] == measure].sort_values("value", ignore_index=True)
        _draw_curve(panels[0, column], own, measure)
        _draw_choices(panels[1, column], own, rows, named=column == 0)
    if measures[0] == COSINE:
        _shade_random(panels[0, 0], evidence)
    table = cells.assign(declared=cells.index.isin(_declared(cells)))
    return Drawn(figure, _caption(evidence, found, rules), _finding(found), table)


def _draw_curve(axes: Axes, own: pd.DataFrame, measure: str) -> None:
    axes.axhline(0, color=FAINT, linewidth=1)
    for sign, colour, marker in ((1, ABOVE, "o"), (-1, BELOW, "v"), (0, SOFT, "o")):
        at = own.index[np.sign(own["value"]) == sign]
        axes.plot(
            at, own.loc[at, "value"], linestyle="", marker=marker, markersize=3.4, color=colour, markeredgewidth=0
        )
    declared = _declared(own)
    if len(declared):
        place = (float(declared[0]), float(own.loc[declared[0], "value"]))
        axes.plot(
            *place,
            linestyle="",
            marker="o",
            markersize=13,
            markerfacecolor="none",
            markeredgecolor=INK,
            markeredgewidth=2.2,
            zorder=6,
        )
        left = place[0] > len(own) / 2
        axes.annotate(
            "declared", place, (0, 16), textcoords="offset points", ha="right" if left else "left", va="bottom",
            fontweight="bold", fontsize=13,
        )  # fmt: skip
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


def _shade_random(axes: Axes, evidence: Evidence) -> None:
    random = random_cells(evidence)
    if random is not None:
        axes.axhspan(*random, color=SOFT, alpha=0.22, linewidth=0, zorder=0)


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
        f"its own units and sorted by size; below, the choices that each cell took. Ringed: the declared cell, "
        f"{rounded(curve.declared)}. {100 * curve.positive:.0f} % of cells lie above zero, {100 * curve.negative:.0f} "
        f"% below; the verdict warns where fewer than {100 * rules.signs:g} % have the sign of the contrast that "
        f"decides (C1, mean over the band), {rounded(found.decides)}. Cells share data, so shares have no interval."
        f"{shade}{_harmless(evidence)}"
    )


def _harmless(evidence: Evidence) -> str:
    """How far single harmless prompts lie from each other in the declared cell."""
    rows = evidence.cells[(evidence.cells[list(CELL)] == list(DECLARED)).all(axis=1)]
    values = rows.groupby("condition", observed=True)["value"].mean()
    own = values.reindex(list(evidence.family(Family.HARMLESS, list(values.index)))).dropna()
    if own.empty:
        return ""
    return f" Single harmless prompts lie from {rounded(own.min())} to {rounded(own.max())} in the declared cell."


def _finding(found: Specifications) -> str:
    return (
        f"{100 * found.same_sign:.0f} % of {found.curve.cells} specifications have the sign of the contrast that "
        f"decides, {rounded(found.decides)}."
    )


FIGURE = StudyFigure("plot17_specification_curve", ("C1",), draw, wide=True)
