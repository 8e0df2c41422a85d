"""Plot 8: whether the projection before a response goes with the response's score."""

from __future__ import annotations

import math
from dataclasses import replace

from gradinoc.claims.evidence.tables import BASE, Evidence
from gradinoc.claims.rules.warnings import trait_tracking
from gradinoc.report.figures.lettering import fitted, score_label
from gradinoc.report.figures.prompts.families import by_families, family_key
from gradinoc.report.figures.study_figure import Drawn, StudyFigure, told
from gradinoc.report.figures.style import (
    BEFORE_TRAINING,
    LOOKS,
    PANEL,
    new_figure,
    not_measured,
    styled,
    up_to,
)  # fmt: skip
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, rounded, side
from gradinoc.study.rules import Rules

MANY = 400  # points above which they go into the SVG as pixels


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Every greedy response: the band projection before it against its score, by family of the training prompt."""
    frame = evidence.responses.dropna(subset=["projection", "score"])
    score = score_label(evidence.trait)
    figure = new_figure(f"Projection and {score} of responses")
    axes = figure.add_subplot()
    label = fitted(f"{score} (fraction)", up_to(PANEL))
    axes.set(xlabel="projection (hidden-state units)", ylabel=label, ylim=(-0.06, 1.06))
    if frame.empty:
        not_measured(axes, "responses")
        return Drawn(figure)
    trained = [name for name in evidence.trained if name in set(frame["condition"])]
    groups = [(LOOKS[family], names) for family, names in by_families(evidence, trained).items()]
    for style, names in [*groups, (BEFORE_TRAINING, [BASE])]:
        own = frame[frame["condition"].isin(names)]
        axes.scatter(
            own["projection"], own["score"], s=26, marker="o" if names == [BASE] else style.marker,
            color=style.colour, alpha=0.35, linewidth=0, rasterized=len(frame) > MANY,
        )  # fmt: skip
    before = {"marker": "o", "markersize": 9, "linestyle": "", "color": BEFORE_TRAINING.colour}
    family_key(axes, evidence, trained, {"before training": before})
    effect = if_measured(trait_tracking, evidence)
    if effect is None or not math.isfinite(effect.estimate):
        axes.set_title(f"r undefined, n = {len(frame)}", loc="left")
        return Drawn(figure, _caption(evidence, "r is undefined, since one side does not vary"), NOT_MEASURED)
    axes.set_title(f"r within models {effect.estimate:.2f}".replace("-", "−"), loc="left")
    strength = f"within models and sets of questions r = {told(replace(effect, unit='responses'))}"
    who = "Within a model, responses to questions with a larger projection"
    name = evidence.trait.score_name
    way = side(effect, f"have a higher {name}", f"have a lower {name}", f"are not shown to have another {name}")
    return Drawn(figure, _caption(evidence, strength), f"{who} {way}: r = {rounded(effect.estimate)}.")


def _caption(evidence: Evidence, strength: str) -> str:
    return (
        f"Does the projection mean the trait? Band projection at the last prompt token (hidden-state units) against "
        f"the {evidence.trait.score_name} of the greedy response that followed (fraction), before training and after "
        f"every run, by family of the training prompt: {strength}."
    )


FIGURE = StudyFigure("plot8_projection_against_score", ("gates", "G6"), draw)
