"""The figures of a study, one a module, each drawn from its tables alone. A new one is a module and a line here."""

from __future__ import annotations

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.verdict import RULES_OF
from gradinoc.report.figures.alignment import (
    at_equal_loss,
    by_layer,
    loss_by_prompt,
    over_training,
    specification_curve,
    trait_against_others,
)
from gradinoc.report.figures.direction import projection_against_score, projection_distributions, steering
from gradinoc.report.figures.drift import (
    against_alignment,
    dose_curves,
    matrix,
    projection_shift,
    prompts,
    removal,
    score_shift,
)
from gradinoc.report.figures.sources import accounting, directions, factors, kernel
from gradinoc.report.figures.study_figure import Drawn, StudyFigure

__all__ = ["FIGURES", "Drawn", "StudyFigure", "figures_of"]

_MODULES = (  # in the order of the report's page
    projection_distributions,
    projection_against_score,
    steering,
    by_layer,
    specification_curve,
    over_training,
    trait_against_others,
    at_equal_loss,
    loss_by_prompt,
    against_alignment,
    prompts,
    matrix,
    score_shift,
    dose_curves,
    projection_shift,
    removal,
    accounting,
    directions,
    factors,
    kernel,
)
FIGURES: dict[str, StudyFigure] = {module.FIGURE.name: module.FIGURE for module in _MODULES}


def figures_of(evidence: Evidence) -> dict[str, StudyFigure]:
    """The figures of a study: all but those whose section is of a claim that it does not run."""
    absent = {key for key, claim in RULES_OF.items() if not claim.ran(evidence)}
    return {name: figure for name, figure in FIGURES.items() if figure.shows[0] not in absent}
