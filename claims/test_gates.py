"""Is the apparatus sound? Gates G1-G6, on which the claims rest."""

from __future__ import annotations

import pytest

from gradinoc.claims.gates import scores_after_training
from gradinoc.claims.measures import diverged_runs


@pytest.mark.claim("G1", stages=("directions",))
def test_g1_direction_separates_held_out_prompts(finding, rules):
    """G1: projections of held-out prompts have an AUC of at least 0.9 at every layer of the band."""
    lowest = finding["auc"].estimate
    assert lowest >= rules.auc, f"lowest AUC {lowest:.3f}; G1 needs {rules.auc}"


@pytest.mark.claim("G2", stages=("directions",))
def test_g2_direction_is_stable(finding, rules):
    """G2: two halves of the prompts give directions with a cosine of at least 0.8 at every layer of the band."""
    lowest = finding["split_half"].estimate
    assert lowest >= rules.split_half, f"lowest split-half cosine {lowest:.3f}; G2 needs {rules.split_half}"


@pytest.mark.claim("G3", stages=("directions", "gradients"))
def test_g3_inoculation_elicits_the_trait(finding):
    """G3: the inoculation prompt lowers the loss on answers that show the trait, paired by example."""
    fall = finding["loss"]
    assert fall.low > 0, f"loss(neutral) - loss(inoculation) = {fall}; G3 needs its lower end above 0"


@pytest.mark.claim("G4")
def test_g4_training_worked(condition, seed, finding, evidence):
    """G4: the run's loss on the same examples is lower after training, and every number that it logged is finite."""
    (run,) = evidence.runs.query("condition == @condition and seed == @seed").itertuples()
    assert run.final_loss < run.initial_loss < float("inf"), f"from {run.initial_loss} to {run.final_loss} nats/token"
    assert (condition, seed) not in diverged_runs(evidence), finding.statement


@pytest.mark.claim("G5")
def test_g5_neutral_run_drifts(finding):
    """G5: in every neutral run the log-odds of the trait rise."""
    for rise in finding.effects:
        assert rise.low > 0, f"{rise.name} = {rise}; G5 needs its lower end above 0"


@pytest.mark.claim("G5")
def test_g5_not_every_condition_ends_at_the_ceiling(finding, evidence, rules):
    """G5: some condition's mean score after training is below the ceiling."""
    scores = scores_after_training(evidence)
    assert scores.min() < rules.ceiling, f"{finding.key}: mean scores {scores.to_dict()}, ceiling {rules.ceiling}"


@pytest.mark.claim("G6")
def test_g6_responses_can_be_scored(finding, rules):
    """G6: fewer than 5 % of the evaluated responses cannot be scored."""
    share = finding["unscorable"].estimate
    assert share < rules.max_unscorable, f"{100 * share:.1f} % cannot be scored; G6 needs < {rules.max_unscorable:.0%}"
