"""The figure of a plan: how often each claim would be supported, by prompts, by seeds and by questions."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradinoc.power.planning import OWN, PROMPTS, QUESTIONS, SEEDS
from gradinoc.report.figures.style import BAND, FAINT, INK, Look, label_ends, new_figure, styled

WANTED = 0.8  # power that a study is commonly planned for
PANEL = 3.5  # inches, of one effect
DODGE = 0.012  # of a panel's width between the lines of two claims
LOOKS = {
    "C1": Look("#0072B2", "o", "-"),
    "C2": Look("#D55E00", "s", (0, (4, 1.2))),
    "C3": Look("#009E73", "^", (0, (6, 1.5, 1.2, 1.5))),
    "C4": Look("#CC79A7", "D", "-"),
    "C6": Look("#555555", "v", (0, (1, 1.2))),
}
AXES = {PROMPTS: "prompts a family", SEEDS: "seeds", QUESTIONS: "questions"}
RESTING = {PROMPTS: tuple(LOOKS), SEEDS: ("C4", "C6"), QUESTIONS: tuple(LOOKS)}  # claims that the axis can change


@styled
def plot_power(table: pd.DataFrame) -> Figure:
    """Share of simulated studies that support a claim, by prompts, seeds and questions, a row an effect.

    `table` is that of `gradinoc.power.planning.power`; the study's own size is shaded. Bars reach two Monte-Carlo
    standard errors either way.
    """
    effects = list(dict.fromkeys(table["effect"]))
    simulations = int(table["simulations"].iloc[0])
    figure = new_figure(f"Power, {simulations} simulated studies each", PANEL * len(effects) + 0.6)
    panels = figure.subplots(len(effects), len(AXES), squeeze=False, sharey=True)
    for effect, row in zip(effects, panels, strict=True):
        rows = table[table["effect"] == effect]
        row[0].set_title(f"effect: {effect}", loc="left")
        row[0].set_ylabel("share supported")
        for axes, axis in zip(row, AXES, strict=True):
            _lines(axes, rows[rows["axis"].isin([OWN, axis])], axis, RESTING[axis])
    for axes, name in zip(panels[-1], AXES.values(), strict=True):
        axes.set_xlabel(f"{name}\n(grey: this study)")
    return figure


def _lines(axes: Axes, rows: pd.DataFrame, size: str, claims: Sequence[str]) -> None:
    """One line a claim over sizes, named at its end."""
    own = float(rows.loc[rows["axis"] == OWN, size].iloc[0])
    sizes = sorted(rows[size].unique())
    aside = DODGE * (sizes[-1] - sizes[0] or 1)
    axes.set_ylim(-0.04, 1.04)
    axes.axhline(WANTED, color=FAINT, linewidth=1, linestyle=":")
    axes.axvline(own, color=BAND, linewidth=14, zorder=0)
    ends = []
    for place, claim in enumerate(claims):
        line, drawn = rows[rows["key"] == claim].drop_duplicates(size).sort_values(size), LOOKS[claim]
        power, error = line["power"].to_numpy(dtype=float), 2 * line["error"].to_numpy(dtype=float)
        reach = [power - (power - error).clip(0), (power + error).clip(max=1) - power]
        at = line[size].to_numpy(dtype=float) + aside * (place - (len(claims) - 1) / 2)  # bars stay apart
        axes.errorbar(
            at, power, reach, color=drawn.colour, marker=drawn.marker, linestyle=drawn.line,
            markersize=6, capsize=2, elinewidth=1.1,
        )  # fmt: skip
        ends.append((float(at[-1]), float(power[-1]), claim, drawn.ink))
    axes.set_xticks(sizes, [f"{each:g}" for each in sizes], color=INK)
    axes.margins(x=0.15)
    label_ends(axes, ends)
