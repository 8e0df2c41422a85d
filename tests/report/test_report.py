"""The report: everything is there, nothing of a model is markup, what decides is said."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fixtures.diverged import diverged
from gradinoc.claims.evidence.measures import matrix
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.criteria import above
from gradinoc.claims.rules.finding import Status
from gradinoc.claims.rules.verdict import Judgement, judge
from gradinoc.pipeline.storage.provenance import environment
from gradinoc.report import write_report
from gradinoc.report.figures import figures_of
from gradinoc.report.page import WriteUp, digest
from gradinoc.report.page.grid import interval
from gradinoc.report.page.minds import dose_window, mind, what_flips
from gradinoc.report.page.versions import SEEN, plan_reading, versions
from gradinoc.report.wording import markdown_text, number, p_of, p_value, signs
from gradinoc.stats.effect import Effect
from gradinoc.study.description import Study
from gradinoc.study.rules import VERSION, Published


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


def test_everything_is_there(written: Path, evidence: Evidence) -> None:
    """Tables, pages and each figure in both formats, and no temporary file beside them."""
    files = {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()}
    figures = {f"figures/{name}.{suffix}" for name in figures_of(evidence) for suffix in ("png", "svg")}
    figures |= {"figures/figures.json"}
    tables = {f"{name}.csv" for name in ("claims", "metrics", "runs", "prompts", "matrix")}
    pages = {"report.md", "report.html", "what-would-change-our-mind.md"}
    others = {name for name in files if re.fullmatch(r"figures/\w+\.csv", name)}
    assert files - others == figures | tables | pages | {"verdict.json", "environment.json", "summary.txt"}


def test_both_pages_hold_every_number_in_a_table_and_the_verdict(written: Path, judgement: Judgement) -> None:
    """Each gate's and claim's sentence, reason and effects, these with what n counts; the verdict comes first."""
    page = Page((written / "report.html").read_text(encoding="utf-8")).text
    markdown = (written / "report.md").read_text(encoding="utf-8")
    for finding in (*judgement.gates, *judgement.claims):
        for text in (finding.claim, finding.reason.partition(" G")[0] if finding.failed_gates else finding.reason):
            assert signs(text) in page
            assert markdown_text(text) in markdown
        for effect in finding.effects:
            cells = [number(effect.estimate), str(effect.n), effect.unit, effect.method]
            rows = [
                line for line in markdown.splitlines() if f"| {markdown_text(effect.name)} |" in line.replace("**", "")
            ]
            assert any(all(f"| {markdown_text(cell)} |" in row for cell in cells) for row in rows), (effect, rows)
            assert effect.name in page
            assert effect.method in page
    assert page.index(judgement.verdict.name) < page.index(judgement.claims[0].claim)


def test_both_versions_verdicts_stand_side_by_side(written: Path, study: Study, judgement: Judgement) -> None:
    """Of a study that version 1 judged, with the sentence that its outcome had been seen; of others there is none."""
    both = versions(study.published, judgement)
    assert both == {"version 1 (as published)": "REFUTED", f"version {VERSION}": judgement.verdict.name}
    for name in ("report.html", "report.md", "what-would-change-our-mind.md", "summary.txt"):
        text = " ".join((written / name).read_text(encoding="utf-8").replace("&#39;", "'").split())
        assert SEEN in text, name
        assert "REFUTED" in text
    assert versions(Published(), judgement) == {}
    verdict = json.loads((written / "verdict.json").read_text(encoding="utf-8"))
    assert (verdict["rules"], verdict["published"]["first_verdict"]) == (VERSION, "refuted")


def test_cosines_stand_beside_the_spread_of_prompts_and_directions(written: Path, evidence: Evidence) -> None:
    """In the sections of C1, C2 and C3 and in the summary: harmless prompts, and every kind of direction."""
    html = (written / "report.html").read_text(encoding="utf-8")
    harmless = evidence.alignments[evidence.alignments["layer"].isin(evidence.band)]
    harmless = harmless[harmless["position"] == evidence.primary_position]
    shared = harmless.pivot_table(index="example", columns="condition", values="alignment").dropna().mean()
    sd = shared[list(evidence.family("harmless", evidence.conditions))].std(ddof=1)
    for key in ("C1", "C2", "C3"):
        section = html.partition(f'<section class="card" id="{key}"')[2].partition("</section>")[0]
        assert "alignment along v, harmless prompts" in section
        assert all(f"T along {kind}" in section for kind in ("isotropic directions", "instruction contrasts"))
        assert number(sd) in section
    assert "Cosines are to be read beside these spreads" in (written / "summary.txt").read_text(encoding="utf-8")


def test_tables_of_prompts_and_of_the_matrix_are_those_of_the_claims(written: Path, evidence: Evidence) -> None:
    """A row a prompt with its own means; a row a cell of the matrix, with its interval over questions."""
    prompts = pd.read_csv(written / "prompts.csv").set_index("condition")
    assert list(prompts.index) == evidence.prompts["condition"].tolist()
    one = evidence.elicitation.groupby("condition")["log_odds"].mean()
    assert prompts.loc["harmless_02", "elicitation"] == pytest.approx(one["harmless_02"] - one["neutral"])
    assert prompts.loc["neutral", "seeds"] == 3
    assert np.isnan(prompts.loc["unseen_1", "drift"])
    table = pd.read_csv(written / "matrix.csv")
    wide = table.pivot_table(index="condition", columns="evaluation", values="drift")
    pd.testing.assert_frame_equal(wide, matrix(evidence).loc[wide.index, wide.columns], check_names=False)
    assert ((table["low"] < table["drift"]) & (table["drift"] < table["high"])).all()
    assert set(table["unit"]) == {"questions"}


def test_the_plan_s_reading_goes_by_its_own_criteria(judgement: Judgement, study: Study) -> None:
    """Supported where all are met; loss-mediated where loss takes it away; else another mechanism, or none."""
    assert plan_reading(judgement, study.rules).words == "supported"
    claims = {claim.key: claim for claim in judgement.claims}

    def without(key: str, effect: str) -> Judgement:
        effects = tuple(replace(each, low=-1.0) if each.key == effect else each for each in claims[key].effects)
        changed = claims | {key: replace(claims[key], effects=effects)}
        return replace(judgement, claims=tuple(changed.values()))

    assert plan_reading(without("C3", "within"), study.rules).words.startswith("weaker: mediated by loss")
    assert plan_reading(without("C1", "alignment.neutral"), study.rules).words.startswith("useful negative")
    assert plan_reading(judgement, study.rules).numbers.rows[4][4:6] == ("9", "runs of 3 prompts")


def test_what_flips_a_claim_are_its_own_criteria(judgement: Judgement) -> None:
    """Of a supported claim all that could unmake it; of another what is short; gates that fail come first."""
    share = Effect("share", 0.5, 0.3, 0.7, 0.01, 9, "prompts", "t", key="share")
    claim = judgement["C6"]
    finding = replace(claim, status=Status.SUPPORTED, criteria=(above(share, 0.25),), failed_gates=())
    assert what_flips(finding).endswith("95 % interval of share above 0.25, with 0.05 to spare.")
    short = replace(finding, status=Status.UNDECIDED, criteria=(above(share, 0.45),))
    assert what_flips(short) == "C6 is undecided; not met: 95 % interval of share above 0.45 (short by 0.15)."
    gated = what_flips(replace(short, failed_gates=("G4", "G5")))
    assert gated.startswith("C6 says nothing while G4 and G5 fail. Of its own criteria these are not met: 95 %")
    assert what_flips(replace(finding, failed_gates=("G4",))).endswith("G4 fails. Its own criteria are all met.")


def test_dose_window_is_the_share_of_neutral_drift_left_at_each_step(evidence: Evidence) -> None:
    """Means over questions, prompts of a family, and neutral runs, above the base model's log-odds; neutral is one."""
    base = evidence.drift.query("condition == 'base' and measure == 'decision_log_odds'").set_index("example")["value"]
    found = {effect.key: effect for effect in dose_window(evidence)}
    steps = sorted(evidence.checkpoints["step"].unique())
    assert list(found) == [f"dose.{step}.{family}" for step in steps for family in ("harmless", "inoculation")]
    kept = evidence.checkpoints[evidence.checkpoints["step"] == steps[-1]]
    drift = (kept["log_odds"] - kept["example"].map(base)).groupby(kept["condition"].astype(str)).mean()
    for family in ("harmless", "inoculation"):
        own = drift[list(evidence.family(family, evidence.trained))].mean() / drift["neutral"]
        assert found[f"dose.{steps[-1]}.{family}"].estimate == pytest.approx(own)


def test_the_page_needs_nothing_but_itself(written: Path, evidence: Evidence) -> None:
    """No stylesheet, no address outside the page, no script but its own, whose hash its policy names."""
    html = (written / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert not page.tags & {"link", "iframe", "object"}
    for tag in ("script", "style"):
        (own,) = re.findall(f"<{tag}[^>]*>(.*?)</{tag}>", html, flags=re.DOTALL)
        assert f"{tag}-src '{digest(own)}';" in html
    assert all(address.startswith(("#", "data:image/svg+xml;base64,")) for address in page.addresses)
    assert sum(address.startswith("data:") for address in page.addresses) == len(figures_of(evidence))


def test_text_of_a_model_is_never_markup(written: Path) -> None:
    """A response that is a script, a table cell, a link and a change of direction comes out as its own text."""
    html = (written / "report.html").read_text(encoding="utf-8")
    assert html.count("<script") == 1  # the page's own
    assert "alert('x')" in Page(html).text
    markdown = (written / "report.md").read_text(encoding="utf-8")
    lines = [line for line in markdown.splitlines() if "alert" in line]
    assert len(lines) >= 2  # the prompt in the table of prompts, and the response
    for line in lines:
        assert "\\<script\\>" in line
        assert "\\| \\*\\*bold\\*\\* \\[a\\]" in line
    assert "\u202e" not in html + markdown


def test_a_report_of_a_study_with_gaps_says_so(
    written: Path, evidence: Evidence, study: Study, judgement: Judgement
) -> None:
    """Matrix, checkpoints and nulls that were not measured leave no number, and the pages are whole."""
    gone = {name: getattr(evidence, name).iloc[:0] for name in ("matrix", "checkpoints", "nulls", "elicitation")}
    poor = replace(evidence, **gone)
    drawn = {name: figure.draw(poor, study.rules) for name, figure in figures_of(poor).items()}
    write_up = WriteUp(judgement, poor, study, written, drawn, environment(), "make claims")
    assert "Not measured in this study." in Page(write_up.render("report.html.j2")).text
    assert "nan" not in write_up.render("what-would-change-our-mind.md.j2").replace("nant", "")


@pytest.mark.parametrize("runs", [1, 100])
def test_a_report_of_a_study_with_a_run_that_diverged_says_so(
    evidence: Evidence, study: Study, tmp_path: Path, runs: int
) -> None:
    """It is written whole: the verdict is left open, G4 names the runs, and no number of theirs is made up."""
    broken = evidence
    for run in evidence.planned_runs[:runs]:
        broken = diverged(broken, *run)
    found = judge(broken, study.rules)
    write_report(found, broken, study, tmp_path, environment(), "make claims")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "UNDECIDED" in text
    assert "neutral seed 0" in text
    assert "C6 says nothing while G4, G5 and G6 fail. Not computed, because runs diverged" in text
    assert "because runs diverged" in text
    table = pd.read_csv(tmp_path / "runs.csv").set_index(["condition", "seed"])
    lost = [each for each in table if each.endswith(("_post", "_drift", "final_loss"))]
    assert table.loc[("neutral", 0), lost].isna().all()


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


def test_the_environment_names_versions_and_not_the_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a reader needs to compare, found outside a checkout too."""
    monkeypatch.chdir(tmp_path)
    found = environment()
    assert {"torch", "transformers", "peft", "numpy", "scipy", "statsmodels"} <= set(found["packages"])
    assert found["python"].count(".") == 2
    assert found["cores"] >= 1
    assert "host" not in found


def test_p_says_what_it_is_against(judgement: Judgement, written: Path) -> None:
    """Where that is not zero, in both pages and in the summary: a small p beside an interval around zero misleads."""
    share = judgement["C6"]["share"]
    assert share.against == 0.25
    assert f"{p_value(share.p)} against 0.25" == p_of(share)
    assert p_of(replace(share, against=0.0)) == p_value(share.p)
    assert p_of(replace(share, p=math.nan)) == "–"
    for name in ("report.html", "report.md"):
        assert p_of(share) in Page((written / name).read_text(encoding="utf-8")).text
    assert "against 0.25, n" in (written / "summary.txt").read_text(encoding="utf-8")


def test_page_of_doubt_gives_the_share_that_harmless_prompts_leave_its_interval(
    judgement: Judgement, evidence: Evidence
) -> None:
    """That of C6, prompts and neutral runs as unit; G5's has none."""
    rows = [row for row in mind(judgement, evidence).sides.rows if "harmless drift, share of neutral's" in row[1]]
    assert [row[3] for row in rows] == [interval(judgement["C6"]["room"])]
