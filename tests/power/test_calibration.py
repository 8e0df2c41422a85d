"""Are the rules honest? A quick look at simulated studies with known truth; `make calibrate` judges thousands.

What is drawn is fixed: a study's seed is spawned from its world's name and its number. So few studies of a world could
fail its bar by chance alone, so rates are pooled over worlds.
"""

import importlib
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gradinoc.claims.rules import verdict
from gradinoc.claims.rules.verdict import Verdict
from gradinoc.power.calibration import tables
from gradinoc.power.calibration.cases import ALPHA, Case, truths
from gradinoc.power.calibration.printed import text
from gradinoc.power.calibration.shipped import with_variances
from gradinoc.power.calibration.studies import COVERED, EVERY, judge_study, run_studies, study_rng
from gradinoc.power.calibration.worlds import STATED, cases
from gradinoc.power.scenarios import Noise, Scenario
from gradinoc.power.simulate import latent_of

CASES = cases()
CLAIM = {claim.key: claim for claim in verdict.CLAIMS}
FALSE = (tables.SUPPORT, tables.REFUTATION, tables.WRONG)


def studies(count, *names):
    """The first studies of some worlds, judged; the same as in `make calibrate`."""
    return run_studies(count, {name: CASES[name] for name in names}, jobs=1)


# --- false findings -------------------------------------------------------------------------------------------------

WORLDS = (
    "no_effect", "any_prompt, with alignment", "prompts random", "confounded", "progress, any_prompt", "floor, hidden",
    "backfire", "share just below its bar", "share just above its bar", "one of instruction", "hard examples",
)  # fmt: skip


@pytest.fixture(scope="module")
def quick():
    """Six studies of each of the worlds, with the rates of what is false."""
    found = studies(6, *WORLDS)
    rate = tables.rates(found, {name: CASES[name] for name in WORLDS})
    return rate[rate["kind"].isin(FALSE)]


@pytest.mark.parametrize("kind", FALSE)
def test_what_is_false_is_seldom_found(quick, kind):
    """Pooled over the worlds in which it is false: at most 5 % and two Monte-Carlo errors of 1,000 studies."""
    mine = quick[quick["kind"] == kind]
    rate = float((mine["rate"] * mine["n"]).sum() / mine["n"].sum())
    assert rate <= tables.at_most(ALPHA, int(mine["n"].sum())), mine.sort_values("rate").tail(5)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("stated")])
def test_what_is_false_is_seldom_found_in_any_world(name):
    """100 studies of each world: no more false findings than a rate of 5 % leaves one in a thousand looks."""
    found = studies(100, name)
    rate = tables.rates(found, {name: CASES[name]})
    worst = rate[rate["kind"].isin(FALSE)].sort_values("rate").iloc[-1]
    assert worst["rate"] <= 0.13, worst


# --- gates ----------------------------------------------------------------------------------------------------------

SURE = ("G1 false", "G2 false", "G4, a run false", "G4, a start false", "G6 false")  # whose number has no error


@pytest.mark.parametrize("name", SURE)
def test_what_rests_on_a_failed_gate_is_left_open(name):
    """By how little ever it fails; claims that rest on others are judged. C5 is not run: these worlds have no arms."""
    found, untold = studies(2, name), [claim for claim in CASES[name].scenario.untold if claim != "C5"]
    assert found["failed"].str.split().map(lambda failed: name[:2] in failed).all(), found["failed"]
    assert untold
    assert (found[untold] == "undecided").all(axis=None)
    assert (found.drop(columns=untold) == "supported").any(axis=None)
    assert (found["verdict"] == "UNDECIDED").all()


@pytest.mark.parametrize("name", ["effect, 1 v 1", "any_prompt, 1 v 1"])
def test_one_prompt_of_a_kind_tells_nothing_of_the_kind(name):
    """Trained under one inoculating and one harmless prompt, C4 and C6 are undecided."""
    row = judge_study(CASES[name], study_rng(name, 0))
    assert (row["C4"], row["C6"], row["verdict"]) == ("undecided", "undecided", "UNDECIDED")


# --- power, coverage ------------------------------------------------------------------------------------------------


def test_any_prompt_is_called_so():
    """Where every prompt removes seven tenths of the drift, most studies say that any prompt does."""
    found = studies(6, "any_prompt")
    assert (found["verdict"] == Verdict.ANY_PROMPT.name).sum() >= 5


@pytest.mark.exhaustive
@pytest.mark.parametrize("key", list(STATED))
def test_the_stated_effect_is_found(key):
    """100 studies at the stated effect of a claim: supported in at least 70 %, the bar being 80 % of 1,000."""
    assert (studies(100, f"stated {key}")[key] == "supported").mean() >= 0.70


def test_intervals_cover_the_truth():
    """Of the main effects, in two worlds together: 93 to 97 %, two Monte-Carlo errors of 1,000 studies farther out."""
    found = tables.coverage(studies(16, "effect", "any_prompt, clustered"))
    assert set(found["effect"]) == {
        "C1.families", "C4.slope", "C6.share", "C6.removed", "C7a.turn", "C7a.transfer", "C7a.share.turn",
        "C7a.share.size", "C7a.share.steepness", "C7a.share.transfer", "C7a.share.learned", "C7b.share", "G3.loss",
        "G7.log_odds.inoculation",
    }  # fmt: skip
    rate = float((found["rate"] * found["n"]).sum() / found["n"].sum())
    assert tables.at_least(tables.COVERAGE[0], 0) <= rate <= tables.at_most(tables.COVERAGE[1], 0), found


# --- the machinery --------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_results_do_not_depend_on_the_number_of_processes():
    """Nor on which other worlds are tried: the same rows, to the last bit."""
    few = {name: CASES[name] for name in ("effect", "no_effect")}
    alone = run_studies(1, few, jobs=1)
    pd.testing.assert_frame_equal(run_studies(1, few, jobs=2), alone, check_exact=True)
    only = run_studies(1, {"no_effect": few["no_effect"]}, jobs=1)
    rest = alone[alone["case"] == "no_effect"].reset_index(drop=True)
    pd.testing.assert_frame_equal(only, rest[only.columns], check_exact=True)


def test_every_world_says_what_is_right_in_it():
    """Claims and verdicts by name, none of which is two things at once; a causal verdict only where all are true."""
    for name, case in CASES.items():
        truth = case.scenario
        said = [*truth.holds, *truth.untold, *truth.vary]
        assert set(said) <= set(CLAIM), name
        assert len(said) == len(set(said)), name
        assert set(truth.verdicts) <= set(Verdict.__members__), name
        assert {*case.power} <= {*truth.holds}, name
        if {"SUPPORTED", "CONSISTENT"} & set(truth.verdicts):
            assert set(verdict.ON_DIRECTION) <= {*truth.holds, *truth.vary}, name


def test_every_gate_has_a_world_in_which_it_is_false():
    """And what rests on it is what may not be told there."""
    gates = {gate for claim in verdict.CLAIMS for gate in claim.rests_on}
    for gate in gates:
        worlds = [case for name, case in CASES.items() if re.fullmatch(rf"{gate}(,.*)? false", name)]
        assert worlds, gate
        for case in worlds:
            assert set(case.scenario.untold) == {key for key, claim in CLAIM.items() if gate in claim.rests_on}


def test_a_study_of_ones_own_makes_three_worlds():
    """With its variances and levels, and what it shows removed by alignment, by nothing, by any prompt."""
    noise = Noise(run_drift=0.2, prompt_drift=0.3, seed_drift=0.1)
    mine = Scenario(noise=noise, drift=0.4, conditional=0.1, follows=-1.0, elicits=0.9, rise=9.0)
    worlds = with_variances("mine", mine)
    assert list(worlds) == ["effect, mine", "no_effect, mine", "any_prompt, mine"]
    effect, nothing, anything = (case.scenario for case in worlds.values())
    for truth in (effect, nothing, anything):
        assert (truth.drift, truth.rise, truth.noise.response) == (0.4, Scenario().rise, noise.response)
    assert nothing.noise == anything.noise == noise
    fall = effect.fall + effect.slope * effect.loss
    removed = 0.9 - fall
    assert (effect.follows * fall, effect.elicits) == (pytest.approx(removed), 0)
    assert {*effect.holds, *effect.vary} == {*CLAIM}
    assert (nothing.conditional, nothing.follows, nothing.elicits, nothing.fall) == (0, 0, 0, 0)
    assert anything.conditional == pytest.approx(0.1 + 0.7 * removed)
    assert (anything.holds, anything.verdicts) == ((), ("ANY_PROMPT",))


@pytest.mark.parametrize(("fall", "wholly"), [(0.2, True), (0.002, False)])
def test_prompts_differ_in_drift_as_in_the_study_that_is_imitated(fall, wholly):
    """However little alignment falls: what it cannot carry by its own chance goes another way.

    A fall of 0.002 that removes half would make drift follow chance in alignment beyond both ends of its scale.
    """
    noise = Noise(
        prompt_drift=0.12, prompt_alignment=0.003, prompt_elicitation=0.0, run_drift=0.2, run=0.001, seed_drift=0.1,
        seed=0.002,
    )  # fmt: skip
    mine = Scenario(
        noise=noise, fall=fall, slope=0.0, any_prompt=-0.004, conditional=0.3, follows=3.0, elicits=0.5, drift=0.5
    )
    worlds = with_variances("mine", mine)
    effect = worlds["effect, mine"].scenario
    assert effect.follows * fall + effect.elicits == pytest.approx(3.0 * fall + 0.5)
    assert (effect.elicits == pytest.approx(0)) == wholly
    assert effect.conditional + effect.follows * effect.any_prompt == pytest.approx(0.3 - 3.0 * 0.004)
    chance = math.hypot(effect.noise.prompt_drift, effect.follows * effect.noise.prompt_alignment)
    assert chance == pytest.approx(math.hypot(0.12, 3.0 * 0.003))
    between_seeds = math.hypot(effect.noise.seed_drift, effect.follows * effect.noise.seed)
    assert between_seeds == pytest.approx(math.hypot(0.1, 3.0 * 0.002))
    between_runs = math.hypot(effect.noise.run_drift, effect.follows * effect.noise.run)
    assert between_runs == pytest.approx(math.hypot(0.2, 3.0 * 0.001))
    latent = latent_of(effect, np.random.default_rng(0), **vars(replace(worlds["effect, mine"].sizes, harmless=400)))
    harmless = latent.measured[latent.measured["family"] == "harmless"]["left"]
    assert harmless.std() == pytest.approx(chance, rel=0.2)
    assert harmless.mean() == pytest.approx(1 - 0.3 + 3.0 * 0.004, abs=0.03)


def test_shares_at_the_end_of_the_scale_have_no_known_value():
    """Where harmless prompts drift to the top of the scale scores are cut off there; away from it shares are known."""
    for conditional, known in ((0.1, True), (-0.8, False)):
        case = Case(Scenario(conditional=conditional))
        latent = latent_of(case.scenario, np.random.default_rng(0), **vars(case.sizes))
        assert ("C6.share" in truths(case, latent)) == known


def judged(rate, covered=0.95, count=1000):
    """Rows of `count` studies of no_effect, the share `rate` of which supported every claim and said ANY_PROMPT."""
    row = judge_study(CASES["no_effect"], study_rng("no_effect", 0))
    table = pd.DataFrame([{"case": "no_effect", "study": number, **row} for number in range(count)])
    wrong = table["study"] < rate * count
    for claim in CLAIM:
        table[claim] = np.where(wrong, "supported", "undecided")
    table[EVERY] = wrong
    table["verdict"] = np.where(wrong, "ANY_PROMPT", "UNDECIDED")
    hits = [name for name in table if name.startswith(COVERED)]
    assert hits
    table[hits] = np.repeat((table["study"] < covered * count).to_numpy(dtype=float)[:, None], len(hits), axis=1)
    return table


@pytest.mark.parametrize(
    ("rate", "covered", "count", "words"),
    [(0.063, 0.95, 1000, []),
     (0.065, 0.95, 1000, ["C1, false support", "all claims, false support", "verdict, wrong verdict"]),
     (0.08, 0.95, 100, ["C1, false support"]),
     (0.0, 0.91, 1000, ["C6.share, coverage 0.910"]), (0.0, 0.985, 1000, ["coverage 0.985"]), (0.0, 0.92, 1000, []),
     (0.0, 0.90, 100, ["coverage 0.900"])],
)  # fmt: skip
def test_a_bar_that_does_not_hold_is_named(rate, covered, count, words):
    """Of 1,000 studies 5 % and two errors are 6.4 %, coverage of 93 to 97 % is 91.4 to 98.1 %; of 100 as well."""
    table, few = judged(rate, covered, count), {"no_effect": CASES["no_effect"]}
    found = tables.failures(tables.rates(table, few), tables.coverage(table))
    assert bool(found) == bool(words), found
    for word in words:
        assert any(word in line for line in found), found
    assert ("A quick look" in text(table, few)) == (count < 1000)


def test_either_way_is_false_where_nothing_may_be_told():
    """C6 with one prompt of a kind: support and refutation are both counted, where claims vary neither is."""
    alone, varying = "effect, 1 v 1", "one of isotropic"
    row = dict.fromkeys(CLAIM, "undecided") | {EVERY: False, "verdict": "UNDECIDED", "failed": ""}
    table = pd.DataFrame(
        {"case": case, "study": number, **row, "C6": status}
        for case in (alone, varying)
        for number, status in enumerate(("supported", "refuted", "undecided", "undecided"))
    )
    rate = tables.rates(table, {name: CASES[name] for name in (alone, varying)})
    found = rate[rate["claim"] == "C6"].set_index(["case", "kind"])["rate"]
    assert dict(found) == {(alone, tables.SUPPORT): 0.25, (alone, tables.REFUTATION): 0.25}
    assert not rate.loc[(rate["claim"] == "C6") & (rate["kind"] != tables.WRONG), "passed"].any()


def test_the_figure_draws_every_stated_effect_and_every_interval():
    """Whatever claim has one: with its value and unit, and by its key where it has no name of its own."""
    figure = importlib.import_module("gradinoc.report.figures.calibration")  # here, since it loads the figures
    rows = [{"case": f"stated {key}", "claim": key, "kind": tables.POWERFUL, "n": 9, "rate": 0.9, "error": 0.1,
             "bar": 0.8, "passed": True} for key in STATED]  # fmt: skip
    latents = {name: latent_of(case.scenario, np.random.default_rng(0), **vars(case.sizes))
               for name, case in CASES.items()}  # fmt: skip
    known = dict.fromkeys(effect for name, case in CASES.items() for effect in truths(case, latents[name]))
    assert set(known) == set(figure.EFFECTS)
    cover = [{"case": "any", "effect": key, "rate": 0.95, "error": 0.1, "passed": True} for key in (*known, "C9.new")]
    false = [{**rows[0], "kind": tables.SUPPORT, "claim": "C1"}]
    drawn = figure.plot_calibration(pd.DataFrame([*rows, *false]), pd.DataFrame(cover))
    top, power, coverage = ([tick.get_text() for tick in axes.get_yticklabels()] for axes in drawn.axes)
    assert top == ["C1, supported"]
    assert power == [f"{key}: {stated.value:g} {stated.unit}" for key, stated in STATED.items()]
    assert coverage == [*figure.EFFECTS.values(), "C9.new"]
    assert {name.removeprefix("stated ") for name in CASES if name.startswith("stated ")} == set(STATED)


def test_the_command_writes_its_tables_and_fails_with_a_bar(tmp_path, monkeypatch, capsys):
    """One study of one world, which is a quick look: tables, figure and text; exit code 1 with bars out of reach."""
    wrong = replace(CASES["any_prompt"], scenario=replace(CASES["any_prompt"].scenario, verdicts=()))
    command = importlib.import_module("gradinoc.cli.calibrate")  # here, since it loads the figures
    monkeypatch.setattr(command, "cases", lambda: {"any_prompt": wrong})
    tables_in, kept = tmp_path / "tables", tmp_path / "store"
    assert command.calibrate_rules(1, tables_in, kept, 1) == 1
    assert {path.name for path in tables_in.iterdir()} == {
        "rates.csv", "coverage.csv", "verdicts.csv", "gates.csv", "tables.txt", "calibration.png", "calibration.svg",
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert printed == (tables_in / "tables.txt").read_text(encoding="utf-8")
    assert printed.startswith("A quick look: 1 studies")
    assert "any_prompt: verdict, wrong verdict 1.000" in printed
