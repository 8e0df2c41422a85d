"""Plot 5: how far training moved the projection on the trait direction, by prompt."""

from __future__ import annotations

from gradinoc.claims.evidence.tables import PROJECTION, Evidence
from gradinoc.claims.gates.direction import G8B
from gradinoc.report.figures.drift.shifts import draw_shifts, families_in_words, family_shifts, shift_table
from gradinoc.report.figures.prompts.families import order_of
from gradinoc.report.figures.prompts.rows import name_rows, rows_height, rows_of
from gradinoc.report.figures.study_figure import Drawn, StudyFigure, told
from gradinoc.report.figures.style import new_figure, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED
from gradinoc.study.rules import Rules


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """The shift of the projection on v: a prompt a row, a point a run, a family's mean and interval behind them."""
    rows = rows_of(evidence, evidence.trained)
    figure = new_figure("Projection shift under the neutral prompt", rows_height(rows, 2.0))
    axes = figure.add_subplot()
    axes.set_xlabel("after − before training\n(hidden-state units)")
    drawn = draw_shifts(axes, evidence, PROJECTION, rows)
    if not drawn:
        return Drawn(figure)
    name_rows(axes, evidence, rows)
    caption = (
        f"How far training moved the projection on the trait direction under the neutral prompt, in hidden-state "
        f"units: a point a run, a row a prompt; line and shade a family's mean with its 95 % interval over prompts (of "
        f"neutral: over runs) and question templates; hollow: rephrased. Families from the top: "
        f"{order_of(evidence, rows)}. "
        f"{families_in_words(family_shifts(evidence, PROJECTION))}."
    )
    measured = if_measured(G8B.measure, evidence, rules)
    finding = NOT_MEASURED
    if measured is not None and not measured.effects:
        finding = measured.statement
    elif measured is not None:
        moved = told(measured["moved"], units="hidden-state units")
        finding = f"Neutral training moved the projection on the trait direction by {moved}."
    return Drawn(figure, caption, finding, shift_table(evidence, (PROJECTION,)))


FIGURE = StudyFigure("plot5_projection_shift", ("drift", "G8b"), draw)
