"""The closing summary is a table that fits a terminal."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from gradinoc.claims.rules.finding import Status
from gradinoc.claims.rules.verdict import Judgement, Verdict, judge, not_run
from gradinoc.power.simulate import simulate
from gradinoc.report import Tinted, closing_summary
from gradinoc.report.page.versions import versions_sentence
from gradinoc.report.summary import WIDTH, deciding, numbers
from gradinoc.stats.effect import Effect, bare
from gradinoc.study.rules import Published, Rules


@pytest.fixture(scope="module", params=["effect", "any_prompt", "wrong_sign"])
def judgement(request) -> Judgement:
    """What the judge makes of a small study: claims supported, refuted and undecided, gates that hold and fail."""
    return judge(simulate(request.param, np.random.default_rng(5), layers=3, steps=9, directions=100), Rules())


def test_summary_has_two_lines_a_finding_that_fit_a_terminal(judgement):
    """Key, status and effect; below them estimate, interval, p and n with what it counts, as measured."""
    lines = closing_summary(judgement)
    assert WIDTH == 80
    assert max(map(len, lines)) <= WIDTH
    findings = {finding.key: finding for finding in (*judgement.gates, *judgement.claims)}
    text = " ".join(" ".join(lines).split())
    assert [line.split()[0] for line in lines if re.match(r"[GC]\d+[a-z]? ", line)][: len(findings)] == list(findings)
    for key, finding in findings.items():
        word = {"G": {"supported": "holds", "refuted": "fails"}}.get(key[0], {}).get(finding.status, finding.status)
        effect = deciding(finding)
        assert f"{key} {word} {effect.name} {numbers(effect)}" in text


def test_numbers_leave_out_what_a_design_cannot_give():
    """No NaN; an interval, a p and what n counts where they are there."""
    one = bare("share", np.nan, 3, "prompts", "no interval")
    assert numbers(one) == "not measurable, n 3 prompts"
    assert numbers(Effect("a", 0.5, 0.25, 0.75, 0.01, 9, "runs", "t")) == "+0.5 [+0.25, +0.75], p 0.01, n 9 runs"


def test_gate_that_fails_is_shown_by_the_effect_that_fails_it(judgement):
    """A gate of several criteria holds by all of them, and fails by the first that does not."""
    for gate in judgement.gates:
        short = [criterion.key for criterion in gate.criteria if not criterion]
        assert deciding(gate).key == (short[0] if short else gate.main.key)


def test_summary_shows_both_versions_and_what_was_not_run(judgement):
    """A study that version 1 judged has both verdicts, and that the first had been seen; others have neither."""
    verdict = judgement.verdict.name.replace("_", " ")
    said = versions_sentence(Published(first_verdict="refuted"), judgement)
    assert said.startswith(f"Rules of version 1 (as published): REFUTED, of version 2: {verdict}.")
    assert "had been seen when the rules of version 2 were made" in said
    assert versions_sentence(Published(), judgement) == ""
    text = " ".join(" ".join(closing_summary(judgement, beside=(said, ""))).split())
    assert said in text
    assert f"Not run: {', '.join(not_run(judgement.claims))}" in text
    assert Verdict.SUPPORTED.name not in judgement.sentence.split(":")[0] or judgement.verdict is Verdict.SUPPORTED


def test_summary_says_why_a_gate_fails_and_where_all_is(judgement, tmp_path):
    """Its statement in full; paths on lines of their own, spelled out where they hold signs that steer a terminal."""
    broken = replace(judgement.gates[0], status=Status.REFUTED)
    folder = tmp_path / ("long" * 30 + "\x1b")
    lines = closing_summary(replace(judgement, gates=(broken, *judgement.gates[1:])), folder)
    assert "G1 fails:" in "\n".join(lines)
    assert broken.statement in " ".join(" ".join(lines).split())
    spelt = str(folder).replace("\x1b", r"\x1b")
    assert lines[-3:] == [
        f"Report: {spelt}/report.html",
        f"What would change our mind: {spelt}/what-would-change-our-mind.md",
        f"Every number: {spelt}/claims.csv",
    ]
    assert max(map(len, lines[:-3])) <= WIDTH


@pytest.mark.parametrize("columns", [50, 70])
def test_narrow_terminal_shows_all_of_it(judgement, columns):
    """Everything is wrapped anew: nothing is cut, nothing too long."""
    console = Console(force_terminal=True, no_color=True, width=columns, file=io.StringIO())
    console.print(Tinted("\n".join(closing_summary(judgement))))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue()).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= columns
    words = " ".join(closing_summary(judgement)).split()
    assert sorted(" ".join(lines).split()) == sorted(words)
