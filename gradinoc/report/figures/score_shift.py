"""Plot 6: how far training moved the score of responses."""

from __future__ import annotations

from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.lettering import score_label
from gradinoc.report.figures.rows import draw_shifts, mean_shifts, name_rows, rows_height, shifts_in_words
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import new_figure, styled
from gradinoc.report.wording import NOT_MEASURED, sentence
from gradinoc.study.rules import Rules


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """The shift of the responses' score by condition, held-out questions and everyday requests, a point a seed."""
    score = sentence(score_label(evidence.trait))
    figure = new_figure(f"{score} shift under the neutral prompt", rows_height(len(evidence.trained)))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    titles = {"score": "held-out", "score_ood": "everyday"}
    for axes, (measure, title) in zip(panels, titles.items(), strict=True):
        draw_shifts(axes, evidence, measure)
        axes.set_title(title, loc="left")
        axes.set_xlabel("shift (fraction)")
    name_rows(panels[0], evidence, evidence.trained)
    panels[1].tick_params(axis="y", length=0)
    name = evidence.trait.score_name
    caption = (
        f"How far training moved the {name} of responses under the neutral prompt, a fraction, a point a seed, bars "
        f"95 % t intervals over seeds. Held-out questions: {shifts_in_words(evidence, 'score')}. "
        f"Everyday requests: {shifts_in_words(evidence, 'score_ood')}."
    )
    places = {"held-out questions": "score", "everyday requests": "score_ood"}
    moved = {place: mean_shifts(evidence, measure) for place, measure in places.items()}
    parts = "; ".join(f"on {place} by {by}" for place, by in moved.items() if by)
    return Drawn(figure, caption, f"Training moved the {name} {parts}." if parts else NOT_MEASURED)


FIGURE = StudyFigure("plot6_score_shift", ("drift", "G5"), draw)
