"""The rules of the judge: worlds with known truth, gates that fail one by one, and tables made to sit on a bar."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

from fixtures.held import HELD
from gradinoc.claims import measures as contrasts
from gradinoc.claims import verdict
from gradinoc.claims.finding import Status
from gradinoc.claims.gates import G1, G2, G5, G6
from gradinoc.claims.tables import EARLY
from gradinoc.claims.verdict import Verdict, judge
from gradinoc.power.scenarios import SCENARIOS
from gradinoc.power.simulate import CONDITIONS, simulate
from gradinoc.study.description import NULLS, POSITIONS
from gradinoc.study.rules import Rules

RULES = Rules()
SMALL = {"examples": 24, "layers": 3, "steps": 5, "directions": 40}


@cache
def world(name="effect", seed=0, **sizes):
    """The evidence of one simulated study; frames are copied before they are changed."""
    return simulate(name, np.random.default_rng(seed), **sizes)


def changed(evidence, table, change):
    """The evidence with a copy of one table given to `change`."""
    frame = getattr(evidence, table).copy()
    outcome = change(frame)
    return replace(evidence, **{table: frame if outcome is None else outcome})


def set_where(column, value, **where):
    """A change that sets a column where others have the given values."""

    def change(frame):
        keep = pd.Series(True, index=frame.index)
        for name, wanted in where.items():
            keep &= frame[name] == wanted
        assert keep.any()
        frame.loc[keep, column] = value

    return change


def measured(values, loss=None):
    """A world's evidence whose alignments (and losses) are [examples, 3] as given, at every layer and position."""
    evidence = world(**SMALL)
    values = np.asarray(values, dtype=float)
    examples, layers = len(values), evidence.layers["layer"].to_numpy()
    loss = np.linspace(1.8, 2.2, examples)[:, None] - np.array([0, 0.1, 0.1]) if loss is None else np.asarray(loss)
    index = pd.MultiIndex.from_product(
        [range(examples), CONDITIONS, layers, POSITIONS], names=["example", "condition", "layer", "position"]
    )
    frame = index.to_frame(index=False)
    where = frame["example"].to_numpy(), frame["condition"].map(CONDITIONS.index).to_numpy()
    frame["alignment"], frame["loss"] = values[where], loss[where]
    frame["projection"], frame["grad_norm"] = values[where], loss[where]
    index = pd.MultiIndex.from_product(
        [["politeness", "language"], range(examples), CONDITIONS, layers],
        names=["trait", "example", "condition", "layer"],
    )
    unrelated = index.to_frame(index=False).assign(alignment=0.0)
    return replace(evidence, alignments=frame, unrelated=unrelated, matched=evidence.matched.iloc[:0])


def with_drift(evidence, rises):
    """The evidence with log-odds that rise by exactly `rises` [seed, condition] for every example."""
    table = pd.DataFrame(rises, index=pd.Index(evidence.seeds), columns=list(CONDITIONS))

    def change(frame):
        log_odds = frame["measure"] == "log_odds"
        before = frame[log_odds & (frame["phase"] == "pre")].set_index("example")["value"]
        after = log_odds & (frame["phase"] == "post")
        rows = frame[after]
        rise = [table.loc[seed, condition] for seed, condition in zip(rows["seed"], rows["condition"], strict=True)]
        frame.loc[after, "value"] = before.loc[rows["example"]].to_numpy() + np.array(rise)

    return changed(evidence, "drift", change)


def claim(judgement, key):
    """One claim of a judgement."""
    return next(finding for finding in judgement.claims if finding.key == key)


def effect(finding, name):
    """One effect of a finding by its name."""
    return next(item for item in finding.effects if item.name == name)


# --- worlds whose truth is known ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_each_world_gets_its_verdict(name):
    """Effect, none, loss-mediated in two ways, different mechanism, saturated, reversed."""
    judgement = judge(world(name), RULES)
    assert judgement.verdict.name == SCENARIOS[name].verdict, judgement.sentence
    assert judgement.sentence.startswith(judgement.verdict.name.replace("_", " "))


# --- gates ----------------------------------------------------------------------------------------------------------


def no_letters(frame):
    """Every tenth response becomes a number."""
    frame.loc[frame.index % 10 == 0, "response"] = "42 + 7 = 49."


def same_loss(frame):
    """The loss of every example is the same under every condition."""
    frame["loss"] = 2.0 + 0.01 * frame["example"]


BROKEN = {
    "G1": ("layers", set_where("auc", 0.899, layer=4)),
    "G2": ("layers", set_where("split_half_cosine", 0.799, layer=4)),
    "G3": ("alignments", same_loss),
    "G4": ("runs", set_where("final_loss", 9.0, condition="loss_matched", seed=1)),
    "G5": ("drift", set_where("value", 1.0, measure="score", phase="post")),
    "G6": ("responses", no_letters),
}


@pytest.mark.parametrize("key", list(BROKEN))
def test_a_failed_gate_leaves_what_rests_on_it_undecided(key):
    """That gate alone fails; claims that rest on it are undecided, others are not touched; so is the verdict."""
    judgement = judge(changed(world(), *BROKEN[key]), RULES)
    assert [gate.key for gate in judgement.gates if gate.status is not Status.SUPPORTED] == [key]
    for finding in judgement.claims:
        expected = Status.UNDECIDED if key in finding.rests_on else Status.SUPPORTED
        assert finding.status is expected, finding.reason
    assert judgement.verdict is Verdict.UNDECIDED


def test_a_failed_gate_undoes_a_refutation_too():
    """What is reversed under an unsound apparatus is not refuted."""
    judgement = judge(changed(world("reversed"), *BROKEN["G1"]), RULES)
    assert claim(judgement, "C1").status is Status.UNDECIDED
    assert judgement.verdict is Verdict.UNDECIDED


def test_gates_look_at_the_band_only_and_bars_are_inclusive():
    """AUC 0.9 and cosine 0.8 hold; layers outside the band may be anything."""
    evidence = changed(world(), "layers", set_where("auc", 0.9, layer=4))
    evidence = changed(evidence, "layers", set_where("auc", 0.5, layer=0))
    evidence = changed(evidence, "layers", set_where("split_half_cosine", 0.8, layer=5))
    assert G1.judge(evidence, RULES).status is Status.SUPPORTED
    assert G2.judge(evidence, RULES).status is Status.SUPPORTED


@pytest.mark.parametrize(("fewer", "status"), [(0, Status.REFUTED), (1, Status.SUPPORTED)])
def test_five_percent_of_letterless_responses_fail(fewer, status):
    """Of those before and after training; at the midpoint none count."""
    responses = world().responses
    counted = responses.index[responses["phase"] != EARLY]
    letterless = [*counted[: math.ceil(0.05 * len(counted)) - fewer], *responses.index.difference(counted)]

    def change(frame):
        frame.loc[letterless, "response"] = "12 ..."

    assert G6.judge(changed(world(), "responses", change), RULES).status is status


def test_layers_of_both_signs_are_warned_of():
    """Alignment that rises in one layer of the band and falls in the others: the mean is said to hide it."""

    def turn(frame):
        turned = (frame["layer"] == 3) & (frame["condition"] == "inoculation")
        frame.loc[turned, "alignment"] += 0.5

    words = "under inoculation alignment falls in 3 and rises in 1 of 4 layers"
    assert any(words in warning for warning in judge(changed(world(), "alignments", turn), RULES).warnings)


@pytest.mark.parametrize(("sign", "warned"), [(0, True), (-1, True), (1, False)])
def test_link_that_is_only_between_conditions_is_warned_of(sign, warned):
    """Within conditions drift goes against alignment, or with nothing; where both go together there is no warning."""
    early = contrasts.early_alignment(world(), RULES.early_fraction)[list(CONDITIONS)]
    noise = np.array([[0.03, -0.01, 0.02], [-0.02, 0.03, -0.03], [-0.01, -0.02, 0.01]])
    away = early - early.mean()  # from the condition's mean
    drift = 3 + early.mean() + (sign * 40 * away if sign else 0 * away) + noise * (0.01 if sign else 1)
    evidence = with_drift(world(), drift.to_numpy())
    assert any("within conditions" in warning for warning in judge(evidence, RULES).warnings) is warned


def test_one_condition_below_the_ceiling_is_room_enough_for_drift():
    """A ceiling in two of three arms still measures something; a neutral run that does not rise is no drift."""
    evidence = changed(world(), "drift", set_where("value", 1.0, measure="score", condition="neutral"))
    assert G5.judge(evidence, RULES).status is Status.SUPPORTED
    flat = with_drift(world(), [[2.0, 1, 1], [2.0, 1, 1], [-0.1, 1, 1]])
    assert G5.judge(flat, RULES).status is Status.REFUTED


def test_a_run_that_diverged_fails_its_gate_and_decides_nothing():
    """NaN in a run's log: G4 names the run, C4 is undecided, the frozen model's claims stand."""
    broken = changed(world(), "training", set_where("alignment", math.nan, condition="neutral", seed=2, step=3))
    judgement = judge(broken, RULES)
    gate = judgement.gates[3]
    assert gate.status is Status.REFUTED
    assert "neutral seed 2" in gate.statement
    assert claim(judgement, "C4").status is Status.UNDECIDED
    assert claim(judgement, "C1").status is Status.SUPPORTED
    assert not [item for item in claim(judgement, "C1").effects if item.unit == "seeds"]


# --- what is missing ------------------------------------------------------------------------------------------------

HOLES = {
    "alignments": set_where("alignment", math.nan, condition="neutral", example=3, layer=4),
    "loss": set_where("loss", math.inf, condition="inoculation", example=3, layer=4),
    "nulls": set_where("alignment", math.nan, draw=3, layer=4),
    "drift": set_where("value", math.nan, measure="log_odds", condition="neutral", example=1),
    "layers": set_where("auc", math.nan, layer=4),
}


@pytest.mark.parametrize("hole", list(HOLES))
def test_a_number_that_is_not_finite_raises_and_never_decides(hole):
    """The message names the table."""
    table = "alignments" if hole == "loss" else hole
    with pytest.raises(ValueError, match=f"Evidence table '{table}'.* NaN or infinite"):
        judge(changed(world(), table, HOLES[hole]), RULES)


@pytest.mark.parametrize("table", ["alignments", "nulls", "training", "drift", "runs"])
def test_a_row_that_is_missing_raises(table):
    """One row that decides is gone: a layer of an example, a direction, a step; an evaluation example; a run."""
    frame = getattr(world(), table)
    keep = pd.Series(True, index=frame.index)
    if "layer" in frame:
        keep &= frame["layer"] == 4
    if "position" in frame:
        keep &= frame["position"] == POSITIONS[0]
    if "phase" in frame:
        keep &= (frame["phase"] == "post") & (frame["measure"] == "log_odds")
    gone = replace(world(), **{table: frame.drop(index=frame.index[keep][7])})
    with pytest.raises(ValueError, match=f"Evidence table '{table}.*expected"):
        judge(gone, RULES)


def test_evidence_outside_band_and_primary_position_decides_nothing():
    """NaN at other layers and positions changes no finding."""

    def elsewhere(frame):
        frame.loc[(frame["layer"] < 2) | (frame["position"] != POSITIONS[0]), "alignment"] = math.nan

    assert judge(changed(world(), "alignments", elsewhere), RULES) == judge(world(), RULES)


# --- C1 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("against_neutral", "against_control", "status"),
    [
        ("above", "above", Status.SUPPORTED),
        ("above", "astride", Status.UNDECIDED),
        ("astride", "above", Status.UNDECIDED),
        ("below", "above", Status.REFUTED),
        ("above", "below", Status.REFUTED),
        ("above", "at", Status.REFUTED),
        ("at", "at", Status.REFUTED),
    ],
)
def test_the_first_claim_needs_both_intervals_above_zero(against_neutral, against_control, status):
    """Below zero, or around it and equivalent to it, against either refutes; astride leaves it undecided."""
    wave = np.tile([1.0, -1.0], 20)
    difference = {
        "above": 0.1 + 0.1 * wave,
        "astride": 0.02 + 0.1 * wave,
        "below": -0.1 + 0.1 * wave,
        "at": 0.01 * wave,
    }
    base = 0.3 + 0.05 * np.linspace(-1, 1, 40)
    inoculation = base - difference[against_neutral]
    table = np.column_stack([base, inoculation, inoculation + difference[against_control]])
    assert verdict.C1.judge(measured(table), RULES, HELD).status is status


# --- C2 -------------------------------------------------------------------------------------------------------------


SPREAD = np.array([0.001, -0.001] * 50)  # T(u) of a hundred directions that show nothing


def nulls(evidence, differences, kind="isotropic"):
    """A nulls table in which direction k of a kind shows T(u) = differences[k] against both other conditions.

    Those of other kinds are as many, and show nothing.
    """
    layers = evidence.layers["layer"]
    index = pd.MultiIndex.from_product(
        [NULLS, range(len(differences)), CONDITIONS, layers], names=["null", "draw", "condition", "layer"]
    )
    frame = index.to_frame(index=False)
    draw = frame["draw"].to_numpy()
    shown = np.where(frame["null"] == kind, np.asarray(differences)[draw], SPREAD[draw])
    return frame.assign(alignment=np.where(frame["condition"] == "inoculation", -shown, 0.0))


@pytest.mark.parametrize(("larger", "status"), [(4, Status.SUPPORTED), (5, Status.UNDECIDED)])
def test_the_trait_direction_has_to_stand_out_among_its_nulls(larger, status):
    """Of 100 directions 4 larger: p = 5 / 101 < 0.05; 5 larger: p = 6 / 101 > 0.05."""
    differences = SPREAD.copy()
    differences[:larger], differences[-larger:] = 0.5, -0.5
    finding = verdict.C2.judge(replace(world(), nulls=nulls(world(), differences)), Rules(null_margin=1), HELD)
    assert effect(finding, "isotropic, neutral - inoculation").p == pytest.approx((1 + larger) / 101)
    assert finding.status is status, finding.reason


@pytest.mark.parametrize("kind", NULLS)
def test_every_kind_of_null_has_a_say(kind):
    """One null in which every fifth direction shows as much leaves the claim undecided, and is named."""
    other = SPREAD.copy()
    other[::5], other[1::5] = 0.5, -0.5
    finding = verdict.C2.judge(replace(world(), nulls=nulls(world(), other, kind)), RULES, HELD)
    assert finding.status is Status.UNDECIDED
    assert [null for null in NULLS if null in finding.reason] == [kind]


def test_random_directions_that_show_it_too_refute_the_second_claim():
    """An isotropic mean of half of T(v), with little spread."""
    finding = verdict.C2.judge(replace(world(), nulls=nulls(world(), 0.055 + SPREAD)), RULES, HELD)
    assert finding.status is Status.REFUTED


def test_without_an_effect_there_is_nothing_to_compare():
    """T(v) below zero: undecided, whatever the nulls."""
    assert verdict.C2.judge(world("reversed"), RULES, HELD).status is Status.UNDECIDED


def test_noise_larger_than_the_nulls_spread_does_not_stand_out():
    """T(v) of one standard error beyond all of 100 narrow random directions is noise, and undecided."""
    wave = np.tile([1.0, -1.0], 20)
    difference = 0.1 * (wave + wave.std(ddof=1) / math.sqrt(40))
    table = np.column_stack([0.3 + difference, np.full(40, 0.3), 0.3 + difference])
    evidence = measured(table)
    finding = verdict.C2.judge(replace(evidence, nulls=nulls(evidence, 0.01 * SPREAD)), RULES, HELD)
    assert effect(finding, "isotropic, neutral - inoculation").p == pytest.approx(1 / 101)
    assert finding.status is Status.UNDECIDED


# --- C3 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [0.38, 1.5])
def test_losses_that_hardly_overlap_leave_the_third_claim_undecided(gap):
    """Losses spread over 0.4: inoculated ones that touch neutral ones only just, and ones far below."""
    losses = np.linspace(1.8, 2.2, 40)[:, None] - np.array([0, gap, gap])
    wave = np.tile([0.05, -0.05], 20)
    table = np.column_stack([np.full(40, 0.3), 0.15 + wave, np.full(40, 0.3)])
    finding = verdict.C3.judge(measured(table, losses), RULES, HELD)
    assert finding.status is Status.UNDECIDED


def test_a_control_that_is_not_loss_matched_is_warned_of():
    """At 14 / 15 of the way it is matched; at half of it not."""
    missed = judge(simulate(replace(SCENARIOS["effect"], loss=(0, 0.2, 0.1)), np.random.default_rng(0)), RULES)
    for judgement, warned in ((judge(world(), RULES), False), (missed, True)):
        assert any("not loss-matched" in warning for warning in judgement.warnings) is warned


def test_a_slope_confounded_by_difficulty_cannot_support_the_third_claim():
    """All of the fall is loss, hard examples have lower alignments: pooled regression and bins would both pass it."""
    rng = np.random.default_rng(1)
    difficulty = rng.normal(0, 0.25, (300, 1))
    losses = 2 + difficulty - np.array([0, 0.15, 0.15]) + rng.normal(0, 0.05, (300, 3))
    table = 0.3 - 0.4 * difficulty + 0.6 * (losses - 2 - difficulty) + rng.normal(0, 0.03, (300, 3))
    finding = verdict.C3.judge(measured(table, losses), RULES, HELD)
    assert effect(finding, "alignment at equal loss, regression").low > 0
    assert effect(finding, "alignment at equal loss, bins").low > 0
    assert finding.status is Status.UNDECIDED


def test_an_unchanged_cosine_is_loss_mediation_only_if_drift_falls():
    """The same frozen model twice: drift that falls is loss-mediated, drift that does not is refuted."""
    evidence = world("loss_mediated")
    assert judge(evidence, RULES).verdict is Verdict.LOSS_MEDIATED
    level = with_drift(evidence, [[3.0, 3.1, 3.0], [3.1, 3.0, 3.0], [3.0, 3.0, 3.1]])
    assert judge(level, RULES).verdict is Verdict.REFUTED


def test_a_small_fall_that_is_shown_is_not_no_change():
    """A fall of 1/30 of the alignment is inside the margin of equivalence; with an interval above zero it is a fall."""
    wave = np.tile([1.0, -1.0], 20)
    for spread, status in ((0.005, Status.SUPPORTED), (0.05, Status.REFUTED)):
        table = np.column_stack([np.full(40, 0.3), 0.29 + spread * wave, np.full(40, 0.3)])
        losses = np.linspace(1.5, 2.5, 40)[:, None] - np.array([0, 0.05, 0.05]) * np.linspace(0.5, 1.5, 40)[:, None]
        finding = verdict.C3.judge(measured(table, losses), RULES, HELD)
        assert effect(finding, "alignment, neutral - inoculation, equivalence").p <= 0.05
        assert finding.status is status, finding.reason


# --- C4 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rises", "status"),
    [
        ([[3.0, 1.0, 2.8], [3.2, 1.1, 2.7], [2.9, 0.8, 3.0]], Status.SUPPORTED),
        ([[1.0, 3.0, 1.2], [1.1, 3.2, 1.0], [0.9, 2.9, 1.1]], Status.REFUTED),
        ([[3.0, 3.1, 2.9], [3.1, 3.0, 3.0], [2.9, 2.9, 3.1]], Status.REFUTED),
        ([[3.0, 1.0, 2.8], [3.2, 3.1, 2.7], [2.9, 2.0, 3.0]], Status.UNDECIDED),
        ([[3.0, 2.0, 1.5], [3.1, 2.1, 1.6], [2.9, 1.9, 1.4]], Status.UNDECIDED),
    ],
)
def test_drift_has_to_fall_with_alignment(rises, status):
    """Less drift under inoculation; more; the same within a quarter; too wide to say; and less by the control too."""
    finding = verdict.C4.judge(with_drift(world(), rises), RULES, HELD)
    assert finding.status is status, finding.reason


# Drift differences, neutral - inoculation, inside a quarter of the neutral drift (0.75).
LITTLE_LESS = [[3.0, 2.70, 2.3], [3.1, 2.79, 3.5], [2.9, 2.61, 2.2]]  # above zero throughout, r not significant
FOLLOWING = [[3.05, 2.95, 3.0], [3.1, 2.8, 3.05], [2.92, 2.9, 2.91]]  # around zero, r above zero


@pytest.mark.parametrize("rises", [LITTLE_LESS, FOLLOWING])
def test_a_small_drift_difference_refutes_only_where_it_may_be_none(rises):
    """Equivalent to zero, but shown to be above it, or with r significantly positive: undecided, not refuted."""
    finding = verdict.C4.judge(with_drift(world(), rises), RULES, HELD)
    assert effect(finding, "drift in log_odds, neutral - inoculation, equivalence").p <= 0.05
    assert finding.status is Status.UNDECIDED, finding.reason
    assert concluded(with_drift(world(), rises), "SSSR")[0] is Verdict.UNDECIDED


def test_the_controls_drift_is_warned_of_when_it_falls_as_well():
    """Loss-matched minus inoculation, in log-odds and score; straddling zero, any system prompt may do."""
    judgement = judge(world(), RULES)
    for measure in ("log_odds", "score"):
        assert effect(claim(judgement, "C4"), f"drift in {measure}, loss_matched - inoculation").low > 0
    assert not any("any system prompt" in warning for warning in judgement.warnings)
    alike = judge(with_drift(world(), [[3.0, 1.0, 1.1], [3.2, 1.1, 1.0], [2.9, 0.8, 0.9]]), RULES)
    assert any("any system prompt" in warning for warning in alike.warnings)


@pytest.mark.parametrize(("key", "sizes"), [("C4", {"seeds": 1}), ("C2", {"directions": 10})])
def test_a_design_that_cannot_decide_is_warned_of(key, sizes):
    """The claim ends undecided, though all is reversed."""
    judgement = judge(world("reversed", **sizes), RULES)
    assert claim(judgement, key).status is Status.UNDECIDED
    assert any(warning.startswith(key) for warning in judgement.warnings)


# --- what decides nothing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["shuffled", "reversed"])
def test_a_direction_that_does_not_track_the_trait_in_responses_is_warned_of(order):
    """Projections against scores; domains that differ in both do not hide it."""

    def change(frame):
        if order == "reversed":
            frame["projection"] = -frame["projection"]
            return
        away = 5.0 * (frame["domain"] == "everyday")
        frame["projection"] = np.random.default_rng(0).permutation(frame["projection"]) + away
        frame["score"] = frame["score"] + away

    words = "does not track the trait"
    assert not any(words in warning for warning in judge(world(), RULES).warnings)
    judgement = judge(changed(world(), "responses", change), RULES)
    assert any(words in warning for warning in judgement.warnings)
    assert judgement.verdict is Verdict.SUPPORTED


# --- templates ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alignment", "place"), [(-0.9, 10), (-0.15, 1)])
def test_random_directions_in_training_count_by_their_mean_over_seeds(alignment, place):
    """Of a hundred, nine show it in one seed of three: in the mean as much as the trait's direction, or less."""
    change = set_where("alignment", alignment, condition="inoculation", seed=0)

    def of_nine(frame):
        few = frame[frame["draw"] < 9].copy()
        change(few)
        frame.loc[few.index] = few

    finding = verdict.C1.judge(changed(world(), "training_nulls", of_nine), RULES, HELD)
    name = "alignment in training, neutral - inoculation"
    assert 0.05 < effect(finding, name).estimate < 0.15
    assert effect(finding, f"{name}, among random directions").p == pytest.approx(place / 101)


@pytest.mark.parametrize("hole", ["missing", "two"])
def test_an_example_has_one_group(hole):
    """A group that is missing, or that differs between conditions, is refused."""
    value = None if hole == "missing" else 5
    broken = changed(world(templates=12), "alignments", set_where("group", value, condition="neutral", example=3))
    with pytest.raises(ValueError, match="Evidence table 'alignments', column 'group': expected one group for every"):
        verdict.C1.judge(broken, RULES, HELD)


# --- the verdict table ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ("SSSS", Verdict.SUPPORTED),
        ("SSSU", Verdict.UNDECIDED),
        ("SUSS", Verdict.UNDECIDED),
        ("SSUR", Verdict.DIFFERENT_MECHANISM),
        ("SUSR", Verdict.UNDECIDED),
        ("SSRS", Verdict.LOSS_MEDIATED),
        ("SSRR", Verdict.LOSS_MEDIATED),
    ],
)
def test_claims_make_the_verdict_by_its_table(statuses, expected):
    """S supported, R refuted, U undecided, for C1 to C4; alignment falls, drift does not, and every gate is sound."""
    assert concluded(world("different_mechanism"), statuses)[0] is expected


def concluded(evidence, statuses):
    """The verdict of a study whose C1 to C4 came to these statuses: S supported, R refuted, U undecided."""
    names = {"S": Status.SUPPORTED, "R": Status.REFUTED, "U": Status.UNDECIDED}
    claims = judge(evidence, RULES).claims
    given = [replace(claim, status=names[letter]) for claim, letter in zip(claims, statuses, strict=True)]
    return verdict.conclusion(RULES, HELD, given)


def test_another_mechanism_takes_evidence():
    """Equal drift, or r below zero; where drift does go with alignment, a refuted C4 leaves the verdict undecided."""
    more = with_drift(world(), [[1.0, 3.0, 1.2], [1.1, 3.2, 1.0], [0.9, 2.9, 1.1]])
    assert concluded(world("different_mechanism"), "SSSR")[0] is Verdict.DIFFERENT_MECHANISM
    assert concluded(more, "SSSR")[0] is Verdict.DIFFERENT_MECHANISM
    assert concluded(world(), "SSSR")[0] is Verdict.UNDECIDED
