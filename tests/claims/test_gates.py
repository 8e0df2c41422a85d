"""Gates that a planted change makes fail. One change a test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fixtures.planted import changed, effects, of_runs
from gradinoc.claims.c6 import C6
from gradinoc.claims.evidence.tables import AFTER, DECISION, EXPECTED, SCORE
from gradinoc.claims.gates.direction import G8A
from gradinoc.claims.gates.prompts import G3, G7
from gradinoc.claims.gates.runs import G4, G5, G6, G9
from gradinoc.claims.rules.finding import Status
from gradinoc.power.simulate import simulate
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

RULES = Rules()


@pytest.fixture(scope="module")
def evidence():
    """A study in which inoculation works by rotating gradients."""
    return simulate("effect", np.random.default_rng(2))


def test_every_condition_at_the_ceiling_is_no_drift_to_explain(evidence):
    """G5: where all end with the whole trait there is nothing that inoculation kept down."""
    full = changed(evidence, "drift", lambda frame: frame["measure"].eq(EXPECTED) & frame["phase"].eq(AFTER), value=1.0)
    assert G5.judge(evidence, RULES).status is Status.SUPPORTED
    assert G5.judge(full, RULES).status is Status.REFUTED


def test_runs_of_a_seed_that_begin_apart_fail_g4(evidence):
    """One of them had another adapter before its first step."""
    first = evidence.runs.index[0]
    assert G4.judge(evidence, RULES).status is Status.SUPPORTED
    other = changed(evidence, "runs", lambda frame: frame.index == first, initial_adapter="another")
    assert G4.judge(other, RULES).status is Status.REFUTED


def test_sampled_responses_that_cannot_be_scored_fail_g6(evidence):
    """Drift that decides is of sampled responses: greedy ones that can all be scored do not speak for them."""

    def lost(share):
        """Rows of inoculated runs' expected scores, that share of the questions."""
        return lambda frame: (
            frame["measure"].eq(EXPECTED)
            & frame["condition"].eq(INOCULATION)
            & (frame["example"] < share * frame["example"].max())
        )

    some, many = (changed(evidence, "drift", lost(share), value=np.nan) for share in (0.1, 0.6))
    held, failed = (G6.judge(each, RULES) for each in (some, many))
    for finding in (held, failed):
        assert finding["unscorable"].estimate == 0
        assert " 0 of " not in finding.statement.partition("nor has")[2]
        assert f"{100 * finding['unscorable.sampled'].estimate:.1f} %" in finding.statement
    assert held.status is Status.SUPPORTED
    assert held["unscorable.sampled"].estimate > 0
    assert failed.status is Status.REFUTED
    runs = len(evidence.planned_runs) + 1  # and the model before
    assert failed["unscorable.sampled"].estimate == pytest.approx(len(evidence.seeds) * 0.6 / runs, rel=0.2)


def test_greedy_responses_that_cannot_be_scored_fail_g6(evidence):
    """The larger share decides, whichever it is."""
    few = len(evidence.responses) // 15
    other = changed(evidence, "responses", lambda frame: frame.index < few, response="12 34", score=np.nan)
    finding = G6.judge(other, RULES)
    assert (finding.status, finding["unscorable.sampled"].estimate) == (Status.REFUTED, 0)


def test_prompt_that_lowers_every_loss_elicits_nothing(evidence):
    """G3: the loss of answers with the trait counts beside that of ordinary ones."""
    members = evidence.family("inoculation", evidence.conditions)
    gap = lambda rows: rows["ordinary_loss"] - 0.5
    other = changed(evidence, "losses", of_runs(*members), ordinary_loss=gap)
    assert G3.judge(evidence, RULES).status is Status.SUPPORTED
    assert G3.judge(other, RULES).status is Status.REFUTED


@pytest.mark.parametrize("table", ["behaviour", "elicitation"])
def test_score_or_log_odds_are_enough_for_g7_and_never_one_half_of_each(table, evidence):
    """Promoting prompt by the score and inoculation by the log-odds do not add up to a model that obeys."""
    column = {"behaviour": "score", "elicitation": "log_odds"}[table]
    deaf = changed(evidence, table, lambda frame: frame[column].notna(), **{column: 0.0})
    assert G7.judge(deaf, RULES).status is Status.SUPPORTED
    halves = changed(evidence, "behaviour", of_runs(INOCULATION), score=0.0)
    halves = changed(halves, "elicitation", of_runs("promote", "suppress"), log_odds=0.0)
    assert G7.judge(halves, RULES).status is Status.REFUTED


def test_random_directions_that_steer_as_well_fail_g8a(evidence):
    """Every other direction gets the slope of the trait's."""
    table = evidence.steering
    own = table[table["draw"] == -1].set_index(["strength", "example"])["log_odds"]
    keys = pd.MultiIndex.from_frame(table[["strength", "example"]])
    other = replace(evidence, steering=table.assign(log_odds=own.reindex(keys).to_numpy()))
    assert G8A.judge(evidence, RULES).status is Status.SUPPORTED
    assert G8A.judge(other, RULES).status is Status.REFUTED


def test_measures_that_disagree_fail_g9(evidence):
    """Log-odds by which inoculation removes nothing, where it removes nearly all of the score."""
    table = evidence.drift
    odds = table["measure"].eq(DECISION) & table["phase"].eq(AFTER)
    by_question = table[odds & table["condition"].eq(NEUTRAL)].groupby("example")["value"].mean()
    values = table["value"].where(~odds, table["example"].map(by_question))
    assert G9.judge(evidence, RULES).status is Status.SUPPORTED
    assert G9.judge(replace(evidence, drift=table.assign(value=values)), RULES).status is Status.REFUTED


def test_measures_that_are_not_shown_to_agree_fail_g9(evidence):
    """Six questions, on which shares differ by less than the bar and may differ by more."""
    few = evidence.drift["example"].isin(sorted(evidence.drift["example"].unique())[:6])
    narrow = G9.judge(replace(evidence, drift=evidence.drift[few]), RULES)
    apart = narrow["apart"]
    assert abs(apart.estimate) < RULES.agreement < max(abs(apart.low), apart.high)
    assert narrow.status is Status.REFUTED


def test_greedy_score_is_among_the_measures_that_have_to_agree(evidence):
    """A score that turns the order of runs round fails G9, though it decides nothing else."""
    table = evidence.drift
    rows = table["measure"].eq(SCORE) & table["phase"].eq(AFTER)
    other = replace(evidence, drift=table.assign(value=table["value"].where(~rows, 1 - table["value"])))
    assert G9.judge(other, RULES).status is Status.REFUTED
    assert effects(C6, other, "share") == effects(C6, evidence, "share")
