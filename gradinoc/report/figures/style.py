"""How figures look: one colour, marker and line per family of prompts, type that survives half width, direct labels."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
import pandas as pd
from matplotlib import style as styles
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.disk import write_atomically
from gradinoc.report.figures.lettering import FONT, drawable, families, fitted, within
from gradinoc.study.prompts.family import Family

WIDTH, HEIGHT = 6.4, 4.4  # inches; type is set so that it can be read at half of this
WIDE = 12.8  # inches, of a figure that takes the width of a page
PIXELS_PER_INCH = 200
LINE = 0.27  # inches, of a label beside a panel
LETTER, COLUMN = 0.16, 2.7  # inches, of a wide letter in it, and of the longest name beside a panel
INK, SOFT, FAINT = "#222222", "#666666", "#8a8a8a"
BAND = "#ececec"
PANEL = 3.4  # inches, of a text within a panel or above it

RC: Any = {  # matplotlib types the keys as literals; a wrong one raises on first use
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "font.size": 15,
    "axes.titlesize": 15,
    "axes.labelsize": 15,
    "xtick.labelsize": 14,
    "ytick.labelsize": 14,
    "legend.fontsize": 14,
    "figure.titlesize": 16,
    "figure.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 1.0,
    "lines.linewidth": 2.4,
    "axes.formatter.useoffset": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "gradinoc",
    "svg.fonttype": "path",
}

BESIDE: dict[str, Any] = {  # a legend to the right of the panel
    "loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False, "handletextpad": 0.3, "handlelength": 1.0,
    "borderaxespad": 0.3, "labelspacing": 0.45,
}  # fmt: skip

P = ParamSpec("P")
Result = TypeVar("Result")


class Look(NamedTuple):
    """How a family is drawn; colour, marker and line differ together, for grey print.

    Blue, vermilion, green and black are Okabe and Ito's; their orange, dark enough for white, would be vermilion to
    colour-blind readers. Brown and deep pink lie apart from all of them, as a test checks.
    """

    colour: str
    marker: str
    line: Any
    name: str = ""  # of a family, as figures call it

    @property
    def ink(self) -> str:
        """The colour, darkened until text in it can be read on white."""
        red, green, blue = to_rgb(self.colour)
        return to_hex((0.78 * red, 0.78 * green, 0.78 * blue))


LOOKS = {
    Family.NEUTRAL: Look("#0072B2", "o", "-", "neutral"),
    Family.HINT: Look("#663300", "P", (0, (3, 1, 1, 1)), "hints"),
    Family.INOCULATION: Look("#D55E00", "s", (0, (4, 1.2)), "inoculating"),
    Family.HARMLESS: Look("#009E73", "^", (0, (6, 1.5, 1.2, 1.5)), "harmless"),
    Family.ANTI: Look("#99266B", "D", (0, (1.2, 1.2)), "opposite"),
    Family.OTHER: Look("#000000", "X", (0, (2, 2)), "other"),
}
BEFORE_TRAINING = Look("#777777", ".", ":")


def contrast_of(one: Any, other: Any) -> float:
    """The contrast of two colours, from 1 to 21 (WCAG 2.2); text can be read from 4.5 on."""
    channels = np.array([to_rgb(one), to_rgb(other)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    low, high = sorted(linear @ (0.2126, 0.7152, 0.0722) + 0.05)
    return float(high / low)


def up_to(inches: float) -> Callable[[str], bool]:
    """Whether a label is no longer than that."""
    return within(inches, RC["axes.labelsize"])


def broken(name: str, width: int, lines: int, inches: float = COLUMN) -> str:
    """`name` on lines of at most `width` characters of usual breadth, or `inches`; what does not fit is left out."""
    name = drawable(name)
    filled = textwrap.fill(name, width, max_lines=lines, placeholder=" …")
    fits = within(min(inches, width * LETTER), RC["font.size"], bold=True)
    return filled if fits(filled) else fitted(name, fits, lines)


def signed(value: float) -> str:
    """`value` with three decimals and a true minus sign, none before a zero."""
    return f"{round(value, 3) + 0.0:.3f}".replace("-", "−")


def styled(plot: Callable[P, Result]) -> Callable[P, Result]:
    """`plot` drawn with the project's settings and no one else's, which are gone again when it returns."""

    @wraps(plot)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Result:
        with _settings(families(_names((*args, *kwargs.values())))):
            return plot(*args, **kwargs)

    return draw


def _settings(fonts: Sequence[str]) -> AbstractContextManager[None]:
    """Matplotlib's defaults and `RC`: what a user has set (LaTeX, another font, a grid) changes no figure."""
    return styles.context(["default", {**RC, "font.family": list(fonts)}])


def _names(given: Iterable[Any]) -> Iterator[str]:
    """The names from outside in what a plot is given."""
    for each in given:
        if isinstance(each, str):
            yield each
        elif isinstance(each, tuple):
            yield from _names(each)
        elif isinstance(each, pd.DataFrame) and "item" in each:
            yield from each["item"].astype(str)
        elif isinstance(each, Evidence):
            yield from (*each.prompts["condition"].astype(str), each.trait.score_name)


def new_figure(title: str, height: float = HEIGHT, width: float = WIDTH) -> Figure:
    """An empty figure with its title at the left; no pyplot, so nothing is held globally."""
    title = fitted(title, within(width - 0.15, RC["figure.titlesize"], bold=True))
    figure = Figure(figsize=(width, height + LINE * title.count("\n")))
    figure.set_layout_engine("constrained", w_pad=0.06, h_pad=0.05, wspace=0.05)
    figure.suptitle(title, x=0.012, ha="left")
    return figure


def not_measured(axes: Axes, what: str) -> None:
    """Say in an otherwise empty panel that there is nothing to draw."""
    axes.set(xticks=[], yticks=[])
    what = fitted(what, up_to(PANEL))
    axes.text(0.5, 0.5, f"{what}:\nnot measured", transform=axes.transAxes, ha="center", va="center", color=FAINT)


def shade_band(axes: Axes, band: Sequence[int], *, named: bool = False) -> None:
    """Grey behind every stretch of neighbouring layers of the band, which may leave some out, named once."""
    if not band:
        return
    breaks = [0, *(i for i in range(1, len(band)) if band[i] != band[i - 1] + 1), len(band)]
    for start, stop in pairwise(breaks):
        axes.axvspan(band[start] - 0.5, band[stop - 1] + 0.5, color=BAND, linewidth=0, zorder=0)
    if named:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.12 * (high - low))
        middle = (band[0] + band[-1]) / 2
        axes.text(middle, 0.985, "band", transform=axes.get_xaxis_transform(), ha="center", va="top", color=SOFT)


def note(axes: Axes, text: str) -> None:
    """A short text inside the panel's upper left corner, on white so that data beneath do not spoil it."""
    axes.text(
        0.02, 0.97, text, transform=axes.transAxes, ha="left", va="top", fontsize=14, zorder=9,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip


def spread(values: Sequence[float], room: float | Sequence[float]) -> list[float]:
    """`values` moved apart until each has its `room` around it, in their order and around their common mean."""
    order = np.argsort(values, kind="stable")
    wanted = np.asarray(values, dtype=float)[order]
    rooms = np.broadcast_to(np.asarray(room, dtype=float), wanted.shape)[order]
    placed = wanted.copy()
    for index in range(1, len(placed)):
        placed[index] = max(placed[index], placed[index - 1] + (rooms[index - 1] + rooms[index]) / 2)
    placed -= (placed - wanted).mean() if len(placed) else 0.0
    result = np.empty_like(placed)
    result[order] = placed
    return [float(value) for value in result]


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each line's name beside its last point: `ends` holds (x, y, text, colour). Fixes the y limits."""
    ends = [end for end in ends if np.isfinite(end[1])]
    if not ends:
        return
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    line = (high - low) * LINE / _height(axes)
    rooms = np.array([line * (text.count("\n") + 1) for _, _, text, _ in ends])
    heights = np.asarray(spread([end[1] for end in ends], rooms.tolist()))
    heights += max(0.0, float((low - (heights - rooms / 2)).max()))  # beside the panel, and its title first
    heights -= max(0.0, float((heights + rooms / 2 - high).max()))
    for (x, y, text, colour), height in zip(ends, heights, strict=True):
        axes.annotate(
            text, (x, y), (1.03, float(height)), textcoords=axes.get_yaxis_transform(), color=colour, va="center",
            fontweight="bold", linespacing=0.95, annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": colour, "linewidth": 0.8, "relpos": (0, 0.5), "shrinkA": 0, "shrinkB": 3,
            },
        )  # fmt: skip


def _height(axes: Axes) -> float:
    """About how high the panel will be, in inches: its layout comes only when it is drawn."""
    place = axes.get_subplotspec()
    rows = 1 if place is None else place.get_gridspec().nrows
    return 0.78 * float(axes.figure.bbox.height / axes.figure.dpi) / rows


def save_figure(figure: Figure, directory: Path, name: str) -> tuple[Path, Path]:
    """The paths of `name`.png and `name`.svg in `directory`; the same data give the same SVG, byte for byte."""
    paths = []
    with _settings([FONT]):
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            stream = io.BytesIO()
            figure.savefig(stream, format=suffix, dpi=PIXELS_PER_INCH, metadata=metadata)
            paths.append(write_atomically(Path(directory) / f"{name}.{suffix}", stream.getvalue()))
    return paths[0], paths[1]
