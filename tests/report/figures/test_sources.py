"""Figures of where the drift comes from show what is planted, and say where nothing was measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh

from fixtures.sources import DIFFERENCE, OURS, RULES, SINGLE, drawn, plain, section, study
from fixtures.traced import ALONG, OWN, PHI, STEPS, traced
from gradinoc.claims.c7.c7a import C7A
from gradinoc.claims.c7.c7b import C7B
from gradinoc.claims.c7.c7c import C7C, kernel_of
from gradinoc.claims.evidence.measures import matrix
from gradinoc.claims.evidence.sources import points
from gradinoc.claims.evidence.tables import LORA, TRAIT_DIRECTION
from gradinoc.report.figures import FIGURES
from gradinoc.report.figures.sources.directions import words_of
from gradinoc.report.figures.sources.layers import layers_of
from gradinoc.report.wording import NOT_MEASURED, number
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.prompts.family import Family
from gradinoc.study.settings import NULLS


def rows_of(axes: Axes) -> dict[str, np.ndarray]:
    """What is drawn for each key: x of its point or interval."""
    lines = [line for line in axes.lines if not line.get_label().startswith("_child")]
    return {line.get_label().removeprefix("_"): line.get_xdata() for line in lines}


# --- figures


def test_four_figures_belong_to_the_gate_and_three_claims() -> None:
    """All in the section of their own."""
    assert len(OURS) == 4
    assert {key for name in OURS for key in FIGURES[name].shows} == {"sources", "G10", "C7a", "C7b", "C7c"}


@pytest.mark.parametrize("name", OURS)
def test_figure_of_what_was_not_measured_says_so(name: str) -> None:
    """In every panel, and without a number."""
    found = FIGURES[name].draw(plain(), RULES)
    assert found.caption == found.finding == NOT_MEASURED
    assert found.table.empty
    for axes in found.figure.axes:
        assert any("not measured" in text.get_text() for text in axes.texts)


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("prompts", ["one a family", "many"])
def test_figure_is_drawn_with_one_prompt_a_family_and_with_many(name: str, prompts: str, tmp_path) -> None:
    """Warnings are errors; where no interval can be told, nothing says NaN."""
    found = FIGURES[name].draw(study(**SINGLE) if prompts == "one a family" else study(), RULES)
    found.figure.savefig(tmp_path / "figure.png", dpi=40)
    assert found.caption != NOT_MEASURED
    assert "nan" not in (found.caption + found.finding).lower()


@pytest.mark.parametrize("slope", [1.0, 0.6])
def test_accounting_shows_every_point_and_the_planted_slope(slope: float) -> None:
    """A point a run, kept adapter and prompt: two prompts for each run but the neutral ones."""
    evidence = traced(plain(), np.random.default_rng(4), slope=slope)
    found = drawn("accounting", evidence)
    (axes,) = found.figure.axes
    dots = [line for line in axes.lines if line.get_linestyle() == "None"]
    expected = points(evidence)
    neutral = sum(name == NEUTRAL for name, _ in evidence.planned_runs)
    assert len(expected) == len(STEPS) * (2 * len(evidence.planned_runs) - neutral)
    for axis, column in ((0, "predicted"), (1, "measured")):
        values = np.concatenate([line.get_data()[axis] for line in dots])
        assert np.sort(values) == pytest.approx(np.sort(expected[column]))
    (line,) = (line for line in axes.lines if line.get_linestyle() != "None")
    assert line.get_xdata() == pytest.approx(line.get_ydata()), "the line is that of equality"
    assert any(f"slope {slope:.3f}" in text.get_text() for text in axes.texts)
    assert number(slope) in found.finding


def test_shares_by_direction_are_those_planted() -> None:
    """Each direction at its share, in bold v's first; an interval around it; random directions beside."""
    found = drawn("shares_by_direction", study())
    axes, table = found.figure.axes[0], found.table.dropna(subset="key").set_index("key")
    expected = {"share": ALONG["trait"], **{f"named.{key}": ALONG[key] for key in ("learned", "responses", "brevity")}}
    for key, share in expected.items():
        assert table.loc[key, "estimate"] == pytest.approx(share)
        assert rows_of(axes)[key] == pytest.approx([share])
        assert table.loc[key, "low"] <= share + 1e-9 <= table.loc[key, "high"] + 2e-9
    assert table.index[0] == "share"
    assert [f"random.{null}" for null in NULLS] == list(table.index[-len(NULLS) :])
    bars = {line.get_label(): line.get_xdata() for line in axes.lines if line.get_linewidth() == 9}
    for null in NULLS:
        low, high = table.loc[f"random.{null}", ["low", "high"]]
        assert bars[f"_random.{null}"] == pytest.approx([low, high])
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == [words_of(key) for key in table.index]
    assert any(line.get_xdata()[0] == RULES.carried for line in axes.lines), "C7b's bar"


def test_shares_without_an_interval_say_why() -> None:
    """Where harmless and inoculating runs may drift alike, below the axis and in the caption."""
    evidence = traced(plain(), np.random.default_rng(4), noise=1.0)
    measured = C7B.measure(evidence, RULES)
    assert not np.isfinite(measured["share"].low)
    found = drawn("shares_by_direction", evidence)
    assert "no intervals: the difference may be zero" in found.figure.axes[0].get_xlabel()
    assert measured["share"].method[1:] in found.caption
    assert "without an interval" in found.finding


def test_kernel_and_matrix_have_the_same_cells_in_the_same_order() -> None:
    """A cell's kernel and drift are those of its prompts; a planted number appears in its cell alone."""
    kernel, trained = kernel_of(study(), LORA), matrix(study())
    before, after = drawn("kernel", study()).figure.axes[:2]
    columns = [tick.get_text().replace(" ", "_") for tick in before.get_xticklabels()]
    rows = [tick.get_text().replace(" ", "_") for tick in before.get_yticklabels()]
    assert columns == [tick.get_text().replace(" ", "_") for tick in after.get_xticklabels()]
    assert set(rows) == set(trained)
    assert set(columns) == set(trained.index) & set(kernel.index)
    assert cells(before) == pytest.approx(kernel.loc[columns, rows].T.to_numpy())
    assert cells(after) == pytest.approx(trained.loc[columns, rows].T.to_numpy())
    table = study().kernel
    here = (table["condition"] == columns[2]) & (table["evaluation"] == rows[4]) & (table["space"] == LORA)
    planted = replace(study(), kernel=table.assign(kernel=table["kernel"] + 3.0 * here))
    moved = cells(drawn("kernel", planted).figure.axes[0]) - cells(before)
    assert np.argwhere(~np.isclose(moved, 0)).tolist() == [[4, 2]]


def cells(axes: Axes) -> np.ndarray:
    """Numbers of a heat map's cells."""
    (mesh,) = (part for part in axes.collections if isinstance(part, QuadMesh))
    return np.asarray(mesh.get_array())


def test_caption_of_the_kernel_has_what_decides_c7c() -> None:
    """R2 of prompts that were left out, of the kernel and of alignment."""
    measured, caption = C7C.measure(study(), RULES), drawn("kernel", study()).caption
    for key in ("r2", "r2.alignment", "r2.matrix"):
        assert number(measured[key].estimate) in caption


def test_bars_of_factors_add_up_to_one_twice() -> None:
    """Sizes are planted equal, so the turn has all of the difference; what is learned is equal, so transfer has."""
    left, right = drawn("how_much", study()).figure.axes
    widths = {bar.get_label().removeprefix("_"): bar.patches[0].get_width() for bar in left.containers}
    measured = C7A.measure(study(), RULES)
    assert widths == pytest.approx({key: measured[key].estimate for key in widths})
    assert sum(widths[f"share.{key}"] for key in ("turn", "size", "steepness")) == pytest.approx(1)
    assert sum(widths[f"share.{key}"] for key in ("transfer", "learned")) == pytest.approx(1)
    assert widths["share.turn"] == pytest.approx(1)
    assert widths["share.transfer"] == pytest.approx(1, abs=0.1)
    shown = rows_of(right)
    for family in (Family.HARMLESS, Family.INOCULATION):
        values = [float(shown[name][0]) for name in study().family(family, study().trained)]
        assert len(values) == 4
        assert np.mean(values) == pytest.approx(PHI[family] / OWN, abs=0.06)
        assert np.mean(values) == pytest.approx(measured[f"transfer.{family}"].estimate)


def test_turn_of_the_update_says_what_it_measures() -> None:
    """At its bar, in the caption, in the alternative text and in the table's row: a cosine of two things."""
    found = drawn("how_much", study())
    label = found.figure.axes[0].get_yticklabels()[0].get_text()
    assert label.split("\n") == ["turn of the update:", "cosine of update and", "gradient of log-odds"]
    assert "turn of the update (cosine of update and gradient" in found.caption
    assert "turn of the update (cosine of update and gradient" in found.finding
    assert section().shares.rows[4][0] == "turn of the update: cosine of update and gradient of the log-odds"


@pytest.mark.parametrize(("spread", "says"), [(0.02, "had hardly room to differ"), (0.5, "size had room to differ")])
def test_caption_of_factors_tells_how_much_lengths_vary(spread: float, says: str) -> None:
    """Sizes that are nearly equal cannot have a share: the caption has the coefficient of variation over prompts."""
    names = [name for key in (Family.HARMLESS, Family.INOCULATION) for name in study().family(key, study().trained)]
    scale = dict(zip(names, 1 + spread * np.linspace(-1, 1, len(names)), strict=True))
    lengths = study().lengths
    longer = lengths["length"] * lengths["condition"].map(scale).fillna(7.0)
    caption = drawn("how_much", replace(study(), lengths=lengths.assign(length=longer))).caption
    expected = np.std(list(scale.values()), ddof=1) / np.mean(list(scale.values()))
    assert f"coefficient of variation of {number(expected)} over these prompts" in caption
    assert says in caption


# --- single layers


def test_layers_show_the_nats_along_each_direction() -> None:
    """Each direction in its panel at its share of what prompts differ by, at every layer."""
    _, upper, lower = drawn("shares_by_direction", study()).figure.axes
    for axes, key in ((upper, "learned"), (upper, "responses"), (lower, "trait")):
        (line,) = (line for line in axes.lines if line.get_label() == f"_{key}")
        assert line.get_xdata().tolist() == sorted(study().layers["layer"])
        assert line.get_ydata() == pytest.approx(np.full(3, ALONG[key] * DIFFERENCE), abs=0.05)


def test_band_mean_along_v_is_what_c7b_takes_the_share_of() -> None:
    """Where signs cancel over layers too: the marked line is share times whole, over the band alone."""
    rng = np.random.default_rng(5)
    evidence = study(layers=6)
    signs = dict(zip(range(6), (1.0, -1.0, 1.0, -0.8, 1.1, -1.2), strict=True))
    along_v = evidence.shares["direction"] == TRAIT_DIRECTION
    turned = evidence.shares["along"] * evidence.shares["layer"].map(signs).where(along_v, 1.0)
    evidence = replace(evidence, shares=evidence.shares.assign(along=turned + 1e-3 * rng.standard_normal(len(turned))))
    measured, found = C7B.measure(evidence, RULES), layers_of(evidence)
    assert found.mean == pytest.approx(measured["share"].estimate * measured["whole"].estimate)
    values = found.along[TRAIT_DIRECTION]
    assert (np.sign(values) == [1, -1, 1, -1, 1, -1]).all()
    figure = drawn("shares_by_direction", evidence)
    (mark,) = (part for part in figure.figure.axes[2].collections if isinstance(part, LineCollection))
    ((start, height), (end, _)) = mark.get_segments()[0]
    assert (start, end) == (evidence.band[0] - 0.5, evidence.band[-1] + 0.5)
    assert height == pytest.approx(found.mean)
    assert "of either sign" in figure.finding
    assert len(found.band) < 6


@pytest.mark.parametrize("band", ["none", "a layer that was not measured"])
def test_layers_without_a_whole_band_are_not_drawn(band: str) -> None:
    """There is no mean that decides: the panels say so."""
    evidence = study(layers=6)
    layers = evidence.layers.assign(in_band=evidence.layers["in_band"] & (band != "none"))
    shares = evidence.shares[(evidence.shares["layer"] < 5) | (band == "none")]
    figure = drawn("shares_by_direction", replace(evidence, layers=layers, shares=shares)).figure
    assert [text.get_text() for axes in figure.axes[1:] for text in axes.texts] == [
        "directions by layer:\nnot measured",
        "v by layer:\nnot measured",
    ]


def test_range_of_random_directions_is_of_each_layer() -> None:
    """Central 95 % of instruction contrasts; a planted one at one layer widens the range there alone."""
    before, table = layers_of(study()).random, study().share_nulls
    here = (table["null"] == "instruction") & (table["draw"] < 4) & (table["layer"] == study().band[-1])
    wider = (
        here & study().prompts.set_index("condition")["family"].reindex(table["condition"]).eq("harmless").to_numpy()
    )
    after = layers_of(replace(study(), share_nulls=table.assign(along=table["along"] + 9.0 * wider))).random
    assert after["high"].iloc[-1] > before["high"].iloc[-1] + 5
    assert after.iloc[:-1].to_numpy() == pytest.approx(before.iloc[:-1].to_numpy())
    assert before["high"].to_numpy() == pytest.approx(0.05 * 2 * DIFFERENCE, rel=0.4)


def test_looking_at_single_layers_is_called_exploratory() -> None:
    """Caption and alternative text say that it was decided after the outcome was seen."""
    found = drawn("shares_by_direction", study())
    for words in (found.caption, found.finding):
        assert "exploratory" in words
        assert "after the outcome was seen" in words
    assert found.table["layer"].nunique() == 3
    assert FIGURES["plot20_shares_by_direction"].wide
