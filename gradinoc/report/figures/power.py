"""The figure of a plan: how often each claim would be supported, by examples and by seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradinoc.report.figures.style import BAND, FAINT, INK, Look, label_ends, new_figure, styled

WANTED = 0.8  # power that a study is commonly planned for
PANEL = 3.5  # inches, of one effect
CROWDED = 0.55  # octaves within which the study's own size is named and not its neighbour
DODGE = 0.12  # octaves between the lines of two claims
LOOKS = {
    "C1": Look("#0072B2", "o", "-"),
    "C2": Look("#D55E00", "s", (0, (4, 1.2))),
    "C3": Look("#009E73", "^", (0, (6, 1.5, 1.2, 1.5))),
    "C4": Look("#CC79A7", "D", "-"),
}


@styled
def plot_power(table: pd.DataFrame, examples: int, seeds: int) -> Figure:
    """Share of simulated studies that support a claim, by examples (C1 to C3) and by seeds (C4), a row an effect.

    `table` has the columns effect, examples, seeds, claim, power, error and simulations; `examples` and `seeds` are the
    study's own, shaded. Bars reach two Monte-Carlo standard errors either way.
    """
    effects = list(dict.fromkeys(table["effect"]))
    simulations = int(table["simulations"].iloc[0])
    figure = new_figure(f"Power, {simulations} simulated studies each", PANEL * len(effects) + 0.6)
    panels = figure.subplots(len(effects), 2, squeeze=False, sharey=True, width_ratios=(3, 2))
    for effect, (left, right) in zip(effects, panels, strict=True):
        rows = table[table["effect"] == effect]
        left.set_title(f"effect: {effect}", loc="left")
        _lines(left, rows, "examples", ("C1", "C2", "C3"), examples)
        _lines(right, rows, "seeds", ("C4",), seeds)
        left.set_ylabel("share supported")
    for axes, name in zip(panels[-1], ("examples", "seeds"), strict=True):
        axes.set_xlabel(f"{name} (grey: this study)")
    return figure


def _lines(axes: Axes, rows: pd.DataFrame, size: str, claims: Sequence[str], own: int) -> None:
    """One line a claim over sizes, named at its end."""
    axes.set_ylim(-0.04, 1.04)
    axes.axhline(WANTED, color=FAINT, linewidth=1, linestyle=":")
    axes.axvline(own, color=BAND, linewidth=14, zorder=0)
    ends = []
    for place, claim in enumerate(claims):
        aside = 2 ** (DODGE * (place - (len(claims) - 1) / 2))  # bars of one size stay apart
        line, drawn = rows[rows["claim"] == claim].drop_duplicates(size).sort_values(size), LOOKS[claim]
        power, error = line["power"].to_numpy(dtype=float), 2 * line["error"].to_numpy(dtype=float)
        reach = [power - (power - error).clip(0), (power + error).clip(max=1) - power]
        axes.errorbar(
            line[size] * aside, power, reach, color=drawn.colour, marker=drawn.marker, linestyle=drawn.line,
            markersize=7, capsize=3, elinewidth=1.2,
        )  # fmt: skip
        ends.append((float(line[size].iloc[-1]) * aside, float(power[-1]), claim, drawn.ink))
    sizes = sorted(rows[size].unique())
    axes.set_xscale("log", base=2)
    crowded = {each for each in sizes if each != own and abs(math.log2(each / own)) < CROWDED}
    axes.set_xticks(sizes, ["" if each in crowded else str(each) for each in sizes], color=INK)
    axes.minorticks_off()
    axes.margins(x=0.1)
    label_ends(axes, ends)
