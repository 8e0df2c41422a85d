"""Power of a plan: simulated studies of its size, judged by the rules themselves; what more runs are best spent on."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from gradinoc.api import VARIANCES
from gradinoc.claims.rules.finding import Status
from gradinoc.cli import main
from gradinoc.power import planning
from gradinoc.power.design import design_of
from gradinoc.power.planning import ALL, OWN, PROMPTS, QUESTIONS, SEEDS, plans_of, power, recommendation, shares
from gradinoc.power.prospects import (
    CORRELATION,
    NONE,
    OBSERVED,
    OF_INTEREST,
    scenario_of,
    sizes_of,
    smallest_of_interest,
)
from gradinoc.power.simulate import latent_of, simulate
from gradinoc.power.variances import TINY, estimate, load_variances
from gradinoc.power.written import written_reach
from gradinoc.study.description import Study
from gradinoc.study.loading import STUDIES, load_study
from gradinoc.study.rules import Rules

YES, NO, AGAINST = Status.SUPPORTED, Status.UNDECIDED, Status.REFUTED
SHIPPED = load_variances(TINY)
CLAIMS = [claim.key for claim in planning.PLANNED]


def tiny(*settings: str) -> Study:
    """The tiny study with settings applied."""
    return load_study("tiny", list(settings))


def table(**powers: tuple[float, float, float]) -> pd.DataFrame:
    """A plan's table with the power of C4 and C6 as planned, with more prompts, and with more seeds."""
    rows = []
    for key, values in powers.items():
        for (axis, prompts, seeds), share in zip(((OWN, 4, 3), (PROMPTS, 7, 3), (SEEDS, 4, 5)), values, strict=True):
            rows.append((OF_INTEREST, axis, prompts, seeds, 24, key, share, 0.05, 0.0, 100))
        rows.append((OF_INTEREST, PROMPTS, 2, 3, 24, key, 0.99, 0.05, 0.0, 100))  # fewer are not what is bought
    return pd.DataFrame(rows, columns=list(planning.COLUMNS))


# --- the simulated study that a planned one would be like


def test_a_simulated_study_measures_and_trains_what_the_study_does():
    """The same prompts by family, runs and questions as the pipeline would."""
    study = tiny()
    evidence = simulate(scenario_of(SHIPPED, OBSERVED, study), np.random.default_rng(0), **vars(sizes_of(study)))
    assert len(evidence.planned_runs) == len(study.runs)
    assert len(evidence.seeds) == len(study.seeds)
    design = design_of(study).prompts
    for family in ("harmless", "inoculation"):
        fixed = evidence.prompts[(evidence.prompts["family"] == family) & (evidence.prompts["kind"] == "fixed")]
        assert (fixed["measured"].sum(), fixed["trained"].sum()) == (design.measured[family], design.trained[family])
    drift = evidence.drift[evidence.drift["measure"] == "expected_score"]
    assert drift["example"].nunique() == study.drift.generations


def test_a_study_as_observed_looks_like_the_one_whose_variances_it_has():
    """Simulated and estimated again, with many prompts: alignment, drift, and what removes it."""
    study = tiny()
    sizes = replace(
        sizes_of(study), inoculating=16, harmless=16, trained=(16, 16, 1), evaluation=200, examples=96, shared=96
    )
    scenario = scenario_of(SHIPPED, OBSERVED, study)
    again = [
        estimate(simulate(scenario, np.random.default_rng(i), **vars(sizes)), Rules(), "again").scenario
        for i in range(16)  # of one study alone the share removed has a standard deviation of 0.12
    ]
    for name, slack in (("alignment", 0.05), ("fall", 0.08), ("drift", 0.08), ("conditional", 0.1)):
        found = [getattr(each, name) for each in again]
        assert np.mean(found) == pytest.approx(getattr(SHIPPED.scenario, name), abs=slack), name


def test_the_smallest_effect_of_interest_is_what_it_says():
    """A fifth of the neutral alignment and half of the drift beyond harmless prompts, in the true prompts' means."""
    study = tiny()
    fall, share = smallest_of_interest(SHIPPED, study.rules)
    assert (fall, share) == (pytest.approx(0.2 * SHIPPED.scenario.alignment), 0.5)
    sizes = replace(sizes_of(study), inoculating=2000, harmless=2000, trained=(2000, 2000, 0))
    scenario = scenario_of(SHIPPED, OF_INTEREST, study)
    prompts = latent_of(scenario, np.random.default_rng(0), **vars(sizes)).prompts
    means = prompts[prompts["kind"] == "fixed"].groupby("family", observed=True)[["gap", "left"]].mean()
    apart = means.loc["inoculation"] - means.loc["harmless"]
    assert apart["gap"] == pytest.approx(fall, rel=0.1)
    assert -apart["left"] == pytest.approx(share, rel=0.1)
    harmless = prompts[(prompts["family"] == "harmless") & (prompts["kind"] == "fixed")]
    by_elicitation = [-scenario.fall, scenario.elicits + scenario.follows * scenario.fall]
    rest = harmless[["gap", "left"]] + np.outer(harmless["elicitation"], by_elicitation)
    assert rest["gap"].corr(rest["left"]) == pytest.approx(-CORRELATION, abs=0.05)


def test_without_an_effect_inoculating_prompts_are_as_harmless_ones():
    """Neither alignment nor drift tells the families apart."""
    sizes = replace(sizes_of(tiny()), inoculating=2000, harmless=2000)
    prompts = latent_of(scenario_of(SHIPPED, NONE, tiny()), np.random.default_rng(0), **vars(sizes)).prompts
    means = prompts[prompts["kind"] == "fixed"].groupby("family", observed=True)[["gap", "left"]].mean()
    assert (means.loc["inoculation"] - means.loc["harmless"]).abs().max() < 0.02
    with pytest.raises(ValueError, match="expected one of the effects"):
        scenario_of(SHIPPED, "large", tiny())


# --- the plans, and their power


def test_more_prompts_and_more_seeds_are_compared_at_equal_cost():
    """Three prompts more of each family are as many runs as two seeds more of the three conditions."""
    study, plans = tiny(), plans_of(tiny())
    own = plans[0]
    assert (own.axis, own.sizes) == (OWN, sizes_of(study))
    runs = {}
    for plan in plans:
        evidence = simulate("effect", np.random.default_rng(0), **vars(plan.sizes))
        runs.setdefault(plan.axis, []).append(len(evidence.planned_runs) - len(study.runs))
    assert max(runs[PROMPTS]) == max(runs[SEEDS]) == planning.RUNS
    assert set(runs[QUESTIONS]) == {0}


def test_power_is_a_share_of_simulated_studies_and_the_same_in_any_number_of_processes(monkeypatch):
    """Every gate and claim of every plan has a row; numbers depend on effect and size alone."""
    few = [plan for plan in plans_of(tiny()) if plan.axis in (OWN, SEEDS)][:2]
    monkeypatch.setattr(planning, "plans_of", lambda _: few)
    told = []
    found = power(tiny(), SHIPPED, [OF_INTEREST], 3, 1, lambda *done: told.append(done))
    assert list(found.columns) == list(planning.COLUMNS)
    assert told[-1] == (6, 6)
    assert len(found) == 2 * (len(planning.TESTS) + 1)
    assert set(found["power"] * 3) <= {0, 1, 2, 3}
    assert (found["error"] > 0).all()
    monkeypatch.setattr(planning, "plans_of", lambda _: few[1:])
    alone = power(tiny(), SHIPPED, [OF_INTEREST], 3, 1)
    pd.testing.assert_frame_equal(alone, found[found["axis"] == SEEDS].reset_index(drop=True))
    wide = found[found["axis"] == OWN].set_index("key")["power"]
    assert wide[ALL] <= wide[CLAIMS].min()


def test_claims_of_one_study_go_together():
    """All are supported where each is, and refuted where one is."""
    gates = len(planning.TESTS) - len(CLAIMS)
    studies = [(YES,) * gates + claims for claims in ((YES,) * 5, (YES, YES, NO, YES, YES), (YES,) * 4 + (AGAINST,))]
    found = shares(studies)
    assert [found[claim][0] for claim in CLAIMS] == pytest.approx([1, 1, 2 / 3, 1, 2 / 3])
    assert (found[ALL][0], found[ALL][2]) == pytest.approx((1 / 3, 1 / 3))


# --- what more runs are best spent on


def test_prompts_are_recommended_where_they_buy_more():
    """By what they add to C4 and C6 at equal cost, with the numbers."""
    said = recommendation(table(C4=(0.2, 0.5, 0.2), C6=(0.5, 0.8, 0.55)), OF_INTEREST)
    assert said.startswith("6 more runs: train more prompts rather than seeds. ")
    assert "3 more harmless and 3 more inoculating prompts take C4 from 0.20 to 0.50 and C6 from 0.50 to 0.80" in said
    assert "2 more seeds take C4 from 0.20 to 0.20 and C6 from 0.50 to 0.55" in said


def test_seeds_are_recommended_where_neutral_drift_is_what_varies():
    """It can go the other way."""
    said = recommendation(table(C4=(0.2, 0.2, 0.4), C6=(0.1, 0.1, 0.8)), OF_INTEREST)
    assert said.startswith("6 more runs: train more seeds rather than prompts.")


def test_a_difference_that_simulations_cannot_tell_is_not_told():
    """Within two Monte-Carlo errors neither is better."""
    said = recommendation(table(C4=(0.2, 0.3, 0.25), C6=(0.5, 0.6, 0.6)), OF_INTEREST)
    assert said.startswith("6 more runs: 100 simulated studies do not tell which buys more.")


@pytest.mark.parametrize("name", sorted(path.stem for path in STUDIES.glob("*.toml")))
def test_every_ready_study_is_told_what_more_runs_buy(name):
    """Whatever its size: fewer is never more, and one size with more is compared with the study's own."""
    study = load_study(name)
    rows = [
        (OF_INTEREST, plan.axis, plan.prompts, plan.sizes.seeds, plan.sizes.evaluation, key, 0.5, 0.05, 0.0, 40)
        for plan in plans_of(study)
        for key in planning.ON_RUNS
    ]
    found = pd.DataFrame(rows, columns=list(planning.COLUMNS))
    own = found[found["axis"] == OWN].iloc[0]
    assert (found[found["axis"] == PROMPTS]["prompts"] > own["prompts"]).sum() == len(planning.ON_RUNS)
    assert (found[found["axis"] == SEEDS]["seeds"] > own["seeds"]).sum() == len(planning.ON_RUNS)
    assert "40 simulated studies do not tell" in recommendation(found, OF_INTEREST)


# --- what is left for readers


def test_reach_is_written_a_test_a_line():
    """Smallest p, interval in standard deviations, and what the claim can become."""
    said = written_reach(tiny())
    assert len(said.strip().splitlines()) == 3 + 20
    line = next(each for each in said.splitlines() if each.startswith("C6") and "ratio" in each)
    assert "no floor" in line
    assert "± " in line


def test_a_plan_leaves_table_and_figure_and_adds_what_a_past_study_observed(monkeypatch, tmp_path, capsys):
    """A study that was not run is a usage error; what its report left will do; nothing is stored."""
    monkeypatch.setattr(planning, "plans_of", lambda study: plans_of(study)[:5])  # without questions
    arguments = ["plan", "tiny", "--no-cost", "--past", "deaf", f"--artifacts={tmp_path}"]
    arguments += [f"--store={tmp_path / 'store'}", "--simulations=1", "--jobs=1"]
    assert main(arguments) == 2
    assert "gradinoc run deaf" in capsys.readouterr().err
    (tmp_path / "deaf").mkdir()
    (tmp_path / "deaf" / VARIANCES).write_text(TINY.read_text(encoding="utf-8").replace('"tiny"', '"deaf"'))
    assert main(arguments) == 0
    said, folder = capsys.readouterr().out, tmp_path / "tiny"
    assert "as observed" in said
    assert said.count("6 more runs: ") == 2
    found = pd.read_csv(folder / "design.csv")
    assert list(found.columns) == list(planning.COLUMNS)
    assert set(found["effect"]) == {OF_INTEREST, OBSERVED}
    assert len(pd.read_csv(folder / "design_reach.csv")) == 20
    assert (folder / "figures" / "design_power.png").stat().st_size > 10_000
    assert not (tmp_path / "store").exists()
