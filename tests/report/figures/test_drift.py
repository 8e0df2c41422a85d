"""Figures of drift: planted numbers appear where they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle

from fixtures.figures import MANY, RULES, drawn, linear_rgb, of_colour, panels, points, world
from gradinoc.claims.c4 import C4, by_prompt, elicitation
from gradinoc.claims.evidence.measures import drift_by_question, in_window, matrix, matrix_by_question, per_example
from gradinoc.claims.evidence.tables import DECISION, EXPECTED, Evidence
from gradinoc.report.figures.style import WIDE
from gradinoc.report.wording import number
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.prompts.family import Family


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
            linear_rgb(colour) @ [0.2126, 0.7152, 0.0722] + 0.05 for colour in (shades[row, int(x)], text.get_color())
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
