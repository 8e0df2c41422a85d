"""Variances of a study that was run are those of the simulated study that looks like it."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from gradinoc.power.scenarios import SOURCES, Noise, Scenario
from gradinoc.power.simulate import simulate
from gradinoc.power.variances import TINY, Variances, estimate, load_variances
from gradinoc.power.variances.frozen import Measured, of_prompts
from gradinoc.power.variances.moments import nested, pooled_slope, templates_behind, templates_met
from gradinoc.study.rules import Rules

RULES = Rules()
NOISE = Noise(
    prompt_alignment=0.05, prompt_drift=0.10, layer=0.0, template=0.05, family_template=0.03, alignment=0.05,
    seed=0.03, run=0.02, run_drift=0.08, seed_drift=0.05, drift_template=0.3, drift_prompt=0.15, drift_family=0.15,
)  # fmt: skip
# Far from the scale's ends, where a score cannot fall any further.
TRUTH = Scenario(templates=16, fall=0.2, follows=1.5, elicits=0.3, conditional=0.1, between=-0.1, core=0.8,
                 disagree=0.2, noise=NOISE)  # fmt: skip
SIZES = {"layers": 1, "positions": 1, "steps": 12, "seeds": 6, "beside": False, "inoculating": 14, "harmless": 14,
         "trained": (10, 10, 1), "shared": 64, "evaluation": 64, "directions": 100}  # fmt: skip
OTHERWISE = {  # what the simulation makes of a field in another way than the estimate reads it
    "templates",  # so many are met: the estimate is of how many there are behind
    "unspecific",  # the largest of several directions of chance
    "behaviour",  # of one prompt whose score the scale cuts off
    "prompt_loss", "difficulty", "prompt_elicitation",
}  # fmt: skip
IN_WINDOW = 0.84  # alignment fades in training; in its first third this much of it is there, on average


def numbers(scenario: Scenario) -> dict[str, float]:
    """Effects and spreads by name; of spreads that are near zero the squares are without bias."""
    found = asdict(scenario)
    noise = found.pop("noise")
    nulls = noise.pop("nulls")
    noise.pop("null_along")  # of which a study says nothing
    flat = {name: value for name, value in found.items() if isinstance(value, float)}
    return flat | {f"noise.{name}": value for name, value in {**noise, **nulls}.items()}


@pytest.fixture(scope="module")
def estimates() -> list[Variances]:
    """The variances of ten studies of one scenario."""
    return [estimate(simulate(TRUTH, np.random.default_rng(i), **SIZES), RULES, "simulated") for i in range(10)]


def test_estimates_recover_the_simulated_scenario(estimates):
    """Every effect and spread within four Monte-Carlo standard errors of the truth, or a twentieth of it."""
    truth = numbers(TRUTH)
    found = {name: np.array([numbers(each.scenario)[name] for each in estimates]) for name in truth}
    wrong = {}
    for name, values in found.items():
        if name.removeprefix("noise.") in OTHERWISE | {"degrees"}:
            continue
        expected = truth[name] * (IN_WINDOW if name in ("noise.seed", "noise.run") else 1)
        error = values.std(ddof=1) / math.sqrt(len(values))
        if abs(values.mean() - expected) > 4 * error + 0.05 * abs(expected):
            wrong[name] = (round(values.mean(), 4), round(expected, 4), round(error, 4))
    assert not wrong


def test_counts_are_those_of_the_study(estimates):
    """Seeds and prompts of each family, and no word on what is true."""
    assert {(each.seeds, each.harmless, each.inoculating) for each in estimates} == {(6, 14, 14)}
    assert set(estimates[0].scenario.holds) <= set(SOURCES)


def test_what_prompts_remove_without_lowering_alignment_is_not_said_to_follow_from_it():
    """Drift that falls by a way of its own, and drift that any prompt keeps down, are told apart from alignment."""
    for other in ({"elicits": 0.7}, {"conditional": 0.6}):
        quiet = replace(
            NOISE, prompt_alignment=0.02, prompt_drift=0.02, run_drift=0.01, drift_prompt=0.02, response=0.1
        )
        nothing = {"elicits": 0.0, "conditional": 0.0, "follows": 0.0}
        scenario = replace(TRUTH, noise=quiet, **{**nothing, **other})
        found = [estimate(simulate(scenario, np.random.default_rng(i), **SIZES), RULES, "s").scenario for i in range(3)]
        means = {
            name: np.mean([getattr(each, name) for each in found]) for name in ("elicits", "conditional", "follows")
        }
        assert means["elicits"] == pytest.approx(other.get("elicits", 0), abs=0.12)
        assert means["conditional"] == pytest.approx(other.get("conditional", 0), abs=0.08)
        assert abs(means["follows"]) < 0.8


@pytest.mark.parametrize(
    ("sizes", "said"),
    [({"seeds": 1}, "one seed"), ({"harmless": 1, "trained": (6, 1, 0)}, "a family of one prompt")],
)
def test_what_says_nothing_of_variances_is_refused(sizes, said):
    """One seed and one prompt of a family have no variance."""
    evidence = simulate(TRUTH, np.random.default_rng(0), **{**SIZES, **sizes})
    with pytest.raises(ValueError, match=said):
        estimate(evidence, RULES, "simulated")


def test_no_neutral_drift_is_refused():
    """Shares of nothing are no numbers."""
    evidence = simulate(replace(TRUTH, drift=0.0), np.random.default_rng(0), **SIZES)
    after = (evidence.drift["condition"] == "neutral") & (evidence.drift["measure"] == "expected_score")
    drift = evidence.drift.assign(value=evidence.drift["value"].mask(after, 0.0))
    with pytest.raises(ValueError, match="neutral runs drift by"):
        estimate(replace(evidence, drift=drift), RULES, "simulated")


def test_variances_are_read_as_they_were_written(estimates, tmp_path):
    """The file is JSON that others can read too, and the same to the last bit."""
    path = tmp_path / "variances.json"
    path.write_text(estimates[0].model_dump_json(indent=2), encoding="utf-8")
    assert "Infinity" in path.read_text(encoding="utf-8")
    assert load_variances(path) == estimates[0]
    path.write_text(path.read_text(encoding="utf-8").replace('"seeds"', '"sead"'), encoding="utf-8")
    with pytest.raises(ValueError, match="sead"):
        load_variances(path)


def test_the_shipped_variances_are_of_tiny():
    """They can be simulated: a study that looks like tiny."""
    shipped = load_variances(TINY)
    assert shipped.study == "tiny"
    again = [
        estimate(simulate(shipped.scenario, np.random.default_rng(i), **SIZES), RULES, "again").scenario
        for i in range(2)
    ]
    for name in ("alignment", "fall", "odds", "steering"):
        values = [getattr(each, name) for each in again]
        assert np.mean(values) == pytest.approx(getattr(shipped.scenario, name), rel=0.2), name


def test_what_a_family_s_templates_share_is_told_from_what_each_prompt_adds():
    """Spreads far above their own error: the difference of two families holds the family's part twice."""
    noise = replace(NOISE, family_template=0.12, template=0.02, alignment=0.01, example=0.01)
    scenario, squares = replace(TRUTH, noise=noise), []
    for i in range(40):
        measured = Measured(simulate(scenario, np.random.default_rng(i), **SIZES), RULES)
        squares.append(of_prompts(measured)[1]["family_template"] ** 2)
    assert math.sqrt(np.mean(squares)) == pytest.approx(0.12, rel=0.12)  # four Monte-Carlo errors: 2 sqrt(2 / 15 / 40)


def test_nested_parts_are_unbiased():
    """Templates of unequal sizes: the mean of many estimates is the truth."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), [1, 2, 3, 4, 5, 6, 7, 8])
    found = [nested((rng.normal(0, 0.5, (3, 8))[:, groups] + rng.normal(0, 1.0, (3, 36))), groups) for _ in range(2000)]
    assert np.mean([each.between for each in found]) == pytest.approx(0.25, abs=0.02)
    assert np.mean([each.within for each in found]) == pytest.approx(1.0, abs=0.02)


def test_a_slope_on_what_was_measured_with_error_is_not_flattened():
    """Twenty prompts a family, half of whose spread is error: the plain slope is half of the truth."""
    rng = np.random.default_rng(0)
    plain, mended = [], []
    for _ in range(400):
        x = [rng.normal(0, 1, 20) for _ in range(2)]
        y = [2 * each for each in x]
        seen = [each + rng.normal(0, 1, 20) for each in x]
        plain.append(pooled_slope(y, seen))
        mended.append(pooled_slope(y, seen, error=1.0))
    assert np.mean(plain) == pytest.approx(1.0, abs=0.05)
    assert np.median(mended) == pytest.approx(2.0, abs=0.15)


def test_a_slope_at_equal_others_leaves_out_what_others_do():
    """Y follows the other alone, with which x goes together: no slope on x, and none on a constant."""
    rng = np.random.default_rng(0)
    other = [rng.normal(0, 1, 50) for _ in range(2)]
    x = [each + rng.normal(0, 1, 50) for each in other]
    assert pooled_slope(other, x) > 0.3
    assert pooled_slope(other, x, other) == pytest.approx(0, abs=1e-9)
    assert pooled_slope(other, [np.ones(50)] * 2) == 0


def test_number_of_templates_met_is_that_of_random_draws():
    """Distinct templates among so many draws, on average; and back again."""
    rng = np.random.default_rng(0)
    met = [len(set(rng.integers(65, size=96))) for _ in range(2000)]
    assert templates_met(65, 96) == pytest.approx(np.mean(met), abs=4 * np.std(met) / math.sqrt(2000))
    assert [templates_behind(96, round(templates_met(count, 96))) for count in (5, 30, 60)] == [5, 30, 60]
    assert templates_behind(96, 96) == 0
    assert (templates_behind(96, 1), templates_met(1, 96)) == (1, 1)
