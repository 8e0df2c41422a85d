"""Is the judge honest? Hundreds of simulated studies with known truth; `make calibrate` runs thousands.

Every rate is compared with its bar plus or minus two Monte-Carlo errors of the number of studies run here. What is
drawn is fixed: a study's seed is spawned from its scenario's name and its number.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fixtures.held import HELD
from gradinoc.claims import verdict
from gradinoc.claims.c4 import drift_difference
from gradinoc.claims.finding import Status
from gradinoc.claims.measures import inoculation_contrast
from gradinoc.claims.verdict import Verdict, judge
from gradinoc.cli import calibrate as command
from gradinoc.power.calibration import tables
from gradinoc.power.calibration.cases import (
    CONFOUNDED,
    MINIMUM_EFFECTS,
    POWER,
    cases,
    truths,
)
from gradinoc.power.calibration.studies import adjusted_effects, judge_study, run_studies, study_rng
from gradinoc.power.simulate import simulate
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules

RULES = Rules()
CASES = cases()
CLAIM = {claim.key: claim for claim in verdict.CLAIMS}


def studies(name, count):
    """The evidence of the first studies of a case; the same as in `make calibrate`."""
    case = CASES[name]
    return (simulate(case.scenario, study_rng(name, number), **vars(case.sizes)) for number in range(count))


def supported(name, key, count):
    """The share of studies of a case in which the claim is supported, gates taken as sound."""
    findings = (CLAIM[key].judge(evidence, RULES, HELD) for evidence in studies(name, count))
    return sum(finding.status is Status.SUPPORTED for finding in findings) / count


def contrast(evidence):
    """C1 against neutral."""
    return inoculation_contrast(evidence, RULES, NEUTRAL)


def drift(evidence):
    """C4's drift difference."""
    return drift_difference(evidence, RULES)


def in_training(evidence):
    """The contrast of training, clustered by seed."""
    finding = verdict.C1.judge(evidence, RULES, HELD)
    return finding["training.neutral"]


def at_equal_loss(key):
    """One of C3's adjusted effects: regression, bins, within."""
    return lambda evidence: adjusted_effects(evidence, RULES)[key]


# --- false positives ------------------------------------------------------------------------------------------------

# Scenarios in which a claim is false by as little as can be, and how the textbook's assumptions fail.
FALSE = [
    ("any_prompt, clustered", "C1"),
    ("one_of_sign_flipped", "C2"),
    ("hard_examples", "C3"),
    ("seed_driven", "C4"),
    *(
        pytest.param(*each, marks=pytest.mark.exhaustive)
        for each in (
            ("any_prompt", "C1"),
            ("any_prompt, layer_noise", "C1"),
            ("one_of_covariance", "C2"),
            ("unspecific", "C2"),
            ("latent_loss, measured_control", "C3"),
            ("no_effect, correlated_seeds", "C4"),
            ("loss_mediated", "C4"),
        )
    ),
]


@pytest.mark.parametrize(("name", "key"), FALSE, ids=lambda part: part.replace(", ", "-"))
def test_what_is_false_is_seldom_supported(name, key):
    """20 studies: at most 5 % and two Monte-Carlo errors."""
    assert key not in CASES[name].scenario.holds
    count = 20
    rate = supported(name, key, count)
    assert rate <= tables.at_most(0.05, count), f"{key} supported in {100 * rate:.0f} % of {count} studies of {name}"


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "kind", "spread"),
    [("one_of_covariance", "covariance", 0.0018), ("one_of_sign_flipped", "sign_flipped", 0.0022)],
)
def test_the_place_among_random_directions_is_honest_by_itself(name, kind, spread):
    """C2's p of the kind of which the trait's direction is one more, without the other kinds' help, in 100 studies.

    T(v)'s sampling error is twice the spread of T(u): taken for exact, it would stand out too often.
    """
    count, small, case = 100, 0, CASES[name]
    noise = case.scenario.noise
    scenario = replace(case.scenario, noise=replace(noise, nulls={**noise.nulls, kind: spread}))
    for number in range(count):
        evidence = simulate(scenario, study_rng(name, number), **vars(case.sizes))
        finding = verdict.C2.judge(evidence, RULES, HELD)
        deciding = [item.p for item in finding.effects if item.name.startswith(f"{kind}, neutral - inoculation")]
        small += max(deciding) <= RULES.alpha
    assert small / count <= tables.at_most(0.05, count), f"{kind}: p at most 0.05 in {small} of {count} studies"


def test_the_design_cannot_tell_two_separate_ways_from_one():
    """A stated limit: where a prompt moves alignment and drift each by itself, the verdict is SUPPORTED and warns."""
    case = CASES["confounded"]
    assert case.limit == CONFOUNDED
    judged = [judge(evidence, RULES) for evidence in studies("confounded", 5)]
    wrong = [judgement for judgement in judged if judgement.verdict is Verdict.SUPPORTED]
    assert len(wrong) >= 4, [judgement.sentence for judgement in judged]
    warned = [any("within conditions" in warning for warning in judgement.warnings) for judgement in wrong]
    assert np.mean(warned) >= 0.75, warned


# --- power ----------------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
@pytest.mark.parametrize("key", list(MINIMUM_EFFECTS))
def test_the_stated_minimum_is_found(key):
    """40 studies at the minimum effect of a claim: supported in at least 80 % less two Monte-Carlo errors."""
    count = 40
    rate = supported(f"minimum {key}", key, count)
    assert rate >= tables.at_least(POWER, count), f"{key} supported in {100 * rate:.0f} % of {count} studies"


# --- coverage -------------------------------------------------------------------------------------------------------


COVERED = {  # case, claim and key of the effect, how it is measured
    "few layers": ("effect", "C1.alignment.neutral", contrast),
    "many layers": ("effect, layer_noise", "C1.alignment.neutral", contrast),
    "templates": ("effect, clustered", "C1.alignment.neutral", contrast),
    "heavy tails": ("effect, heavy_tails", "C1.alignment.neutral", contrast),
    "drift of three seeds": ("effect", "C4.drift.neutral", drift),
    "training of three seeds": ("effect", "C1.training.neutral", in_training),
    "regression": ("loss_explained", "C3.regression", at_equal_loss("regression")),
    "bins": ("minimum C3", "C3.bins", at_equal_loss("bins")),
    "within examples": ("hard_examples", "C3.within", at_equal_loss("within")),
    "within examples, heteroscedastic": ("effect, heteroscedastic", "C3.within", at_equal_loss("within")),
}
QUICK = {"templates", "drift of three seeds", "regression", "within examples"}


@pytest.mark.parametrize(
    "which",
    [pytest.param(each, marks=[] if each in QUICK else [pytest.mark.exhaustive]) for each in COVERED],
)
def test_intervals_cover_the_truth(which):
    """40 studies: 93 to 97 % of nominal 95 % intervals, each edge two Monte-Carlo errors farther out."""
    name, key, measure = COVERED[which]
    known, count = truths(CASES[name])[key], 40
    effects = [measure(evidence) for evidence in studies(name, count)]
    rate = np.mean([item.low <= known <= item.high for item in effects])
    low, high = tables.at_least(tables.COVERAGE[0], count), tables.at_most(tables.COVERAGE[1], count)
    assert low <= rate <= high, f"{effects[0].name} covered in {100 * rate:.0f} % of {count} studies of {name}"


# --- the machinery --------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_results_do_not_depend_on_the_number_of_processes():
    """Nor on which other scenarios are tried: the same rows, to the last bit."""
    few = {name: CASES[name] for name in ("effect", "no_effect")}
    alone = run_studies(1, few, jobs=1)
    pd.testing.assert_frame_equal(run_studies(1, few, jobs=2), alone, check_exact=True)
    only = run_studies(1, {"no_effect": few["no_effect"]}, jobs=1)
    pd.testing.assert_frame_equal(only, alone[alone["case"] == "no_effect"].reset_index(drop=True), check_exact=True)


def test_every_world_says_what_is_right_in_it():
    """Claims that hold and verdicts by name; a scenario is either typical, a limit, of least power, or for errors."""
    for name, case in CASES.items():
        assert set(case.scenario.holds) <= set(CLAIM), name
        assert set(case.scenario.verdicts) <= set(Verdict.__members__), name
        assert set(case.power) <= set(case.scenario.holds), name
        assert (set(case.scenario.holds) == set(CLAIM)) == ("SUPPORTED" in case.scenario.verdicts), name


def judged(rate, covered=1.0, count=1000):
    """Rows of `count` studies of no_effect, of which the share `rate` supported every claim."""
    row = judge_study(CASES["no_effect"], study_rng("no_effect", 0))
    table = pd.DataFrame([{"case": "no_effect", "study": number, **row} for number in range(count)])
    claims = [*CLAIM]
    table[claims] = "undecided"
    table["verdict"] = "REFUTED"
    table.loc[table["study"] < rate * count, claims] = "supported"
    table.loc[table["study"] < rate * count, "verdict"] = "SUPPORTED"
    hits = [name for name in table if name.startswith("covered")]
    table[hits] = np.repeat((table["study"] < covered * count).to_numpy()[:, None], len(hits), axis=1)
    return table


@pytest.mark.parametrize(
    ("rate", "covered", "words"),
    [(0.063, 0.95, []), (0.065, 0.95, ["C1, false positive", "SUPPORTED, false positive"]),
     (0.0, 0.91, ["C4.drift.neutral, coverage"]), (0.0, 0.985, ["coverage 0.985"]),
     (0.0, 0.92, [])],
)  # fmt: skip
def test_a_bar_that_does_not_hold_is_named(rate, covered, words):
    """Of 1,000 studies 5 % false positives and two errors are 6.4 %; coverage 93 to 97 % is 91.4 to 98.1 %."""
    few = {"no_effect": CASES["no_effect"]}
    table = judged(rate, covered)
    found = tables.failures(tables.rates(table, few), tables.coverage(table, few))
    assert bool(found) == bool(words), found
    for word in words:
        assert any(word in line for line in found), found


def test_the_command_writes_its_tables_and_fails_with_a_bar(tmp_path, monkeypatch, capsys):
    """Two studies of one scenario: tables, figure and text; exit code 1 once a bar is out of reach."""
    monkeypatch.setattr(command, "cases", lambda: {"effect": CASES["effect"]})
    assert command.calibrate_rules(2, tmp_path, 1) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "rates.csv", "coverage.csv", "verdicts.csv", "tables.txt", "calibration.png", "calibration.svg",
    }  # fmt: skip
    assert capsys.readouterr().out == (tmp_path / "tables.txt").read_text(encoding="utf-8")
    wrong = replace(CASES["effect"], scenario=replace(CASES["effect"].scenario, holds=(), verdicts=("REFUTED",)))
    monkeypatch.setattr(command, "cases", lambda: {"effect": wrong})
    assert command.calibrate_rules(2, tmp_path, 1) == 1
    assert "Bars that do not hold:\neffect: C1, false positive 1.000" in capsys.readouterr().out
