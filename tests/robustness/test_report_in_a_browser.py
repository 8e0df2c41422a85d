"""What data, a study file or a model wrote is text in a report, in a real browser too: it runs and loads nothing."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from playwright.sync_api import Browser

from fixtures.browser import chromium
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.verdict import judge
from gradinoc.models.chat.rendered import Rendered
from gradinoc.power.simulate import simulate
from gradinoc.report import write_report
from gradinoc.report.figures import figures_of
from gradinoc.report.wording import visible
from gradinoc.study.description import Study
from gradinoc.study.prompts import CONDITIONS

ELSEWHERE = "http://127.0.0.1:9"  # nobody listens there; that it is asked at all is what would be seen
RUN = "(window.hacked = window.hacked || []).push"  # what a payload that runs leaves behind
HTML = {
    "script": f"<script>{RUN}('script')</script>",
    "closing tags": f"</p></q></td></table></pre></style></title><script>{RUN}('closing tags')</script>",
    "frame": f"<iframe srcdoc=\"<script>{RUN.replace('window.', 'parent.')}('frame')</script>\"></iframe>",
    "dialog": "<script>alert('dialog')</script>",
    "beacon": f'<img src="{ELSEWHERE}/beacon.png">',
    "stylesheet": f'<link rel="stylesheet" href="{ELSEWHERE}/stylesheet.css">',
}
TEXT = {
    "attribute": f'" onmouseover="{RUN}(\'attribute\')" style="background:url({ELSEWHERE}/attribute)" x="',
    "javascript link": f"<a href=\"javascript:{RUN}('javascript link')\">press</a>",
    "comment": "<!-- <p> --!> <![CDATA[ <b>",
    "markdown image": f"![picture]({ELSEWHERE}/markdown.png)",
    "markdown link": "[press](javascript:alert) <http://example.org> [press][1]\n\n[1]: javascript:alert",
    "markdown table": "a | b\n--- | ---\n**c** | `d` | ~~e~~ | _f_",
    "template": "{{ 7 * 7 }} {% raw %} {# remark #} ${7*7} <%= 7*7 %>",
    "terminal": "\x1b]0;title\x07\x1b[2J\x1b]8;;http://example.org\x07press\x1b]8;;\x07\x9b31m\x08\x7f\r",
    "direction": "abc\u202edcba\u202c \u2067def\u2069 \u200fghi \u061cjkl",
    "unwritable": "nul \x00, not a character \uffff, a separator \u2028 and a joiner a\u200db",
}
PAYLOADS = {**HTML, **TEXT}
# The page's own: one script, and the button that copies; the Markdown has none.
OWN = {"report.html": {"script": 1, "field": 1}, "report.md": {}}
RENAMED = "harmless_02"
CONDITION = f"--><script> {RUN}('condition')</script>"  # labels are broken at blanks


@dataclass(frozen=True)
class Seen:
    """What a page did and showed: payloads that ran, dialogs, complaints, addresses asked for, text, markup."""

    ran: list[str]
    dialogs: list[str]
    complaints: list[str]
    asked: list[str]
    text: str
    markup: dict[str, int]
    pictures: list[int]


LOOK = """() => ({
  text: document.documentElement.textContent,
  ran: window.hacked || [],
  markup: Object.fromEntries([
    ['script', 'script'], ['frame', 'iframe, object, embed'], ['form', 'form'], ['base', 'base, link'],
    ['field', 'input, button, select, textarea'],
    ['refresh', 'meta[http-equiv=refresh i]'], ['leading away', 'a:not([href^="#"])'],
    ['broken', 'parsererror'], ['picture from elsewhere', 'img:not([src^="data:"]):not([src^="figures/"])'],
  ].map(([name, selector]) => [name, document.querySelectorAll(selector).length]).concat([
    ['handler', [...document.querySelectorAll('*')].filter(
      element => [...element.attributes].some(attribute => attribute.name.startsWith('on'))).length]])),
  pictures: [...document.images].map(image => image.naturalWidth),
})"""


@pytest.fixture(scope="module")
def browser():
    """Chromium, one for all tests here."""
    with chromium() as browser:
        yield browser


def look(browser: Browser, file: Path) -> Seen:
    """Open a file, wait until it is loaded and has been drawn twice, which is when what has the focus hears of it."""
    page = browser.new_page()
    dialogs, complaints, asked = [], [], []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfinished", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: asked.append(request.url) if request.failure != "csp" else None)
    page.goto(file.as_uri(), wait_until="load")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    found = page.evaluate(LOOK)
    page.close()
    return Seen(dialogs=dialogs, complaints=complaints, asked=asked, **found)


def hostile_evidence() -> Evidence:
    """A small study whose questions, responses and prompts are the payloads, each shown somewhere, and one name."""
    made = simulate("effect", np.random.default_rng(5), layers=4, steps=10, directions=100)
    renamed = {name: hostile_names(table) for name, table in made.tables.items()}
    runs = tuple((CONDITION if name == RENAMED else name, seed) for name, seed in made.planned_runs)
    made = replace(made, **renamed, planned_runs=runs)
    payloads, responses, prompts = list(PAYLOADS.values()), made.responses.copy(), made.prompts.copy()
    for column, shift in (("response", 0), ("question", 12)):
        # Some questions of each domain are shown for each condition and the base model: all payloads among them.
        places = responses.groupby(["condition", "domain"]).ngroup() * 4 + responses["example"] % 4 + shift
        responses[column] = [payloads[place % len(payloads)] for place in places]
    prompts["text"] = [payloads[place % len(payloads)] for place in range(len(prompts))]
    return replace(made, responses=responses, prompts=prompts)


def hostile_names(table: pd.DataFrame) -> pd.DataFrame:
    """A table in which one prompt has a hostile name."""
    named = [column for column in ("condition", "evaluation") if column in table]
    return table.assign(**{column: table[column].astype(str).replace(RENAMED, CONDITION) for column in named})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A report on such a study, whose own words are payloads too."""
    evidence, everything = hostile_evidence(), "\n".join(PAYLOADS.values())
    study = Study(name="hostile")
    hostile = {
        "conditions": {**CONDITIONS, "loss_matched": everything, CONDITION: everything},
        "model": study.model.model_copy(update={"id": everything}),
        "data": study.data.model_copy(update={"source": everything}),
    }
    study = study.model_copy(update=hostile)  # past the checks of a study file, which refuse some of it
    place = tmp_path_factory.mktemp("artifacts") / "hostile"
    machine = {"processor": everything, everything: "1", "packages": {everything: everything}}
    tokens = [*((text, False) for text in PAYLOADS.values()), *((text, True) for text in PAYLOADS.values())]
    rendered = Rendered(everything, {"neutral": everything, CONDITION: everything}, CONDITION, tokens)
    write_report(judge(evidence, study.rules), evidence, study, place, machine, everything, rendered)
    markdown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    page = markdown.render((place / "report.md").read_text(encoding="utf-8"))
    (place / "markdown.html").write_text(f"<!doctype html><meta charset=utf-8>{page}", encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def pages(browser, folder) -> dict[str, Seen]:
    """The report as the browser shows it, and the Markdown turned into a page by a converter that lets HTML through."""
    return {"report.html": look(browser, folder / "report.html"), "report.md": look(browser, folder / "markdown.html")}


def squeezed(text: str) -> str:
    """Text without regard to how it is broken into lines."""
    return " ".join(text.split())


def test_payloads_do_harm_where_nothing_stops_them(browser, tmp_path):
    """Otherwise the tests below could not fail: put in a page as they are, they run, or ask for what is elsewhere."""
    for name, payload in HTML.items():
        (tmp_path / "page.html").write_text(f"<!doctype html><body>{payload}</body>", encoding="utf-8")
        seen = look(browser, tmp_path / "page.html")
        assert name in [*seen.ran, *seen.dialogs] or any(address.startswith(ELSEWHERE) for address in seen.asked)


@pytest.mark.fault(
    "Hostile text", "markup, links, escape sequences in a question, answer or prompt: report.html, report.md"
)
@pytest.mark.parametrize("page", ["report.html", "report.md"])
def test_hostile_text_is_shown_and_does_nothing(pages, page, faults_tried):
    """Readers see each payload, letter by letter but for what steers terminals and directions."""
    text = squeezed(pages[page].text)
    assert [name for name, payload in PAYLOADS.items() if squeezed(visible(payload)) not in text] == []
    faults_tried(len(PAYLOADS))


@pytest.mark.fault("Hostile text", "the whole page: scripts, handlers, forms, links away, requests, dialogs")
@pytest.mark.parametrize("page", ["report.html", "report.md"])
def test_page_holds_no_markup_but_its_own(pages, page):
    """No other element that runs, asks, sends or leads away; figures are shown; the browser complains of nothing."""
    seen = pages[page]
    assert {name: count for name, count in seen.markup.items() if count} == OWN[page]
    assert (seen.ran, seen.dialogs, seen.complaints) == ([], [], [])
    assert [address[:5] for address in seen.asked if address[:5] not in ("file:", "data:")] == []
    assert len(seen.pictures) == len(figures_of(hostile_evidence()))
    assert min(seen.pictures) > 0
    assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", seen.text) is None


@pytest.mark.fault("Hostile text", "a payload that no escaping stopped: the page's own policy")
def test_policy_stops_what_escaping_would_miss(browser, folder, faults_tried):
    """Put into the page as it is, a payload still runs nothing and asks nobody."""
    page = re.sub("<figure.*?</figure>", "", (folder / "report.html").read_text(encoding="utf-8"), flags=re.DOTALL)
    for payload in HTML.values():
        broken = folder / "broken.html"
        broken.write_text(page.replace("<body>", f"<body>{payload}"), encoding="utf-8")
        seen = look(browser, broken)
        assert (seen.ran, seen.dialogs) == ([], []), payload
        assert not [address for address in seen.asked if address.startswith(ELSEWHERE)], payload
    faults_tried(len(HTML))


@pytest.mark.exhaustive
@pytest.mark.fault("Hostile text", "markup as a condition's name in figures")
def test_figures_opened_by_themselves_run_nothing(browser, folder, faults_tried):
    """A figure is an SVG file too, which could hold scripts; the condition's name is in some of them, as a comment."""
    files = sorted((folder / "figures").glob("*.svg"))
    assert any("script" in file.read_text(encoding="utf-8") for file in files)
    for file in files:
        seen = look(browser, file)
        assert (seen.ran, seen.markup["script"], seen.markup["broken"], seen.complaints) == ([], 0, 0, [])
    faults_tried(len(files))


@pytest.mark.fault("Hostile text", "text of data, models and study files in tables and in the terminal's summary")
@pytest.mark.parametrize("name", ["claims.csv", "metrics.csv", "prompts.csv", "matrix.csv", "summary.txt"])
def test_tables_and_summary_hold_no_text_of_others(folder, name, faults_tried):
    """Questions, responses, prompts and addresses are in none of them: no formula for a spreadsheet, no escapes.

    But for conditions, whose names a study file may only make of letters, digits, blanks and `_ - .`.
    """
    text = (folder / name).read_text(encoding="utf-8").replace(CONDITION, "")
    assert [payload for payload, content in PAYLOADS.items() if squeezed(content)[:20] in squeezed(text)] == []
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    if name.endswith(".csv"):
        cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
        assert [cell for cell in cells if re.match(r"[=+@\t\r-]", cell) and not re.fullmatch(r"-[\d.e-]+", cell)] == []
    faults_tried(len(PAYLOADS))
