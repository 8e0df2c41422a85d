"""The figures of a study, one a module, each drawn from its tables alone. A new one is a module and a line here."""

from __future__ import annotations

from gradinoc.report.figures import (
    alignment_against_drift,
    alignment_at_equal_loss,
    alignment_by_layer,
    alignment_over_training,
    drift_over_training,
    loss_by_condition,
    loss_overlap,
    projection_against_score,
    projection_distributions,
    projection_shift,
    prompt_pool,
    score_shift,
    training_difference,
    trait_against_random,
)
from gradinoc.report.figures.study_figure import Drawn, StudyFigure

__all__ = ["FIGURES", "Drawn", "StudyFigure"]

_MODULES = (  # in the order of the report's page
    projection_distributions,
    projection_against_score,
    alignment_by_layer,
    alignment_over_training,
    training_difference,
    trait_against_random,
    alignment_at_equal_loss,
    loss_by_condition,
    loss_overlap,
    prompt_pool,
    alignment_against_drift,
    drift_over_training,
    score_shift,
    projection_shift,
)
FIGURES: dict[str, StudyFigure] = {module.FIGURE.name: module.FIGURE for module in _MODULES}
