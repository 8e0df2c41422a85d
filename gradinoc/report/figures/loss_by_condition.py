"""Plot 3: the loss of every example by condition."""

from __future__ import annotations

import numpy as np

from gradinoc.claims.measures import per_example
from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.rows import draw_rows, name_rows, rows_height
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import FAINT, new_figure, styled
from gradinoc.report.numbers import groups_of, over_examples
from gradinoc.report.wording import estimated, listed, shown, side
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Each example's loss by condition, and beside it the same examples' difference to neutral."""
    losses = per_example(evidence, "loss", strict=False)
    title = f"Loss before training, n = {len(losses.dropna(how='all'))} examples"
    figure = new_figure(title, rows_height(len(evidence.conditions)))
    left, right = figure.subplots(1, 2, sharey=True)
    differences = losses.sub(losses[NEUTRAL], axis=0).drop(columns=NEUTRAL)
    right.axvline(0, color=FAINT, linewidth=1)
    groups = groups_of(evidence, losses.index)
    drawn = {name: losses[name].to_numpy(dtype=float) for name in evidence.conditions}
    draw_rows(left, evidence, drawn, groups=groups)
    drawn = {name: differences[name].to_numpy(dtype=float) for name in differences}
    draw_rows(right, evidence, {name: drawn.get(name, np.empty(0)) for name in evidence.conditions}, NEUTRAL, groups)
    name_rows(left, evidence, evidence.conditions)
    left.set_xlabel("loss\n(nats/token)")
    right.set_xlabel("paired difference to\nneutral (nats/token)")
    right.tick_params(axis="y", length=0)
    if losses.empty:
        return Drawn(figure)
    means = listed((name, estimated(over_examples(evidence, losses[name]))) for name in losses)
    paired = {name: over_examples(evidence, differences[name]) for name in differences}
    caption = (
        f"Loss of the trait-bearing completions on the frozen base model, nats/token, a point an example: {means}. "
        f"Paired difference to neutral: {listed((name, estimated(mean)) for name, mean in paired.items())}. Bars are "
        "95 % t intervals of the mean."
    )
    levels = ", ".join(f"{value:.3f} under {shown(str(name))}" for name, value in losses.mean().items())
    how = side(paired[INOCULATION], "higher", "lower")
    return Drawn(figure, caption, f"The loss is {how} under inoculation than under neutral: {levels} nats/token.")


FIGURE = StudyFigure("plot3_loss_by_condition", ("C3", "G3"), draw)
