"""Plot 6: how far training moved what models write, by prompt."""

from __future__ import annotations

from gradinoc.claims.evidence.tables import EVERYDAY, EXPECTED, SCORE, Evidence
from gradinoc.claims.gates.runs import G5
from gradinoc.report.figures.drift.shifts import draw_shifts, families_in_words, family_shifts, shift_table
from gradinoc.report.figures.lettering import score_label
from gradinoc.report.figures.prompts.families import order_of
from gradinoc.report.figures.prompts.rows import name_rows, rows_height, rows_of
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import WIDE, new_figure, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, sentence, signs
from gradinoc.study.rules import Rules

TITLES = {EXPECTED: "sampled (decides)", SCORE: "greedy", EVERYDAY: "greedy, everyday requests"}


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """The shift of the score of responses: sampled, which decides, greedy, and greedy to everyday requests."""
    rows = rows_of(evidence, evidence.trained)
    score = sentence(score_label(evidence.trait))
    figure = new_figure(f"{score} shift under the neutral prompt", rows_height(rows, 2.2), WIDE)
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    drawn = {}
    for axes, (measure, title) in zip(panels, TITLES.items(), strict=True):
        axes.set_title(title, loc="left", fontsize=14)
        axes.set_xlabel("after − before (fraction)")
        drawn[measure] = draw_shifts(axes, evidence, measure, rows)
    if not any(drawn.values()):
        return Drawn(figure)
    name_rows(panels[0], evidence, rows)
    for axes in panels[1:]:
        axes.tick_params(axis="y", length=0)
    name = evidence.trait.score_name
    told = {title: families_in_words(family_shifts(evidence, measure)) for measure, title in TITLES.items()}
    caption = (
        f"How far training moved the {name} of responses under the neutral prompt, a fraction: a point a run, a row a "
        f"prompt; line and shade a family's mean with its 95 % interval over prompts (of neutral: over runs) and "
        f"question templates; hollow: rephrased. Families from the top: {order_of(evidence, rows)}. "
        f"{'. '.join(f'{sentence(title)}: {words}' for title, words in told.items())}."
    )
    measured = if_measured(G5.measure, evidence, rules)
    return Drawn(
        figure, caption, signs(measured.statement) if measured else NOT_MEASURED, shift_table(evidence, tuple(TITLES))
    )


FIGURE = StudyFigure("plot6_score_shift", ("drift", "G5"), draw, wide=True)
