"""The figures of a study, each drawn from its tables alone."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.captions import RULED, caption
from gradinoc.report.figures.courses import (
    plot_alignment_over_training,
    plot_drift_over_training,
    plot_training_difference,
)
from gradinoc.report.figures.equal_loss import plot_alignment_at_equal_loss
from gradinoc.report.figures.frozen import plot_alignment_by_layer, plot_projection_distributions
from gradinoc.report.figures.losses import plot_loss_by_condition, plot_loss_overlap, plot_prompt_pool
from gradinoc.report.figures.nulls import plot_trait_against_random
from gradinoc.report.figures.style import save_figure
from gradinoc.report.figures.summaries import RULES
from gradinoc.report.figures.trained import (
    plot_alignment_against_drift,
    plot_projection_against_score,
    plot_projection_shift,
    plot_score_shift,
)
from gradinoc.study.rules import Rules

FIGURES: dict[str, Callable[..., Figure]] = {  # each takes the evidence; those of `RULED` a study's `rules` too
    "plot1_projection_distributions": plot_projection_distributions,
    "plot2_alignment_by_layer": plot_alignment_by_layer,
    "plot3_loss_by_condition": plot_loss_by_condition,
    "plot4_trait_against_random": plot_trait_against_random,
    "plot5_projection_shift": plot_projection_shift,
    "plot6_score_shift": plot_score_shift,
    "plot7_alignment_against_drift": plot_alignment_against_drift,
    "plot8_projection_against_score": plot_projection_against_score,
    "plot9_alignment_over_training": plot_alignment_over_training,
    "plot10_prompt_pool": plot_prompt_pool,
    "plot11_loss_overlap": plot_loss_overlap,
    "plot12_alignment_at_equal_loss": plot_alignment_at_equal_loss,
    "plot13_training_difference": plot_training_difference,
    "plot14_drift_over_training": plot_drift_over_training,
}

__all__ = ["FIGURES", "caption", "draw", "save_figure", *(plot.__name__ for plot in FIGURES.values())]


def draw(name: str, evidence: Evidence, rules: Rules = RULES) -> Figure:
    """The figure `name` (a key of `FIGURES`), by a study's own rules where it shows something that they fix."""
    return FIGURES[name](evidence, rules=rules) if name in RULED else FIGURES[name](evidence)
