"""Names of the user's own in figures: as they stand, within the figure, in fonts that have them, whatever is set."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from functools import cache
from itertools import product

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.font_manager import fontManager
from matplotlib.text import Text

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.cli.compare import plot_comparison
from gradinoc.cli.compare.comparison import ONE, OTHER
from gradinoc.power.scenarios import SCENARIOS
from gradinoc.power.simulate import simulate
from gradinoc.report.figures import FIGURES, lettering
from gradinoc.report.figures.lettering import fitted, lettering_notes
from gradinoc.report.figures.style import save_figure
from gradinoc.study.rules import Rules
from gradinoc.study.traits import ALL_CAPS
from gradinoc.study.traits.trait import LONGEST_TITLE

NAMED = (
    "plot6_score_shift", "plot7_alignment_against_drift", "plot8_projection_against_score", "plot16_prompts", "compare",
)  # fmt: skip
EVERY = (*FIGURES, "compare")
ODD = {  # names that LaTeX, mathtext, format or a font would make something else of
    "a formula": r"rate of $x$ and $\frac$",
    "signs of LaTeX": r"a_b^c {d} \alpha % & # ~",
    "braces of a format": "rate of {score} {0} {}",
}
LONG = {
    "words": "rate of long and wordy texts in reports",
    "no blank": "W" * LONGEST_TITLE,
    "Chinese": "海盗语言在回答中的比例" * 3 + "海盗语言",
    "emoji": "🏴 rate " * 5,
}
# What a matplotlibrc, a style or a notebook may have set.
SETTINGS = {
    "text.usetex": True, "font.family": "serif", "font.size": 30, "mathtext.default": "rm", "axes.grid": True,
    "axes.formatter.use_mathtext": True, "axes.unicode_minus": False, "axes.titlelocation": "right",
    "lines.marker": "x", "legend.frameon": True, "path.sketch": (1, 100, 2), "savefig.bbox": "tight",
    "savefig.transparent": True, "savefig.dpi": 30, "figure.autolayout": True, "xtick.labelsize": 4,
    "svg.fonttype": "none",
    "axes.prop_cycle": mpl.cycler(color=["r"]), "figure.constrained_layout.h_pad": 1.0, "image.cmap": "gray",
}  # fmt: skip


@cache
def study(score="caps rate", conditions=(), seeds=2) -> Evidence:
    """A small simulated study whose trait's score is called so, with further harmless prompts, trained under too."""
    made = simulate(
        SCENARIOS["effect"], np.random.default_rng(7), inoculating=3, harmless=3, opposite=1, trained=(2, 2, 1),
        examples=16, shared=12, elicitation=16, behaviour=16, steering=12, evaluation=12, layers=3, seeds=seeds,
        steps=4, directions=100,
    )  # fmt: skip
    tables = dict(made.tables)
    for column in ("condition", "evaluation"):
        for table, frame in tables.items():
            if column in frame:
                frame = frame.astype({column: str})
                like = frame[frame[column] == "loss_matched"]
                tables[table] = pd.concat([frame, *(like.assign(**{column: name}) for name in conditions)])
    tables = {name: table.reset_index(drop=True) for name, table in tables.items()}
    planned = (*made.planned_runs, *((name, seed) for name in conditions for seed in range(seeds)))
    trait = replace(ALL_CAPS, name="pirate_speech", score_name=score)
    return replace(made, planned_runs=planned, trait=trait, **tables)


def compared(names, score):
    """The figure of two studies of these names."""
    contrast = "alignment, neutral - inoculation"
    rows = [("claim", "C1", contrast, "alignment.neutral"), ("drift", names[0][:40], "score", "score")]
    table = pd.DataFrame(rows, columns=["part", "item", "quantity", "key"])
    columns = [f"{side}{end}" for side, end in product((ONE, OTHER), ("", "_low", "_high"))]
    return plot_comparison(table.assign(**dict.fromkeys(columns, 0.1)), names, score)


def drawn(name, score="caps rate", conditions=(), seeds=2):
    """A figure with names of the user's own in every place that it has for them."""
    if name == "compare":
        return compared(tuple([*conditions, "one", "other"][:2]), score)
    evidence = study(score, conditions, seeds)
    return FIGURES[name].draw(evidence, Rules()).figure


def texts(figure):
    """Every text of a figure that can be seen."""
    found = {id(text): text for text in figure.findobj(Text) if text.get_visible() and text.get_text()}
    for axes in figure.axes:
        for axis, (low, high) in ((axes.xaxis, sorted(axes.get_xlim())), (axes.yaxis, sorted(axes.get_ylim()))):
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high:
                    found.pop(id(tick.label1), None)
                found.pop(id(tick.label2), None)
    return list(found.values())


def said(figure):
    """All that is written in a figure, without blanks."""
    return ["".join(text.get_text().split()) for text in texts(figure)]


def outside(figure):
    """The texts of which a part is not within the figure."""
    found = []
    FigureCanvasAgg(figure).draw()
    for text in texts(figure):
        box = Text.get_window_extent(text)
        if min(box.x0, box.y0) < -1 or box.x1 > figure.bbox.x1 + 1 or box.y1 > figure.bbox.y1 + 1:
            found.append((text.get_text(), box.extents.round()))
    return found


@pytest.fixture(autouse=True)
def only_our_font(monkeypatch):
    """A machine without fonts of other scripts, as the ones that test are; what was found is forgotten afterwards."""
    ours = [each for each in fontManager.ttflist if each.name.startswith("DejaVu")]
    monkeypatch.setattr(fontManager, "ttflist", ours)
    forget()
    yield
    forget()


def forget():
    """Look for fonts again."""
    for cached in (lettering._fallbacks, lettering._has, lettering._width, fontManager._findfont_cached):
        cached.cache_clear()


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("case", ODD)
def test_name_is_shown_as_it_stands(name, case):
    """Sign by sign, whatever it would mean elsewhere: no formula, no setting of LaTeX, no field to fill in."""
    figure = drawn(name, ODD[case])
    wanted = "".join(ODD[case].split()).casefold()
    assert any(wanted in each.casefold() for each in said(figure)), said(figure)
    meant = [text for text in texts(figure) if set(wanted) <= set(text.get_text().casefold())]
    assert not any(text.get_parse_math() or text.get_usetex() for text in meant)


@pytest.mark.parametrize("name", EVERY)
def test_figure_is_the_same_whatever_the_user_has_set(name, tmp_path):
    """Byte for byte, drawn and saved under LaTeX (there is none here), other fonts, a grid, a tight box."""
    plain = save_figure(drawn(name), tmp_path / "plain", name)
    with mpl.rc_context(SETTINGS):
        before = dict(mpl.rcParams)
        theirs = save_figure(drawn(name), tmp_path / "theirs", name)
        assert dict(mpl.rcParams) == before
    assert [path.read_bytes() for path in theirs] == [path.read_bytes() for path in plain]


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("case", LONG)
def test_longest_name_of_a_score_is_within_the_figure(name, case):
    """On as many lines as it takes; what is called otherwise for want of a font is within it too."""
    assert len(LONG[case]) <= LONGEST_TITLE + 1
    assert outside(drawn(name, LONG[case])) == []


@pytest.mark.parametrize("name", EVERY)
def test_many_conditions_with_the_longest_names_are_within_the_figure(name):
    """Of 40 characters, wide ones without a blank and words; the panel keeps its place beside them."""
    further = (f"condition {n} of the plan" for n in range(6))
    names = ("W" * 40, "m-" * 20, "always answer politely and in a few words", *further)
    figure = drawn(name, "W" * 40, names)
    assert outside(figure) == []
    width = figure.bbox.width
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert all(axes.get_window_extent().width > 0.2 * width for axes in panels)


def test_what_fits_is_left_alone_and_what_does_not_is_broken_at_blanks():
    """Within a word only where it is too long by itself, and never between a letter and its accent."""

    def fits(text):
        return len(text) <= 8

    assert fitted("in place", fits) == "in place"
    assert fitted("two  blanks", fits) == "two\nblanks"
    assert fitted("one two three", fits) == "one two\nthree"
    assert fitted("abcdefghijkl mn", fits) == "abcdefgh\nijkl mn"
    assert fitted("one two three four five six", fits, 2) == "one two\nthree …"
    assert fitted("abcdefge\u0301gh", fits) == "abcdefg\ne\u0301gh"
    assert fitted("", fits) == ""


# --- fonts


@pytest.fixture
def another_font(tmp_path, monkeypatch):
    """A font of this machine that has two Chinese characters as squares."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((900, 0), (900, 800), (100, 800)):
        pen.lineTo(corner)
    pen.closePath()
    square, empty = pen.glyph(), TTGlyphPen(None).glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "sea", "robber", "blank"])
    builder.setupCharacterMap({ord("海"): "sea", ord("盗"): "robber", ord("率"): "blank"})
    builder.setupGlyf({".notdef": square, "sea": square, "robber": square, "blank": empty})
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", "sea", "robber", "blank"), (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Two Signs Sans", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(tmp_path / "two.ttf")
    fontManager.addfont(tmp_path / "two.ttf")
    forget()
    return "Two Signs Sans"


@pytest.mark.parametrize("name", NAMED)
def test_name_is_set_in_a_font_that_has_its_characters(name, another_font, tmp_path):
    """If the machine has one, figures say the name as it is; a missing character would be a warning, hence an error."""
    figure = drawn(name, "海盗 rate")
    assert any("海盗rate" in each for each in said(figure))
    assert all(another_font in text.get_fontfamily() for text in texts(figure) if "海" in text.get_text())
    save_figure(figure, tmp_path, name)
    assert lettering_notes(replace(ALL_CAPS, score_name="海盗 rate")) == []


@pytest.mark.parametrize("case", ["Chinese", "emoji"])
@pytest.mark.parametrize("name", NAMED)
def test_name_that_no_font_has_is_said_in_another_way(name, case, tmp_path):
    """By the trait's identifier, or with escapes where there is none: no boxes, and no warning, which is an error."""
    figure = drawn(name, LONG[case])
    wanted = ascii(LONG[case][0])[1:-1] if name == "compare" else "piratespeechscore"
    assert any(wanted.casefold() in each.casefold() for each in said(figure)), said(figure)
    written = "".join(text.get_text() for text in texts(figure))
    assert not {"Lo", "So"} & {unicodedata.category(each) for each in written}
    save_figure(figure, tmp_path, name)
