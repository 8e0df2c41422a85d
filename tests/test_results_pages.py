"""Pages of results: made of the studies' records, and nothing in them typed."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest

from fixtures.scripts import script
from gradinoc.report.exports.record import Record

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def make_results():
    """The script that writes the results pages."""
    return script(ROOT / "docs" / "make_results.py")


def test_results_pages_are_as_their_templates_say(make_results):
    """Nothing was changed by hand, and no record since."""
    for template, page in zip(make_results.TEMPLATES, make_results.PAGES, strict=True):
        assert make_results.rendered(template) == page.read_text(encoding="utf-8"), "run: python docs/make_results.py"


RECORDS = sorted(path.parent for path in (ROOT / "docs").glob("*/study.json"))


@pytest.mark.parametrize("record", RECORDS, ids=lambda path: path.name)
def test_page_of_a_study_has_every_number_that_was_published(record):
    """Each record has a page, and there a row for each effect of its claims.csv, to three digits."""
    page = ROOT / "docs" / "results" / f"{record.name}.md"
    rows = [line.split(" | ") for line in page.read_text(encoding="utf-8").replace("\\|", "¦").splitlines()]
    written = {(row[0].strip("| "), row[1].replace("¦", "|")): row[2] for row in rows if len(row) == 3}
    claims = pd.read_csv(record / "claims.csv").dropna(subset="effect")
    assert len(claims) > 20
    for claim, effect, estimate in claims[["claim", "effect", "estimate"]].itertuples(index=False):
        cell = written[claim, effect]
        if math.isnan(estimate):
            assert cell.startswith("not measurable")
        else:
            number = float(re.split("[ ,]", cell)[0].replace("−", "-"))
            assert number == pytest.approx(estimate, rel=6e-3), (claim, effect)


QUOTED = re.compile(r"−?\d[\d.]*(?:e−\d+)? \[−?\d[^]]*\]")  # an estimate with its interval


@pytest.mark.parametrize("page", ["README.md", "docs/faq.md"])
def test_estimates_that_a_page_quotes_are_those_of_a_study(page, make_results):
    """Where it is written by hand: each is that of an effect of a published study, digit by digit."""
    quoted = QUOTED.findall((ROOT / page).read_text(encoding="utf-8"))
    published = {make_results.brief(effect) for path in RECORDS for effect in Record(path).effects.values()}
    assert len(quoted) > 3
    assert {*quoted} - published == set()


@pytest.mark.parametrize("template", sorted((ROOT / "docs").rglob("*.md.j2")), ids=lambda path: path.name)
def test_no_number_of_a_results_page_is_typed(template):
    """Its template looks every one up: digits stand in names, in the level of intervals and in what is looked up."""
    text = re.sub(r"{[{%#].*?[}%#]}", "", template.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)|src=\"[^\"]*\"|width=\"[^\"]*\"|`[^`]*`", "", text)  # addresses and commands
    text = re.sub(
        r"\b[CG]\d+[a-c]?\b|SmolLM2-135M-Instruct|GSM8K|\b[Vv]ersion \d's|R²|95 %|^\d\.", "", text, flags=re.MULTILINE
    )
    assert re.findall(r".*\d.*", text) == []
