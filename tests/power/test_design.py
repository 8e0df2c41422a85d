"""What a design can decide is known before anything runs: floors, narrowest intervals, dead ends that are dead ends."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gradinoc.claims.c4 import C4, COVARIATES
from gradinoc.claims.c6 import C6, DENOMINATOR, NUMERATOR
from gradinoc.claims.rules.criteria import p_at_most
from gradinoc.claims.rules.finding import Measured, Status
from gradinoc.power.design import (
    CLAIMS,
    Design,
    Directions,
    cautions,
    dead_ends,
    design_of,
    floors,
    opening,
    reach_table,
    resting_on,
)
from gradinoc.power.design.ends import RESTS_ON
from gradinoc.stats.effect import Effect, bare, from_standard_error, mean_effect, noisy_null_p
from gradinoc.stats.families import Families, contrast
from gradinoc.stats.regression.prompt_slope import Covariate, prompt_slope, weakest_without_one
from gradinoc.stats.shares.ratios import ratio
from gradinoc.study.description import Study
from gradinoc.study.loading import STUDIES, load_study
from gradinoc.study.rules import Rules

RULES = Rules()
ONE_SEED = "seeds=[0]"
PAIR = '"rephrased_inoculation", "rephrased_harmless"'
TRAINED = ", ".join(
    f'"{key}"'
    for key in (
        "inoculation_06", "inoculation_08", "inoculation_09", "inoculation_10", "inoculation_05", "anti_1",
        "harmless_02", "harmless_03", "harmless_04", "harmless_06", "harmless_07",
    )
)  # fmt: skip
RNG = np.random.default_rng(0)
OF_TINY = tuple(claim for claim in CLAIMS if claim != "C5")  # what a study without arms runs


def tiny(*settings: str) -> Study:
    """The tiny study with prompts of every kind, and settings applied."""
    return load_study("tiny", [f"prompts.trained=[{TRAINED}, {PAIR}]", 'prompts.measured="all"', *settings])


def ends(*settings: str) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Claims -> what they cannot become, of the tiny study with settings applied."""
    return {end.claims: end.excluded for end in dead_ends(design_of(tiny(*settings)))}


def answers(*prompts: int, questions: int = 12) -> Families:
    """Families harmless, inoculation and neutral with so many rows, of answers that differ as clearly as can be."""
    means = {"harmless": 1.0, "inoculation": 0.0, "neutral": 1.0}
    return Families(
        {
            family: mean + RNG.normal(0, 0.01, (count, questions))
            for (family, mean), count in zip(means.items(), prompts, strict=True)
        }
    )


def measured(share: Effect, pair: Effect) -> Measured:
    """What C6 is decided by, with room for inoculation to do better."""
    room = from_standard_error(bare("room", 0.8, 12, "prompts", ""), 0.01, 11)
    return Measured({"share": share, "rephrased": pair, "room": room})


# --- what a study's design is


def test_a_design_counts_prompts_of_families_and_not_conditions():
    """Hints, opposite and rephrased prompts are in neither family, and all but the latter are in the slope."""
    design = design_of(tiny())
    assert design.prompts.measured == {"harmless": 10, "inoculation": 5}
    assert design.prompts.trained == {"harmless": 6, "inoculation": 5}
    assert (design.prompts.sloped, design.prompts.rephrased) == (13, True)
    fewer = design_of(tiny(f'prompts.trained=["harmless_02", {PAIR}]', 'prompts.measured=["inoculation_06"]'))
    assert fewer.prompts.trained == {"harmless": 2, "inoculation": 1}
    assert fewer.prompts.measured == {"harmless": 2, "inoculation": 2}
    assert (fewer.prompts.sloped, fewer.prompts.rephrased) == (3, True)


def test_a_condition_of_ones_own_is_in_no_family_but_in_the_slope():
    """Its drift says something of alignment, and nothing of inoculation."""
    own = tiny("conditions.mine=Answer like a pirate.")
    assert design_of(own).prompts.trained == design_of(tiny()).prompts.trained
    assert design_of(own).prompts.sloped == 14


# --- dead ends


def test_the_ready_studies_have_no_dead_end():
    """Each of their claims can become anything; of those on cause C5 can, be it refuted alone where time is short."""
    names = {path.stem for path in STUDIES.glob("*.toml")}
    for name in names - {"causal-tiny", "causal-smollm2"}:
        assert not dead_ends(design_of(load_study(name))), name
    ways = {
        name: [end.excluded for end in dead_ends(design_of(load_study(name))) if "C5" in end.claims] for name in names
    }
    assert ways["causal-tiny"] == []
    assert ways["causal-smollm2"] == [("supported",)]


@pytest.mark.parametrize(("harmless", "inoculating"), [(1, 3), (3, 1)])
def test_a_family_of_one_leaves_c6_undecided_however_clear_the_answers(harmless, inoculating):
    """No interval of the share, by the claim's own rule; and the design says so, for that family."""
    share = ratio(answers(harmless, inoculating, 3), NUMERATOR, DENOMINATOR, "share", RULES.share)
    pair = from_standard_error(bare("pair", 0.9, 12, "questions", ""), 0.01, 11)
    assert C6.decide(measured(share, pair), RULES).status is Status.UNDECIDED
    design = design_of(tiny())
    trained = {"harmless": harmless, "inoculation": inoculating}
    found = dead_ends(replace(design, prompts=replace(design.prompts, trained=trained)))
    assert [end.claims for end in found] == [("C6", "C7a", "C7b")]
    word = "harmless" if harmless == 1 else "inoculating"
    assert str(found[0]).startswith(f"C6, C7a and C7b cannot be supported or refuted: one {word} prompt is trained")
    assert "prompts.trained" in str(found[0])


def test_one_seed_leaves_every_claim_undecided_because_three_gates_fail():
    """The neutral drift, its movement and its alignment have no interval over one run."""
    assert math.isnan(contrast(answers(3, 3, 1), {"neutral": 1.0}, "drift of neutral runs").low)
    assert math.isnan(mean_effect(np.array([0.3]), "alignment of neutral runs", "runs", 0.95).low)
    assert ends(ONE_SEED) == {OF_TINY: ("supported", "refuted")}
    assert ends("seeds=[0, 1]") == {}


def test_too_few_prompts_leave_c4_undecided():
    """Seven prompts, in perfect order, have no slope with three covariates and one left out; eight have."""
    covariates = {name: Covariate(RNG.normal(0, 1, 8)) for name in COVARIATES}
    seven = {name: Covariate(each.values[:7]) for name, each in covariates.items()}
    x = np.arange(8.0)
    for prompts, given in ((7, seven), (8, covariates)):
        y = x[:prompts] + RNG.normal(0, 1e-6, prompts)
        slope = prompt_slope(x[:prompts], y, given, RNG, "slope")
        without, _ = weakest_without_one(x[:prompts], y, given, "without")
        outcome = C4.decide(Measured({"slope": slope, "slope.without": without}), RULES)
        design = design_of(tiny())
        found = dead_ends(replace(design, prompts=replace(design.prompts, sloped=prompts)))
        assert (outcome.status is Status.UNDECIDED) == bool(found)
    assert outcome.status is Status.SUPPORTED


def test_without_the_rephrased_pair_c6_can_be_refuted_and_not_supported():
    """The pair is what supports; the share alone refutes."""
    absent = bare("pair", math.nan, 0, "questions", "not run")
    design = design_of(tiny('prompts.trained=["harmless_02", "harmless_04", "inoculation_06", "anti_1"]'))
    assert not design.prompts.rephrased
    pair = [end for end in dead_ends(design) if end.claims == ("C6",)]
    assert [end.excluded for end in pair] == [("supported",)]
    share = ratio(answers(3, 3, 3), NUMERATOR, DENOMINATOR, "share", RULES.share)
    assert C6.decide(measured(share, absent), RULES).status is Status.UNDECIDED
    none = Families({**answers(3, 3, 3).values, "inoculation": 1 + RNG.normal(0, 0.01, (3, 12))})
    share = ratio(none, NUMERATOR, DENOMINATOR, "share", RULES.share)
    assert C6.decide(measured(share, absent), RULES).status is Status.REFUTED


@pytest.mark.parametrize("count", [18, 19])
def test_a_place_among_too_few_directions_is_never_significant(count):
    """Eighteen directions leave p above 0.05 for the best place, nineteen do not."""
    best = replace(from_standard_error(bare("T(v)", 9.0, 9, "prompts", ""), 1e-9, 9))
    p = noisy_null_p(best, RNG.normal(0, 1, count))
    design = design_of(tiny())
    found = {
        field: dead_ends(replace(design, directions=replace(design.directions, **{field: count})))
        for field in ("frozen", "training", "steered")
    }
    decided = bool(p_at_most(replace(best, p=p), RULES.alpha))
    assert [bool(each) for each in found.values()] == [not decided] * 3
    if not decided:
        assert {end.claims for each in found.values() for end in each} == {
            ("C2", "C7b"),
            tuple(claim for claim in resting_on("G8a") if claim in OF_TINY),
            resting_on("G8c"),
        }
        assert "steering.draws to 19 or more" in str(found["steered"][0])


def test_bars_that_nothing_passes_are_dead_ends():
    """No score below a ceiling of 0, no share of responses below 0, no drift above the whole scale."""
    for bar in ("ceiling=0.0", "max_unscorable=0.0", "least_drift=1.0"):
        assert ends(f"rules.{bar}") == {("C4", "C6", "C7a", "C7b", "C7c"): ("supported", "refuted")}, bar


def test_claims_rest_on_the_gates_that_they_say_they_rest_on():
    """Gates of the direction carry C1 to C4, those of drift C4, C6 and C7; C7b is of both."""
    assert resting_on("G8a") == ("C1", "C2", "C3", "C4", "C5", "C7b")
    assert resting_on("G5") == ("C4", "C5", "C6", "C7a", "C7b", "C7c")
    assert resting_on("G10") == ("C7a", "C7b")
    assert set(RESTS_ON) == set(CLAIMS)


# --- floors and intervals


def test_smallest_p_by_claim():
    """No floor for t tests; a place counts directions; eight prompts have 40,320 orders, C7c's R2 999 random ones."""
    design = design_of(tiny())
    assert floors(design) == {
        "C1": 0, "C2": 1 / 201, "C3": 0, "C4": 1e-4, "C6": 0, "C7a": 0, "C7b": 1 / 201, "C7c": 1e-3,
    }  # fmt: skip
    eight = replace(design, prompts=replace(design.prompts, sloped=8))
    assert floors(eight)["C4"] == 1 / math.factorial(8)
    assert floors(replace(design, seeds=1))["C6"] == 1
    assert {floors(replace(design, attributed=0))[claim] for claim in ("C7a", "C7b", "C7c")} == {1}


def test_table_has_a_row_for_every_test_and_says_what_a_claim_can_become():
    """Gates have no outcome; C2 is never refuted; one dead end shows in every row of its claims."""
    table = reach_table(tiny('prompts.trained=["harmless_02", "inoculation_06"]'))
    can = table[["can_be_supported", "can_be_refuted"]].groupby(table["key"]).first()
    assert can.loc[["G3", "G8a"]].isna().to_numpy().all()
    assert can.loc[["C1", "C2", "C4", "C6"]].to_numpy().tolist() == [
        [True, True], [True, False], [False, False], [False, True],
    ]  # fmt: skip
    assert set(CLAIMS) - {"C5"} < set(table["key"])
    assert set(CLAIMS) < set(reach_table(load_study("causal-tiny"))["key"])


def test_the_narrowest_interval_is_that_of_simulated_prompts():
    """Of prompts that differ by one standard deviation, on average, within Monte-Carlo error."""
    table = reach_table(tiny()).set_index(["key", "test"])
    expected = table.loc[("C6", "ratio, t over harmless and inoculating prompts"), "half_width"]
    found = []
    for _ in range(400):
        effect = contrast(
            Families({"harmless": RNG.normal(0, 1, (6, 1)), "inoculation": RNG.normal(0, 1, (5, 1))}),
            NUMERATOR,
            "drift",
        )
        found.append((effect.high - effect.low) / 2)
    assert np.mean(found) == pytest.approx(expected, rel=0.05)


# --- cautions, and the start of a session


def test_cautions_say_what_one_more_prompt_or_seed_would_reach():
    """Two seeds, three prompts of a family, and eight for a slope are few; the ready study's are not."""
    design = design_of(tiny())
    assert cautions(design) == []
    few = replace(design, seeds=2, prompts=replace(design.prompts, trained={"harmless": 3, "inoculation": 2}, sloped=8))
    prompts, seeds, slope, labels = cautions(few)
    assert "3 harmless and 2 inoculating prompts are trained" in prompts
    assert "two seeds" in seeds
    assert "leave C4 3 degrees of freedom" in slope
    assert labels.endswith("no p below 0.1")


def test_session_opens_with_what_a_design_can_decide():
    """Numbers of prompts and each claim's smallest p; with one seed, that nothing can be decided."""
    first, *rest = opening(tiny())
    assert "10 harmless and 5 inoculating prompts measured, 6 harmless and 5 inoculating trained, 3 seeds" in first
    assert "C2 0.00498" in first
    assert rest == []
    _, end = opening(tiny(ONE_SEED))
    assert end.startswith("design: C1, C2, C3, C4, C6, C7a, C7b and C7c cannot be supported or refuted: with one seed")


def test_design_is_a_value():
    """It can be varied by hand, as a plan does."""
    design = design_of(tiny())
    assert isinstance(design, Design)
    assert replace(design, directions=Directions(19, 19, 19)) != design
