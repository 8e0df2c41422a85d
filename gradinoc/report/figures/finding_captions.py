"""What each figure found, in one sentence: what somebody who does not see it is told in its place."""

from __future__ import annotations

from collections.abc import Callable

from gradinoc.claims.tables import Evidence
from gradinoc.report.figures import frozen_finding_captions as frozen
from gradinoc.report.figures import trained_finding_captions as trained
from gradinoc.study.rules import Rules

FOUND: dict[str, Callable[[Evidence, Rules], str]] = {
    "plot1_projection_distributions": frozen.projection_distributions,
    "plot2_alignment_by_layer": frozen.alignment_by_layer,
    "plot3_loss_by_condition": frozen.loss_by_condition,
    "plot4_trait_against_random": frozen.trait_against_random,
    "plot5_projection_shift": trained.projection_shift,
    "plot6_score_shift": trained.score_shift,
    "plot7_alignment_against_drift": trained.alignment_against_drift,
    "plot8_projection_against_score": trained.projection_against_score,
    "plot9_alignment_over_training": trained.alignment_over_training,
    "plot10_prompt_pool": frozen.prompt_pool,
    "plot11_loss_overlap": frozen.loss_overlap,
    "plot12_alignment_at_equal_loss": frozen.alignment_at_equal_loss,
    "plot13_training_difference": trained.training_difference,
    "plot14_drift_over_training": trained.drift_over_training,
}


def found(name: str, evidence: Evidence, rules: Rules) -> str:
    """What the figure `name` (a key of `FIGURES`) shows, in one sentence with its numbers."""
    return FOUND[name](evidence, rules)
