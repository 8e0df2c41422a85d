"""Is the apparatus sound? Gates G1-G11, on which the claims rest; units are in each test's docstring."""

from __future__ import annotations

import pytest

from gradinoc.claims.evidence.measures import diverged_runs, scores_after_training
from gradinoc.stats.effect import tost


@pytest.mark.claim("G1", stages=("directions",))
def test_g1_direction_separates_held_out_prompts(finding, rules):
    """G1: projections of held-out prompts have an AUC of at least 0.9 at every layer of the band."""
    lowest = finding["auc"].estimate
    assert lowest >= rules.auc, f"lowest AUC {lowest:.3f}; G1 needs {rules.auc}"


@pytest.mark.claim("G2", stages=("directions",))
def test_g2_direction_is_stable(finding, rules):
    """G2: two halves of the questions give directions with a cosine of at least 0.8 at every layer of the band."""
    lowest = finding["split_half"].estimate
    assert lowest >= rules.split_half, f"lowest split-half cosine {lowest:.3f}; G2 needs {rules.split_half}"


@pytest.mark.claim("G3", stages=("directions", "gradients"))
def test_g3_inoculation_elicits_the_trait_in_loss(finding):
    """G3: inoculating prompts lower loss(trait) - loss(ordinary), nats/token, below harmless ones'; n is prompts."""
    fall = finding["loss"]
    assert fall.low > 0, f"{fall.name} = {fall}; G3 needs its lower end above 0"


@pytest.mark.claim("G4")
def test_g4_training_worked(condition, seed, finding, evidence):
    """G4: the run's loss on the same examples is lower after training, and every number that it logged is finite."""
    (run,) = evidence.runs.query("condition == @condition and seed == @seed").itertuples()
    assert run.final_loss < run.initial_loss < float("inf"), f"from {run.initial_loss} to {run.final_loss} nats/token"
    assert (condition, seed) not in diverged_runs(evidence), finding.statement


@pytest.mark.claim("G4")
def test_g4_runs_of_a_seed_begin_alike(finding, evidence):
    """G4: runs of one seed have the same initial adapter, whatever their prompt; which it was is stored of each."""
    assert (evidence.runs["initial_adapter"].fillna("").str.strip() != "").all(), finding.statement
    hashes = evidence.runs.groupby("seed")["initial_adapter"].nunique()
    assert (hashes == 1).all(), f"{finding.key}: {hashes.to_dict()} initial adapters by seed"


@pytest.mark.claim("G5")
def test_g5_neutral_runs_drift(finding, rules):
    """G5: the drift of neutral runs, expected score, has a lower bound of at least 0.10 of the scale."""
    rise = finding["drift"]
    assert rise.low > rules.least_drift, f"{rise.name} = {rise}; G5 needs its lower end above {rules.least_drift}"


@pytest.mark.claim("G5")
def test_g5_not_every_condition_ends_at_the_ceiling(finding, evidence, rules):
    """G5: some prompt's mean score after training is below the ceiling."""
    scores = scores_after_training(evidence)
    assert scores.min() < rules.ceiling, f"{finding.key}: mean scores {scores.to_dict()}, ceiling {rules.ceiling}"


@pytest.mark.claim("G6")
def test_g6_responses_can_be_scored(finding, rules):
    """G6: fewer than 5 % of the evaluated responses cannot be scored, of the greedy ones and of the sampled ones."""
    share = max(finding["unscorable"].estimate, finding["unscorable.sampled"].estimate)
    assert share < rules.max_unscorable, f"{100 * share:.1f} % cannot be scored; G6 needs < {rules.max_unscorable:.0%}"


@pytest.mark.claim("G7", stages=("directions", "elicitation"))
def test_g7_prompts_elicit_the_trait_in_behaviour(finding, rules):
    """G7: promoting and inoculating prompts raise the expected score by 0.10 or more, or the log-odds by 0.5 nats."""
    pairs = ("promote", "inoculation")
    scores, nats = ([finding[f"{way}.{pair}"] for pair in pairs] for way in ("score", "log_odds"))
    by_score = all(effect.low > rules.elicited for effect in scores)
    by_nats = all(effect.low > rules.elicited_nats for effect in nats)
    found = "; ".join(f"{effect.name} = {effect}" for effect in (*scores, *nats))
    assert by_score or by_nats, f"{found}; G7 needs lower ends above {rules.elicited}, or {rules.elicited_nats} nats"


@pytest.mark.claim("G8a", stages=("directions", "steering"))
def test_g8a_steering_brings_the_trait(finding, rules):
    """G8a: decision log-odds rise with steering along v, more than along other directions of the same length."""
    slope, place = finding["slope"], finding["place"]
    assert slope.low > 0, f"{slope.name} = {slope}; G8a needs its lower end above 0"
    assert place.p <= rules.alpha, f"{place.name} = {place}; G8a needs p <= {rules.alpha}"


@pytest.mark.claim("G8a", stages=("directions", "steering"))
def test_g8a_steering_leaves_the_answer(finding, rules):
    """G8a: steered, the loss of the answer in either form rises by less than 0.2 nats."""
    loss = finding["loss"]
    assert loss.high < rules.either_loss, f"{loss.name} = {loss}; G8a needs its upper end below {rules.either_loss}"


@pytest.mark.claim("G8b")
def test_g8b_neutral_training_moves_along_the_direction(finding):
    """G8b: neutral runs' residual stream moves along +v, hidden-state units; runs are the unit."""
    moved = finding["moved"]
    assert moved.low > 0, f"{moved.name} = {moved}; G8b needs its lower end above 0"


@pytest.mark.claim("G8c")
def test_g8c_neutral_gradients_push_along_the_direction(finding, rules):
    """G8c: neutral alignment in the first third of training is above zero, and above that with random directions."""
    aligned, place = finding["alignment"], finding["place"]
    assert aligned.low > 0, f"{aligned.name} = {aligned}; G8c needs its lower end above 0"
    assert place.p <= rules.alpha, f"{place.name} = {place}; G8c needs p <= {rules.alpha}"


@pytest.mark.claim("G9")
def test_g9_measures_of_drift_agree(finding, rules):
    """G9: shares of drift that inoculation removes differ by less than 0.25 between measures, which rank runs alike."""
    apart, ranks = finding["apart"], finding["ranks"]
    close = tost(apart, rules.agreement, rules.alpha)
    assert close.p <= rules.alpha, f"{apart.name} = {apart}; G9 needs it shown to be within {rules.agreement} of zero"
    assert ranks.estimate >= rules.rank_agreement, f"{ranks.name} = {ranks}; G9 needs {rules.rank_agreement}"


@pytest.mark.claim("G10")
def test_g10_steps_account_for_drift(finding, rules):
    """G10: the change of the log-odds is what the run's steps account for: slope 0.8 to 1.25, R2 of 0.9 or more."""
    slope, r2, (low, high) = finding["slope"], finding["r2"], rules.accounted
    assert low <= slope.estimate < high, f"{slope.name} = {slope}; G10 needs {low} to {high}"
    assert r2.estimate >= rules.accounted_r2, f"{r2.name} = {r2}; G10 needs {rules.accounted_r2}"


@pytest.mark.claim("G11")
def test_g11_the_intervention_took(finding, rules):
    """G11: nothing but rounding is left of the projected gradient along v, and 80 % of the shift along v is gone.

    There is such a shift, and what G4 and G6 ask of every run holds of runs with an intervention.
    """
    moved, failed, unscorable = (finding[key] for key in ("shift.neutral", "failed", "unscorable"))
    assert moved.low > 0 or moved.high < 0, f"{moved.name} = {moved}; G11 needs an interval without 0"
    assert not failed.estimate, f"{failed.name}: {failed.estimate:g}; G11 needs none"
    assert unscorable.estimate < rules.max_unscorable, f"{unscorable.name} = {unscorable}"
    left, cut = finding["alignment"], finding["cut"]
    assert left.estimate < rules.projected, f"{left.name} = {left}; G11 needs less than {rules.projected}"
    assert cut.estimate >= rules.cut, f"{cut.name} = {cut}; G11 needs {rules.cut}"
