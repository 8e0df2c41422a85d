"""Figures show the numbers that decide, prompts as points, families alike everywhere, and survive poor data."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fixtures.diverged import diverged
from gradinoc.claims.c1 import family_contrast
from gradinoc.claims.c2 import C2
from gradinoc.claims.c3 import C3
from gradinoc.claims.c4 import C4, by_prompt, elicitation
from gradinoc.claims.evidence.measures import (
    drift_by_question,
    drift_families,
    in_window,
    matrix,
    matrix_by_question,
    null_table,
    per_example,
    question_groups,
)
from gradinoc.claims.evidence.tables import COLUMNS, DECISION, EXPECTED, PROJECTION, SCORED, TRAIT_DRAW, Evidence
from gradinoc.claims.gates.direction import G8A
from gradinoc.claims.rules.specification import DECLARED, curve_of
from gradinoc.claims.rules.verdict import RULES_OF
from gradinoc.power.scenarios import SCENARIOS
from gradinoc.power.simulate import simulate
from gradinoc.report.figures import FIGURES
from gradinoc.report.figures.alignment.at_equal_loss import ROWS
from gradinoc.report.figures.alignment.trait_against_others import LABELS, shown_p
from gradinoc.report.figures.prompts.families import by_families, in_order, look
from gradinoc.report.figures.study_figure import Drawn
from gradinoc.report.figures.style import LOOKS, WIDE, save_figure, signed, spread
from gradinoc.report.page import OWN_SECTIONS
from gradinoc.report.wording import NOT_MEASURED, number
from gradinoc.stats.clustered import grouped_pairs
from gradinoc.stats.families import contrast
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules

SIZES = {
    "inoculating": 5, "harmless": 5, "opposite": 2, "trained": (3, 3, 1), "layers": 3, "steps": 9, "directions": 100,
    "examples": 24, "shared": 16, "elicitation": 24, "behaviour": 24, "steering": 16, "evaluation": 16,
}  # fmt: skip
MANY = {"inoculating": 10, "harmless": 10, "opposite": 4, "trained": (10, 10, 4)}
CORE = {"inoculating": 1, "harmless": 1, "opposite": 0, "trained": (1, 1, 0), "rephrased": False}
BESIDE = ("training_nulls", "cells", "matrix", "steering", "steering_losses", "checkpoints", "unrelated")
RULES = Rules()


@cache
def world(name: str = "effect", seed: int = 7, **sizes) -> Evidence:
    """A small simulated study."""
    return simulate(SCENARIOS[name], np.random.default_rng(seed), **{**SIZES, **sizes})


def drawn(name: str, evidence: Evidence, rules: Rules = RULES) -> Drawn:
    """The figure whose name ends so."""
    (found,) = (figure for key, figure in FIGURES.items() if key.partition("_")[2] == name)
    return found.draw(evidence, rules)


def panels(name: str, evidence: Evidence) -> list[Axes]:
    """Its panels."""
    return drawn(name, evidence).figure.axes


def degenerate(evidence: Evidence) -> Evidence:
    """Scores all equal, a band of one layer, random directions that do not vary, losses all equal."""
    drift = evidence.drift.copy()
    drift.loc[drift["measure"].isin(SCORED), "value"] = 1.0
    return replace(
        evidence,
        layers=evidence.layers.assign(in_band=evidence.layers["layer"] == 2),
        drift=drift,
        nulls=evidence.nulls.assign(alignment=0.0),
        responses=evidence.responses.assign(score=1.0),
        alignments=evidence.alignments.assign(loss=2.0),
        losses=evidence.losses.assign(trait_loss=2.0, ordinary_loss=2.0),
        elicitation=evidence.elicitation.assign(log_odds=-3.0),
    )


def emptied(evidence: Evidence, *tables: str) -> Evidence:
    """The study without the rows of some tables."""
    return replace(evidence, **{name: getattr(evidence, name).iloc[:0] for name in tables})


def blank(evidence: Evidence) -> Evidence:
    """The study with every measured number NaN."""
    tables = {name: table for name, table in evidence.tables.items() if name != "prompts"}
    nothing = {name: dict.fromkeys(table.select_dtypes("float").columns, np.nan) for name, table in tables.items()}
    return replace(evidence, **{name: table.assign(**nothing[name]) for name, table in tables.items()})


def with_holes(evidence: Evidence) -> Evidence:
    """The study with a response, sampled or greedy, that could not be scored."""
    drift, responses = evidence.drift.copy(), evidence.responses.copy()
    for measure in SCORED:
        drift.loc[drift.index[drift["measure"] == measure][-1], "value"] = np.nan
    responses.loc[responses.index[-1], "score"] = np.nan
    return replace(evidence, drift=drift, responses=responses)


def of_ones_own(evidence: Evidence) -> Evidence:
    """The study with one prompt of no family and with a long name, and a trait that is not ALL CAPS."""
    name = "a_long_name_of_a_prompt_of_ones_own_xxx"
    tables = {}
    for key, table in evidence.tables.items():
        prompts = [each for each in ("condition", "evaluation") if each in table]
        tables[key] = table.assign(**{each: table[each].astype(str).replace("anti_00", name) for each in prompts})
    rows = tables["prompts"]
    tables["prompts"] = rows.assign(family=rows["family"].where(rows["condition"] != name, str(Family.OTHER)))
    planned = tuple((condition.replace("anti_00", name), seed) for condition, seed in evidence.planned_runs)
    trait = replace(evidence.trait, name="pirate_speech", score_name="pirate rate")
    return replace(evidence, **tables, planned_runs=planned, trait=trait)


POOR = {
    "three prompts, one seed": lambda: world(**CORE, seeds=1, beside=False),
    "ten seeds": lambda: world(**CORE, seeds=10),
    "24 trained prompts": lambda: world(**MANY),
    "a prompt of one's own": lambda: of_ones_own(world()),
    "without what version 1 had not": lambda: emptied(world(), *BESIDE),
    "responses that could not be scored": lambda: with_holes(world()),
    "a run that diverged": lambda: diverged(world(), "inoculation", 0),
    "nothing varies": lambda: degenerate(world("ceiling", seeds=2)),
    "nothing measured": lambda: emptied(world(), *(name for name in COLUMNS if name != "prompts")),
    "all missing": lambda: blank(world()),
}


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """One study in which inoculation works."""
    return world()


def fingerprint(figure: Figure) -> tuple[np.ndarray, ...]:
    """Every point, line and outline drawn, in order."""
    shapes = []
    for axes in figure.axes:
        shapes += [line.get_xydata() for line in axes.lines]
        shapes += [np.asarray(part.get_offsets()) for part in axes.collections]
        shapes += [path.vertices for part in axes.collections for path in part.get_paths()]
        shapes += [np.ma.filled(part.get_array(), 0) for part in axes.collections if isinstance(part, QuadMesh)]
        shapes += [patch.get_path().vertices for patch in axes.patches]
    return tuple(np.asarray(part, dtype=float) for part in shapes)


def unlike(one: Figure, other: Figure) -> bool:
    """Whether two figures draw different things."""
    first, second = fingerprint(one), fingerprint(other)
    return len(first) != len(second) or any(
        a.shape != b.shape or not np.allclose(a, b, equal_nan=True) for a, b in zip(first, second, strict=True)
    )


def points(axes: Axes) -> dict[str, tuple[float, float]]:
    """Prompt -> its point, of a panel with a point a prompt."""
    named = {
        line.get_label().removeprefix("_"): line.get_xydata()[0] for line in axes.lines if len(line.get_xdata()) == 1
    }
    return {name: (float(x), float(y)) for name, (x, y) in named.items() if not name.startswith("child")}


def single(axes: Axes, marker: str) -> np.ndarray:
    """Every point drawn by itself with this marker, as x and y."""
    own = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == marker and len(line.get_xdata()) == 1]
    return np.array(own)


def of_colour(axes: Axes, family: Family, least: float) -> list[np.ndarray]:
    """The lines of a family that are at least so thick, as y."""
    lines = [line for line in axes.lines if to_rgba(line.get_color()) == to_rgba(LOOKS[family].colour)]
    lines = [line for line in lines if line.get_linewidth() >= least and len(line.get_xdata()) > 1]
    return [np.asarray(line.get_ydata()) for line in lines]


# --- every figure


def test_figures_have_their_names_and_a_place() -> None:
    """The plan's seven keep their numbers; each figure stands in a section of the page, and belongs to findings."""
    plan = {
        "plot1_projection_distributions", "plot2_alignment_by_layer", "plot3_loss_by_condition",
        "plot4_trait_against_random", "plot5_projection_shift", "plot6_score_shift", "plot7_alignment_against_drift",
    }  # fmt: skip
    assert set(FIGURES) > plan
    assert all(figure.shows[0] in {*RULES_OF, *OWN_SECTIONS} for figure in FIGURES.values())
    assert all({*figure.shows[1:]} <= set(RULES_OF) for figure in FIGURES.values())
    shown = {key for figure in FIGURES.values() for key in figure.shows}
    assert {"C1", "C2", "C3", "C4", "C6", "G1", "G5", "G8a", "G8b", "G8c", "G10", "C7a", "C7b", "C7c"} <= shown


@pytest.mark.parametrize("name", FIGURES)
def test_axis_says_what_it_measures(name: str, evidence: Evidence) -> None:
    """Each figure has a title; a numeric axis has a label, with its unit in brackets where it has one."""
    figure = FIGURES[name].draw(evidence, RULES).figure
    assert figure.get_suptitle()
    labels = [label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel()) if label]
    assert any("(" in label for label in labels), f"no unit in {labels}"
    for axes in figure.axes:
        shares = not axes.xaxis.get_tick_params()["labelbottom"] and not axes.xaxis.get_tick_params()["labeltop"]
        assert shares or axes.get_xlabel() or axes.get_ylabel(), "a panel without a label"


@pytest.mark.parametrize("name", FIGURES)
def test_figure_follows_the_data(name: str, evidence: Evidence) -> None:
    """Other data, another picture; the same data, the same picture."""
    draw, other = FIGURES[name].draw, world("no_effect", seed=8)
    assert unlike(draw(evidence, RULES).figure, draw(other, RULES).figure)
    assert not unlike(draw(evidence, RULES).figure, draw(evidence, RULES).figure)


@pytest.mark.parametrize("study", POOR)
def test_poor_data_are_drawn_without_a_warning(study: str, tmp_path) -> None:
    """Warnings are errors here: every figure is drawn and told, whatever is constant, missing or many."""
    made = POOR[study]()
    for name, figure in FIGURES.items():
        found = figure.draw(made, RULES)
        found.figure.savefig(tmp_path / "figure.png", dpi=40)
        said = found.caption + found.finding
        assert "nan" not in said.lower()
        assert "not measured to" not in said
        texts = [text.get_text() for axes in found.figure.axes for text in axes.texts]
        if study in ("nothing measured", "all missing"):
            assert any("not measured" in text for text in texts), f"{name}: an empty panel that does not say why"


def test_findings_without_data_say_so() -> None:
    """All in the same words, without a number."""
    made = POOR["nothing measured"]()
    told = [figure.draw(made, RULES) for figure in FIGURES.values()]
    assert {found.finding for found in told} == {found.caption for found in told} == {NOT_MEASURED}
    assert all(found.table.empty for found in told)


def test_same_data_give_the_same_svg(evidence: Evidence, tmp_path) -> None:
    """Byte for byte, so that a changed file means a changed result; nothing else is left in the folder."""
    name = "plot7_alignment_against_drift"  # the names of its points have places of their own
    files = [
        save_figure(FIGURES[name].draw(evidence, RULES).figure, tmp_path / folder, "plot") for folder in ("one", "two")
    ]
    assert files[0][1].read_bytes() == files[1][1].read_bytes()
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"plot.png", "plot.svg"}


def test_what_another_family_does_is_in_no_family_s_mean(evidence: Evidence) -> None:
    """Rephrased and opposite prompts are drawn, and leave every mean of inoculating and harmless ones alone."""
    rows = evidence.drift["condition"].isin(["rephrased_harmless", "rephrased_inoculation", "anti_00"])
    other = replace(evidence, drift=evidence.drift.assign(value=evidence.drift["value"] + 5.0 * rows))
    before, after = (drawn("score_shift", study).figure.axes[0] for study in (evidence, other))
    means = [[part.get_paths()[0].get_extents().intervalx for part in axes.collections] for axes in (before, after)]
    assert np.allclose(means[0], means[1])
    assert after.get_xlim()[1] > before.get_xlim()[1] + 2


# --- single figures: planted numbers appear where they should


def test_matrix_holds_the_drift_of_every_cell(evidence: Evidence) -> None:
    """A column the prompt of training, a row that of evaluation; a planted drift appears in its cell alone."""
    rows = evidence.matrix
    here = (rows["condition"] == "harmless_02") & (rows["evaluation"] == "unseen_1")
    planted = replace(evidence, matrix=rows.assign(log_odds=rows["log_odds"] + 7.0 * here))
    before, after = (mesh(panels("matrix", study)[0]) for study in (evidence, planted))
    changed = np.argwhere(~np.isclose(after - before, 0))
    names = _named(panels("matrix", evidence)[0])
    assert [(names[1][row], names[0][column]) for row, column in changed] == [("unseen 1", "harmless 02")]
    assert (after - before).max() == pytest.approx(7.0)
    found = matrix(evidence)
    for row, evaluation in enumerate(names[1]):
        for column, trained in enumerate(names[0]):
            expected = found.loc[trained.replace(" ", "_"), evaluation.replace(" ", "_")]
            assert before[row, column] == pytest.approx(expected)


def mesh(axes: Axes) -> np.ndarray:
    """The cells' numbers, without the gap's row."""
    (cells,) = (part for part in axes.collections if isinstance(part, QuadMesh))
    values = np.ma.filled(cells.get_array(), np.nan)
    return values[~np.isnan(values).all(axis=1)]


def _named(axes: Axes) -> tuple[list[str], list[str]]:
    """Names of columns and of rows."""
    return [tick.get_text() for tick in axes.get_xticklabels()], [tick.get_text() for tick in axes.get_yticklabels()]


def test_matrix_frames_own_prompts_and_sets_evaluation_apart(evidence: Evidence) -> None:
    """One frame a trained prompt, where row and column are the same; prompts for evaluation alone below a gap."""
    axes = panels("matrix", evidence)[0]
    columns, rows = _named(axes)
    heights = dict(zip(rows, axes.get_yticks(), strict=True))
    frames = [patch.get_xy() for patch in axes.patches if isinstance(patch, Rectangle)]
    own = [name for name in columns if name in rows]  # the simulated rephrased prompts are no evaluation prompts
    expected = [(columns.index(name) - 0.47, heights[name] - 0.47) for name in own]
    assert sorted(map(tuple, np.round(frames, 6))) == sorted(map(tuple, np.round(expected, 6)))
    assert len(own) == len(evidence.trained) - 2
    alone = [height for name, height in heights.items() if name.startswith("unseen")]
    assert min(alone) > 1.5 + max(height for name, height in heights.items() if name in own) - 0.01


@pytest.mark.parametrize(("trained", "intervals"), [((1, 1, 0), True), ((6, 6, 1), True), ((10, 10, 4), False)])
def test_every_cell_of_the_matrix_has_its_number(trained: tuple[int, int, int], intervals: bool) -> None:
    """At page width, with 27 trained prompts too; the interval stands below where it fits, and in the table."""
    found = drawn("matrix", world(**{**MANY, "trained": trained}))
    axes, table = found.figure.axes[0], found.table
    assert found.figure.get_figwidth() <= WIDE
    texts = [text.get_text() for text in axes.texts]
    assert sum(not text.startswith("±") for text in texts) >= len(table)
    assert sum(text.startswith("±") for text in texts) == intervals * len(table)
    assert table[["low", "high"]].notna().all(axis=None)
    own = table[table["own_prompt"]]
    assert own["trained"].tolist() == own["evaluation"].tolist()


@pytest.mark.parametrize("name", ["effect", "any_prompt", "wrong_sign"])
def test_numbers_of_cells_can_be_read_on_their_colours(name: str) -> None:
    """Contrast at least 4.5 to 1 on every shade, black ink or white."""
    axes = drawn("matrix", world(name)).figure.axes[0]
    (cells,) = (part for part in axes.collections if isinstance(part, QuadMesh))
    cells.update_scalarmappable()
    shades = cells.get_facecolors().reshape(*cells.get_array().shape, 4)
    heights = cells.get_coordinates()[:, 0, 1]
    read = 0
    for text in axes.texts:
        x, y = text.get_position()
        if text.get_style() == "italic":  # the name of the rows below the gap, on white
            continue
        row = int(np.searchsorted(heights, y)) - 1
        one, other = (
            _linear(colour) @ [0.2126, 0.7152, 0.0722] + 0.05 for colour in (shades[row, int(x)], text.get_color())
        )
        assert max(one, other) / min(one, other) >= 4.5, (name, x, y)
        read += 1
    assert read >= cells.get_array().count()


def test_interval_of_a_cell_is_of_questions(evidence: Evidence) -> None:
    """Over the mean of a prompt's seeds, so that seeds are no further questions."""
    table = drawn("matrix", evidence).table.set_index(["trained", "evaluation"])
    runs = matrix_by_question(evidence, "harmless_01")[NEUTRAL]
    cell = table.loc[(NEUTRAL, "harmless_01")]
    assert runs.shape[1] == 3
    assert (cell["estimate"], cell["n"]) == (pytest.approx(runs.to_numpy().mean()), len(runs))


def test_prompts_are_points_at_their_elicitation_alignment_and_drift(evidence: Evidence) -> None:
    """Alignment of every measured prompt, drift of every trained one, both over C4's elicitation; and the table."""
    upper, lower = panels("prompts", evidence)
    x = {name: effect.estimate for name, effect in elicitation(evidence).items()}
    alignment = per_example(evidence).mean()
    drift = drift_by_question(evidence, EXPECTED).mean().groupby(level="condition").mean()
    for axes, y, names in (
        (upper, alignment, evidence.conditions),
        (lower, drift, [name for name in evidence.conditions if name in evidence.trained]),
    ):
        found = points(axes)
        assert set(found) == set(names)
        assert all(found[name] == pytest.approx((x[name], y[name])) for name in names)
    table = drawn("prompts", evidence).table.set_index("condition")
    assert table["drift"].isna().tolist() == [name not in evidence.trained for name in table.index]
    assert table["alignment"].to_dict() == pytest.approx(alignment.to_dict())


@pytest.mark.parametrize("name", ["prompts", "alignment_against_drift", "alignment_at_equal_loss"])
def test_no_name_covers_a_point_or_another_name(name: str, evidence: Evidence) -> None:
    """Few points are named, the plan's own first, and each name can be read."""
    figure = drawn(name, evidence).figure
    figure.draw_without_rendering()
    for axes in figure.axes:
        named = [text for text in axes.texts if text.get_fontsize() == 12 and "\n" not in text.get_text()]
        named = [text for text in named if text.get_text() != "reached by both" and len(points(axes))]
        boxes = [text.get_window_extent() for text in named if hasattr(text, "xy")]
        boxes = [super(type(text), text).get_window_extent() for text in named if hasattr(text, "xy")]
        places = [axes.transData.transform(point) for point in points(axes).values()]
        assert len(boxes) <= 6
        assert not any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[:i])
        assert not any(box.contains(*place) for box in boxes for place in places)


def test_early_alignment_against_drift_is_c4_s(evidence: Evidence) -> None:
    """A point a prompt at C4's numbers, neutral not among them; the line has the raw slope, through the means."""
    axes, prompts = panels("alignment_against_drift", evidence)[0], by_prompt(evidence)
    found = {name: point for name, point in points(axes).items() if name in prompts.index}
    assert set(found) == set(prompts.index)
    assert all(found[name] == pytest.approx((row["alignment"], row[EXPECTED])) for name, row in prompts.iterrows())
    assert NEUTRAL not in prompts.index
    raw = C4.measure(evidence, RULES)["slope.raw"].estimate
    (line,) = (line.get_xydata() for line in axes.lines if line.get_linewidth() == 2 and len(line.get_xdata()) == 2)
    assert (line[1, 1] - line[0, 1]) / (line[1, 0] - line[0, 0]) == pytest.approx(raw)
    middle = prompts["alignment"].mean()
    assert np.interp(middle, *line.T) == pytest.approx(prompts[EXPECTED].mean())
    hollow = {
        tuple(line.get_xydata()[i])
        for line in axes.lines
        for i in range(len(line.get_xdata()))
        if line.get_markerfacecolor() == "white"
    }
    runs = zip(in_window(evidence)[NEUTRAL], drift_by_question(evidence, EXPECTED)[NEUTRAL].mean(), strict=True)
    assert {tuple(map(float, run)) for run in runs} <= {tuple(map(float, point)) for point in hollow}
    slope = C4.measure(evidence, RULES)["slope"]
    assert number(slope.estimate) in drawn("alignment_against_drift", evidence).caption


def test_dose_curves_run_from_the_base_model_to_the_drift_that_decides(evidence: Evidence) -> None:
    """Zero at step 0, then the kept checkpoints, then drift; a thick line is the mean of a family's prompts."""
    axes = panels("dose_curves", evidence)[0]
    after = drift_by_question(evidence, DECISION).mean().groupby(level="condition").mean()
    steps = [0, *sorted(evidence.checkpoints["step"].unique()), int(evidence.runs["steps"].max())]
    for family, own in (
        (Family.INOCULATION, evidence.family(Family.INOCULATION, evidence.trained)),
        (Family.HARMLESS, evidence.family(Family.HARMLESS, evidence.trained)),
    ):
        (thick,) = of_colour(axes, family, 2.9)
        assert len(thick) == len(dict.fromkeys(steps))
        assert (thick[0], thick[-1]) == (0.0, pytest.approx(after[list(own)].mean()))
        thin = of_colour(axes, family, 0)
        assert len(thin) == len(own) + 2  # and the mean, and the rephrased prompt
    kept = evidence.checkpoints
    early = kept["step"] == kept["step"].min()
    planted = replace(evidence, checkpoints=kept.assign(log_odds=kept["log_odds"] + 2.0 * early))
    (before,), (moved,) = (
        of_colour(panels("dose_curves", study)[0], Family.HARMLESS, 2.9) for study in (evidence, planted)
    )
    assert moved - before == pytest.approx([2.0 * (place == 1) for place in range(len(before))])


def test_specification_curve_shows_what_decides_beside_the_cell_that_is_like_it(evidence: Evidence) -> None:
    """C1's mean over the band is a line of its own, since cells have thirds of the layers; the legend names both."""
    found = drawn("specification_curve", evidence)
    effect = family_contrast(evidence, RULES).estimate
    dashed = [line for line in found.figure.axes[0].lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == pytest.approx([effect])
    (legend,) = found.figure.legends
    names = {text.get_text() for text in legend.get_texts()}
    assert {"what decides: C1, mean over the band", "C1's choices, but the upper third of layers"} <= names
    assert f"Dashed: what decides, C1's mean over the band, {number(effect)}" in found.caption


def test_specification_curve_is_sorted_and_rings_the_declared_cell(evidence: Evidence) -> None:
    """A panel a measure with the share of each sign; every cell has one mark in each group of choices."""
    found, axes = curve_of(evidence), panels("specification_curve", evidence)
    cells = found.cells.reset_index(name="value")
    measures = cells.groupby("measure", sort=False).size()
    above, below = axes[: len(measures)], axes[len(measures) :]
    rings = [line.get_xydata()[0] for panel in above for line in panel.lines if line.get_markerfacecolor() == "none"]
    assert [ring[1] for ring in rings] == pytest.approx([found.curve.declared])
    count = 0
    for panel in above:
        dots = np.concatenate(
            [line.get_xydata() for line in panel.lines if line.get_linestyle() == "None" and line.get_markersize() < 5]
        )
        values = dots[np.argsort(dots[:, 0]), 1]
        assert (np.diff(values) >= 0).all()
        assert f"{100 * (values > 0).mean():.0f} % above zero" in panel.get_title(loc="left")
        count += len(values)
    assert count == len(cells)
    groups = len(found.cells.index.names) - 1
    marks = [
        sum(len(part.get_segments()) for part in panel.collections if isinstance(part, LineCollection))
        for panel in below
    ]
    assert sum(marks) == groups * len(cells)
    table = drawn("specification_curve", evidence).table
    assert table.loc[table["declared"], list(found.cells.index.names)].to_numpy().tolist() == [list(DECLARED)]


def test_steering_shows_v_among_the_directions_of_its_length(evidence: Evidence) -> None:
    """Means over questions, a line a direction; the loss is that of G8a, with its bar."""
    upper, lower = panels("steering", evidence)
    means = evidence.steering.groupby(["draw", "strength"])["log_odds"].mean()
    lines = [line.get_ydata() for line in upper.lines if line.get_linestyle() == "-"]
    drawn_ = sorted(tuple(np.round(line, 9)) for line in lines)
    assert drawn_ == sorted(tuple(np.round(means[draw], 9)) for draw in means.index.levels[0])
    v = [line for line in upper.lines if line.get_linewidth() == 3 and line.get_linestyle() == "-"]
    assert v[0].get_ydata() == pytest.approx(means[TRAIT_DRAW].to_numpy())
    measured = G8A.measure(evidence, RULES)
    rises = [line.get_ydata() for line in lower.lines if line.get_marker() == "o"]
    assert max(rises[0]) == pytest.approx(measured["loss"].estimate)
    assert any(
        (line.get_ydata() == np.array([RULES.either_loss] * 2)).all()
        for line in lower.lines
        if len(line.get_ydata()) == 2
    )
    assert number(measured["place"].p) in drawn("steering", evidence).caption


def test_trait_stands_among_other_directions_as_c2_has_it(evidence: Evidence) -> None:
    """T(v) and its interval are C1's, p and unrelated traits C2's; single prompts are told from the harmless mean."""
    axes, effect, measured = (
        panels("trait_against_random", evidence)[0],
        family_contrast(evidence, RULES),
        C2.measure(evidence, RULES),
    )
    assert any(np.allclose(line.get_xdata(), effect.estimate) for line in axes.lines)
    assert any(
        np.allclose(
            sorted({*patch.get_path().vertices[:, 0] * patch.get_width() + patch.get_x()}), [effect.low, effect.high]
        )
        for patch in axes.patches
    )
    keys = [*(f"null.{null}" for null in LABELS), "lead"]
    beside = {text.get_position()[1]: text.get_text() for text in axes.texts if text.get_position()[0] > 1}
    assert [beside[row] for row in range(1, len(keys) + 1)] == [shown_p(measured[key].p) for key in keys]
    traits = sorted(key for key in measured.effects if key.startswith("unrelated."))
    assert sorted(single(axes, "o")[:, 0]) == pytest.approx(sorted(measured[key].estimate for key in traits))
    alignment = per_example(evidence).mean()
    harmless = alignment[list(evidence.family(Family.HARMLESS, evidence.conditions))]
    own = alignment[list(evidence.family(Family.INOCULATION, evidence.conditions))]
    rows = {line.get_marker(): np.sort(line.get_xdata()) for line in axes.lines if line.get_marker() in "^s"}
    assert rows["^"] == pytest.approx(np.sort(harmless.mean() - harmless))
    assert rows["s"] == pytest.approx(np.sort(harmless.mean() - own))
    assert rows["s"].mean() == pytest.approx(effect.estimate)


def test_effects_at_equal_loss_are_those_that_decide() -> None:
    """Every row of the forest, with its interval, is an effect of C3; points are the prompts' loss and alignment."""
    evidence = world(inoculating=10, harmless=10)
    upper, lower = panels("alignment_at_equal_loss", evidence)
    measured = C3.measure(evidence, RULES)
    assert [text.get_text() for text in lower.texts] == [signed(measured[key].estimate) for key in ROWS]
    assert single(lower, "o")[:, 0] == pytest.approx([measured[key].estimate for key in ROWS])
    bars = [line.get_xdata() for line in lower.lines if line.get_linewidth() == 2.6]
    assert np.array(bars) == pytest.approx(np.array([(measured[key].low, measured[key].high) for key in ROWS]))
    full = [line.get_markerfacecolor() != "white" for line in lower.lines if line.get_marker() == "o"]
    assert [key for key, filled in zip(ROWS, full, strict=True) if filled] == ["prompts", "within"]  # at equal loss
    loss, alignment = per_example(evidence, "loss").mean(), per_example(evidence).mean()
    assert all(point == pytest.approx((loss[name], alignment[name])) for name, point in points(upper).items())


def test_loss_of_a_prompt_is_told_against_neutral_on_the_same_examples(evidence: Evidence) -> None:
    """A planted loss moves its prompt's row alone, in both panels of the loss; neutral is the reference."""
    rows = evidence.alignments
    planted = replace(evidence, alignments=rows.assign(loss=rows["loss"] + 0.5 * (rows["condition"] == "harmless_03")))
    tables = [drawn("loss_by_condition", study).table.set_index("condition") for study in (evidence, planted)]
    for column in ("loss_estimate", "difference_estimate"):
        moved = (tables[1][column] - tables[0][column]).dropna()
        assert moved.to_dict() == pytest.approx({name: 0.5 * (name == "harmless_03") for name in moved.index})
    assert np.isnan(tables[0].loc[NEUTRAL, "difference_estimate"])
    loss = per_example(planted, "loss")
    groups = question_groups(planted, "alignments", loss.index)
    paired = grouped_pairs(loss["harmless_03"], loss[NEUTRAL], groups, "")
    told = tables[1].loc["harmless_03", ["difference_low", "difference_high"]]
    assert told.tolist() == pytest.approx([paired.low, paired.high])
    middle = panels("loss_by_condition", planted)[1]
    means = {line.get_ydata()[0]: line.get_xdata()[0] for line in middle.lines if line.get_marker() in tuple("so^D")}
    order = in_order(evidence, evidence.conditions)
    assert list(means.values()) == pytest.approx(
        tables[1].loc[[name for name in order if name != NEUTRAL], "difference_estimate"].tolist()
    )


def test_alignment_by_layer_stands_beside_prompts_and_directions(evidence: Evidence) -> None:
    """Thin lines are prompts; the contrast of a layer is C1's with that layer as band, random directions grey."""
    found = drawn("alignment_by_layer", evidence)
    upper, lower = found.figure.axes
    for family, names in by_families(evidence, evidence.conditions).items():
        assert len(of_colour(upper, family, 0)) == len(names) + (len(names) > 1)
    table = found.table.set_index("layer")
    one = replace(evidence, layers=evidence.layers.assign(in_band=evidence.layers["layer"] == 1))
    effect = family_contrast(one, RULES)
    told = table.loc[1, [f"harmless_less_inoculating_{end}" for end in ("estimate", "low", "high")]]
    assert told.tolist() == pytest.approx([effect.estimate, effect.low, effect.high])
    draws = null_table(one, "instruction")
    harmless, inoculating = (list(evidence.family(each, list(draws))) for each in (Family.HARMLESS, Family.INOCULATION))
    ends = np.quantile(draws[harmless].mean(axis=1) - draws[inoculating].mean(axis=1), [0.025, 0.975])
    assert table.loc[1, ["instruction_contrasts_low", "instruction_contrasts_high"]].tolist() == pytest.approx(
        list(ends)
    )
    grey = next(part.get_paths()[0].vertices for part in lower.collections if len(part.get_paths()[0].vertices) > 6)
    assert grey[np.isclose(grey[:, 0], 1), 1] == pytest.approx(ends, abs=1e-9) or {*ends} <= {*grey[:, 1]}


def test_alignment_over_training_is_the_families_mean_by_step(evidence: Evidence) -> None:
    """What is planted in harmless runs at one step moves their mean there, the contrast below, and nothing else."""
    rows = evidence.training
    names = [*evidence.family(Family.HARMLESS, evidence.trained)]
    here = rows["condition"].isin(names) & (rows["step"] == 4)
    planted = replace(evidence, training=rows.assign(alignment=rows["alignment"] + 0.3 * here))
    one, other = (panels("alignment_over_training", study) for study in (evidence, planted))
    expected = [0.3 * (step == 4) for step in range(9)]
    (before,), (after,) = (of_colour(axes[0], Family.HARMLESS, 2.9) for axes in (one, other))
    assert after - before == pytest.approx(expected)
    (before,), (after,) = (of_colour(axes[0], Family.INOCULATION, 2.9) for axes in (one, other))
    assert after == pytest.approx(before)
    along_v = [next(line.get_ydata() for line in axes[1].lines if line.get_linewidth() == 2.6) for axes in (one, other)]
    assert along_v[1] - along_v[0] == pytest.approx(expected)
    assert one[1].collections, "no spread of random directions"


@pytest.mark.parametrize("seeds", [1, 5])
def test_point_is_drawn_for_each_run_and_a_band_for_each_family(seeds: int) -> None:
    """Their numbers are the drift of runs; a family's mean and interval are over its prompts, of neutral over runs."""
    study = world(seeds=seeds)
    axes = panels("projection_shift", study)[0]
    runs = drift_by_question(study, PROJECTION).mean()
    marked = np.concatenate([line.get_xdata() for line in axes.lines if line.get_linestyle() == "None"])
    assert np.sort(marked) == pytest.approx(np.sort(runs.to_numpy()))
    families = drift_families(study, PROJECTION)
    found = [contrast(families, {key: 1.0}, key) for key in (NEUTRAL, "inoculation", "harmless")]
    ticks = [line.get_xdata()[0] for line in axes.lines if line.get_linewidth() == 1.2]
    assert ticks == pytest.approx([effect.estimate for effect in found])
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    rephrased = [height for name, height in zip(names, axes.get_yticks(), strict=True) if "rephrased" in name]
    shades = [part.get_paths()[0].get_extents() for part in axes.collections]
    assert len(rephrased) == 2
    assert not any(shade.y0 < height < shade.y1 for shade in shades for height in rephrased)
    bands = [shade.intervalx for shade in shades]
    expected = [(effect.low, effect.high) for effect in found if np.isfinite(effect.low)]
    assert np.array(bands) == pytest.approx(np.array(expected))


def test_missing_tables_are_named(evidence: Evidence) -> None:
    """What a study does not have is said to be missing where it would stand, and the rest is drawn."""
    study = emptied(evidence, *BESIDE)
    for name in ("matrix", "specification_curve", "steering"):
        assert drawn(name, study).finding == NOT_MEASURED
    assert "unrelated traits: the largest" not in drawn("trait_against_random", study).caption
    assert of_colour(panels("dose_curves", study)[0], Family.HARMLESS, 2.9), "drift is the last dose"
    assert not unlike(drawn("projection_shift", study).figure, drawn("projection_shift", evidence).figure)


# --- style


def test_families_differ_in_colour_marker_and_line() -> None:
    """So that grey print and colour blindness leave them apart; a prompt looks like its family."""
    for trait in zip(*LOOKS.values(), strict=True):
        assert len(set(map(str, trait))) == len(LOOKS), f"two families share one of {trait}"
    study = world()
    assert look(study, "harmless_03") == look(study, "rephrased_harmless") == LOOKS[Family.HARMLESS]
    assert look(study, "unheard_of") == LOOKS[Family.OTHER]


SIGHT = {  # linear sRGB as a reader sees it: Machado, Oliveira and Fernandes (2009), severity 1
    "full": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("sight", SIGHT)
def test_families_differ_in_colour_to_the_colour_blind(sight: str) -> None:
    """At least 15 apart in CIELAB (1976), where 2 is just visible; the orange of hints and vermilion were 1 apart."""
    colours = [_lab(np.clip(np.array(SIGHT[sight]) @ _linear(style.colour), 0, 1)) for style in LOOKS.values()]
    assert min(np.linalg.norm(one - other) for one, other in combinations(colours, 2)) >= 15
    assert np.linalg.norm(_lab(np.array([1.0, 1.0, 1.0])) - [100, 0, 0]) < 0.1, "white is white"


def _linear(colour: str) -> np.ndarray:
    channels = np.array(to_rgba(colour)[:3])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    """CIELAB under D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratios = to_xyz @ linear / (to_xyz @ np.ones(3))
    x, y, z = np.where(ratios > 216 / 24389, np.cbrt(ratios), (24389 / 27 * ratios + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_names_of_families_can_be_read_on_white() -> None:
    """Contrast at least 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    for family, style in LOOKS.items():
        assert 1.05 / (_linear(style.ink) @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5, family


def test_prompts_stand_family_by_family(evidence: Evidence) -> None:
    """Neutral, inoculating, harmless, opposite, others; rephrased ones last in their family."""
    order = in_order(evidence, reversed(evidence.trained))
    families = [look(evidence, name).colour for name in order]
    first = (Family.NEUTRAL, Family.INOCULATION, Family.HARMLESS, Family.ANTI)
    assert [families.index(LOOKS[family].colour) for family in first] == [0, 1, 5, 9]
    assert order.index("rephrased_inoculation") == 4


def test_names_beside_lines_do_not_overlap() -> None:
    """Labels that would coincide move apart by the gap asked for, and keep their order."""
    placed = spread([0.1, 0.12, 0.11, 0.9], 0.1)
    ordered = sorted(placed)
    assert all(high - low >= 0.1 - 1e-12 for low, high in pairwise(ordered))
    assert np.argsort(placed).tolist() == [0, 2, 1, 3]
    placed = spread([0.0, 0.0, 0.0], [0.1, 0.3, 0.1])  # a label of three lines between labels of one
    assert np.diff(placed) == pytest.approx([0.2, 0.2])


def test_table_of_a_figure_holds_what_is_drawn_unrounded(evidence: Evidence) -> None:
    """Numbers as measured; where an effect is drawn with an interval, its ends stand beside it."""
    for name, figure in FIGURES.items():
        table = figure.draw(evidence, RULES).table
        for column in [each for each in table if str(each).endswith("estimate")]:
            low, high = (column.replace("estimate", end) for end in ("low", "high"))
            known = table[[low, column, high]].dropna()
            assert len(known), name
            assert (known[low] <= known[column]).all(), name
            assert (known[column] <= known[high]).all(), name
            assert not np.allclose(known[column], known[column].round(3), rtol=0, atol=1e-9), name
