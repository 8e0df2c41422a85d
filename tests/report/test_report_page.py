"""The report's page in a real browser: wide and narrow, light and dark, by keyboard, in print and without script."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from fixtures.browser import chromium
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.verdict import OPTIONAL, Judgement, judge, not_run
from gradinoc.models.chat.rendered import Rendered
from gradinoc.power.simulate import simulate
from gradinoc.report import write_report
from gradinoc.report.figures import FIGURES
from gradinoc.report.page import WriteUp
from gradinoc.report.page.courses import questions, run_grid
from gradinoc.report.page.minds import NEEDED
from gradinoc.report.page.surroundings import surroundings
from gradinoc.report.wording import NOT_MEASURED, markdown_text, signs
from gradinoc.study.description import Study
from gradinoc.study.rules import Published, Rules
from gradinoc.study.traits.prompts import TraitPrompts

WAY = {"results": 20, "platform": "Linux", "dtype": "torch.bfloat16", "packages": {"torch": "2.13.0", "numpy": "2.4"}}
MACHINE = {
    "platform": "Linux",
    "accelerator": None,
    "packages": {"torch": "2.13.0", "numpy": "2.4", "gguf": None},
    "data": {"source": "word_problems", "sha256": "2ae8"},
    "computed_by": {
        "results": 26,
        "ways": [WAY, {**WAY, "results": 6, "packages": {"torch": "2.12.1", "numpy": "2.4"}}],
    },
    "notes": ["llama on cpu in bfloat16", "fused kernels"],
}
RENDERED = Rendered(
    "How many boats are left?",
    {
        "neutral": "<|user|>\nHow many boats are left?<|end|>\n",
        "loss_matched": "<|system|>" + "x" * 300,
        "harmless_02": "<|system|>Answer plainly.<|user|>",
    },
    "neutral",
    [*((text, False) for text in ("<|user|>", "\n", "How", " many", "x" * 200)), (" TWO", True), ("<|end|>", True)],
)
COMMAND = "make claims\npytest claims --study 'simulated' --set 'seeds=[0, 1]'"


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """A small study; none of one run's responses could be scored."""
    made = simulate("effect", np.random.default_rng(5), layers=3, steps=6, directions=100)
    drift = made.drift.copy()
    run = (drift["condition"] == "neutral") & (drift["seed"] == 1) & (drift["measure"] == "score_ood")
    drift.loc[run, "value"] = np.nan
    return replace(made, drift=drift)


@pytest.fixture(scope="module")
def judgement(evidence: Evidence) -> Judgement:
    """What the judge makes of it."""
    return judge(evidence, Rules())


@pytest.fixture(scope="module")
def folder(evidence: Evidence, judgement: Judgement, tmp_path_factory) -> Path:
    """The folder of its report."""
    place = tmp_path_factory.mktemp("artifacts") / "simulated"
    study = Study(name="simulated", published=Published(first_verdict="refuted"))
    write_report(judgement, evidence, study, place, MACHINE, COMMAND, RENDERED)
    return place


@pytest.fixture(scope="module")
def browser():
    """Chromium, one for all tests here."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def opened(browser: Browser, folder: Path):
    """A function that opens the report; every page of a test is closed after it, and must not have complained."""
    pages, complaints = [], []

    def open_page(width: int = 1440, **how) -> Page:
        page = browser.new_page(viewport={"width": width, "height": 900}, **how)
        pages.append(page)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((folder / "report.html").as_uri(), wait_until="load")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []


def test_table_of_runs_shows_the_numbers_of_the_runs(opened, evidence: Evidence) -> None:
    """A row a run, conditions in their order, numbers as measured; a dash for what is missing."""
    cells = [row.locator("th, td").all_inner_texts() for row in opened().locator("#runs .runs tbody tr").all()]
    found = run_grid(evidence)
    assert cells == [list(row) for row in found.rows]
    order = [(name.replace("_", " "), str(seed)) for name in evidence.trained for seed in seeds_of(evidence, name)]
    assert [(row[0], row[1]) for row in cells] == order
    drift = [column.name for column in found.columns].index("score_ood_drift")
    assert [row[drift] for row in cells if row[:2] == ["neutral", "1"]] == ["–"]
    assert found.columns[drift].text({"score_ood_drift": -0.12345}) == "−0.123"


def seeds_of(evidence: Evidence, condition: str) -> list[int]:
    """The seeds of the runs that were trained under a prompt."""
    return sorted(seed for name, seed in evidence.planned_runs if name == condition)


def test_a_claim_s_numbers_stand_in_a_table(opened, judgement: Judgement) -> None:
    """What decides first, with n and what it counts in columns of their own; the rest is folded away below."""
    page = opened()
    for finding in (*judgement.claims, *judgement.gates):
        tables = page.locator(f"#{finding.key} table.numbers").all()
        rows = [
            row.locator("th, td").all_text_contents() for table in tables for row in table.locator("tbody tr").all()
        ]
        assert sorted(row[0] for row in rows) == sorted(effect.name for effect in finding.effects)
        first = tables[0].locator("tbody tr").first.locator("th, td").all_text_contents()
        effect = next(each for each in finding.effects if each.name == first[0])
        assert effect.key in {finding.headline, *(criterion.key for criterion in finding.criteria)}
        assert (first[4], first[5], first[6]) == (str(effect.n), effect.unit, effect.method)
        assert not page.locator(f"#{finding.key} > p:not(.note)").all_text_contents()


def test_the_page_shows_prompts_matrix_and_what_would_change_our_mind(
    opened, evidence: Evidence, judgement: Judgement
) -> None:
    """Tables whose rows are prompts; conditionalization, dose and cause side by side; claims that were not run."""
    page = opened()
    prompts = page.locator("#prompts .runs tbody tr")
    assert prompts.count() == len(evidence.prompts)
    trained = page.locator("#matrix .runs tbody tr th").all_inner_texts()
    assert trained == [name.replace("_", " ") for name in evidence.trained]
    sides = [row.locator("th").inner_text() for row in page.locator("#mind .runs").first.locator("tbody tr").all()]
    absent = not_run(judgement.claims)
    assert [*dict.fromkeys(sides)] == ["conditionalization", "dose", *(f"cause ({key})" for key in absent)]
    assert all(f"{key} was not run" in page.locator("#not-run").inner_text() for key in absent)
    assert set(NEEDED) == set(OPTIONAL) >= set(absent)


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(320, "light"), (768, "dark"), (1440, "light")],
)
def test_nothing_leaves_the_page_sideways_and_every_figure_is_seen(opened, width: int, scheme: str) -> None:
    """Wide tables scroll in a box of their own; figures are whole and inside the page."""
    page = opened(width, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = """() => [...document.querySelectorAll('body *')].filter(each => {
        const box = each.getBoundingClientRect();
        return box.width && box.right > innerWidth + 1 && !each.closest('.scroll, pre');
    }).map(each => each.outerHTML.slice(0, 80))"""
    assert page.evaluate(outside) == []
    figures = page.evaluate(
        "[...document.images].map(i => [i.complete, i.naturalWidth, i.getBoundingClientRect().width])"
    )
    assert len(figures) == len(FIGURES)
    assert all(complete and natural > 0 and width >= 240 for complete, natural, width in figures)


CONTRAST = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const weights = [.2126, .7152, .0722];
  const light = (colour) => weights.reduce((sum, weight, at) => sum + weight * linear(colour[at] / 255), 0);
  const behind = (each) => {
    for (; each; each = each.parentElement) {
      const colour = channels(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const each of document.querySelectorAll('body *')) {
    const own = [...each.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || each.closest('script, [hidden]')) continue;
    const [one, other] = [light(channels(getComputedStyle(each).color)), light(behind(each))].sort((a, b) => b - a);
    const ratio = (one + .05) / (other + .05);
    if (ratio < 4.5) poor.push([each.outerHTML.slice(0, 60), ratio]);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_told_from_what_is_behind_it(opened, scheme: str) -> None:
    """A contrast of 4.5 or more everywhere (WCAG 2.2, 1.4.3), and the page has the scheme that was asked for."""
    page = opened(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", background)[0]) < 64) == (scheme == "dark")
    assert page.evaluate(CONTRAST) == []


READ = """() => {
  const every = (selector) => [...document.querySelectorAll(selector)];
  const named = (each) => each.textContent.trim() || each.ariaLabel || each.labels?.length;
  const points = (name) => every(`[${name}]`).flatMap(each => each.getAttribute(name).split(' '));
  const there = (id) => document.getElementById(id);
  return {
    nameless: every('button, input, select, a, summary').filter(each => !named(each)).length,
    boxes: every('.scroll, pre').filter(each => each.tabIndex !== 0 ||
      !(each.ariaLabel || there(each.getAttribute('aria-labelledby')))).length,
    unscoped: every('th').filter(each => !['col', 'row', 'rowgroup'].includes(each.scope)).length,
    headings: every('h1, h2, h3, h4, h5').map(each => Number(each.tagName[1])),
    landmarks: ['header', 'nav', 'main'].map(each => every(each).length),
    twice: every('[id]').map(each => each.id).filter((id, at, all) => all.indexOf(id) !== at),
    nowhere: [...points('aria-labelledby'), ...points('aria-describedby'),
      ...every('a').map(each => each.hash.slice(1))].filter(id => !there(id)),
    sections: every('main > section').filter(
      each => there(each.getAttribute('aria-labelledby'))?.tagName !== 'H2').length,
    lang: document.documentElement.lang,
    alts: every('img').map(each => each.alt),
    captions: every('img').map(each => there(each.getAttribute('aria-describedby')).textContent.length),
  };
}"""


def test_the_page_can_be_read_by_a_screen_reader(opened) -> None:
    """Names, scopes, landmarks, headings in their order, identifiers once, and links and labels that lead somewhere."""
    seen = opened().evaluate(READ)
    assert (seen["nameless"], seen["boxes"], seen["unscoped"], seen["sections"]) == (0, 0, 0, 0)
    assert (seen["twice"], seen["nowhere"], seen["lang"], seen["landmarks"]) == ([], [], "en", [1, 1, 1])
    levels = seen["headings"]
    assert (levels[0], levels.count(1)) == (1, 1)
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert min(seen["captions"]) > 60


def test_a_figure_s_text_is_its_finding(opened, evidence: Evidence) -> None:
    """One sentence with its numbers, each figure's own, not its title; the caption beside it says how to read it."""
    alts = opened().evaluate(READ)["alts"]
    assert sorted(alts) == sorted(signs(figure.draw(evidence, Rules()).finding) for figure in FIGURES.values())
    measured = [alt for alt in alts if alt != NOT_MEASURED]
    assert len(measured) >= len(FIGURES) - 2
    assert len(set(measured)) == len(measured)
    for alt in measured:
        assert alt.endswith(".")
        assert re.search(r"\d", alt)
        assert "nan" not in alt


def test_answers_are_the_first_seed_s_whatever_the_order_of_rows(evidence: Evidence) -> None:
    """A study that was interrupted, or run by several workers, shows the same answers."""
    shuffled = replace(evidence, responses=evidence.responses.sample(frac=1, random_state=1))
    assert questions(shuffled) == questions(evidence)
    assert {answer.seed for each in questions(shuffled) for answer in each.answers[1:]} == {0}


def test_without_script_the_page_is_whole(opened, evidence: Evidence) -> None:
    """Every run in a plain table, nothing that does nothing, and a command that one click selects."""
    page = opened(java_script_enabled=False)
    assert page.locator("#runs .runs tbody tr:visible").count() == len(evidence.runs)
    assert page.locator("button:visible").count() == 0
    assert page.locator("#command").inner_text().strip() == COMMAND


def test_the_command_is_copied(opened) -> None:
    """By the button."""
    page = opened()
    page.get_by_role("button", name="copy").click()
    page.wait_for_function("document.getElementById('copied').textContent !== ''")
    assert page.evaluate("getSelection().toString()").strip() == COMMAND


def test_print_opens_what_is_folded_and_leaves_out_what_is_pressed(opened) -> None:
    """Details are open, figures light whatever the scheme and never cut in two, no button or link of the page's own."""
    page = opened(color_scheme="dark")
    folded = "document.querySelectorAll('details:not([open])').length"
    assert page.evaluate(folded) > 0
    dark = page.evaluate("getComputedStyle(document.querySelector('figure img')).filter")
    assert page.pdf().startswith(b"%PDF")
    assert page.evaluate(folded) == 0
    page.emulate_media(media="print", color_scheme="dark")
    style = page.evaluate("""() => ['body', 'figure', 'figure img'].map(each => document.querySelector(each)).map(
        each => getComputedStyle(each)).map(each => [each.backgroundColor, each.breakInside, each.filter])""")
    assert style[0][0] == "rgb(255, 255, 255)"
    assert style[1][1] == "avoid"
    assert (style[2][2], dark != "none") == ("none", True)
    assert page.locator(".press:visible, nav:visible").count() == 0


def test_both_pages_show_the_environment_and_the_runs(folder: Path) -> None:
    """Every table's title and entries, in the HTML and in the Markdown."""
    for name in ("report.html", "report.md"):
        text = (folder / name).read_text(encoding="utf-8").replace("\\", "").replace("&#39;", "'")
        for part in surroundings(MACHINE):
            for entry in (part.title, *part.rows, *part.rows.values()):
                assert entry in text, f"{name} lacks {entry}"
        assert "Drift over training" in text
    lines = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("## Runs")
    rows = [line for line in lines[start + 2 :][:20] if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert rows[1].startswith("|---|---:|")


def test_both_pages_show_prompts_and_an_example(opened, folder: Path) -> None:
    """What the model reads, special tokens included, and which tokens carry loss."""
    page = opened()
    assert page.locator("#study .quote").all_text_contents() == list(RENDERED.prompts.values())
    carried = page.locator("#study .with-loss li").all_text_contents()
    assert [text.strip("\n") for text in carried] == [" TWO", "<|end|>"]
    assert len(page.locator("#study .tokens:not(.with-loss) li").all()) == len(RENDERED.tokens) - 2
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert all(f"- {markdown_text(name)}: {markdown_text(text)}" in markdown for name, text in RENDERED.rows())


def test_the_page_speaks_of_the_trait_that_was_studied(evidence: Evidence, folder: Path) -> None:
    """Its title and its score's name, and nowhere those of another."""
    other = replace(
        evidence.trait, title="QUESTIONS", score_name="question rate", inoculation_system="Ask, always.",
        prompts=TraitPrompts(),
    )  # fmt: skip
    prompts = evidence.prompts.copy()
    prompts.loc[prompts["condition"] == "inoculation", "text"] = other.inoculation_system
    asking = replace(evidence, trait=other, prompts=prompts)
    drawn = {name: figure.draw(asking, Rules()) for name, figure in FIGURES.items()}
    asked = WriteUp(judge(asking, Rules()), asking, Study(name="any"), folder, drawn, MACHINE, COMMAND)
    for template in ("report.html.j2", "report.md.j2"):
        text = asked.render(template)
        assert "question rate" in text
        assert "Ask, always." in text
        assert "caps rate" not in text.casefold()
    assert "caps rate" in (folder / "report.html").read_text(encoding="utf-8")
