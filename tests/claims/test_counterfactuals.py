"""What would have changed a finding is what changes it: each number is moved just short of its bar, and just beyond."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from gradinoc.claims import c4 as prediction
from gradinoc.claims.c1 import RESTS_ON, claim_1
from gradinoc.claims.c2 import claim_2
from gradinoc.claims.c3 import claim_3
from gradinoc.claims.c4 import claim_4, predict, runs_of
from gradinoc.claims.counterfactuals import Otherwise, otherwise, rule_of
from gradinoc.claims.counterfactuals.places import beside_mean, noisy_place, place
from gradinoc.claims.counterfactuals.prediction import correlation_bar
from gradinoc.claims.gates import Finding, Status, gate_1, gate_2, gate_3, gate_4, gate_5, gate_6
from gradinoc.claims.measures import drift_by_run, early_alignment
from gradinoc.claims.tables import Evidence
from gradinoc.claims.verdict import judge
from gradinoc.power.simulate import WORLDS, Noise, World, simulate
from gradinoc.stats.correlation import pearson, stratified_p
from gradinoc.stats.effect import mean_effect, noisy_null_p, null_p, tost
from gradinoc.study.rules import Rules

RULES = Rules()
SOUND = tuple(Finding(f"G{i}", "", Status.SUPPORTED, "", "") for i in range(1, 7))
CLAIMS = {"C1": claim_1, "C2": claim_2, "C3": claim_3, "C4": claim_4}
HAIR = 1e-9  # cosine or nats/token: far below any bar, far above rounding
CALM = Noise(difficulty=0.25, alignment=0.002, example=0.01, layer=0.002, loss=0.02)
STUDIES = {
    **{f"{name}, seed {seed}": (WORLDS[name], seed, 24) for name in WORLDS for seed in range(2)},
    "a small effect": (World(gap=(0, 0.02, 0.0), slope=0.0), 0, 24),
    "no change, much data": (World(gap=(0, 0, 0), slope=0.0, noise=CALM), 0, 48),
    "a change that is too small to count": (World(gap=(0, 0.004, 0.004), slope=0.0, noise=CALM), 1, 48),
    "all of it loss": (World(gap=(0, 0, 0), slope=0.4, loss=(0, 0.2, 0.2), noise=CALM), 2, 48),
    "none, though loss and alignment go against each other": (
        World(gap=(0, -0.02, 0), slope=-0.1, loss=(0, 0.1, 0.1), noise=CALM),
        0,
        48,
    ),
    "a further control": (replace(WORLDS["effect"], further=True), 3, 24),
    "templates": (replace(WORLDS["effect"], templates=8), 4, 24),
}


@cache
def world(name: str) -> Evidence:
    """The evidence of one simulated study."""
    truth, seed, examples = STUDIES[name]
    return simulate(truth, np.random.default_rng(seed), examples=examples, layers=3, steps=5, directions=60)


def moved(evidence: Evidence, table: str, column: str, by: float, rows: str) -> Evidence:
    """The evidence with `by` added to a column, in the rows that a query finds."""
    frame = getattr(evidence, table).copy()
    found = frame.query(rows).index
    assert len(found)
    frame.loc[found, column] += by
    return replace(evidence, **{table: frame})


def lower_under_inoculation(evidence: Evidence, by: float) -> Evidence:
    """The evidence with every example's alignment under inoculation lower: all contrasts with it grow alike."""
    return moved(evidence, "alignments", "alignment", -by, "condition == 'inoculation'")


def judged(key: str, evidence: Evidence) -> Finding:
    """A claim with every gate held open."""
    return CLAIMS[key](evidence, RULES, SOUND)


@cache
def as_it_stands(name: str, key: str) -> tuple[Finding, Otherwise]:
    """A claim of one study, and what would have changed it."""
    finding = judged(key, world(name))
    return finding, otherwise(finding, SOUND, world(name), RULES)


@pytest.mark.parametrize("key", ["C1", "C2", "C3"])
@pytest.mark.parametrize("name", STUDIES)
def test_a_claim_turns_where_it_is_said_to(name: str, key: str) -> None:
    """Short of each bar the claim is not what it becomes beyond it; where nothing is named, another rule turns it."""
    evidence, (before, found) = world(name), as_it_stands(name, key)
    for turn in found.turns:
        short, beyond = (
            judged(key, lower_under_inoculation(evidence, turn.change + hair)) for hair in signed(turn.change)
        )
        if turn.becomes is None:
            assert short.status is before.status
            assert (beyond.status, beyond.reason) != (before.status, before.reason)
        else:
            assert (beyond.status, short.status is turn.becomes) == (turn.becomes, False), (turn, short.reason)
        assert f"{abs(turn.change):.3g}" in found.text


def signed(change: float) -> tuple[float, float]:
    """What is added to a change to fall just short of it, and to go just beyond."""
    return (-HAIR, HAIR) if change > 0 else (HAIR, -HAIR)


def test_the_control_that_lags_decides_how_far_it_is_to_go() -> None:
    """A further control of inoculation's loss whose alignment is low: the claim waits for it, and says so."""
    evidence = moved(world("a further control"), "alignments", "alignment", -0.3, "condition == 'loss_measured'")
    before = judged("C3", evidence)
    found = otherwise(before, SOUND, evidence, RULES)
    control = next(effect for effect in before.effects if effect.name == "alignment, loss_measured - inoculation")
    (turn,) = found.turns
    assert turn.change == pytest.approx(-control.low)
    assert [line.split(":")[0] for line in found.details] == [control.name]
    short, beyond = (
        judged("C3", lower_under_inoculation(evidence, turn.change + hair)) for hair in signed(turn.change)
    )
    assert (short.status, beyond.status) == (Status.UNDECIDED, Status.SUPPORTED)


@pytest.mark.parametrize("alpha", [0.05, 0.2])
@pytest.mark.parametrize("draws", [25, 60, 399])
def test_each_place_among_directions_is_where_its_p_is_small_enough(draws: int, alpha: float) -> None:
    """For the p as it stands, with sampling error, and for the mean that has to be small: just there and not before."""
    values = np.random.default_rng(draws).normal(0.01, 0.02, draws)
    bar = place(values, alpha)
    assert null_p(bar + HAIR, values) <= alpha < null_p(bar - HAIR, values)
    observed = replace(mean_effect([0.1, 0.2, 0.0, 0.15], "T(v)", "examples"), estimate=0.0)
    bar = noisy_place(observed, values, alpha)
    short, beyond = (noisy_null_p(replace(observed, estimate=bar + hair), values) for hair in (-HAIR, HAIR))
    assert beyond <= alpha < short
    assert noisy_place(replace(observed, standard_error=0.0), values, alpha) == place(values, alpha)
    isotropic, rules = mean_effect(values, "mean", "directions"), Rules(alpha=alpha)
    bar = beside_mean(isotropic, rules)
    short, beyond = (tost(isotropic, rules.null_margin * (bar + hair), alpha).p for hair in (-HAIR, HAIR))
    assert beyond <= alpha < short


def test_too_few_directions_have_no_place_where_p_is_small() -> None:
    """Nor with sampling error, nor beside a mean that may have no margin."""
    values = np.linspace(-1, 1, 10)
    observed = mean_effect([0.1, 0.2, 0.0, 0.15], "T(v)", "examples")
    assert math.isinf(place(values, 0.05))
    assert math.isinf(noisy_place(observed, values, 0.05))
    assert math.isinf(beside_mean(mean_effect(values, "mean", "directions"), Rules(null_margin=0.0)))


def test_the_studies_know_every_status() -> None:
    """Otherwise the test above would look at fewer turns than it seems to."""
    seen = {(key, as_it_stands(name, key)[0].status) for name in STUDIES for key in ("C1", "C2", "C3")}
    refutable = {(key, status) for key in ("C1", "C3") for status in Status}
    assert seen >= refutable | {("C2", Status.SUPPORTED), ("C2", Status.UNDECIDED)}
    turns = {(name, key): as_it_stands(name, key)[1].turns for name in STUDIES for key in ("C1", "C3")}
    assert any(turn.becomes is None for found in turns.values() for turn in found)
    assert max(map(len, turns.values())) == 2


LAYERS = {"G1": (gate_1, "auc"), "G2": (gate_2, "split_half_cosine")}


@pytest.mark.parametrize("at", [0.05, -0.05])
@pytest.mark.parametrize("key", LAYERS)
def test_a_gate_on_layers_turns_at_its_bar(key: str, at: float) -> None:
    """From the lowest layer's distance to the bar, above it and below."""
    gate, column = LAYERS[key]
    bar = {"G1": RULES.auc, "G2": RULES.split_half}[key]
    layers = world("effect, seed 0").layers
    evidence = replace(world("effect, seed 0"), layers=layers.assign(**{column: bar + at}))
    before = gate(evidence, RULES)
    (turn,) = otherwise(before, SOUND, evidence, RULES).turns
    assert turn.becomes is not before.status
    assert turn.change == pytest.approx(-at)
    short, beyond = (
        gate(moved(evidence, "layers", column, turn.change + hair, "layer >= 0"), RULES) for hair in signed(turn.change)
    )
    assert (short.status, beyond.status) == (before.status, turn.becomes)


@pytest.mark.parametrize("start", [0.0, -0.3])
def test_the_gate_on_loss_turns_where_it_is_said_to(start: float) -> None:
    """The loss under inoculation is moved until the interval of its fall reaches zero."""
    evidence = moved(world("effect, seed 0"), "alignments", "loss", -start, "condition == 'inoculation'")
    before = gate_3(evidence, RULES)
    (turn,) = otherwise(before, SOUND, evidence, RULES).turns
    short, beyond = (
        gate_3(moved(evidence, "alignments", "loss", -turn.change - hair, "condition == 'inoculation'"), RULES)
        for hair in signed(turn.change)
    )
    assert (short.status, beyond.status) == (before.status, turn.becomes)
    assert before.status is (Status.SUPPORTED if start == 0 else Status.REFUTED)


def test_the_gate_on_training_turns_where_the_least_run_learns_nothing() -> None:
    """The run that learnt least, its last loss raised to its first."""
    evidence = world("effect, seed 0")
    (turn,) = otherwise(gate_4(evidence, RULES), SOUND, evidence, RULES).turns
    fall = evidence.runs["initial_loss"] - evidence.runs["final_loss"]
    least = f"index == {fall.idxmin()}"
    short, beyond = (
        gate_4(moved(evidence, "runs", "final_loss", -turn.change - hair, least), RULES) for hair in signed(turn.change)
    )
    assert (short.status, beyond.status) == (Status.SUPPORTED, Status.REFUTED)
    failed = otherwise(beyond, SOUND, moved(evidence, "runs", "final_loss", 9.0, least), RULES)
    assert "had every run's loss fallen" in failed.text


@pytest.mark.parametrize("start", [0.0, -4.0])
def test_the_gate_on_drift_turns_where_it_is_said_to(start: float) -> None:
    """Every neutral run's rise moved alike."""
    rows = "condition == 'neutral' and measure == 'log_odds' and phase == 'post'"
    evidence = moved(world("effect, seed 0"), "drift", "value", start, rows)
    before = gate_5(evidence, RULES)
    (turn,) = otherwise(before, SOUND, evidence, RULES).turns
    short, beyond = (
        gate_5(moved(evidence, "drift", "value", turn.change + hair, rows), RULES) for hair in signed(turn.change)
    )
    assert (short.status, beyond.status) == (before.status, turn.becomes)
    assert before.status is (Status.SUPPORTED if start == 0 else Status.REFUTED)


def test_a_gate_that_fails_at_the_ceiling_says_so() -> None:
    """Then no rise of the log-odds would have made it hold."""
    evidence = world("saturated, seed 0")
    found = otherwise(gate_5(evidence, RULES), SOUND, evidence, RULES)
    assert found.turns == ()
    assert "no condition's mean caps rate is below 0.95" in found.details[0]


@pytest.mark.parametrize("wordless", [0, 200])
def test_the_gate_on_responses_turns_at_a_whole_number_of_them(wordless: int) -> None:
    """So many responses without letters, and one fewer."""

    def with_wordless(count: int) -> Evidence:
        responses = world("effect, seed 0").responses.copy()
        counted = responses[responses["phase"] != "early"].index
        responses.loc[counted[:count], "response"] = "12"
        return replace(world("effect, seed 0"), responses=responses)

    evidence = with_wordless(wordless)
    before = gate_6(evidence, RULES)
    (turn,) = otherwise(before, SOUND, evidence, RULES).turns
    last = wordless + int(turn.change)
    short, beyond = (gate_6(with_wordless(last + step), RULES) for step in (0, 1 if turn.change > 0 else -1))
    assert (short.status, beyond.status) == (before.status, turn.becomes)


@pytest.mark.parametrize("name", ["effect, seed 0", "reversed, seed 0", "effect, seed 1"])
def test_the_prediction_claim_turns_with_the_drift_difference(name: str, monkeypatch) -> None:
    """The difference moved as it stands, r being what it is: the judge is told of another number, and asked again."""
    evidence = world(name)
    before = judged("C4", evidence)
    (turn,) = otherwise(before, SOUND, evidence, RULES).turns
    found = predict(evidence, RULES, np.random.default_rng(prediction.SEED_OF_ARRANGEMENTS))
    assert found.follows(RULES), "otherwise the difference alone turns nothing"
    statuses = []
    for hair in signed(turn.change):
        by, old = turn.change + hair, found.difference
        other = replace(old, estimate=old.estimate + by, low=old.low + by, high=old.high + by)
        told = replace(found, difference=other)
        monkeypatch.setattr(prediction, "predict", lambda *_, told=told: told)
        statuses.append(judged("C4", evidence).status)
    assert statuses[1] is turn.becomes
    assert statuses[0] is not turn.becomes


def test_a_refuted_prediction_names_the_drift_difference_that_would_not_refute(monkeypatch) -> None:
    """Just beyond it the difference is neither below zero nor equivalent to it; just short of it, it is."""
    evidence = moved(
        world("no_effect, seed 0"),
        "drift",
        "value",
        0.5,
        "condition == 'inoculation' and measure == 'log_odds' and phase == 'post'",
    )
    before = judged("C4", evidence)
    assert (before.status, before.reason.count(";")) == (Status.REFUTED, 1), before.reason
    bar = float(re.search(r"it takes an estimate above ([-+.\d]+)", otherwise(before, SOUND, evidence, RULES).text)[1])
    found = predict(evidence, RULES, np.random.default_rng(prediction.SEED_OF_ARRANGEMENTS))
    statuses = []
    for away in (-0.01, 0.01):
        by, old = bar + away - found.difference.estimate, found.difference
        other = replace(old, estimate=old.estimate + by, low=old.low + by, high=old.high + by)
        same = tost(other, RULES.null_margin * drift_by_run(evidence, "log_odds")["neutral"].mean(), RULES.alpha)
        told = replace(found, difference=other, same_drift=same)
        monkeypatch.setattr(prediction, "predict", lambda *_, told=told: told)
        statuses.append(judged("C4", evidence).status)
    assert statuses == [Status.REFUTED, Status.UNDECIDED]


@pytest.mark.parametrize("name", ["effect, seed 0", "no_effect, seed 1", "different_mechanism, seed 0"])
def test_the_least_correlation_is_the_least_whose_p_is_small(name: str) -> None:
    """Of every way to pair runs within seeds, those with a small p are those from that r on."""
    evidence = world(name)
    least, count = correlation_bar(evidence, RULES)
    runs = runs_of(early_alignment(evidence, RULES.early_fraction), drift_by_run(evidence, "log_odds"))
    places = [np.flatnonzero(runs.seed == seed) for seed in (0, 1, 2)]
    rng = np.random.default_rng(0)
    arrangements = list(itertools.product(*(itertools.permutations(rows) for rows in places)))
    assert count == len(arrangements) == 216
    for arrangement in arrangements:
        y = runs.y.copy()
        y[np.concatenate(places)] = runs.y[np.concatenate(arrangement)]
        r, p = pearson(runs.x, y), stratified_p(runs.x, y, runs.seed, rng)[0]
        if r > 0:
            assert (p <= RULES.alpha) == (r >= least - 1e-9), (r, p, least)


def test_a_claim_that_a_gate_left_undecided_says_what_it_would_have_been() -> None:
    """With the gate held: here C4, which the ceiling keeps from being refuted."""
    evidence = world("saturated, seed 0")
    judgement = judge(evidence, RULES)
    claim = judgement.claims[3]
    opened = judged("C4", evidence)
    assert (claim.status, opened.status is Status.UNDECIDED) == (Status.UNDECIDED, False)
    found = otherwise(claim, judgement.gates, evidence, RULES)
    assert found.text.startswith(f"With G5 held it would have been {opened.status}.")
    assert found.turns == otherwise(opened, SOUND, evidence, RULES).turns


def test_a_design_that_cannot_decide_is_named() -> None:
    """Too few directions for any p at 0.01: no effect, however large, would have been enough."""
    strict = Rules(alpha=0.01)
    evidence = world("effect, seed 0")
    found = otherwise(claim_2(evidence, strict, SOUND), SOUND, evidence, strict)
    assert found.turns == ()
    assert "it takes more random directions than 60" in found.text


def test_diverged_runs_leave_nothing_to_turn() -> None:
    """C4 is then not computed, and says what it would have taken."""
    evidence = world("effect, seed 0")
    training = evidence.training.copy()
    training["loss"] = training["loss"].astype(float)
    training.loc[training.index[:9], ["loss", "alignment"]] = math.nan
    broken = replace(evidence, training=training)
    finding = judged("C4", broken)
    assert finding.effects == ()
    assert "finite" in otherwise(finding, SOUND, broken, RULES).text


def test_the_rules_are_told_with_the_study_s_own_bars() -> None:
    """Each bar of the rules that a claim goes by is in its words; gates tell theirs in their reason."""
    bars = Rules(alpha=0.02, null_margin=0.31, loss_match=0.27, overlap=0.17, equivalence=0.13, correlation_margin=0.41)
    findings = [Finding(key, "", Status.SUPPORTED, "", "") for key in RESTS_ON]
    words = {finding.key: rule_of(finding, bars) for finding in findings}
    expected = {
        "C1": ["98 %", "13 %"],
        "C2": ["0.02", "31 %"],
        "C3": ["27 %", "31 %", "13 %", "0.17"],
        "C4": ["0.02", "31 %", "0.41"],
    }
    assert {key: [bar for bar in found if bar in words[key]] for key, found in expected.items()} == expected
    assert rule_of(SOUND[0], bars) == ""


def test_every_finding_has_an_answer_in_words() -> None:
    """Of every study here, judged as it stands: a sentence, and no number that is none."""
    for name in [name for name in STUDIES if not name.endswith("1")]:
        judgement = judge(world(name), RULES)
        for finding in (*judgement.gates, *judgement.claims):
            found = otherwise(finding, judgement.gates, world(name), RULES)
            text = " ".join((found.text, *found.details))
            assert found.text.endswith((".", ":"))
            assert found.text.endswith(":") <= bool(found.details)
            assert "nan" not in text
            assert "inf " not in text
            assert all(np.isfinite(turn.change) for turn in found.turns)
