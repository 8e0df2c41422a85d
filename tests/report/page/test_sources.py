"""The section on where the drift comes from shows what is planted, and says where nothing was measured."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from fixtures.diverged import diverged
from fixtures.sources import DIFFERENCE, OURS, RULES, TABLES, drawn, plain, section, study
from fixtures.traced import ALONG, COURSE, MODULES, PARTS, traced
from gradinoc.claims.evidence.tables import WINDOWS, Evidence
from gradinoc.claims.rules.verdict import CLAIMS, judge
from gradinoc.report import write_report
from gradinoc.report.figures import FIGURES
from gradinoc.report.page.sources import HOW_MUCH, KINDS, sources
from gradinoc.report.page.thirds import in_thirds, third_grid
from gradinoc.report.wording import NOT_MEASURED, number
from gradinoc.study.description import Study


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


def test_thirds_of_training_have_their_planted_parts() -> None:
    """Phi as planted; along directions each kept adapter speaks for half of the steps on either side; all add up."""
    rows = {row[0]: [float(cell) for cell in row[2:]] for row in section().thirds.rows}
    assert list(rows) == [*WINDOWS, "all"]
    phi, band, along_v = np.array([rows[window] for window in WINDOWS]).T
    assert rows["all"] == pytest.approx([phi.sum(), band.sum(), along_v.sum()], rel=0.01)
    assert phi / rows["all"][0] == pytest.approx(COURSE, abs=0.05)
    smoothed = [0.45, 0.325, 0.225]  # 0.5/2 + (0.5+0.3)/2/2, (0.5+0.3)/2/2 + (0.3+0.2)/2/2, (0.3+0.2)/2/2 + 0.2/2
    assert band / rows["all"][1] == pytest.approx(smoothed, abs=0.01)
    assert along_v / band == pytest.approx(np.full(3, ALONG["trait"]), abs=0.01)
    assert rows["all"][0] == pytest.approx(DIFFERENCE, abs=0.1)


def test_a_stretch_counts_in_each_third_by_its_steps() -> None:
    """Four stretches of six steps: a third of 24 steps holds one and a third of them."""
    parts = in_thirds(pd.Series([1.0, 2.0, 3.0, 6.0]), [0, 6, 12, 18, 24])
    assert parts == pytest.approx([1 + 2 / 3, 4 / 3 + 2, 1 + 6])


def test_two_stretches_have_no_thirds() -> None:
    """Half of a run cannot tell of a third."""
    last = study().attribution["step"].max()
    halves = study().attribution.assign(step=study().attribution["step"].where(lambda step: step == last, last // 2))
    assert third_grid(study()).rows
    assert not third_grid(replace(study(), attribution=halves)).rows


TOGETHER = {"attribution": ("attribution", "lengths", "modules"), "shares": ("shares", "share_nulls"),
            "kernel": ("kernel",)}  # fmt: skip
READS = {  # figure or table -> the kinds of table that it reads
    "accounting": {"attribution"},
    "how_much": {"attribution"},
    "shares_by_direction": {"attribution", "shares"},
    "kernel": {"kernel"},
}


def without(evidence: Evidence, *names: str) -> Evidence:
    """The study without the rows of these tables."""
    return replace(evidence, **{name: getattr(evidence, name).iloc[:0] for name in names})


@pytest.mark.parametrize("gone", [gone for count in (1, 2, 3) for gone in combinations(TOGETHER, count)], ids=" ".join)
def test_what_was_not_measured_is_left_out_and_the_rest_is_shown(gone: tuple[str, ...]) -> None:
    """Every combination of missing tables is judged, drawn and listed: what reads a missing one says so, no other."""
    evidence = without(study(), *(name for kind in gone for name in TOGETHER[kind]))
    for name, kinds in READS.items():
        found = drawn(name, evidence)
        assert (found.caption == found.finding == NOT_MEASURED) == bool(kinds & {*gone}), name
    judgement = judge(evidence, RULES)
    ran = {finding.key for finding in judgement.claims}
    assert ("C7a" in ran, "C7c" in ran) == ("attribution" not in gone, "kernel" not in gone)
    assert ("C7b" in ran) == (not {"attribution", "shares"} & {*gone})
    found = sources(judgement, evidence)
    if len(gone) == len(TOGETHER):
        assert found is None
        return
    assert bool(found.shares.rows) == bool(found.modules.rows) == ("attribution" not in gone)
    assert bool(found.tokens.rows) == (not {"attribution", "shares"} & {*gone})
    dashes = [row[2:] for row in found.thirds.rows if "–" in row]
    assert len(found.thirds.rows) == (4 if "attribution" not in gone else 0)
    assert len(dashes) == (4 if "shares" in gone and "attribution" not in gone else 0)
    assert all(phi != "–" and parts == ["–", "–"] for phi, *parts in dashes)


@pytest.mark.parametrize("name", TABLES)
def test_a_single_empty_table_stops_nothing(name: str) -> None:
    """A study whose store lost one of the tables is judged and has its section: claims that read it are not run."""
    evidence = without(study(), name)
    judgement = judge(evidence, RULES)
    assert sources(judgement, evidence) is not None
    needing = {claim.key for claim in CLAIMS if name in claim.needs}
    assert needing or name == "modules"
    assert not needing & {finding.key for finding in judgement.claims}
    for figure in OURS:
        assert FIGURES[figure].draw(evidence, RULES).caption


def test_runs_that_diverged_leave_no_number_in_the_section() -> None:
    """Their tables hold NaN, which no sum takes for zero."""
    evidence = diverged(study(), "inoculation", 0)
    run = {"condition": "inoculation", "seed": 0}
    for name in ("attribution", "lengths", "modules", "shares", "share_nulls"):
        table = getattr(evidence, name).copy()
        table.loc[(table[list(run)] == run).all(axis=1), table.select_dtypes("float").columns] = np.nan
        evidence = replace(evidence, **{name: table})
    found = sources(judge(evidence, RULES), evidence)
    assert (found.shares.rows, found.further) == ((), ())
    for name in ("how_much", "shares_by_direction"):
        assert drawn(name, evidence).caption == NOT_MEASURED


def test_pages_show_what_is_left(tmp_path) -> None:
    """The kernel's figure stands in the section though nothing else was measured; empty tables have no title."""
    evidence = without(study(), *TOGETHER["attribution"], *TOGETHER["shares"])
    write_report(judge(evidence, RULES), evidence, Study(name="simulated"), tmp_path, {}, "make claims")
    found = sources(judge(evidence, RULES), evidence)
    for page in ((tmp_path / f"report.{suffix}").read_text() for suffix in ("html", "md")):
        assert "plot21_kernel_and_matrix" in page
        assert found.title in page
        assert not any(table.title in page for table in (found.shares, found.thirds, found.modules, found.tokens))


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
        for found in (section().shares, section().thirds, section().modules, section().tokens):
            assert found.title in html
            assert found.title in markdown
        assert len(pd.read_csv(tmp_path / "figures" / "plot20_shares_by_direction.csv")) >= 8
