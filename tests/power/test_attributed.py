"""Simulated tables of attribution: what they show of endless prompts is what a world says is true."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gradinoc.claims.c7.c7c import kernel_of
from gradinoc.claims.evidence.measures import HARMLESS, INOCULATING
from gradinoc.claims.evidence.sources import along, factors, transfer_factors
from gradinoc.claims.evidence.tables import COLUMNS, LORA, PROMPTS, TRAIT_DIRECTION, WHOLE, Evidence
from gradinoc.claims.gates.accounts import G10
from gradinoc.claims.rules.verdict import OPTIONAL, Verdict, judge, not_run
from gradinoc.power.calibration.cases import DESIGN, truths
from gradinoc.power.calibration.splits import true_splits
from gradinoc.power.calibration.studies import NOT_RUN, judge_study, study_rng
from gradinoc.power.calibration.worlds import cases
from gradinoc.power.scenarios import SCENARIOS, SOURCES, Noise
from gradinoc.power.simulate import evidence_of, latent_of, simulate
from gradinoc.power.simulated import attributed
from gradinoc.stats.families import contrast
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules

CASES = cases()
RULES = Rules()
DIFFERENCE = {HARMLESS: 1.0, INOCULATING: -1.0}
HUGE = 1000  # prompts of a family
TABLES = ("attribution", "lengths", "modules", "shares", "share_nulls", "kernel")


def huge(scenario, seed=0, **noise):
    """The tables of attribution of a study with so many prompts; questions differ by prompt alone, seeds not at all."""
    quiet = {"seed": 0.0, "seed_drift": 0.0, "drift_template": 0.0, "drift_family": 0.0}
    rng = np.random.default_rng(seed)
    latent = latent_of(
        replace(scenario, noise=replace(scenario.noise, **{**quiet, **noise})), rng, inoculating=HUGE, harmless=HUGE,
        opposite=0, trained=(HUGE, HUGE, 0), rephrased=False, seeds=1, layers=1, directions=1, beside=False,
    )  # fmt: skip
    made = attributed.tables(latent, rng)
    none = {name: pd.DataFrame(columns=list(COLUMNS[name])) for name in COLUMNS if name not in (PROMPTS, *made)}
    layers = pd.DataFrame({"layer": [0], "cohens_d": 1.0, "auc": 1.0, "split_half_cosine": 1.0, "in_band": True})
    runs = tuple((str(name), int(seed)) for name, seed in latent.runs[["condition", "seed"]].to_numpy())
    prompts = latent.prompts.assign(text="").astype({"condition": str, "family": str, "kind": str})
    return latent, Evidence(**{**none, **made, "layers": layers, "prompts": prompts}, planned_runs=runs)


# --- truths


@pytest.mark.parametrize(
    "name",
    ["effect", "turn and size alike", "learned and transfer alike", "turn alone", "wrong_sign", "stated C7a"],
)
def test_true_splits_are_those_of_a_huge_study(name):
    """Parts, cosine and transfer of 1,000 against 1,000 prompts, within their sampling error of one or two points."""
    known = true_splits(CASES[name].scenario)
    _, evidence = huge(CASES[name].scenario)
    found = {}
    for split, first in ((factors(evidence), "turn"), (transfer_factors(evidence), "transfer")):
        whole = contrast(split.whole, DIFFERENCE, "whole").estimate
        found |= {f"share.{key}": contrast(part, DIFFERENCE, key).estimate / whole for key, part in split.parts.items()}
        found[first] = contrast(split.turns, DIFFERENCE, first).estimate
    assert set(found) == set(known)
    for key, value in known.items():
        assert found[key] == pytest.approx(value, abs=0.02), key


def test_true_parts_of_a_split_add_up():
    """Of either split to one, in every world that has them; where chance has heavy tails none is known."""
    told = [true_splits(case.scenario) for case in CASES.values()]
    assert sum(map(bool, told)) > 30
    for known in filter(None, told):
        assert known["share.turn"] + known["share.size"] + known["share.steepness"] == pytest.approx(1)
        assert known["share.transfer"] + known["share.learned"] == pytest.approx(1)
    assert not true_splits(replace(SCENARIOS["effect"], noise=Noise(degrees=3)))
    assert not true_splits(SCENARIOS["no_effect"])


def test_worlds_at_a_bar_are_at_it():
    """As much by the turn as by the size; as much by what is learned as by transfer; a share of the bar along v."""
    assert true_splits(CASES["turn and size alike"].scenario)["share.turn"] == pytest.approx(RULES.turned, abs=1e-3)
    assert true_splits(CASES["learned and transfer alike"].scenario)["share.learned"] == pytest.approx(0.5, abs=2e-3)
    for name, share, holds in (("the bar", RULES.carried, False), ("just above the bar", RULES.carried + 0.01, True)):
        case = CASES[f"along v, {name}"]
        latent = latent_of(case.scenario, np.random.default_rng(0), **vars(case.sizes))
        assert truths(case, latent)["C7b.share"] == pytest.approx(share)
        assert ("C7b" in case.scenario.holds) is holds


def test_what_goes_along_v_is_its_share_of_the_whole():
    """Of a huge study, and the whole is what passes the band of what is accounted for."""
    latent, evidence = huge(CASES["along v, the bar"].scenario)
    whole, trait = (along(evidence, direction).mean() for direction in (WHOLE, TRAIT_DIRECTION))
    left = latent.runs.set_index(["condition", "seed"])["left"]
    assert whole.mean() == pytest.approx(attributed.BAND * latent.truth.nats * left.mean(), rel=0.02)
    families = latent.prompts.set_index("condition")["family"]
    means = {
        direction: values.groupby(families[values.index.get_level_values("condition")].to_numpy()).mean()
        for direction, values in ((WHOLE, whole), (TRAIT_DIRECTION, trait))
    }
    apart = {key: float(each[HARMLESS] - each[INOCULATING]) for key, each in means.items()}
    assert apart[TRAIT_DIRECTION] / apart[WHOLE] == pytest.approx(RULES.carried, abs=0.01)


@pytest.mark.parametrize("kind", ["many", "its kind"])
def test_of_many_directions_some_carry_as_much_as_v(kind):
    """Six in a hundred of every kind, or ten of the instruction contrasts alone."""
    truth, few = CASES[f"along v, one of {kind}"].scenario, {"many": 0.06, "its kind": 0.1}[kind]
    rng = np.random.default_rng(0)
    beyond = {null: (truth.noise.draw(rng, spread, 100_000) > truth.carried).mean()
              for null, spread in truth.noise.null_along.items()}  # fmt: skip
    assert beyond["instruction"] == pytest.approx(few, rel=0.05)
    assert (beyond["isotropic"] > 0) == (kind == "many")


def test_kernel_says_what_it_foretells():
    """What prompts leave, or their elicitation and no more; in the stated world so much of the drift's variance."""
    for name, foretold in (("nothing foretold but elicitation", 0.0), ("stated C7c", CASES["stated C7c"])):
        latent, evidence = huge(CASES[name].scenario)
        prompts = latent.measured.set_index("condition")
        prompts = prompts[prompts["family"] == HARMLESS]
        kernel = kernel_of(evidence, LORA)[NEUTRAL][prompts.index]
        beside = np.column_stack([np.ones(len(prompts)), prompts["elicitation"], prompts["loss"]])
        rest = [each - beside @ np.linalg.lstsq(beside, each, rcond=None)[0] for each in (kernel, prompts["left"])]
        share = np.corrcoef(*rest)[0, 1] ** 2
        assert share == pytest.approx(0.75 if foretold else 0.0, abs=0.03)
    assert np.corrcoef(kernel, prompts["left"])[0, 1] > 0.7


@pytest.mark.parametrize("name", ["G10 false", "G10, too much false", "G10, scatter false"])
def test_accounts_that_are_false_fail_the_gate(name):
    """By a hundredth in slope, or by what stretches do beyond what is accounted for."""
    case = CASES[name]
    found = G10.judge(simulate(case.scenario, np.random.default_rng(0), **vars(DESIGN)), RULES)
    low, high = RULES.accounted
    short = {"G10 false": found["slope"].estimate - high, "G10, too much false": low - found["slope"].estimate}
    assert found.status == "refuted"
    assert 0 < short.get(name, RULES.accounted_r2 - found["r2"].estimate) < 0.2


def test_the_page_s_worlds_of_c7_are_there():
    """And each world of C7 is in its list, whose tables stand beside it."""
    page = Path(__file__).parents[2] / "docs" / "calibration.md"
    listed = re.findall(r'^    "(.*)",$', page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(listed) <= set(CASES)
    assert {name for name in CASES if name.startswith(("turn", "learned", "along v", "v not", "nothing", "G10"))} <= {
        *listed
    }
    for name in ("sources", "sources_coverage"):
        table = pd.read_csv(page.parent / "calibration" / f"{name}.csv")
        assert set(table["case"]) == set(listed)


# --- without


def test_a_study_that_accounts_for_nothing_is_as_before():
    """Other tables to the last bit, other findings alike, and what needs C7 is told to be not run."""
    sizes = {"layers": 2, "steps": 6, "directions": 60}
    whole, without = (simulate("effect", np.random.default_rng(0), **sizes, attributed=count) for count in (6, 0))
    for name in COLUMNS:
        if name in TABLES:
            assert without.tables[name].empty
        else:
            pd.testing.assert_frame_equal(without.tables[name], whole.tables[name], check_exact=True)
    one, two = (judge(evidence, RULES) for evidence in (whole, without))
    others = [each for each in (*one.gates, *one.claims) if each.key not in ("G10", *SOURCES)]
    assert [(each.key, each.status, str(each.effects)) for each in (*two.gates, *two.claims)] == [
        (each.key, each.status, str(each.effects)) for each in others
    ]
    assert set(not_run(two.claims)) == set(OPTIONAL)
    assert two.verdict is Verdict.UNDECIDED
    assert "cannot be pronounced" in two.sentence


def test_a_calibration_of_such_studies_says_not_run():
    """In place of a status, and the other columns are those of studies that do account."""
    case = CASES["any_prompt"]
    rows = [judge_study(replace(case, sizes=replace(DESIGN, attributed=count)), study_rng("any_prompt", 0))
            for count in (6, 0)]  # fmt: skip
    assert {rows[1][key] for key in SOURCES} == {NOT_RUN}
    assert {key: rows[0][key] for key in rows[1] if key not in (*SOURCES, "failed")} == {
        key: value for key, value in rows[1].items() if key not in (*SOURCES, "failed")
    }
    latent = latent_of(case.scenario, study_rng("any_prompt", 0), **{**vars(DESIGN), "attributed": 0})
    assert evidence_of(latent, np.random.default_rng(0)).attribution.empty
