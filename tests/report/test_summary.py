"""The closing summary is a table that fits a terminal."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from gradinoc.claims.finding import Status
from gradinoc.claims.verdict import Judgement, judge
from gradinoc.power.scenarios import SCENARIOS
from gradinoc.power.simulate import simulate
from gradinoc.report import closing_summary, tinted
from gradinoc.report.summary import WIDTH
from gradinoc.study.rules import Rules


@pytest.fixture(scope="module", params=["effect", "no_effect"])
def judgement(request) -> Judgement:
    """What the judge makes of a small study."""
    made = simulate(
        replace(SCENARIOS[request.param], further=True), np.random.default_rng(5),
        examples=24, layers=4, seeds=3, steps=10, directions=100,
    )  # fmt: skip
    return judge(made, Rules())


def test_summary_is_a_table_that_fits_its_columns(judgement):
    """One row a gate or claim: status, effect, estimate, interval, p, n; what there is not is a dash."""
    lines = closing_summary(judgement)
    assert max(map(len, lines)) <= WIDTH
    header = lines[0].split()
    assert header == ["effect", "estimate", "95", "%", "interval", "p", "n"]
    rows_of = {line[:2]: line for line in lines if re.match(r"[GC]\d ", line)}
    findings = {finding.key: finding for finding in (*judgement.gates, *judgement.claims)}
    assert list(rows_of) == list(findings)
    contrast = findings["C1"].effects[0]
    expected = f"{contrast.estimate:+.3g} [{contrast.low:+.2g}, {contrast.high:+.2g}] {contrast.p:.2g} 24 examples"
    assert " ".join(rows_of["C1"].split()).endswith(f"{contrast.name} {expected}")
    assert rows_of["G1"].split()[-4:] == ["-", "-", "2", "layers"]
    assert len({line.index(f" {finding.effects[0].n} {finding.effects[0].unit}") + len(str(finding.effects[0].n))
                for finding, line in zip(findings.values(), rows_of.values(), strict=True)}) == 1  # fmt: skip


def test_summary_says_why_a_gate_fails_and_where_all_is(judgement, tmp_path):
    """Its statement in full; paths on lines of their own, spelled out where they hold signs that steer a terminal."""
    broken = replace(judgement.gates[0], status=Status.REFUTED)
    folder = tmp_path / ("long" * 30 + "\x1b")
    lines = closing_summary(replace(judgement, gates=(broken, *judgement.gates[1:])), folder)
    assert "G1 fails:" in "\n".join(lines)
    assert broken.statement in " ".join(" ".join(lines).split())
    spelt = str(folder).replace("\x1b", r"\x1b")
    assert lines[-2:] == [f"Report: {spelt}/report.html", f"Every number: {spelt}/claims.csv"]
    assert max(map(len, lines[:-2])) <= WIDTH


@pytest.mark.parametrize("columns", [50, 70])
def test_narrow_terminal_shows_all_of_it(judgement, columns):
    """A finding's numbers stand below its name, and sentences are wrapped anew: nothing is cut, nothing too long."""
    console = Console(force_terminal=True, no_color=True, width=columns, file=io.StringIO())
    console.print(tinted("\n".join(closing_summary(judgement))))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue()).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= columns
    words = " ".join(closing_summary(judgement)).split()
    assert sorted(" ".join(lines).split()) == sorted(words)
