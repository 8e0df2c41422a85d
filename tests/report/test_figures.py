"""The figures show the data they are given, look the same wherever a condition appears, and survive poor data."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from scipy import stats

from gradinoc.claims.c2 import UNRELATED, unrelated_tail
from gradinoc.claims.c3 import (
    adjusted_contrasts,
    loss_audit,
    matched_checkpoints,
    matched_controls,
    paired_with_loss,
)
from gradinoc.claims.measures import (
    drift_by_run,
    early_alignment,
    null_contrasts,
    per_example,
    per_step,
    unrelated_contrasts,
)
from gradinoc.claims.tables import COLUMNS, EARLY, SCORED, Evidence
from gradinoc.power.scenarios import SCENARIOS
from gradinoc.power.simulate import simulate
from gradinoc.report.figures import FIGURES
from gradinoc.report.figures.alignment_against_drift import fit_line
from gradinoc.report.figures.alignment_at_equal_loss import CHECKPOINT, ancova_lines, at_equal_loss, matched_contrasts
from gradinoc.report.figures.loss_overlap import pairs_with_loss
from gradinoc.report.figures.prompt_pool import pool_losses
from gradinoc.report.figures.style import look, save_figure, signed, spread, wrapped
from gradinoc.report.figures.training_difference import training_differences
from gradinoc.report.figures.trait_against_random import null_places, shown_p
from gradinoc.report.wording import NOT_MEASURED
from gradinoc.stats.effect import clustered_mean, null_p, overlap, paired_effect
from gradinoc.study.description import ISOTROPIC, NULLS
from gradinoc.study.rules import Rules

OPTIONAL = ("unrelated", "pool", "matched", "matched_steps")
OF_RUNS = (5, 6, 7, 8, 9, 13, 14)
NAMES = {int(name.partition("_")[0].removeprefix("plot")): name for name in FIGURES}


def draw(number: int, evidence: Evidence, rules: Rules | None = None) -> Figure:
    """The figure of a number."""
    return FIGURES[NAMES[number]].draw(evidence, rules or Rules()).figure


def caption(number: int, evidence: Evidence, rules: Rules | None = None) -> str:
    """Its caption."""
    return FIGURES[NAMES[number]].draw(evidence, rules or Rules()).caption


def finding(number: int, evidence: Evidence, rules: Rules | None = None) -> str:
    """Its finding in a sentence."""
    return FIGURES[NAMES[number]].draw(evidence, rules or Rules()).finding


def world(name: str = "effect", seeds: int = 3, further: bool = False, templates: int = 0) -> Evidence:
    """A small simulated study; `further` gives it a fourth, untrained condition."""
    truth = replace(SCENARIOS[name], further=further, templates=templates)
    return simulate(truth, np.random.default_rng(7), examples=24, layers=4, seeds=seeds, steps=10, directions=100)


def with_condition(evidence: Evidence, name: str, like: str = "loss_matched") -> Evidence:
    """The study with one condition more, whose tables are those of another."""
    grown = {}
    for table, frame in evidence.tables.items():
        column = next((each for each in ("condition", "role") if each in frame), None)
        if column is not None:
            more = frame[frame[column] == like].assign(**{column: name})
            grown[table] = pd.concat([frame, more], ignore_index=True)
    return replace(evidence, conditions=(*evidence.conditions, name), **grown)


def without(evidence: Evidence) -> Evidence:
    """The study of someone who measured the plan's tables alone: one null, no pool, nothing early in training."""
    tables = {name: getattr(evidence, name).iloc[:0] for name in OPTIONAL}
    nulls = evidence.nulls[evidence.nulls["null"] == ISOTROPIC]
    return replace(without_early(evidence), nulls=nulls, **tables)


def without_early(evidence: Evidence) -> Evidence:
    """The study without what was measured early in training."""
    drift, responses = evidence.drift, evidence.responses
    return replace(evidence, drift=drift[drift["phase"] != EARLY], responses=responses[responses["phase"] != EARLY])


def degenerate(evidence: Evidence) -> Evidence:
    """Scores all equal, a band of one layer, null directions that do not vary, losses all equal."""
    layers = evidence.layers.assign(in_band=evidence.layers["layer"] == 2)
    drift = evidence.drift.copy()
    scores = drift["measure"].isin(SCORED)
    assert scores.any(), f"no measure of {SCORED} to flatten among {set(drift['measure'])}"
    drift.loc[scores, "value"] = 1.0
    nulls, responses = evidence.nulls.assign(alignment=0.0), evidence.responses.assign(score=1.0)
    flat = {name: getattr(evidence, name).assign(loss=2.0) for name in ("alignments", "pool", "matched")}
    return replace(evidence, layers=layers, drift=drift, nulls=nulls, responses=responses, **flat)


POOR = {
    "one seed": lambda: world(seeds=1),
    "ten seeds": lambda: world(seeds=10),
    "five conditions": lambda: with_condition(world(further=True), "a_long_name_" * 5),
    "the plan's tables": lambda: without(world()),
    "nothing varies": lambda: degenerate(world("saturated", seeds=2)),
    "nothing measured": lambda: replace(world(), **{name: table.iloc[:0] for name, table in world().tables.items()}),
    "all missing": lambda: replace(world(), **{name: blank(table) for name, table in world().tables.items()}),
}


def blank(table: pd.DataFrame) -> pd.DataFrame:
    """The table with every measured number NaN."""
    measured = table.select_dtypes("float").columns
    return table.assign(**dict.fromkeys(measured, float("nan")))


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """One study in which inoculation works."""
    return world()


def fingerprint(figure: Figure) -> tuple[np.ndarray, ...]:
    """Every point, line and outline drawn, in order."""
    drawn = []
    for axes in figure.axes:
        drawn += [line.get_xydata() for line in axes.lines]
        drawn += [np.asarray(part.get_offsets()) for part in axes.collections]
        drawn += [path.vertices for part in axes.collections for path in part.get_paths()]
        drawn += [patch.get_path().vertices for patch in axes.patches]
    return tuple(np.asarray(part, dtype=float) for part in drawn)


def unlike(one: Figure, other: Figure) -> bool:
    """Whether two figures draw different things."""
    first, second = fingerprint(one), fingerprint(other)
    return len(first) != len(second) or any(
        a.shape != b.shape or not np.allclose(a, b, equal_nan=True) for a, b in zip(first, second, strict=True)
    )


def test_figures_have_their_names_and_a_place() -> None:
    """Plots 1 to 14 are files that the README refers to; each belongs to a claim, the gates or drift."""
    assert set(NAMES) >= set(range(1, 15))
    assert {figure.shows[0] for figure in FIGURES.values()} == {"gates", "C1", "C2", "C3", "C4", "drift"}


@pytest.mark.parametrize("number", NAMES)
def test_axis_says_what_it_measures(number: int, evidence: Evidence) -> None:
    """Each figure has a title; a numeric axis has a label, with its unit in brackets where it has one."""
    figure = draw(number, evidence)
    assert figure.get_suptitle()
    for axes in figure.axes:
        shares = not axes.xaxis.get_tick_params()["labelbottom"]  # its x axis with the panel below
        numeric = [axes.get_xlabel()] * (not shares) + [axes.get_ylabel()] * bool(axes.get_ylabel())
        assert all(numeric), "an axis without a label"
        assert any("(" in label or "step" in label for label in numeric), f"no unit in {numeric}"


@pytest.mark.parametrize("number", NAMES)
def test_figure_follows_the_data(number: int, evidence: Evidence) -> None:
    """Other data, another picture; the same data, the same picture."""
    other = simulate("no_effect", np.random.default_rng(8), examples=24, layers=4, seeds=3, steps=10, directions=100)
    assert unlike(draw(number, evidence), draw(number, other))
    assert not unlike(draw(number, evidence), draw(number, evidence))


@pytest.mark.parametrize("number", [2, 9])
def test_line_is_drawn_for_each_condition(number: int, evidence: Evidence) -> None:
    """One more condition is one more line in a colour of its own."""
    colours = [
        {to_rgba(line.get_color()) for line in draw(number, study).axes[0].lines if len(line.get_xdata()) > 2}
        for study in (evidence, with_condition(evidence, "sham"))
    ]
    assert [len(found) for found in colours] == [3, 4]


@pytest.mark.parametrize("seeds", [1, 5])
def test_point_is_drawn_for_each_run(seeds: int) -> None:
    """Three conditions times the seeds."""
    study = world(seeds=seeds)
    assert sum(len(part.get_offsets()) for part in draw(5, study).axes[0].collections) == 3 * seeds
    assert sum(len(line.get_xdata()) == 1 for line in draw(7, study).axes[0].lines) == 3 * seeds


@pytest.mark.parametrize("study", POOR)
def test_poor_data_are_drawn_without_a_warning(study: str, tmp_path) -> None:
    """Warnings are errors here: every figure is drawn and told, whatever is constant, missing or many."""
    evidence = POOR[study]()
    for number in NAMES:
        drawn = FIGURES[NAMES[number]].draw(evidence, Rules())
        drawn.figure.savefig(tmp_path / "figure.png", dpi=40)
        assert "nan" not in drawn.caption + drawn.finding
        texts = [text.get_text() for axes in drawn.figure.axes for text in axes.texts]
        if study == "nothing measured":
            assert any("not measured" in text for text in texts), f"{number}: an empty panel that does not say why"


def test_findings_without_data_say_so(evidence: Evidence) -> None:
    """All in the same words, without a number, but for the AUC, which is in the table of layers."""
    empty = replace(evidence, **{name: getattr(evidence, name).iloc[:0] for name in COLUMNS if name != "layers"})
    told = {number: finding(number, empty) for number in NAMES}
    assert "AUC" in told.pop(1)
    assert set(told.values()) == {NOT_MEASURED}


def test_finding_takes_the_side_that_its_numbers_are_on(evidence: Evidence) -> None:
    """Where there is the effect, none, or a reversed one, the same figure is told differently; rules decide too."""
    for name, word in (("effect", "is lower"), ("no_effect", "is not shown to be other"), ("reversed", "is higher")):
        study = simulate(
            SCENARIOS[name], np.random.default_rng(5), examples=48, layers=3, seeds=3, steps=6, directions=60
        )
        assert all(f"{word} under inoculation" in finding(number, study) for number in (2, 12)), name
    assert "does not exceed" in finding(4, evidence, Rules(alpha=0.001))
    assert "exceeds" in finding(4, evidence)


def test_same_data_give_the_same_svg(evidence: Evidence, tmp_path) -> None:
    """Byte for byte, so that a changed file means a changed result; nothing else is left in the folder."""
    files = [save_figure(draw(4, evidence), tmp_path / folder, "plot4") for folder in ("one", "two")]
    assert files[0][1].read_bytes() == files[1][1].read_bytes()
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"plot4.png", "plot4.svg"}


# --- single figures


def test_caption_holds_the_numbers_of_its_figure(evidence: Evidence) -> None:
    """The paired loss difference, as the claims' own statistics find it, is in the caption of plot 3."""
    wide = evidence.alignments.pivot_table(index="example", columns="condition", values="loss")
    effect = paired_effect(wide["inoculation"], wide["neutral"], "loss", "examples")
    words = f"inoculation {effect.estimate:.3f} ({effect.low:.3f} to {effect.high:.3f}, n = 24 examples)"
    assert words in caption(3, evidence)


def test_fitted_line_and_its_interval_are_least_squares() -> None:
    """Against NumPy's polynomial fit; its interval is narrowest at the mean of x."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=12)
    y = 2 * x + rng.normal(size=12)
    line = fit_line(x, y)
    assert line is not None
    assert np.allclose(line.y, np.polyval(np.polyfit(x, y, 1), line.x))
    assert abs(line.x[np.argmin(line.high - line.low)] - x.mean()) < np.ptp(x) / 50
    assert fit_line([1, 1, 1], [1, 2, 3]) is None


def single(axes: Axes, marker: str) -> np.ndarray:
    """Every point drawn by itself with this marker, as x and y."""
    points = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == marker and len(line.get_xdata()) == 1]
    return np.array(points)


@pytest.mark.parametrize("templates", [0, 6])
def test_each_null_has_its_place_and_its_p(templates: int) -> None:
    """T(v), the p of random directions and of unrelated traits, and each such trait's T(u) are the claim's own."""
    study = world(templates=templates)
    panels, rows = draw(4, study).axes, range(len(NULLS) + 1)
    for axes, other in zip(panels, ("neutral", "loss_matched"), strict=True):
        observed = float((per_example(study)[other] - per_example(study)["inoculation"]).mean())
        assert single(axes, "D") == pytest.approx(np.array([(observed, row) for row in rows]))
        p = [null_p(observed, null_contrasts(study, kind, other)) for kind in NULLS] + [unrelated_tail(study, other).p]
        beside = {text.get_position()[1]: text.get_text() for text in axes.texts if text.get_position()[0] > 1}
        assert [beside[row] for row in rows] == [shown_p(each) for each in p]
        traits = unrelated_contrasts(study, other).mean()
        order = [label.get_text().replace(" ", "_") for label in panels[0].get_yticklabels()[len(rows) :]]
        assert sorted(order) == sorted(traits.index)
        assert single(axes, "o")[:, 0] == pytest.approx(traits[order].to_numpy())


def test_p_of_unrelated_traits_is_the_largest_of_paired_t_tests() -> None:
    """Over traits and both signs, one-sided, by example, as SciPy finds it."""
    study = world("loss_mediated")
    means = per_example(study)
    for places in null_places(study):
        trait, other = means[places.other] - means["inoculation"], unrelated_contrasts(study, places.other)
        tails = [
            stats.ttest_1samp(trait - sign * other[name], 0, alternative="greater").pvalue
            for name in other
            for sign in (1, -1)
        ]
        assert places.p[UNRELATED] == pytest.approx(max(tails))


def test_pool_is_sorted_by_loss_and_its_choice_ringed() -> None:
    """Gaps to inoculation's mean loss on the calibration questions, paired intervals, one ring."""
    study = world()
    axes = draw(10, study).axes[0]
    wide = study.pool.pivot_table(index="example", columns="prompt", values="loss")
    target = wide[study.pool.loc[study.pool["role"] == "inoculation", "prompt"].iloc[0]]
    gaps = wide.sub(target, axis=0).mean().sort_values()
    drawn = {int(line.get_ydata()[0]): line.get_xdata()[0] for line in axes.lines if line.get_marker() in "os^"}
    assert [drawn[row] for row in range(len(gaps))] == pytest.approx(gaps.to_numpy())
    chosen = study.pool.loc[study.pool["chosen"], "prompt"].iloc[0]
    rings = [line.get_xydata()[0] for line in axes.lines if line.get_markerfacecolor() == "none"]
    assert np.array(rings) == pytest.approx(np.array([(gaps[chosen], list(gaps.index).index(chosen))]))
    row = pool_losses(study).set_index("prompt").loc[chosen]
    low, high = stats.ttest_1samp(wide[chosen] - target, 0).confidence_interval()
    assert (row["low"], row["high"]) == pytest.approx((low, high))


def test_condition_without_a_prompt_of_its_own_is_the_chosen_one() -> None:
    """The condition whose prompt is to be chosen has no row in the pool: the chosen candidate bears its name."""
    study = world(further=True)
    study = replace(study, pool=study.pool[study.pool["role"] != "loss_measured"])
    rows = pool_losses(study)
    assert rows.loc[rows["chosen"], "role"].tolist() == ["loss_measured"]
    assert "loss measured\n(chosen)" in [text.get_text() for text in draw(10, study).axes[0].texts]
    assert "chosen" in [text.get_text() for text in draw(10, world()).axes[0].texts]


def test_loss_densities_are_densities_and_their_overlap_the_audit_s(evidence: Evidence) -> None:
    """A curve a condition, each of area 1; the overlap coefficient and the common range as the claim has them."""
    axes = draw(11, evidence).axes[0]
    curves = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert [np.trapezoid(line.get_ydata(), line.get_xdata()) for line in curves] == pytest.approx([1, 1, 1], abs=0.01)
    losses = per_example(evidence, "loss")
    assert f"{overlap(losses['neutral'], losses['inoculation']):.2f}," in axes.get_title(loc="left")
    pairs = paired_with_loss(evidence, "neutral")
    shaded = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (shaded.x0, shaded.x1) == pytest.approx((pairs.loss[pairs.common].min(), pairs.loss[pairs.common].max()))


def numbers(effect) -> tuple[float, ...]:
    """Estimate, interval and n."""
    return effect.estimate, effect.low, effect.high, effect.n


@pytest.mark.parametrize("templates", [0, 6])
def test_effects_at_equal_loss_are_those_that_decide(templates: int) -> None:
    """Every row of the forest, with its interval, is an effect of C3; the two lines are the ANCOVA's."""
    study, rules = world(further=True, templates=templates), Rules()
    raw, adjusted = adjusted_contrasts(paired_with_loss(study, "neutral"), rules)
    controls, checkpoints = matched_controls(study, rules), matched_checkpoints(study, rules)
    expected = [raw, *adjusted.values(), *controls.values(), checkpoints["checkpoint"]]
    pairs, matched = pairs_with_loss(study), matched_contrasts(study, rules)
    rows = [*at_equal_loss(pairs, rules).values(), *(effect for effect, _ in matched.values())]
    found = [*rows[:4], *rows[5:]]  # the control that is no loss-matched one has no effect in C3
    assert [numbers(effect) for effect in found] == [pytest.approx(numbers(effect)) for effect in expected]
    axes = draw(12, study).axes
    assert [text.get_text() for text in axes[1].texts] == [signed(effect.estimate) for effect in rows]
    assert single(axes[1], "o")[:4, 0] == pytest.approx([effect.estimate for effect in expected[:4]])
    heights = ancova_lines(pairs)[1]
    assert heights[0] - heights[1] == pytest.approx([adjusted["regression"].estimate] * 2)
    thick = [line.get_xydata() for line in axes[0].lines if len(line.get_xdata()) == 2]
    assert np.array(thick)[:, :, 1] == pytest.approx(heights)
    hollow = sum(len(part.get_offsets()) for part in axes[0].collections if not len(part.get_facecolor()))
    assert hollow == (~pairs.common).sum()


def test_loss_gaps_are_the_audit_s(evidence: Evidence) -> None:
    """The control's share of neutral's distance, and the share that the matched checkpoints leave."""
    matched, losses = matched_contrasts(evidence, Rules()), per_example(evidence, "loss").mean()
    assert matched["loss_matched"][1] == pytest.approx(loss_audit(evidence, Rules())[0].estimate)
    left = matched_checkpoints(evidence, Rules())["checkpoint.loss"]
    share = abs(left.estimate) / (losses["neutral"] - losses["inoculation"])
    assert matched[CHECKPOINT][1] == pytest.approx(share)
    label = draw(12, evidence).axes[1].get_yticklabels()[-1].get_text()
    assert label == f"{CHECKPOINT}\n(loss gap {100 * share:.0f} %)"


def test_control_whose_loss_differs_is_hollow(evidence: Evidence) -> None:
    """Full only what was adjusted for loss, or has inoculation's within the rules."""
    for bar in (0.0, 1.0):
        axes = draw(12, evidence, Rules(loss_match=bar)).axes[1]
        faces = [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"]
        assert [face == "white" for face in faces] == [True, False, False, False, bar == 0, bar == 0]


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_difference_in_training_is_paired_by_seed_and_step(seeds: int) -> None:
    """Thin lines are the paired differences by seed, the thick one their mean, shaded its t interval over seeds."""
    study = world(seeds=seeds)
    steps, axes = per_step(study), draw(13, study).axes[0]
    areas = {to_rgba(part.get_facecolor()[0])[:3]: part for part in axes.collections}
    assert len(areas) == (2 if seeds > 2 else 0)
    for other in ("neutral", "loss_matched"):
        wide = (steps[other] - steps["inoculation"]).unstack("seed")  # noqa: PD010 - a series has no pivot_table
        colour = look(other, study.conditions).colour
        *thin, thick = (line.get_ydata() for line in axes.lines if line.get_color() == colour)
        assert np.array(thin) == pytest.approx(wide.to_numpy().T)
        assert thick == pytest.approx(wide.mean(axis=1).to_numpy())
        if seeds > 2:
            half = stats.t.ppf(0.975, seeds - 1) * wide.std(axis=1, ddof=1) / np.sqrt(seeds)
            heights = areas[to_rgba(colour)[:3]].get_paths()[0].vertices[:, 1]
            limits = (wide.mean(axis=1) - half).min(), (wide.mean(axis=1) + half).max()
            assert (heights.min(), heights.max()) == pytest.approx(limits)
    difference = steps["neutral"] - steps["inoculation"]
    pooled = clustered_mean(difference, difference.index.get_level_values("seed"), "", "seeds")
    assert f"neutral: {pooled.estimate:.3f}" in caption(13, study)


def test_many_steps_are_averaged_over_equal_stretches() -> None:
    """A thousand steps would be a hairbrush: at most 25 points a line."""
    study = simulate("effect", np.random.default_rng(2), examples=8, layers=2, seeds=2, steps=60, directions=100)
    points, steps = training_differences(study), per_step(study)
    difference = (steps["neutral"] - steps["inoculation"]).loc[1]
    assert len(points.loc[1]) == 20
    assert points.loc[1, "neutral"].iloc[4] == pytest.approx(difference.iloc[12:15].mean())


def test_drift_over_training_starts_at_the_base_model() -> None:
    """A point a run and phase: the base model's mean plus the drift that C4 rests on, early and after training."""
    study = world(seeds=2)
    for axes, measure in zip(draw(14, study).axes, ("score", "log_odds"), strict=True):
        rows = study.drift[(study.drift["measure"] == measure) & (study.drift["condition"] == "base")]
        base = rows["value"].mean()
        for condition, part in zip(study.conditions, axes.collections, strict=True):
            values = [base + drift_by_run(study, measure, phase)[condition] for phase in (EARLY, "post")]
            assert np.sort(np.asarray(part.get_offsets())[:, 1]) == pytest.approx(np.sort(np.concatenate(values)))
        assert [line.get_ydata()[0] for line in axes.lines] == pytest.approx([base] * 3)


@pytest.mark.parametrize("number", OF_RUNS)
def test_figures_of_runs_leave_out_what_was_not_trained(number: int) -> None:
    """A fourth condition, measured on the frozen model alone, is no empty row and no missing line."""
    study = world(further=True)
    assert study.untrained == ("loss_measured",)
    assert not unlike(draw(number, study), draw(number, replace(study, conditions=study.trained, untrained=())))
    assert "loss measured" not in caption(number, study)
    assert "not measured" not in caption(number, study)


@pytest.mark.parametrize("number", [5, 6, 8])
def test_what_was_measured_early_is_no_drift(number: int, evidence: Evidence) -> None:
    """Shifts and responses are of before and after training; the early phase has a figure of its own."""
    assert (evidence.responses["phase"] == EARLY).any()
    assert not unlike(draw(number, evidence), draw(number, without_early(evidence)))
    assert caption(number, evidence) == caption(number, without_early(evidence))


def test_early_runs_as_far_as_the_rules_say(evidence: Evidence) -> None:
    """The early fraction of plot 7 is the study's, in the picture and in the caption; both axes are C4's numbers."""
    rules = Rules(early_fraction=0.5)
    points = [line.get_xydata()[0] for line in draw(7, evidence, rules).axes[0].lines if len(line.get_xdata()) == 1]
    early, drift = early_alignment(evidence, 0.5), drift_by_run(evidence, "log_odds")
    expected = np.array([early.to_numpy().ravel(), drift[early.columns].to_numpy().ravel()]).T
    assert np.array(sorted(map(tuple, points))) == pytest.approx(np.array(sorted(map(tuple, expected))))
    assert "first 50 % of steps" in caption(7, evidence, rules)


def test_missing_tables_are_named(evidence: Evidence) -> None:
    """Nulls, pool and phases that a study does not have are said to be missing where they would stand."""
    study = without(evidence)
    for axes in draw(4, study).axes:
        assert sum(text.get_text() == "not\nmeasured" for text in axes.texts) == len(NULLS)
    assert caption(10, study) == NOT_MEASURED
    assert CHECKPOINT not in caption(12, study)
    ticks = [label.get_text() for label in draw(14, study).axes[1].get_xticklabels()]
    assert ticks == ["before", "early\n(not measured)", "after"]


# --- style


def test_condition_looks_the_same_in_every_study() -> None:
    """The core three have fixed looks; more conditions do not change them, and get looks of their own."""
    few, many = ("neutral", "inoculation", "loss_matched"), ("sham", "neutral", "other", "loss_matched", "inoculation")
    assert all(look(name, few) == look(name, many) for name in few)
    assert look("sham", ("sham", "neutral")) == look("sham", ("neutral", "inoculation", "sham"))
    for trait in zip(*(look(name, many) for name in many), strict=True):
        assert len(set(map(str, trait))) == len(many), f"two conditions share one of {trait}"


def test_names_of_conditions_can_be_read_on_white() -> None:
    """Contrast of the core three at least 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    for name in ("neutral", "inoculation", "loss_matched"):
        channels = np.array(to_rgba(look(name, ()).ink)[:3])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5, name


def test_names_beside_lines_do_not_overlap() -> None:
    """Labels that would coincide move apart by the gap asked for, and keep their order."""
    placed = spread([0.1, 0.12, 0.11, 0.9], 0.1)
    assert all(high - low >= 0.1 - 1e-12 for low, high in pairwise(sorted(placed)))
    assert np.argsort(placed).tolist() == [0, 2, 1, 3]
    placed = spread([0.0, 0.0, 0.0], [0.1, 0.3, 0.1])  # a label of three lines between labels of one
    assert np.diff(placed) == pytest.approx([0.2, 0.2])


def test_long_names_take_at_most_three_lines() -> None:
    """Beside a line, and in a row: a name never pushes its neighbour out of the figure."""
    lines = wrapped("a_condition_whose_name_tells_the_whole_story_of_its_prompt").split("\n")
    assert len(lines) == 3
    assert max(map(len, lines)) <= 14
    assert lines[-1].endswith("…")
    assert wrapped("loss_matched") == "loss matched"
