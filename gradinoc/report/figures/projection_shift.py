"""Plot 5: how far training moved the projection on the trait direction."""

from __future__ import annotations

from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.rows import draw_shifts, mean_shifts, name_rows, rows_height, shifts_in_words
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import new_figure, styled
from gradinoc.report.wording import NOT_MEASURED
from gradinoc.study.rules import Rules


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """The shift of the projection on v by condition: a point a seed, their mean with its 95 % t interval."""
    figure = new_figure("Projection shift under the neutral prompt", rows_height(len(evidence.trained)))
    axes = figure.add_subplot()
    draw_shifts(axes, evidence, "projection")
    name_rows(axes, evidence, evidence.trained)
    axes.set_xlabel("after − before training\n(hidden-state units)")
    caption = (
        f"How far training moved the projection on the trait direction under the neutral prompt, in hidden-state "
        f"units, a point a seed, bars 95 % t intervals over seeds: {shifts_in_words(evidence, 'projection')}."
    )
    moved = mean_shifts(evidence, "projection")
    finding = f"Training moved the projection on the trait direction by {moved}." if moved else NOT_MEASURED
    return Drawn(figure, caption, finding)


FIGURE = StudyFigure("plot5_projection_shift", ("drift", "G5"), draw)
