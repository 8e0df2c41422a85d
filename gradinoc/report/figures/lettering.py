"""Text in figures: as it stands, in fonts that have its characters, on lines that are no longer than their place."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import lru_cache

from matplotlib import rcParams
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.ft2font import FT2Font
from matplotlib.textpath import text_to_path

from gradinoc.errors import shown
from gradinoc.study.traits.trait import Trait

FONT = "DejaVu Sans"  # ships with matplotlib, so the bytes do not depend on the machine's fonts
WEIGHTS = ("normal", "bold")
# Fonts that have a sign for every character, which is that it is missing, or none at all.
EMPTY = re.compile(r"last.?resort|blank", re.IGNORECASE)
JOINED = ("Mn", "Mc", "Me", "Cf")  # categories of characters that belong to the one before


def families(texts: Iterable[str]) -> list[str]:
    """The font families in which `texts` are set: the project's, and others for characters that it does not have."""
    characters = _characters(texts)
    return [FONT, *_fallbacks(characters - _has(FONT, characters))]


def drawable(text: str) -> str:
    """`text`, its characters that no font of the figure has as the escapes by which Python writes them."""
    missing = _missing(text, rcParams["font.family"])
    return "".join(ascii(each)[1:-1] if each in missing else each for each in text)


def score_label(trait: Trait) -> str:
    """What figures call a trait's score: its own name, or the trait's identifier where no font has its characters."""
    own = trait.score_name
    return f"{trait.name.replace('_', ' ')} score" if _missing(own, families([own])) else own


def lettering_notes(trait: Trait) -> list[str]:
    """A note, if figures do not call the trait's score by its name."""
    own, label = trait.score_name, score_label(trait)
    if own == label:
        return []
    return [
        f"figures: the {shown(own)} is called {label!r} in them, since no font of this machine has its characters; "
        "install one that has (of Noto Sans there is one for every script), and write the report again"
    ]


def fitted(text: str, fits: Callable[[str], bool], lines: int = 3) -> str:
    """`text` on at most `lines` lines each of which `fits`, what is left over cut; as it stands where it does."""
    rows: list[str] = []
    while not fits(text):
        mark = " …" if len(rows) == lines - 1 else ""
        end = next((end for end in range(len(text) - 1, 1, -1) if fits(text[:end] + mark)), 1)
        blank = text.rfind(" ", 1, end + 1)
        end = blank if blank > 0 else _between(text, end)
        rows.append(text[:end].rstrip(" ") + mark)
        text = text[end:].lstrip(" ")
        if mark or not text:
            return "\n".join(rows)
    return "\n".join([*rows, text])


def within(inches: float, size: float, *, bold: bool = False) -> Callable[[str], bool]:
    """Whether a text of that size in points is no wider, on each of its lines."""
    weight, named = WEIGHTS[bold], tuple(rcParams["font.family"])
    return lambda text: all(_width(line, size, weight, named) <= inches for line in text.split("\n"))


@lru_cache(maxsize=4096)
def _width(text: str, size: float, weight: str, named: tuple[str, ...]) -> float:
    """The width of a line in inches."""
    properties = FontProperties(family=list(named), size=size, weight=weight)
    return float(text_to_path.get_text_width_height_descent(text, properties, ismath=False)[0]) / 72


def _between(text: str, end: int) -> int:
    """The last place up to `end` between two characters that are not joined."""
    while end > 1 and (unicodedata.category(text[end]) in JOINED or text[end - 1] == "\u200d"):
        end -= 1
    return end


def _missing(text: str, fonts: Iterable[str]) -> frozenset[str]:
    characters = _characters([text])
    return characters.difference(*(_has(family, characters) for family in fonts))


def _characters(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(character for text in texts for character in text if not character.isspace())


@lru_cache
def _fallbacks(missing: frozenset[str]) -> tuple[str, ...]:
    """Families of this machine that have characters which the project's does not; none where none has any."""
    found: list[str] = []
    for entry in sorted(fontManager.ttflist, key=lambda entry: ("Sans" not in entry.name, entry.name, entry.fname)):
        if not missing:
            break
        if entry.name in found or EMPTY.search(entry.name) or not _may_have(entry.fname, missing):
            continue
        has = _has(entry.name, missing)
        if has:
            found.append(entry.name)
            missing -= has
    return tuple(found)


def _may_have(file: str, characters: frozenset[str]) -> bool:
    """Whether a font's file lists any of `characters`: asked first, since to look for a family is slow."""
    try:
        listed = get_font(file).get_charmap()
    except (OSError, RuntimeError, ValueError):  # no font of outlines
        return False
    return any(ord(each) in listed for each in characters)


@lru_cache(maxsize=4096)
def _has(family: str, characters: frozenset[str]) -> frozenset[str]:
    """Those of `characters` that `family` has an outline of, in every weight that figures use."""
    found = characters
    for weight in WEIGHTS:
        try:
            path = findfont(FontProperties(family=[family], weight=weight), fallback_to_default=False)
            font = get_font(path)
            font.set_size(12, 72)
            charmap = font.get_charmap()
            found = frozenset(each for each in found if ord(each) in charmap and _is_drawn(font, each))
        except (OSError, RuntimeError, ValueError):  # no such family, or a file that is no font of outlines
            return frozenset()
    return found


def _is_drawn(font: FT2Font, character: str) -> bool:
    """Whether a font has an outline of a character, which those of pictures have not; what joins others needs none."""
    font.load_char(ord(character))
    return len(font.get_path()[0]) > 0 or unicodedata.category(character) in JOINED
