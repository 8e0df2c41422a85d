"""C5 and its gate G11: what the numbers rest on, each criterion of the rule, and what arms must not touch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gradinoc.claims.c5 import C5, decide, deciding_share
from gradinoc.claims.evidence.arms import arms_of, less_twin, mean_drift, whole
from gradinoc.claims.evidence.measures import drift_by_question
from gradinoc.claims.evidence.same_loss import at_same_loss, drift_courses, falling_losses
from gradinoc.claims.evidence.tables import AFTER, EXPECTED, PROJECTION
from gradinoc.claims.gates.interventions import G11
from gradinoc.claims.rules.finding import Measured, Status
from gradinoc.claims.rules.verdict import Verdict, judge
from gradinoc.power.scenarios import Scenario
from gradinoc.power.simulate import simulate
from gradinoc.stats.effect import Effect, bare, null_p
from gradinoc.study.arms import FULL, PROJECT, RESTORE
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

RULES = Rules()


@pytest.fixture(scope="module")
def evidence():
    """A study in which the component along v causes 0.8 of what inoculation removes."""
    return simulate("effect", np.random.default_rng(1), seeds=5, matched=19)


@pytest.fixture(scope="module")
def found(evidence):
    """C5's effects in it."""
    return C5.measure(evidence, RULES)


def of_all_runs(evidence, table, change):
    """The evidence with a table of all runs, arms included, changed in place."""
    everything = whole(evidence)
    frame = getattr(everything, table).copy()
    change(frame)
    return replace(everything, **{table: frame}, with_arms=None).without_arms()


def test_a_component_that_causes_the_drift_is_found(evidence):
    """Every claim is supported, C5 among them, and the verdict says so."""
    judgement = judge(evidence, RULES)
    assert judgement["C5"].status is Status.SUPPORTED, judgement["C5"].reason
    assert judgement.verdict is Verdict.SUPPORTED


def test_a_component_that_causes_nothing_is_refuted_and_no_causal_word_is_said():
    """All other claims hold: then nothing is pronounced."""
    judgement = judge(simulate(Scenario(caused=0.0), np.random.default_rng(1), seeds=5, matched=19), RULES)
    assert judgement["C5"].status is Status.REFUTED
    assert judgement.verdict is Verdict.UNDECIDED


def test_the_share_is_what_means_of_runs_say(evidence, found):
    """(neutral - removed) / (neutral - inoculation), questions and runs weighing the same."""
    means = drift_by_question(whole(evidence), EXPECTED).mean()
    neutral, removed, inoculated = (means[name].mean() for name in (NEUTRAL, "removed", INOCULATION))
    assert found["share"].estimate == pytest.approx((neutral - removed) / (neutral - inoculated), rel=1e-12)


def test_places_are_ranks_among_runs_of_matched_directions(evidence, found):
    """Against the neutral run of the same seed, by brute force."""
    means = mean_drift(evidence, EXPECTED)
    own = np.mean([means[NEUTRAL, seed] - means["removed", seed] for seed in range(5)])
    drawn = [
        means[NEUTRAL, seed] - value for (name, seed), value in means.items() if name.startswith("removed_matched")
    ]
    assert len(drawn) == 19
    assert found["place"].estimate == pytest.approx(own)
    assert found["place"].p == null_p(own, drawn)


def test_arms_are_in_no_other_claim(evidence):
    """Without their tables every other gate and claim is the same."""
    names = set(evidence.arms["condition"])
    for name, table in evidence.tables.items():
        assert name == "arms" or "condition" not in table or not names & set(table["condition"]), name
    bare_of_arms = replace(evidence, arms=evidence.arms.iloc[:0], with_arms=None)
    with_arms, without = judge(evidence, RULES), judge(bare_of_arms, RULES)
    others = {finding.key: finding for finding in (*without.gates, *without.claims)}
    assert set(others) == {each.key for each in (*with_arms.gates, *with_arms.claims)} - {"C5", "G11"}
    for key, finding in others.items():
        assert with_arms[key].statement == finding.statement
    assert without.verdict is Verdict.CONSISTENT


# --- the rule, criterion by criterion


def effect(key, estimate, low, high, p=0.01, n=19):
    """An effect that decides."""
    return Effect(key, estimate, low, high, p, n, "runs", "planted", key=key)


def measured(**changed):
    """Effects under which C5 is supported, but for those changed."""
    effects = {
        "share": effect("share", 0.6, 0.4, 0.8),
        "share.same_loss": effect("share.same_loss", 0.1, 0.0, 0.2),
        "dose": effect("dose", -0.9, np.nan, np.nan),
        "place": effect("place", 0.2, 0.1, 0.3),
        "restored.place": effect("restored.place", 0.2, 0.1, 0.3),
        "loss": bare("loss", 1.02, 5, "runs", ""),
        "step": bare("step", 0.97, 5, "runs", ""),
    }
    return Measured({key: value for key, value in (effects | changed).items() if value is not None})


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, Status.SUPPORTED),
        ({"share": effect("share", 0.6, 0.25, 0.8)}, Status.UNDECIDED),
        ({"share": effect("share", 0.1, 0.0, 0.24)}, Status.REFUTED),
        ({"share": effect("share", 0.1, 0.0, 0.25)}, Status.UNDECIDED),
        ({"share": effect("share", 0.6, np.nan, np.nan)}, Status.UNDECIDED),
        ({"dose": effect("dose", -0.3, np.nan, np.nan, p=0.06)}, Status.UNDECIDED),
        ({"place": effect("place", 0.2, 0.1, 0.3, p=0.1)}, Status.UNDECIDED),
        ({"restored.place": effect("restored.place", 0.2, 0.1, 0.3, p=0.1)}, Status.UNDECIDED),
        ({"restored.place": effect("restored.place", -0.1, -0.2, 0.0)}, Status.UNDECIDED),
        ({"restored.place": None}, Status.UNDECIDED),
        ({"place": effect("place", 0.2, 0.1, 0.3, p=np.nan, n=0)}, Status.UNDECIDED),
        ({"loss": bare("loss", 0.9, 5, "runs", "")}, Status.REFUTED),
        ({"step": bare("step", 1.06, 5, "runs", "")}, Status.REFUTED),
    ],
)
def test_each_criterion_decides(changed, status):
    """One effect a time is moved; with other loss or weights the share at the same loss decides."""
    outcome = decide(measured(**changed), RULES)
    assert outcome.status is status, outcome.reason


def test_the_share_at_the_same_loss_decides_where_less_was_learned():
    """By 5 % at most the runs count as alike."""
    assert deciding_share(measured(), RULES).key == "share"
    assert deciding_share(measured(loss=bare("loss", 0.949, 5, "runs", "")), RULES).key == "share.same_loss"


# --- the gate


def test_a_component_that_is_left_fails_the_gate_and_leaves_c5_open(evidence):
    """What one projected run logged is no zero: C5 alone is undecided, the verdict consistent."""

    def leave(training):
        rows = (training["condition"] == "removed") & (training["layer"] == training["layer"].max())
        training.loc[rows, "alignment"] = 0.02

    broken = of_all_runs(evidence, "training", leave)
    assert G11.judge(broken, RULES).status is Status.REFUTED
    judgement = judge(broken, RULES)
    assert judgement["C5"].status is Status.UNDECIDED
    assert judgement["C5"].failed_gates == ("G11",)
    assert judgement.verdict is Verdict.CONSISTENT


def test_a_shift_that_is_hardly_cut_fails_the_gate(evidence):
    """Runs without the component move along v as far as three quarters of neutral ones."""
    neutral = mean_drift(evidence, PROJECTION)[NEUTRAL].mean()

    def move(drift):
        rows = (drift["condition"] == "removed") & (drift["measure"] == PROJECTION) & (drift["phase"] == AFTER)
        drift.loc[rows, "value"] += 0.75 * neutral - mean_drift(evidence, PROJECTION)["removed"].mean()

    moved = of_all_runs(evidence, "drift", move)
    assert G11.measure(moved, RULES)["cut"].estimate == pytest.approx(0.25)
    assert G11.judge(moved, RULES).status is Status.REFUTED
    assert G11.judge(evidence, RULES).status is Status.SUPPORTED


def test_a_study_without_arms_runs_neither():
    """And says so of C5."""
    plain = simulate("effect", np.random.default_rng(1))
    assert not C5.ran(plain)
    assert not G11.ran(plain)


# --- the same training loss


def test_runs_are_compared_where_both_had_reached_the_loss(evidence):
    """A removed arm whose loss ends where neutral runs were half way: neutral drift is read half way."""
    everything = whole(evidence)
    table = everything.training.copy()
    steps = table["step"].max() + 1
    slower = table["condition"] == "removed"
    table.loc[~slower, "loss"] = 2.0 - table["step"] / steps
    table.loc[slower, "loss"] = 2.0 - table["step"] / (2 * steps)
    planted = replace(everything, training=table, with_arms=None)
    found = at_same_loss(planted, {"one": NEUTRAL, "other": "removed"}, {})
    courses, losses = drift_courses(planted), falling_losses(planted)
    for place, seed in enumerate(range(5)):
        level = losses["removed", seed][-1]
        at = 1 + np.interp(-level, -losses[NEUTRAL, seed], np.arange(steps))
        known = courses[NEUTRAL, seed]
        expected = [np.interp(at, known.columns.astype(float), row) for row in known.to_numpy()]
        np.testing.assert_allclose(found.values["one"][place], expected)
        np.testing.assert_allclose(found.values["other"][place], courses["removed", seed].iloc[:, -1])


def test_arms_are_told_apart_by_what_they_do(evidence):
    """Own directions by strength, drawn ones in order; restored under inoculation."""
    assert set(arms_of(evidence, PROJECT).own) == {-1.0, 0.5, FULL, 2.0}
    assert arms_of(evidence, PROJECT).drawn == tuple(f"removed_matched {draw}" for draw in range(19))
    assert arms_of(evidence, RESTORE).own == {FULL: "restored"}
    assert len(less_twin(evidence, EXPECTED, ("restored",), INOCULATION)) == 5
