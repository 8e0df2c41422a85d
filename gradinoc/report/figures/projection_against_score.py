"""Plot 8: whether the projection before a response goes with the response's score."""

from __future__ import annotations

import math

from gradinoc.claims.tables import AFTER, BASE, BEFORE, Evidence
from gradinoc.report.figures.lettering import fitted, score_label
from gradinoc.report.figures.rows import MANY
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import (
    BESIDE,
    PANEL,
    height_beside,
    look,
    new_figure,
    not_measured,
    styled,
    up_to,
    wrapped,
)  # fmt: skip
from gradinoc.report.numbers import correlation, correlation_finding
from gradinoc.study.rules import Rules


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Every generated response: the band projection before it against its score, with r."""
    responses = evidence.responses
    frame = responses[responses["phase"].isin([BEFORE, AFTER])].dropna(subset=["projection", "score"])
    score = score_label(evidence.trait)
    figure = new_figure(f"Projection and {score} of responses", height_beside((*evidence.trained, BASE)))
    axes = figure.add_subplot()
    label = fitted(f"{score} (fraction)", up_to(PANEL))
    axes.set(xlabel="projection (hidden-state units)", ylabel=label, ylim=(-0.06, 1.06))
    if frame.empty:
        not_measured(axes, "responses")
        return Drawn(figure)
    order = [name for name in (*evidence.trained, BASE) if name in set(frame["condition"])]
    for condition in order:
        group, style = frame[frame["condition"] == condition], look(condition, evidence.conditions)
        axes.scatter(
            group["projection"], group["score"], s=28, marker="o" if condition == BASE else style.marker,
            color=style.colour, alpha=0.4, linewidth=0, rasterized=len(frame) > MANY,
            label="before" if condition == BASE else wrapped(condition),
        )  # fmt: skip
    key = axes.legend(markerscale=1.9, **BESIDE)
    for handle in key.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    r, n = correlation(frame["projection"], frame["score"])
    axes.set_title(f"r = {r:.2f}, n = {n}" if math.isfinite(r) else f"r undefined, n = {n}", loc="left")
    strength = f"r = {r:.2f}" if math.isfinite(r) else "r is undefined, since one side does not vary"
    name = evidence.trait.score_name
    caption = (
        f"Does the projection mean the trait? Band projection at the last prompt token (hidden-state units) against "
        f"the {name} of the response that followed (fraction), before training and after every "
        f"run: {strength}, n = {n} responses, which share questions and models."
    )
    who = "Responses to prompts with a larger projection"
    ways = (f"{who} have a higher {name}", f"{who} have a lower {name}", f"{who} are not shown to have another {name}")
    return Drawn(figure, caption, correlation_finding(r, n, ways, "responses"))


FIGURE = StudyFigure("plot8_projection_against_score", ("gates", "G6"), draw)
