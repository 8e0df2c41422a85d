"""The report's page in a real browser: wide and narrow, light and dark, by keyboard, in print and without script."""

from __future__ import annotations

import itertools
import re

import pytest

from fixtures.written import COMMAND
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.report.figures import figures_of
from gradinoc.report.wording import NOT_MEASURED, signs
from gradinoc.study.rules import Rules


@pytest.mark.parametrize(
    ("width", "scheme"),
    [(320, "light"), (768, "dark"), (1440, "light")],
)
def test_nothing_leaves_the_page_sideways_and_every_figure_is_seen(
    opened, evidence: Evidence, width: int, scheme: str
) -> None:
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
    assert len(figures) == len(figures_of(evidence))
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
    assert sorted(alts) == sorted(
        signs(figure.draw(evidence, Rules()).finding) for figure in figures_of(evidence).values()
    )
    measured = [alt for alt in alts if alt != NOT_MEASURED]
    assert len(measured) >= len(figures_of(evidence)) - 2
    assert len(set(measured)) == len(measured)
    for alt in measured:
        assert alt.endswith(".")
        assert re.search(r"\d", alt)
        assert "nan" not in alt


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
