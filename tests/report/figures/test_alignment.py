"""Figures of alignment and of the direction: planted numbers appear where they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from fixtures.figures import RULES, drawn, of_colour, panels, points, world
from gradinoc.claims.c1 import family_contrast
from gradinoc.claims.c2 import C2
from gradinoc.claims.c3 import C3
from gradinoc.claims.evidence.measures import (
    drift_by_question,
    drift_families,
    null_table,
    per_example,
    question_groups,
)
from gradinoc.claims.evidence.tables import PROJECTION, TRAIT_DRAW, Evidence
from gradinoc.claims.gates.direction import G8A
from gradinoc.claims.rules.specification import DECLARED, curve_of
from gradinoc.report.figures.alignment.at_equal_loss import ROWS
from gradinoc.report.figures.alignment.trait_against_others import LABELS, shown_p
from gradinoc.report.figures.prompts.families import by_families, in_order
from gradinoc.report.figures.style import signed
from gradinoc.report.wording import number
from gradinoc.stats.clustered import grouped_pairs
from gradinoc.stats.families import contrast
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.prompts.family import Family


def single(axes: Axes, marker: str) -> np.ndarray:
    """Every point drawn by itself with this marker, as x and y."""
    own = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == marker and len(line.get_xdata()) == 1]
    return np.array(own)


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
    """Means over questions less the unsteered one, a line a direction; the loss is that of G8a, with its bar."""
    upper, lower = panels("steering", evidence)
    means = evidence.steering.groupby(["draw", "strength"])["log_odds"].mean().unstack("draw")
    means = (means - means.loc[0.0]).T.stack()
    lines = [line.get_ydata() for line in upper.lines if line.get_linestyle() == "-" and len(line.get_ydata()) > 2]
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
