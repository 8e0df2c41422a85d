"""What a design can decide is known before anything runs: floors by brute force, dead ends, power by simulation."""

import itertools
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from gradinoc.api import VARIANCES
from gradinoc.claims.finding import Status
from gradinoc.claims.verdict import CLAIMS as CLAIM_RULES
from gradinoc.claims.verdict import GATES, design_behind
from gradinoc.cli import main
from gradinoc.power import planning
from gradinoc.power.planning import ALL, Cell, judge_examples, judge_runs, power
from gradinoc.power.prospects import (
    NONE,
    OBSERVED,
    OF_INTEREST,
    closest_of,
    in_training,
    scenario_of,
    smallest_of_interest,
)
from gradinoc.power.scenarios import SCENARIOS, Noise, Scenario, band_depth
from gradinoc.power.simulate import simulate
from gradinoc.power.variances import TINY, Variances, estimate, load_variances, templates_behind, templates_met
from gradinoc.stats.correlation import MONTE_CARLO, stratified_p
from gradinoc.study.description import ISOTROPIC, NULLS, Study
from gradinoc.study.design import (
    CLAIMS,
    REFUTED,
    SUPPORTED,
    dead_ends,
    design_of,
    design_warnings,
    opening,
    smallest_p,
    smallest_p_table,
    smallest_stratified_p,
)
from gradinoc.study.loading import STUDIES, load_study
from gradinoc.study.rules import Rules

RULES = Rules()
ONE_SEED, FIVE_SEEDS = "seeds=[0]", "seeds=[0, 1, 2, 3, 4]"
SMALL = {"examples": 24, "layers": 3, "steps": 5, "directions": 100, "positions": 1}


def tiny(*settings: str) -> Study:
    """The tiny study with settings applied."""
    return load_study("tiny", settings)


# --- the smallest p


@pytest.mark.parametrize(("conditions", "seeds"), [(3, 3), (2, 5), (3, 1)])
def test_floor_of_the_permutation_is_reached_and_not_passed(conditions, seeds):
    """Of all arrangements within seeds the one in perfect order comes out at the floor, and no other below it."""
    strata = np.repeat(np.arange(seeds), conditions)
    x = np.tile(np.arange(conditions), seeds) + 0.01 * strata
    found = []
    for orders in itertools.product(itertools.permutations(range(conditions)), repeat=seeds):
        y = np.concatenate(orders)
        if len(y) > 2:
            found.append(stratified_p(x, y, strata, np.random.default_rng(0))[0])
    assert min(found) == pytest.approx(smallest_stratified_p(conditions, seeds))
    assert len(found) == pytest.approx(1 / min(found))


def test_floor_of_too_many_arrangements_is_that_of_the_random_ones_drawn():
    """Nine seeds of three conditions have ten million arrangements; 99,999 are drawn, and the observed one counts."""
    x = np.tile(np.arange(3.0), 9)
    p, _ = stratified_p(x, x, np.repeat(np.arange(9), 3), np.random.default_rng(0))
    assert p == smallest_stratified_p(3, 9) == 1 / (1 + MONTE_CARLO)
    assert smallest_stratified_p(3, 8) == 6.0**-8


def test_smallest_p_by_claim():
    """No floor for t tests; one seed leaves C4 without any interval."""
    assert smallest_p(3, 3, 999) == {"C1": 0, "C2": 1 / 1000, "C3": 0, "C4": 1 / 216}
    assert smallest_p(3, 1, 99)["C4"] == 1
    assert smallest_p(3, 2, 99)["C4"] == 1 / 36


def test_table_has_a_row_for_every_test_and_says_what_a_claim_can_become():
    """With one seed C4 can become nothing; a condition that is not trained gives C4 no arrangement."""
    table = smallest_p_table(tiny(ONE_SEED)).set_index("claim")
    assert set(table.index) == set(CLAIMS)
    can = table[["can_be_supported", "can_be_refuted"]]
    assert not can.loc["C4"].to_numpy().any()
    assert can.drop(index="C4").to_numpy().all()
    three = smallest_p_table(tiny())
    assert three[["can_be_supported", "can_be_refuted"]].to_numpy().all()
    permuted = three[three["test"].str.startswith("r, permutation")].iloc[0]
    assert (permuted["n"], permuted["smallest_p"]) == (9, 1 / 216)


# --- dead ends


JUDGED = dict(zip(CLAIMS, CLAIM_RULES, strict=True))
DEAD_ENDS = {
    "one seed": ({"seeds": 1}, {}, "C4", {SUPPORTED, REFUTED}),
    "few directions": ({"directions": 10}, {}, "C2", {SUPPORTED, REFUTED}),
    "no margin for random directions": ({}, {"null_margin": 0.0}, "C2", {SUPPORTED}),
    "no margin at all": ({}, {"null_margin": 0.0, "equivalence": 0.0}, "C3", {REFUTED}),
    "no ceiling": ({}, {"ceiling": 0.0}, "C4", {SUPPORTED, REFUTED}),
    "no letterless response": ({}, {"max_unscorable": 0.0}, "C4", {SUPPORTED, REFUTED}),
    "alpha below C4's floor": ({}, {"alpha": 0.004}, "C4", {SUPPORTED, REFUTED}),
}


@pytest.mark.parametrize("name", DEAD_ENDS)
def test_a_dead_end_is_one_for_the_judge_too(name):
    """What a design is said to exclude, the judge does not find, whatever the scenario."""
    sizes, rules, claim, excluded = DEAD_ENDS[name]
    bars = Rules(**rules)
    met = set()
    for scenario in ("effect", "reversed", "loss_explained"):
        evidence = simulate(scenario, np.random.default_rng(0), **{**SMALL, **sizes})
        found = {end.claim: set(end.excluded) for end in dead_ends(design_behind(evidence, bars))}
        assert found[claim] == excluded
        gates = [gate.judge(evidence, bars) for gate in GATES]
        met.add(str(JUDGED[claim].judge(evidence, bars, gates).status))
    assert not met & excluded


def test_the_ready_studies_have_no_dead_end():
    """Each of their claims can become anything."""
    assert not [end for path in STUDIES.glob("*.toml") for end in dead_ends(design_of(load_study(path.stem)))]


def test_warnings_say_what_more_seeds_would_reach():
    """One seed is a dead end; sign flips take five seeds, equivalence of r 32 runs."""
    one, three, five, eleven = (design_warnings(replace(design_of(tiny()), seeds=seeds)) for seeds in (1, 3, 5, 11))
    assert one[0].startswith("C4: ")
    flips, flat = three
    assert "0.125" in flips
    assert "32 or more" in flat
    assert [warning[:7] for warning in five] == ["15 runs"]
    assert eleven == []


def test_evidence_tells_the_design_that_its_study_asked_for():
    """Trained conditions, seeds, directions and examples; a condition that was not trained does not count."""
    evidence = simulate(replace(SCENARIOS["effect"], further=True), np.random.default_rng(0), **SMALL, seeds=4)
    asked = tiny("seeds=[0, 1, 2, 3]", "data.measure=24", "nulls.covariance=100")
    assert design_behind(evidence, RULES) == design_of(asked)
    assert design_of(asked).trained == 3 < len(asked.conditions)


# --- at the start of a session


def test_session_opens_with_what_a_design_can_decide():
    """Each claim's smallest p, what fifteen runs cannot show, and, with one seed, that C4 is out of reach."""
    first, *rest = opening(tiny(FIVE_SEEDS))
    assert re.findall(r"0\.\d+", first) == ["0.000999", "0.000129"]
    assert len(rest) == 1
    assert sum("CANNOT DECIDE C4" in line for line in opening(tiny(ONE_SEED))) == 1


# --- variances from evidence


TRUTH = Scenario(
    slope=0.6,
    between=-0.1,
    follows=0.0,
    seed_follows=0.0,
    templates=30,
    noise=Noise(
        difficulty=0.15, loss=0.1, alignment=0.08, ratio=(1.0, 1.5, 0.7), layer=0.0, template=0.08, flipped=0.0,
        step=0.1, run=0.05, seed=0.05, run_drift=0.06, response=0.5,
    ),
)  # fmt: skip
SIZES = {"examples": 96, "layers": 1, "positions": 1, "steps": 5, "seeds": 6, "directions": 200, "beside": False}


@pytest.fixture(scope="module")
def estimates() -> list[Variances]:
    """The variances of thirty studies of one scenario."""
    return [estimate(simulate(TRUTH, np.random.default_rng(i), **SIZES), RULES, "simulated") for i in range(30)]


def test_estimates_recover_the_simulated_scenario(estimates):
    """Every variance and effect within four Monte-Carlo standard errors of the truth."""
    noise, unit = TRUTH.noise, band_depth(1)
    fall = np.array(TRUTH.gap) + TRUTH.slope * np.array(TRUTH.loss)
    squares = {  # standard deviations: their squares are estimated without bias
        "difficulty": noise.difficulty,
        "loss": noise.loss,
        "example": unit * noise.example,
        "own": unit * noise.alignment * np.array(noise.ratio),
        "template": unit * noise.template,
        **{null: math.sqrt(2) * noise.nulls[null] * (unit if kind.of_trait else 1) for null, kind in NULLS.items()},
        "step": unit * noise.step,
        "seed": unit * math.hypot(noise.seed, 0.02 / math.sqrt(4)),  # batches of a seed are alike in difficulty
        "run": unit * noise.run,
        "run_drift": noise.run_drift,
        "response": noise.response,
    }
    plain = {
        "alignment": 0.3 * unit,
        "fall": unit * fall,
        "early_fall": unit * fall,
        "loss_fall": TRUTH.loss,
        "slope": unit * TRUTH.slope,
        "between": unit * TRUTH.between,
        "drift": TRUTH.drift[0] - np.array(TRUTH.drift) + 0.0,
    }
    for name, truth in {**squares, **plain}.items():
        found = [each.nulls[name] if name in NULLS else getattr(each, name) for each in estimates]
        values = np.array(found, dtype=float)
        if name == "drift":
            values = values[:, :1] - values
        values, truth = (values**2, np.square(truth)) if name in squares else (values, np.asarray(truth))
        error = values.std(axis=0, ddof=1) / math.sqrt(len(values))
        assert (np.abs(values.mean(axis=0) - truth) <= 4 * error + 1e-12).all(), (name, values.mean(axis=0), truth)
    assert {(each.examples, each.seeds, each.early_examples, each.evaluation) for each in estimates} == {(96, 6, 4, 48)}


def test_the_closest_unrelated_trait_is_the_one_whose_lead_is_least():
    """It may be a reversed one; what it shares with the trait example by example leaves the lead's error alone."""
    evidence = simulate("effect", np.random.default_rng(0), **{**SIZES, "examples": 400})
    table = evidence.unrelated.copy()
    own = evidence.alignments.set_index(["condition", "example"])["alignment"]
    rows = table[table["trait"] == "lists"]
    follows = own.loc[list(zip(rows["condition"], rows["example"], strict=True))].to_numpy()
    noise = np.random.default_rng(1).normal(0, 0.02, len(rows))
    table.loc[rows.index, "alignment"] = -(follows + 0.002 * (rows["condition"] == "inoculation") + noise)
    found = estimate(replace(evidence, unrelated=table), RULES, "simulated")
    assert found.unrelated_slope == pytest.approx(1, abs=0.3)
    assert found.unrelated == pytest.approx(found.fall[1] - 0.002, abs=4 * 0.02 * math.sqrt(2 / 400))
    assert found.unrelated_example == pytest.approx(0.02 * math.sqrt(2), rel=0.15)


def test_what_says_nothing_of_variances_is_refused():
    """One seed, no unrelated trait, a neutral alignment of zero, an unknown effect."""
    one, two = (simulate("effect", np.random.default_rng(0), **{**SIZES, "seeds": seeds}) for seeds in (1, 2))
    for evidence in (one, replace(two, unrelated=two.unrelated.iloc[:0])):
        with pytest.raises(ValueError, match=r"one seed|expected unrelated traits"):
            estimate(evidence, RULES, "simulated")
    shipped = load_variances(TINY)
    for variances, effect in ((shipped.model_copy(update={"alignment": 0.0}), OF_INTEREST), (shipped, "large")):
        with pytest.raises(ValueError, match=r"alignment is 0|expected one of the effects"):
            scenario_of(variances, effect, tiny())


def test_number_of_templates_met_is_that_of_random_draws():
    """Distinct templates among so many draws, on average; and back again."""
    rng = np.random.default_rng(0)
    met = [len(set(rng.integers(65, size=96))) for _ in range(2000)]
    assert templates_met(65, 96) == pytest.approx(np.mean(met), abs=4 * np.std(met) / math.sqrt(2000))
    assert [templates_behind(96, round(templates_met(count, 96))) for count in (5, 30, 60)] == [5, 30, 60]
    assert templates_behind(96, 96) == 0
    assert (templates_behind(96, 1), templates_met(1, 96)) == (1, 1)


# --- from variances to a scenario


def relative(evidence: object) -> dict[str, float]:
    """Contrasts of a simulated study as shares of its neutral alignment, and the drift difference."""
    found = estimate(evidence, RULES, "again")  # type: ignore[arg-type]
    return {
        "fall": found.fall[1] / found.alignment,
        "own": found.own[1] / found.alignment,
        "template": found.template / found.alignment,
        **{null: spread / found.alignment for null, spread in found.nulls.items()},
        "drift": found.drift[0] - found.drift[1],
        "response": found.response,
    }


def test_a_study_as_observed_looks_like_the_one_whose_variances_it_has():
    """The shipped variances, with more of them due to loss, simulated and estimated again; in units of alignment."""
    shipped = load_variances(TINY).model_copy(update={"slope": 3.0})
    study = tiny()
    scenario = scenario_of(shipped, OBSERVED, study)
    again = [
        relative(
            simulate(scenario, np.random.default_rng(i), **{**SIZES, "steps": 1, "evaluation": 4, "templates": 50})
        )
        for i in range(12)
    ]
    scale = shipped.alignment
    truth = {
        "fall": shipped.fall[1] / scale,
        "own": shipped.own[1] / scale,
        "template": shipped.template / scale,
        **{null: spread / scale for null, spread in shipped.nulls.items()},
        "drift": shipped.drift[0] - shipped.drift[1],
        "response": shipped.response * math.sqrt(4 / study.drift.log_odds),
    }
    for name, value in truth.items():
        values = np.array([each[name] for each in again])
        assert values.mean() == pytest.approx(value, abs=4 * values.std(ddof=1) / math.sqrt(len(values)) + 0.03 * value)


def test_the_smallest_effect_of_interest_is_twice_what_the_rules_call_none():
    """A fifth of the neutral alignment and half of the neutral drift, all at equal loss, none under the control."""
    shipped = load_variances(TINY)
    assert smallest_of_interest(shipped, RULES) == (pytest.approx(0.2 * shipped.alignment), 0.5)
    scenario = scenario_of(shipped, OF_INTEREST, tiny())
    assert scenario.gap == pytest.approx((0, 0.2 * 0.3, 0))
    assert (scenario.slope, scenario.loss) == (0, shipped.loss_fall)
    assert scenario.drift[1] == pytest.approx(shipped.drift[0] / 2)
    assert scenario.drift[0] == scenario.drift[2]
    half = scenario_of(shipped, OF_INTEREST, tiny("rules.equivalence=0.05"))
    assert half.gap[1] == pytest.approx(scenario.gap[1] / 2)
    assert half.noise.nulls[ISOTROPIC] == pytest.approx(scenario.noise.nulls[ISOTROPIC] / 2)
    assert half.noise.alignment == scenario.noise.alignment
    assert closest_of(shipped, OF_INTEREST, tiny()).slope == shipped.unrelated_slope


def test_observed_contrasts_of_training_are_those_of_its_early_steps():
    """What the frozen model shows stands for training only where nothing was observed."""
    shipped = load_variances(TINY)
    observed = scenario_of(shipped, OBSERVED, tiny())
    early = in_training(observed, shipped, OBSERVED)
    assert early.gap[1] / observed.gap[1] == pytest.approx(
        shipped.early_fall[1] / (shipped.fall[1] - shipped.slope * shipped.loss_fall[1])
    )
    assumed = scenario_of(shipped, OF_INTEREST, tiny())
    assert in_training(assumed, shipped, OF_INTEREST) is assumed


# --- power


def cells(effect: str, part: str, sizes: tuple[int, ...], study: Study | None = None, **changes: object) -> list[Cell]:
    """Cells of the tiny study or another, the shipped variances changed."""
    variances, study = load_variances(TINY).model_copy(update=changes), study or tiny()
    scenario, closest = scenario_of(variances, effect, study), closest_of(variances, effect, study)
    return [Cell(effect, part, size, scenario, closest, 100, study.rules) for size in sizes]


def supported(cell: Cell, count: int) -> dict[str, int]:
    """In how many of `count` simulated studies each claim of the cell is supported."""
    ((_, outcomes),) = planning._simulated([cell], count, 1, None).items()
    claims = CLAIMS[:3] if cell.part == planning.ON_EXAMPLES else CLAIMS[3:]
    columns = zip(*outcomes, strict=True)
    return {claim: column.count(Status.SUPPORTED) for claim, column in zip(claims, columns, strict=True)}


@pytest.mark.exhaustive
def test_more_examples_support_c1_to_c3_more_often():
    """From 8 examples to 256 power rises by far more than chance, at an effect twice as large as is of interest."""
    study = tiny("rules.equivalence=0.2")
    few, many = (supported(cell, 20) for cell in cells(OF_INTEREST, planning.ON_EXAMPLES, (8, 256), study))
    for claim in ("C1", "C2", "C3"):
        counts = [[many[claim], 20 - many[claim]], [few[claim], 20 - few[claim]]]
        assert stats.fisher_exact(counts, "greater")[1] < 0.01, (claim, counts)


@pytest.mark.exhaustive
def test_without_an_effect_no_claim_is_supported_more_often_than_alpha():
    """Power at zero is the rate of false positives, within Monte-Carlo error."""
    (examples,), (runs,) = (cells(NONE, *part) for part in ((planning.ON_EXAMPLES, (48,)), (planning.ON_RUNS, (3,))))
    for found, count in ((supported(examples, 20), 20), (supported(runs, 60), 60)):
        most = stats.binom.isf(0.001, count, RULES.alpha)
        assert all(each <= most for each in found.values()), found


def test_below_its_floor_c4_is_undecided_however_clear_the_runs():
    """Two seeds reach p 0.028: at alpha 0.02 not even drift that is plainly more under inoculation refutes."""
    drift = {"drift": (0.04, 0.08, 0.04), "run_drift": 1e-6, "response": 0.0}
    for alpha, expected in ((0.02, Status.UNDECIDED), (0.04, Status.REFUTED)):
        (cell,) = cells(OBSERVED, planning.ON_RUNS, (2,), tiny(f"rules.alpha={alpha}"), **drift)
        assert judge_runs(cell, np.random.default_rng(0)) == (expected,)


def test_examples_come_from_as_many_templates_as_they_would(monkeypatch):
    """A study with few examples meets few templates."""
    seen = {}

    def note(scenario, rng, **sizes):
        seen[sizes["examples"]] = sizes["templates"]
        return simulate(scenario, rng, **sizes)

    monkeypatch.setattr(planning, "simulate", note)
    for cell in cells(OF_INTEREST, planning.ON_EXAMPLES, (16, 256)):
        judge_examples(cell, np.random.default_rng(0))
    assert seen == {16: round(templates_met(65, 16)), 256: round(templates_met(65, 256))}


@pytest.fixture
def small_grid(monkeypatch):
    """One number of examples and one of seeds, beside the study's own."""
    monkeypatch.setattr(planning, "EXAMPLES", (16,))
    monkeypatch.setattr(planning, "SEEDS", (2,))


def test_neither_processes_nor_other_effects_change_a_number(small_grid):
    """One process or two, alone or beside another effect: the same table."""
    study, shipped = tiny("data.measure=24"), load_variances(TINY)
    told = []
    alone = power(study, shipped, [OBSERVED], 2, 1, lambda done, total: told.append((done, total)))
    both = power(study, shipped, [OF_INTEREST, OBSERVED], 2, 2)
    pd.testing.assert_frame_equal(alone, both[both["effect"] == OBSERVED].reset_index(drop=True))
    assert told[-1] == (8, 8)


def test_table_of_power_holds_shares_errors_and_floors(small_grid):
    """A row an effect x examples x seeds x claim; all four are the product of both parts; one seed has p 1."""
    table = power(tiny(ONE_SEED, "data.measure=24"), load_variances(TINY), [OBSERVED], 6, 1)
    assert list(table.columns) == list(planning.COLUMNS)
    assert sorted(set(zip(table["examples"], table["seeds"], strict=True))) == [(16, 1), (16, 2), (24, 1), (24, 2)]
    assert table["power"].between(0, 1).all()
    assert ((table["error"] > 0) == (table["smallest_p"] <= RULES.alpha)).all()
    wide = table.pivot_table(index=["examples", "seeds"], columns="claim", values=["power", "smallest_p"])
    assert (wide["smallest_p"][ALL] == wide["smallest_p"].max(axis=1)).all()
    assert wide["smallest_p"]["C4"].to_dict() == {(16, 1): 1, (16, 2): 1 / 36, (24, 1): 1, (24, 2): 1 / 36}
    shares = wide["power"]
    assert (shares[ALL] <= shares[list(CLAIMS)].min(axis=1) + 1e-12).all()
    assert (shares.xs(1, level="seeds")[["C4", ALL]] == 0).all(axis=None)


def test_all_four_are_counted_study_by_study_and_multiplied():
    """Claims of one study go together; runs and examples are apart."""
    yes, no, against = Status.SUPPORTED, Status.UNDECIDED, Status.REFUTED
    shares = planning._shares([(yes, yes, yes), (yes, no, yes), (no, yes, against), (no, no, no)], [(yes,), (against,)])
    assert [shares[claim][0] for claim in (*CLAIMS, ALL)] == [0.5, 0.5, 0.5, 0.5, 0.125]
    assert [shares[claim][2] for claim in (*CLAIMS, ALL)] == [0, 0, 0.25, 0.5, 0.625]


# --- what is left for readers


def test_a_plan_leaves_table_and_figure_and_adds_what_a_past_study_observed(small_grid, tmp_path, capsys):
    """A study that was not run is a usage error; what its report left will do; nothing is stored."""
    arguments = ["plan", "tiny", "--no-cost", "--past", "deaf", f"--artifacts={tmp_path}", "--set=data.measure=24"]
    arguments += [f"--store={tmp_path / 'store'}", "--simulations=2", "--jobs=1"]
    assert main(arguments) == 2
    assert "gradinoc run deaf" in capsys.readouterr().err
    (tmp_path / "deaf").mkdir()
    (tmp_path / "deaf" / VARIANCES).write_text(TINY.read_text(encoding="utf-8").replace('"tiny"', '"deaf"'))
    assert main(arguments) == 0
    said, folder = capsys.readouterr().out, tmp_path / "tiny-measure24"
    assert "as observed" in said
    assert {tuple(line.split()[:2]) for line in said.splitlines() if " * " in line} == {("24", "3")}  # its own size
    table = pd.read_csv(folder / "design.csv")
    assert list(table.columns) == list(planning.COLUMNS)
    assert set(table["simulations"]) == {2}
    assert len(pd.read_csv(folder / "design_smallest_p.csv")) == 8
    assert (folder / "figures" / "design_power.png").stat().st_size > 10_000
    assert not (tmp_path / "store").exists()


def test_heavy_tails_keep_the_spread():
    """Student's t takes the place of the normal distribution at the same standard deviation."""
    scenario = replace(SCENARIOS["effect"], noise=Noise(degrees=5.0))
    table = simulate(scenario, np.random.default_rng(0), **{**SIZES, "directions": 4000}).nulls
    drawn = table.loc[table["null"] == ISOTROPIC, "alignment"]
    assert drawn.std() == pytest.approx(scenario.noise.nulls[ISOTROPIC], rel=0.05)
    assert drawn.kurt() > 1


def test_unspecific_trait_shows_the_contrast_of_another():
    """The first unrelated trait has the trait's own fall of alignment, within its own noise."""
    scenario = replace(SCENARIOS["effect"], unspecific=1.0)
    table = simulate(scenario, np.random.default_rng(0), **{**SIZES, "examples": 400}).unrelated
    means = table.pivot_table(index="trait", columns="condition", values="alignment", sort=False)
    fall = scenario.gap[1] + scenario.slope * scenario.loss[1]
    assert (means["neutral"] - means["inoculation"]).iloc[0] == pytest.approx(band_depth(1) * fall, rel=0.1)
