"""The figures show the data they are given, look the same wherever a condition appears, and survive poor data."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from scipy import stats

from gradinoc.claims.c2 import UNRELATED, unrelated_tail
from gradinoc.claims.c3 import adjusted_contrasts, loss_audit, matched_checkpoints, matched_controls
from gradinoc.claims.measures import (
    drift_by_run,
    early_alignment,
    null_contrasts,
    paired_with_loss,
    per_example,
    per_step,
    unrelated_contrasts,
)
from gradinoc.claims.tables import EARLY, ISOTROPIC, NULLS, SCORED, Evidence
from gradinoc.power.scenarios import SCENARIOS
from gradinoc.power.simulate import simulate
from gradinoc.report.figures import FIGURES, caption, draw, save_figure
from gradinoc.report.figures.comparisons import (
    CHECKPOINT,
    ancova_lines,
    at_equal_loss,
    checkpoint_contrast,
    control_contrasts,
    loss_gaps,
    null_places,
    pairs_with_loss,
    pool_losses,
)
from gradinoc.report.figures.nulls import shown_p
from gradinoc.report.figures.style import RC, look, signed, spread, wrapped
from gradinoc.report.figures.summaries import (
    contrasts,
    correlation,
    early_and_drift,
    fit_line,
    mean_interval,
    null_effects,
    paired_losses,
    training_differences,
)
from gradinoc.stats.effect import clustered_mean, null_p, overlap, paired_effect
from gradinoc.study.rules import Rules

OPTIONAL = ("unrelated", "pool", "matched", "matched_steps")
TRAINED = ("plot5", "plot6", "plot7", "plot8", "plot9", "plot13", "plot14")  # figures of runs


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


def test_the_figures_have_their_names() -> None:
    """Plots 1 to 14, in order: the README and the report refer to these files."""
    assert [name.partition("_")[0] for name in FIGURES] == [f"plot{number}" for number in range(1, 15)]


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_says_what_it_measures(name: str, evidence: Evidence) -> None:
    """Each figure has a title; a numeric axis has a label, with its unit in brackets where it has one."""
    figure = FIGURES[name](evidence)
    assert figure.get_suptitle()
    for axes in figure.axes:
        shares = not axes.xaxis.get_tick_params()["labelbottom"]  # its x axis with the panel below
        numeric = [axes.get_xlabel()] * (not shares) + [axes.get_ylabel()] * bool(axes.get_ylabel())
        assert all(numeric), f"{name}: an axis without a label"
        assert any("(" in label or "step" in label for label in numeric), f"{name}: no unit in {numeric}"


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_follows_the_data(name: str, evidence: Evidence) -> None:
    """Other data, another picture; the same data, the same picture."""
    other = simulate("no_effect", np.random.default_rng(8), examples=24, layers=4, seeds=3, steps=10, directions=100)
    assert unlike(FIGURES[name](evidence), FIGURES[name](other))
    assert not unlike(FIGURES[name](evidence), FIGURES[name](evidence))


@pytest.mark.parametrize("name", ["plot2_alignment_by_layer", "plot9_alignment_over_training"])
def test_a_line_is_drawn_for_each_condition(name: str, evidence: Evidence) -> None:
    """One more condition is one more line in a colour of its own."""
    colours = [
        {to_rgba(line.get_color()) for line in FIGURES[name](study).axes[0].lines if len(line.get_xdata()) > 2}
        for study in (evidence, with_condition(evidence, "sham"))
    ]
    assert [len(found) for found in colours] == [3, 4]


@pytest.mark.parametrize("name", ["plot5_projection_shift", "plot7_alignment_against_drift"])
@pytest.mark.parametrize("seeds", [1, 5])
def test_a_point_is_drawn_for_each_run(name: str, seeds: int) -> None:
    """Three conditions times the seeds."""
    axes = FIGURES[name](world(seeds=seeds)).axes[0]
    scattered = sum(len(part.get_offsets()) for part in axes.collections if name.startswith("plot5"))
    single = sum(len(line.get_xdata()) == 1 for line in axes.lines if name.startswith("plot7"))
    assert scattered + single == 3 * seeds


def test_a_condition_looks_the_same_in_every_study() -> None:
    """The plan's three have fixed looks; more conditions do not change them, and get looks of their own."""
    few, many = ("neutral", "inoculation", "loss_matched"), ("sham", "neutral", "other", "loss_matched", "inoculation")
    assert all(look(name, few) == look(name, many) for name in few)
    assert look("sham", ("sham", "neutral")) == look("sham", ("neutral", "inoculation", "sham"))
    looks = [look(name, many) for name in many]
    for trait in zip(*looks, strict=True):
        assert len(set(map(str, trait))) == len(many), f"two conditions share one of {trait}"


def test_names_of_conditions_can_be_read_on_white() -> None:
    """Contrast of the plan's three at least 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    for name in ("neutral", "inoculation", "loss_matched"):
        channels = np.array(to_rgba(look(name, ()).ink)[:3])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5, name


@pytest.mark.parametrize("study", POOR)
def test_poor_data_are_drawn_without_a_warning(study: str, tmp_path) -> None:
    """Warnings are errors here: every figure is drawn and captioned, whatever is constant, missing or many."""
    evidence = POOR[study]()
    for name, plot in FIGURES.items():
        figure = plot(evidence)
        figure.savefig(tmp_path / "figure.png", dpi=40)
        assert "nan" not in caption(name, evidence)
        texts = [text.get_text() for axes in figure.axes for text in axes.texts]
        if study == "nothing measured":
            assert any("not measured" in text for text in texts), f"{name}: an empty panel that does not say why"


def test_the_same_data_give_the_same_svg(evidence: Evidence, tmp_path) -> None:
    """Byte for byte, so that a changed file means a changed result."""
    name = "plot4_trait_against_random"
    files = [save_figure(FIGURES[name](evidence), tmp_path / folder, name) for folder in ("one", "two")]
    assert files[0][1].read_bytes() == files[1][1].read_bytes()
    assert files[0][0].stat().st_size > 10_000
    assert [path.name for path in (tmp_path / "one").iterdir() if path.name not in {f"{name}.png", f"{name}.svg"}] == []


def test_drawing_leaves_no_settings_behind(evidence: Evidence, tmp_path) -> None:
    """Matplotlib's settings are the caller's again, and no setting is misspelt."""
    before = dict(mpl.rcParams)
    save_figure(FIGURES["plot3_loss_by_condition"](evidence), tmp_path, "plot3")
    assert dict(mpl.rcParams) == before
    assert set(RC) <= set(mpl.rcParams)


def test_a_caption_holds_the_numbers_of_its_figure(evidence: Evidence) -> None:
    """The paired loss difference, as the claims' own statistics find it, is in the caption of plot 3."""
    wide = evidence.alignments.pivot_table(index="example", columns="condition", values="loss")
    effect = paired_effect(wide["inoculation"], wide["neutral"], "loss", "examples")
    words = f"inoculation {effect.estimate:.3f} ({effect.low:.3f} to {effect.high:.3f}, n = 24 examples)"
    assert words in caption("plot3_loss_by_condition", evidence)


def test_figures_show_the_numbers_that_decide(evidence: Evidence) -> None:
    """Contrasts, null effects, early alignment and drift are those from which the claims are judged."""
    means = per_example(evidence)
    drawn = contrasts(evidence)
    assert np.allclose(drawn["neutral"], means["neutral"] - means["inoculation"])
    nulls = null_effects(evidence).groupby("null")["loss_matched"]
    for kind in NULLS:
        assert np.allclose(nulls.get_group(kind), null_contrasts(evidence, kind, "loss_matched"))
    early, drift = early_alignment(evidence, 0.2), drift_by_run(evidence, "log_odds")
    for condition, seed, x, y in early_and_drift(evidence, "log_odds")[
        ["condition", "seed", "early", "shift"]
    ].to_numpy():
        assert (x, y) == pytest.approx((early.loc[seed, condition], drift.loc[seed, condition]))


def test_the_fitted_line_and_its_interval_are_least_squares() -> None:
    """Against NumPy's polynomial fit, and its interval is narrowest at the mean of x."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=12)
    y = 2 * x + rng.normal(size=12)
    line = fit_line(x, y)
    assert line is not None
    assert np.allclose(line.y, np.polyval(np.polyfit(x, y, 1), line.x))
    assert abs(line.x[np.argmin(line.high - line.low)] - x.mean()) < np.ptp(x) / 50
    assert correlation(x, y)[0] == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert fit_line([1, 1, 1], [1, 2, 3]) is None


def test_a_mean_of_one_value_has_no_interval() -> None:
    """One seed says where, not how surely."""
    mean = mean_interval([0.5, float("nan")])
    assert (mean.estimate, mean.n) == (0.5, 1)
    assert np.isnan(mean.low)


def test_names_beside_lines_do_not_overlap() -> None:
    """Labels that would coincide move apart by the gap asked for, and keep their order."""
    placed = spread([0.1, 0.12, 0.11, 0.9], 0.1)
    assert all(high - low >= 0.1 - 1e-12 for low, high in pairwise(sorted(placed)))
    assert np.argsort(placed).tolist() == [0, 2, 1, 3]
    placed = spread([0.0, 0.0, 0.0], [0.1, 0.3, 0.1])  # a label of three lines between labels of one
    assert np.diff(placed) == pytest.approx([0.2, 0.2])


def named(axes: Axes, row: int) -> str:
    """What stands to the right of a panel on a row."""
    return next(
        text.get_text() for text in axes.texts if text.get_position()[1] == row and "not" not in text.get_text()
    )


def diamonds(axes: Axes, marker: str) -> np.ndarray:
    """Every point drawn by itself with this marker, as x and y."""
    single = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == marker and len(line.get_xdata()) == 1]
    return np.array(single)


@pytest.mark.parametrize("templates", [0, 6])
def test_each_null_has_its_place_and_its_p(templates: int) -> None:
    """T(v), the p of random directions and of unrelated traits, and each such trait's T(u) are the claim's own."""
    study = world(templates=templates)
    panels = FIGURES["plot4_trait_against_random"](study).axes
    for axes, other in zip(panels, ("neutral", "loss_matched"), strict=True):
        observed = float((per_example(study)[other] - per_example(study)["inoculation"]).mean())
        assert diamonds(axes, "D") == pytest.approx(np.array([(observed, row) for row in range(4)]))
        expected = [null_p(observed, null_contrasts(study, kind, other)) for kind in NULLS]
        assert [named(axes, row) for row in range(3)] == [shown_p(p) for p in expected]
        assert named(axes, 3) == shown_p(unrelated_tail(study, other).p)
        traits = unrelated_contrasts(study, other).mean()
        order = [label.get_text().replace(" ", "_") for label in panels[0].get_yticklabels()[4:]]
        assert sorted(order) == sorted(traits.index)
        assert diamonds(axes, "o")[:, 0] == pytest.approx(traits[order].to_numpy())


def test_the_p_of_unrelated_traits_is_the_largest_of_paired_t_tests() -> None:
    """Over traits and both signs, one-sided, by example, as SciPy finds it."""
    study = world("loss_mediated")
    means = per_example(study)
    for places in null_places(study):
        trait = means[places.other] - means["inoculation"]
        other = unrelated_contrasts(study, places.other)
        tails = [
            stats.ttest_1samp(trait - sign * other[name], 0, alternative="greater").pvalue
            for name in other
            for sign in (1, -1)
        ]
        assert places.p[UNRELATED] == pytest.approx(max(tails))
        assert 0.01 < places.p[UNRELATED] < 1


def test_the_pool_is_sorted_by_loss_and_its_choice_ringed() -> None:
    """Gaps to inoculation's mean loss on the calibration questions, paired intervals, one ring."""
    study = world()
    axes = FIGURES["plot10_prompt_pool"](study).axes[0]
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


def test_a_condition_without_a_prompt_of_its_own_is_the_chosen_one() -> None:
    """The condition whose prompt is to be chosen has no row in the pool: the chosen candidate bears its name."""
    study = world(further=True)
    pool = study.pool[study.pool["role"] != "loss_measured"]
    rows = pool_losses(replace(study, pool=pool))
    assert rows.loc[rows["chosen"], "role"].tolist() == ["loss_measured"]
    texts = [text.get_text() for text in FIGURES["plot10_prompt_pool"](replace(study, pool=pool)).axes[0].texts]
    assert "loss measured\n(chosen)" in texts
    assert "chosen" in [text.get_text() for text in FIGURES["plot10_prompt_pool"](world()).axes[0].texts]


def test_loss_densities_are_densities_and_their_overlap_the_audit_s(evidence: Evidence) -> None:
    """A curve a condition, each of area 1; the overlap coefficient and the common range as the claim has them."""
    axes = FIGURES["plot11_loss_overlap"](evidence).axes[0]
    curves = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert [np.trapezoid(line.get_ydata(), line.get_xdata()) for line in curves] == pytest.approx([1, 1, 1], abs=0.01)
    losses = per_example(evidence, "loss")
    assert f"overlap {overlap(losses['neutral'], losses['inoculation']):.2f}," in axes.get_title(loc="left")
    pairs = paired_with_loss(evidence, "neutral")
    shaded = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (shaded.x0, shaded.x1) == pytest.approx((pairs.loss[pairs.common].min(), pairs.loss[pairs.common].max()))


@pytest.mark.parametrize("templates", [0, 6])
def test_effects_at_equal_loss_are_those_that_decide(templates: int) -> None:
    """Every row of the forest, with its interval, is an effect of C3; the two lines are the ANCOVA's."""
    study, rules = world(further=True, templates=templates), Rules()
    raw, adjusted = adjusted_contrasts(paired_with_loss(study, "neutral"), rules)
    expected = [raw, *adjusted, *matched_controls(study, rules)]
    expected.append(matched_checkpoints(study, rules)[0])
    controls = control_contrasts(study)
    found = [*at_equal_loss(study, rules).values(), controls["loss_measured"][0], checkpoint_contrast(study)[0]]
    for mean, effect in zip(found, expected, strict=True):
        assert tuple(mean) == pytest.approx((effect.estimate, effect.low, effect.high, effect.n)), effect.name
    axes = FIGURES["plot12_alignment_at_equal_loss"](study).axes
    rows = [*found[:4], controls["loss_matched"][0], *found[4:]]
    assert [text.get_text() for text in axes[1].texts] == [signed(mean.estimate) for mean in rows]
    assert diamonds(axes[1], "o")[:4, 0] == pytest.approx([effect.estimate for effect in (raw, *adjusted)])
    heights = ancova_lines(pairs_with_loss(study))[1]
    assert heights[0] - heights[1] == pytest.approx([adjusted[0].estimate] * 2)
    thick = [line.get_xydata() for line in axes[0].lines if len(line.get_xdata()) == 2]
    assert np.array(thick)[:, :, 1] == pytest.approx(heights)
    hollow = sum(len(part.get_offsets()) for part in axes[0].collections if not len(part.get_facecolor()))
    assert hollow == (~paired_with_loss(study, "neutral").common).sum()


def test_loss_gaps_are_the_audit_s(evidence: Evidence) -> None:
    """The control's share of neutral's distance, and the share that the matched checkpoints leave."""
    shares = loss_gaps(paired_losses(evidence).mean())
    assert shares["loss_matched"] == pytest.approx(loss_audit(evidence, Rules())[0].estimate)
    left = matched_checkpoints(evidence, Rules())[-1]
    losses = per_example(evidence, "loss").mean()
    share = abs(left.estimate) / (losses["neutral"] - losses["inoculation"])
    assert checkpoint_contrast(evidence)[1] == pytest.approx(share)
    labels = [
        label.get_text() for label in FIGURES["plot12_alignment_at_equal_loss"](evidence).axes[1].get_yticklabels()
    ]
    assert labels[-1] == f"{CHECKPOINT}\n(loss gap {100 * share:.0f} %)"


def test_a_control_whose_loss_differs_is_hollow(evidence: Evidence) -> None:
    """Full only what was adjusted for loss, or has inoculation's within the rules."""
    for bar in (0.0, 1.0):
        axes = draw("plot12_alignment_at_equal_loss", evidence, Rules(loss_match=bar)).axes[1]
        faces = [line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"]
        assert [face == "white" for face in faces] == [True, False, False, False, bar == 0, bar == 0]


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_the_difference_in_training_is_paired_by_seed_and_step(seeds: int) -> None:
    """Thin lines are the paired differences by seed, the thick one their mean, shaded its t interval over seeds."""
    study = world(seeds=seeds)
    steps = per_step(study)
    axes = FIGURES["plot13_training_difference"](study).axes[0]
    by_colour: dict[str, list[np.ndarray]] = {}
    for line in axes.lines:
        by_colour.setdefault(line.get_color(), []).append(line.get_ydata())
    areas = {to_rgba(part.get_facecolor()[0])[:3]: part for part in axes.collections}
    assert len(areas) == (2 if seeds > 2 else 0)
    for other in ("neutral", "loss_matched"):
        wide = (steps[other] - steps["inoculation"]).unstack("seed")  # noqa: PD010 - a series has no pivot_table
        colour = look(other, study.conditions).colour
        *thin, thick = by_colour[colour]
        assert np.array(thin) == pytest.approx(wide.to_numpy().T)
        assert thick == pytest.approx(wide.mean(axis=1).to_numpy())
        if seeds > 2:
            half = stats.t.ppf(0.975, seeds - 1) * wide.std(axis=1, ddof=1) / np.sqrt(seeds)
            heights = areas[to_rgba(colour)[:3]].get_paths()[0].vertices[:, 1]
            assert heights.max() == pytest.approx((wide.mean(axis=1) + half).max())
            assert heights.min() == pytest.approx((wide.mean(axis=1) - half).min())
    difference = steps["neutral"] - steps["inoculation"]
    pooled = clustered_mean(difference, difference.index.get_level_values("seed"), "", "seeds")
    assert f"neutral: {pooled.estimate:.3f}" in caption("plot13_training_difference", study)


def test_many_steps_are_averaged_over_equal_stretches() -> None:
    """A thousand steps would be a hairbrush: at most 25 points a line."""
    study = simulate("effect", np.random.default_rng(2), examples=8, layers=2, seeds=2, steps=60, directions=100)
    points = training_differences(study)
    steps = per_step(study)
    difference = (steps["neutral"] - steps["inoculation"]).loc[1]
    assert len(points.loc[1]) == 20
    assert points.loc[1, "neutral"].iloc[4] == pytest.approx(difference.iloc[12:15].mean())


def test_drift_over_training_starts_at_the_base_model() -> None:
    """A point a run and phase: the base model's mean plus the drift that C4 rests on, early and after training."""
    study = world(seeds=2)
    panels = FIGURES["plot14_drift_over_training"](study).axes
    for axes, measure in zip(panels, ("score", "log_odds"), strict=True):
        rows = study.drift[(study.drift["measure"] == measure) & (study.drift["condition"] == "base")]
        base = rows["value"].mean()
        for condition, part in zip(study.conditions, axes.collections, strict=True):
            values = [base + drift_by_run(study, measure, phase)[condition] for phase in (EARLY, "post")]
            assert np.sort(np.asarray(part.get_offsets())[:, 1]) == pytest.approx(np.sort(np.concatenate(values)))
        starts = [line.get_ydata()[0] for line in axes.lines]
        assert starts == pytest.approx([base] * 3)


@pytest.mark.parametrize("name", [name for name in FIGURES if name.partition("_")[0] in TRAINED])
def test_figures_of_runs_leave_out_what_was_not_trained(name: str) -> None:
    """A fourth condition, measured on the frozen model alone, is no empty row and no missing line."""
    study = world(further=True)
    assert study.untrained == ("loss_measured",)
    figure = FIGURES[name](study)
    assert not unlike(figure, FIGURES[name](replace(study, conditions=study.trained, untrained=())))
    texts = [text.get_text() for axes in figure.axes for text in (*axes.texts, *axes.get_yticklabels())]
    assert not any("measured" in text for text in texts)
    assert "loss measured" not in caption(name, study)
    assert "not measured" not in caption(name, study)


@pytest.mark.parametrize("name", [name for name in FIGURES if name.partition("_")[0] in ("plot5", "plot6", "plot8")])
def test_what_was_measured_early_is_no_drift(name: str, evidence: Evidence) -> None:
    """Shifts and responses are of before and after training; the early phase has a figure of its own."""
    assert (evidence.responses["phase"] == EARLY).any()
    assert not unlike(FIGURES[name](evidence), FIGURES[name](without_early(evidence)))
    assert caption(name, evidence) == caption(name, without_early(evidence))


def test_a_figure_goes_by_the_rules_of_its_study(evidence: Evidence) -> None:
    """The early fraction of plot 7 is the study's, in the picture and in the caption."""
    name, rules = "plot7_alignment_against_drift", Rules(early_fraction=0.5)
    early = early_alignment(evidence, 0.5)
    drawn = [line.get_xdata()[0] for line in draw(name, evidence, rules).axes[0].lines if len(line.get_xdata()) == 1]
    assert sorted(drawn) == pytest.approx(sorted(early.to_numpy().ravel()))
    assert "first 50 % of steps" in caption(name, evidence, rules)
    assert unlike(draw(name, evidence), draw(name, evidence, rules))


def test_missing_tables_are_named(evidence: Evidence) -> None:
    """Nulls, pool and phases that a study does not have are said to be missing where they would stand."""
    study = without(evidence)
    for axes in FIGURES["plot4_trait_against_random"](study).axes:
        assert sum(text.get_text() == "not\nmeasured" for text in axes.texts) == 3
    assert caption("plot10_prompt_pool", study) == "Not measured in this study."
    assert CHECKPOINT not in caption("plot12_alignment_at_equal_loss", study)
    ticks = [label.get_text() for label in FIGURES["plot14_drift_over_training"](study).axes[1].get_xticklabels()]
    assert ticks == ["before", "early\n(not measured)", "after"]


def test_long_names_take_at_most_three_lines() -> None:
    """Beside a line, and in a row: a name never pushes its neighbour out of the figure."""
    lines = wrapped("a_condition_whose_name_tells_the_whole_story_of_its_prompt").split("\n")
    assert len(lines) == 3
    assert max(map(len, lines)) <= 14
    assert lines[-1].endswith("…")
    assert wrapped("loss_matched") == "loss matched"
