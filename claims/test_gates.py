"""Is the apparatus sound? Gates G1-G6, on which the claims rest."""

from __future__ import annotations

import numpy as np

from gradinoc.claims.finding import Status
from gradinoc.claims.gates import G1, G2, G3, G4, G5, G6


def test_g1_direction_separates_held_out_prompts(directions, rules, artifacts):
    """G1: projections of held-out prompts have an AUC of at least 0.9 at every layer of the band."""
    finding = G1.judge(directions, rules)
    artifacts.leave(finding, directions)
    assert finding.status is Status.SUPPORTED, finding.statement


def test_g2_direction_is_stable(directions, rules, artifacts):
    """G2: two halves of the prompts give directions with a cosine of at least 0.8."""
    finding = G2.judge(directions, rules)
    artifacts.leave(finding, directions)
    assert finding.status is Status.SUPPORTED, finding.statement


def test_g3_inoculation_elicits_the_trait(alignments, rules, artifacts):
    """G3: the inoculation prompt lowers the loss on answers that show the trait."""
    finding = G3.judge(alignments, rules)
    artifacts.leave(finding, alignments)
    assert finding.status is Status.SUPPORTED, finding.statement


def test_g4_run_is_complete(condition, seed, runs, study):
    """The run has every step, and nothing that it logged is missing."""
    rows = runs.training[(runs.training["condition"] == condition) & (runs.training["seed"] == seed)]
    run = runs.runs[(runs.runs["condition"] == condition) & (runs.runs["seed"] == seed)]
    assert len(run) == 1, f"{len(run)} rows for one run"
    assert set(rows["step"]) == set(range(int(run["steps"].iloc[0]))), "a step is missing from the log"
    assert study.training.steps in (0, int(run["steps"].iloc[0])), f"{run['steps'].iloc[0]} steps"
    assert np.isfinite(rows[["loss", "alignment", "projection", "grad_norm"]].to_numpy()).all()


def test_g4_training_worked(runs, rules, artifacts):
    """G4: in every run the loss on the same examples is lower after training than when they were first met."""
    finding = G4.judge(runs, rules)
    artifacts.leave(finding, runs)
    assert finding.status is Status.SUPPORTED, finding.statement


def test_g5_there_is_drift_to_explain(evidence, rules, artifacts):
    """G5: neutral runs' log-odds of the trait rise, and not every condition ends at the ceiling."""
    finding = G5.judge(evidence, rules)
    artifacts.leave(finding, evidence)
    assert finding.status is Status.SUPPORTED, finding.statement


def test_g6_responses_can_be_scored(evidence, rules, artifacts):
    """G6: fewer than 5 % of the evaluated responses have no letters."""
    finding = G6.judge(evidence, rules)
    artifacts.leave(finding, evidence)
    assert finding.status is Status.SUPPORTED, finding.statement
