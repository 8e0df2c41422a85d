"""The report says what was found: all of it, in every form, and as text only."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from gradinoc.report.page.audit import audit_losses

from gradinoc.claims.c3 import loss_audit
from gradinoc.claims.finding import Finding, Status
from gradinoc.claims.measures import early_alignment
from gradinoc.claims.tables import Evidence
from gradinoc.claims.verdict import Judgement, judge
from gradinoc.pipeline.provenance import environment
from gradinoc.power.scenarios import SCENARIOS
from gradinoc.power.simulate import simulate
from gradinoc.report import write_finding, write_report
from gradinoc.report.figures import FIGURES
from gradinoc.report.figures.style import save_figure
from gradinoc.report.page import WriteUp, digest
from gradinoc.report.tables import claims_table, metrics_table, write_table
from gradinoc.report.wording import markdown_text, signs
from gradinoc.study.description import Study
from gradinoc.study.prompts import CONDITIONS
from gradinoc.study.rules import Rules

HOSTILE = "<script>alert('x')</script> | **bold** [a](http://example.org) `code`\n# title\n\u202ereversed"


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """A small study in which inoculation works; one response, and the prompt that was chosen, try to be markup."""
    world = replace(SCENARIOS["effect"], further=True)
    made = simulate(world, np.random.default_rng(5), examples=24, layers=4, seeds=3, steps=10, directions=100)
    responses, pool = made.responses.copy(), made.pool[made.pool["role"] != "loss_measured"].copy()
    first = (responses["condition"] == "inoculation") & (responses["example"] == 0)
    responses.loc[first, "response"] = HOSTILE
    pool.loc[pool["chosen"], "prompt"] = HOSTILE
    return replace(made, responses=responses, pool=pool)


@pytest.fixture(scope="module")
def study() -> Study:
    """The study's description, with a condition whose prompt is chosen, and a rule of its own."""
    conditions, rules = {**CONDITIONS, "loss_measured": "matched"}, Rules(early_fraction=0.5)
    return Study(name="simulated", conditions=conditions, untrained=("loss_measured",), rules=rules)


@pytest.fixture(scope="module")
def judgement(evidence: Evidence, study: Study) -> Judgement:
    """What the judge makes of the study."""
    return judge(evidence, study.rules)


@pytest.fixture(scope="module")
def written(evidence: Evidence, study: Study, judgement: Judgement, tmp_path_factory) -> Path:
    """The folder of one written report."""
    folder = tmp_path_factory.mktemp("artifacts") / "simulated"
    write_report(judgement, evidence, study, folder, environment(), "make claims\npytest claims --study simulated")
    return folder


class Page(HTMLParser):
    """The text and the tags of a page, as a browser would find them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags, self.addresses = "", set(), []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        """Note the tag and where it points."""
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        """Note the text."""
        self.text += data


def test_everything_is_there(written: Path) -> None:
    """Tables, pages and each figure in both formats, and no temporary file beside them."""
    files = {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()}
    figures = {f"figures/{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg")}
    tables = {"claims.csv", "metrics.csv", "runs.csv", "verdict.json", "environment.json", "summary.txt"}
    assert files == figures | tables | {"report.md", "report.html"}


def test_both_pages_hold_every_statement_and_the_verdict(written: Path, judgement: Judgement) -> None:
    """Each gate's and claim's sentence, statement and reason are in the HTML and the Markdown."""
    page = Page((written / "report.html").read_text(encoding="utf-8")).text
    markdown = (written / "report.md").read_text(encoding="utf-8")
    for finding in (*judgement.gates, *judgement.claims):
        for text in (finding.claim, finding.statement, finding.reason):
            assert signs(text) in page
            assert markdown_text(text) in markdown
    assert judgement.verdict.name in page
    assert markdown_text(judgement.sentence) in markdown
    assert page.index(judgement.verdict.name) < page.index(signs(judgement.claims[0].statement))


def test_the_page_needs_nothing_but_itself(written: Path) -> None:
    """No stylesheet, no address outside the page, no script but its own, whose hash its policy names."""
    html = (written / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert not page.tags & {"link", "iframe", "object"}
    for tag in ("script", "style"):
        (own,) = re.findall(f"<{tag}[^>]*>(.*?)</{tag}>", html, flags=re.DOTALL)
        assert f"{tag}-src '{digest(own)}';" in html
    assert all(address.startswith(("#", "data:image/svg+xml;base64,")) for address in page.addresses)
    assert sum(address.startswith("data:") for address in page.addresses) == len(FIGURES)


def test_text_of_a_model_is_never_markup(written: Path) -> None:
    """A response that is a script, a table cell, a link and a change of direction comes out as its own text."""
    html = (written / "report.html").read_text(encoding="utf-8")
    assert html.count("<script") == 1  # the page's own
    assert "alert('x')" in Page(html).text
    markdown = (written / "report.md").read_text(encoding="utf-8")
    lines = [line for line in markdown.splitlines() if "alert" in line]
    assert len(lines) == 4  # the chosen prompt in the audit and among the conditions, and a response of each kind
    for line in lines:
        assert "\\<script\\>" in line
        assert "\\| \\*\\*bold\\*\\* \\[a\\]" in line
    assert "\u202e" not in html + markdown


def test_the_loss_audit_is_told_in_words(written: Path, evidence: Evidence, study: Study) -> None:
    """Whether each control is matched, the chosen prompt with its gap, and the matched checkpoint of each seed."""
    audit = audit_losses(evidence, study.rules)
    assert audit.controls == tuple(loss_audit(evidence, study.rules, name)[1] for name in evidence.conditions[2:])
    pool = evidence.pool.groupby("prompt")["loss"].mean()
    own = evidence.pool.set_index("role")["prompt"]
    gap = pool[HOSTILE] - pool[own["inoculation"].iloc[0]]
    assert f"{gap:+.3g} nats/token" in audit.pool
    steps = evidence.matched_steps
    row = steps[(steps["seed"] == 2) & steps["chosen"]].iloc[0]
    assert f"Seed 2: step {row['step']}, " in audit.checkpoints[2]
    assert f"a loss of {row['loss']:.3f} for inoculation's {row['target']:.3f} nats/token" in audit.checkpoints[2]
    html, markdown = ((written / f"report.{suffix}").read_text(encoding="utf-8") for suffix in ("html", "md"))
    for sentence in (*audit.controls, audit.pool, *audit.checkpoints):
        assert signs(sentence) in Page(html).text
        assert markdown_text(sentence) in markdown


def test_a_report_without_the_further_tables_says_so(
    written: Path, evidence: Evidence, study: Study, judgement: Judgement
) -> None:
    """Nulls, pool and checkpoints that were not measured are named as such, in both pages."""
    optional = ("unrelated", "pool", "matched", "matched_steps")
    poor = replace(evidence, **{name: getattr(evidence, name).iloc[:0] for name in optional})
    poor = replace(poor, nulls=poor.nulls[poor.nulls["null"] == "isotropic"])
    drawn = {name: figure.draw(poor, study.rules) for name, figure in FIGURES.items()}
    write_up = WriteUp(judgement, poor, study, written, drawn, environment(), "make claims")
    markdown = write_up.render("report.md.j2")
    assert "not measured" in Page(write_up.render("report.html.j2")).text
    assert "| unrelated traits | neutral | not measured |" in markdown


def test_a_report_goes_by_its_study_s_rules(written: Path, evidence: Evidence, study: Study, tmp_path: Path) -> None:
    """Figure, caption and runs.csv take the early fraction from the study, which has not the usual one."""
    name = "plot7_alignment_against_drift"
    own, usual = (
        save_figure(FIGURES[name].draw(evidence, rules).figure, tmp_path / str(rules.early_fraction), name)[1]
        for rules in (study.rules, Rules())
    )
    drawn = (written / "figures" / f"{name}.svg").read_bytes()
    assert (drawn == own.read_bytes(), drawn == usual.read_bytes()) == (True, False)
    assert "first 50 % of steps" in (written / "report.md").read_text(encoding="utf-8")
    early = pd.read_csv(written / "runs.csv").set_index(["seed", "condition"])["early_alignment"]
    assert early[1, "neutral"] == pytest.approx(early_alignment(evidence, 0.5).loc[1, "neutral"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1. item", "1\\. item"),
        ("0.12 of it", "0.12 of it"),
        ("a\n\n# b", "a \\# b"),
        ("<b>", "\\<b\\>"),
        ("http://x.org www.x.org", "http:\\//x.org www\\.x.org"),
        ("a\\*b", "a\\\\\\*b"),
    ],
)
def test_markdown_text_is_inert(text: str, shown: str) -> None:
    """What would start a list, a title, a tag or a link is escaped; a decimal point is not."""
    assert markdown_text(text) == shown


def test_the_verdict_file_round_trips(written: Path, judgement: Judgement) -> None:
    """verdict.json is strict JSON and holds the whole judgement, a missing number as null."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    read = json.loads((written / "verdict.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert read.pop("study") == "simulated"
    assert read == json.loads(re.sub(r"\bNaN\b", "null", json.dumps(asdict(judgement))))
    missing = [e for finding in (*judgement.gates, *judgement.claims) for e in finding.effects if math.isnan(e.p)]
    assert missing, "no effect without p: this test would not see NaN"


def test_claims_table_has_a_row_an_effect(written: Path, judgement: Judgement) -> None:
    """In the order of the judgement, numbers in full, a missing one empty."""
    with (written / "claims.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    effects = [(finding, e) for finding in (*judgement.gates, *judgement.claims) for e in finding.effects]
    assert len(rows) == len(effects)
    for row, (finding, effect) in zip(rows, effects, strict=True):
        assert (row["claim"], row["status"], row["effect"]) == (finding.key, str(finding.status), effect.name)
        assert float(row["estimate"]) == effect.estimate
        assert row["p"] == "" if math.isnan(effect.p) else float(row["p"]) == effect.p
        assert row["n"] == str(effect.n)


def test_metrics_are_the_means_of_the_tables(written: Path, evidence: Evidence) -> None:
    """Frozen, training and drift rows, against means taken by hand."""
    table = pd.read_csv(written / "metrics.csv")

    def one(condition: str, **where) -> float:
        rows = table[table["condition"] == condition]
        for column, value in where.items():
            rows = rows[rows[column].isna() if value is None else rows[column] == value]
        assert len(rows) == 1, f"{where}: {len(rows)} rows"
        return rows["value"].iloc[0]

    place = {"layer": 2, "position": "completion_sum"}
    frozen = evidence.alignments.query("condition == 'inoculation' and layer == 2 and position == 'completion_sum'")
    for metric in ("alignment", "projection", "grad_norm"):
        values = frozen[metric].to_numpy()
        assert one("inoculation", seed=None, step=None, metric=metric, **place) == pytest.approx(values.sum() / 24)
    losses = {row.example: row.loss for row in frozen.itertuples()}
    assert one("inoculation", seed=None, metric="loss") == pytest.approx(sum(losses.values()) / 24)
    step = evidence.training.query("condition == 'neutral' and seed == 1 and step == 3 and layer == 2")
    step = step[step["position"] == "completion_sum"]
    assert len(step) == 4
    assert one("neutral", seed=1, step=3, metric="alignment", **place) == pytest.approx(step["alignment"].sum() / 4)
    assert one("neutral", seed=1, step=3, metric="loss") == pytest.approx(step["loss"].sum() / 4)
    post = evidence.drift.query("condition == 'neutral' and seed == 2 and phase == 'post' and measure == 'log_odds'")
    assert one("neutral", seed=2, metric="log_odds_post") == pytest.approx(post["value"].mean())
    assert one("base", metric="score_pre") >= 0


def test_runs_table_has_a_row_a_run_and_its_drift(written: Path, evidence: Evidence) -> None:
    """After minus before, for every measure, and the run's own losses."""
    table = pd.read_csv(written / "runs.csv")
    assert len(table) == len(evidence.runs) == 9
    row = table.query("condition == 'inoculation' and seed == 1").iloc[0]
    values = evidence.drift.query("measure == 'projection' and phase != 'early'")
    after = values.query("condition == 'inoculation' and seed == 1")["value"].mean()
    before = values.query("condition == 'base'")["value"].mean()
    assert row["projection_drift"] == pytest.approx(after - before)
    assert row["final_loss"] < row["initial_loss"]


def test_metrics_are_the_same_whatever_the_order_of_rows(evidence: Evidence) -> None:
    """A study that was interrupted, or run by several workers, leaves the same table."""
    shuffled = replace(evidence, training=evidence.training.sample(frac=1, random_state=1))
    pd.testing.assert_frame_equal(metrics_table(evidence), metrics_table(shuffled), rtol=1e-12)


def test_a_finding_replaces_its_own_rows_only(tmp_path: Path, judgement: Judgement) -> None:
    """Claims write one by one, in any order and again: the table ends as if written at once."""
    findings = [*judgement.claims[::-1], *judgement.gates, judgement.claims[0]]
    for finding in findings:
        write_finding(finding, tmp_path)
    whole = write_table(claims_table([*judgement.gates, *judgement.claims]), tmp_path / "whole.csv")
    assert (tmp_path / "claims.csv").read_text() == whole.read_text()
    left = json.loads((tmp_path / "findings" / "C1.json").read_text())
    assert left["statement"] == judgement.claims[0].statement


def test_the_environment_names_versions_and_not_the_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a reader needs to compare, found outside a checkout too."""
    monkeypatch.chdir(tmp_path)
    found = environment()
    assert {"torch", "transformers", "peft", "numpy", "scipy", "statsmodels"} <= set(found["packages"])
    assert found["python"].count(".") == 2
    assert found["cores"] >= 1
    assert "host" not in found


POISONS = {
    "empty": b"",
    "an unclosed quote": b'claim,status\n"G1,holds\n',
    "another table": b"name,value\na,1\n",
}


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
def test_table_that_is_none_is_written_anew(tmp_path, poison):
    """A claim's test does not fail for what somebody left in the artifacts."""
    (tmp_path / "claims.csv").write_bytes(poison)
    write_finding(Finding("G1", "A gate.", Status.SUPPORTED, "It holds.", "The rule."), tmp_path)
    assert list(pd.read_csv(tmp_path / "claims.csv")["claim"]) == ["G1"]
