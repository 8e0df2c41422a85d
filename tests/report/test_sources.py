"""Figures and the section on where the drift comes from show what is planted, and say where nothing was measured."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from fixtures.traced import ALONG, MODULES, OWN, PARTS, PHI, STEPS, traced
from gradinoc.claims.c7.c7a import C7A
from gradinoc.claims.c7.c7b import C7B
from gradinoc.claims.c7.c7c import C7C, kernel_of
from gradinoc.claims.evidence.measures import matrix
from gradinoc.claims.evidence.sources import points
from gradinoc.claims.evidence.tables import LORA, Evidence
from gradinoc.claims.rules.verdict import judge
from gradinoc.power.scenarios import SCENARIOS
from gradinoc.power.simulate import simulate
from gradinoc.report import write_report
from gradinoc.report.figures import FIGURES
from gradinoc.report.figures.sources.directions import words_of
from gradinoc.report.page.sources import HOW_MUCH, KINDS, Sources, sources
from gradinoc.report.wording import NOT_MEASURED, number
from gradinoc.study.description import Study
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules
from gradinoc.study.settings import NULLS

SIZES = {"inoculating": 5, "harmless": 5, "opposite": 1, "trained": (4, 4, 1), "layers": 3, "steps": 6,
         "directions": 40, "examples": 16, "shared": 12, "evaluation": 8}  # fmt: skip
SINGLE = {"inoculating": 1, "harmless": 1, "opposite": 0, "trained": (1, 1, 0), "rephrased": False, "seeds": 1}
OURS = [name for name, figure in FIGURES.items() if figure.shows[0] == "sources"]
TABLES = ("attribution", "lengths", "modules", "shares", "share_nulls", "kernel")
RULES = Rules()
DIFFERENCE = PHI[Family.HARMLESS] - PHI[Family.INOCULATION]


@cache
def plain(**sizes) -> Evidence:
    """A study without tables of attribution."""
    made = simulate(SCENARIOS["effect"], np.random.default_rng(3), **{**SIZES, **sizes})
    return replace(made, **{name: getattr(made, name).iloc[:0] for name in TABLES})


@cache
def study(**sizes) -> Evidence:
    """The same with them."""
    return traced(plain(**sizes), np.random.default_rng(4))


@cache
def section() -> Sources:
    """The section of its page."""
    return sources(judge(study(), RULES), study())


def drawn(name: str, evidence: Evidence):
    """One of the figures, by a part of its name."""
    (found,) = (figure for key, figure in FIGURES.items() if name in key)
    return found.draw(evidence, RULES)


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
    (axes,) = found.figure.axes
    table = found.table.set_index("key")
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


# --- the section


def test_section_has_every_effect_with_its_numbers_and_how_to_read_it() -> None:
    """Explaining away, conditionalization, rotation, magnitude: estimate, interval, n, unit, and a sentence."""
    found = {finding.key: finding for finding in judge(study(), RULES).claims}
    expected = [found[claim].get(key) for effects in KINDS.values() for claim, key in effects]
    assert None not in expected
    rows = [dict(zip([column.name for column in HOW_MUCH], row, strict=True)) for row in section().shares.rows]
    assert [row["name"] for row in rows] == [effect.name for effect in expected]
    assert [row["estimate"] for row in rows] == [number(effect.estimate) for effect in expected]
    assert [row["n"] for row in rows] == [str(effect.n) for effect in expected]
    assert list(dict.fromkeys(row["what"] for row in rows)) == list(KINDS)
    assert all(row["reads"] and row["unit"] and row["interval"] != "–" for row in rows)


def test_section_says_why_a_share_has_no_interval() -> None:
    """In a few words in the place of the interval."""
    evidence = traced(plain(), np.random.default_rng(4), noise=1.0)
    rows = sources(judge(evidence, RULES), evidence).shares.rows
    assert "no interval: the difference may be zero" in {row[3] for row in rows}


def test_modules_and_tokens_have_their_planted_parts() -> None:
    """Linear maps add up to all of the difference between the families, tokens to what runs along a direction."""
    parts = {row[0]: float(row[3]) for row in section().modules.rows}
    assert parts["all"] == pytest.approx(DIFFERENCE, abs=0.1)
    assert {key: parts[key] / parts["all"] for key in MODULES} == pytest.approx(MODULES, abs=0.01)
    tokens = {(row[0], row[1]): float(row[4]) for row in section().tokens.rows}
    whole = sum(value for (_, direction), value in tokens.items() if direction == "all directions")
    assert whole == pytest.approx(DIFFERENCE, abs=0.1)
    for place, part in PARTS.items():
        assert tokens[place, "all directions"] / whole == pytest.approx(part, abs=0.01)
        assert tokens[place, "trait direction v"] / whole == pytest.approx(part * ALONG["trait"], abs=0.01)


@pytest.mark.parametrize("measured", [True, False])
def test_pages_have_the_section_where_something_was_measured(measured: bool, tmp_path) -> None:
    """With its figures and tables in both pages, and with a link; else neither page speaks of it."""
    evidence = study() if measured else plain()
    write_report(judge(evidence, RULES), evidence, Study(name="simulated"), tmp_path, {}, "make claims")
    html, markdown = ((tmp_path / f"report.{suffix}").read_text() for suffix in ("html", "md"))
    assert ('id="sources"' in html) == ('href="#sources"' in html) == measured
    assert ("## Where the drift comes from" in markdown) == measured
    for name in OURS:
        assert (name in html) == (f"figures/{name}.png" in markdown) == measured
        assert (tmp_path / "figures" / f"{name}.svg").exists()
    if measured:
        for found in (section().shares, section().modules, section().tokens):
            assert found.title in html
            assert found.title in markdown
        assert len(pd.read_csv(tmp_path / "figures" / "plot20_shares_by_direction.csv")) >= 8
