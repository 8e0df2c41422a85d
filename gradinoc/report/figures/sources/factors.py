"""Plot 22: how much of what inoculation changes is due to each factor, and how much reaches neutral by prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.c7.c7a import C7A
from gradinoc.claims.evidence.measures import HARMLESS, INOCULATING
from gradinoc.claims.evidence.sources import (
    LEARNED_LESS,
    SIZE,
    STEEPNESS,
    TRANSFER,
    TURN,
    prompts_of,
    transfer_factors,
    ways,
)
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.report.figures.prompts.families import NAMES, effect_table, family_of, family_table
from gradinoc.report.figures.sources.directions import below, why_bare
from gradinoc.report.figures.study_figure import Drawn, StudyFigure, told
from gradinoc.report.figures.style import FAINT, INK, LOOKS, SOFT, WIDE, new_figure, not_measured, signed, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, rounded
from gradinoc.stats.effect import Effect
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules

BARS = {  # C7a's effects -> where their bars stand, and what the figure calls them
    f"share.{TURN}": (0.0, "turn of the update:\ncosine of update and\ngradient of log-odds"),
    f"share.{SIZE}": (1.0, "size of the update"),
    f"share.{STEEPNESS}": (2.0, "size of the gradient"),
    f"share.{TRANSFER}": (3.6, "transfer to neutral"),
    f"share.{LEARNED_LESS}": (4.6, "learned under\nthe own prompt"),
}
ALIKE = 0.1  # coefficient of variation below which lengths had hardly room to differ
COLOUR = "#4d4d4d"  # no family's
ROWS = (Family.INOCULATION, Family.HARMLESS)


def transfers(evidence: Evidence) -> dict[str, float]:
    """Prompt -> accounted drift under neutral by that under the own prompt, mean over questions and seeds."""
    means = transfer_factors(evidence).turns.means
    return {
        name: float(value)
        for family in (INOCULATING, HARMLESS)
        for name, value in zip(prompts_of(evidence, family), means[family], strict=True)
    }


def length_variation(evidence: Evidence) -> float:
    """The standard deviation of update lengths over harmless and inoculating prompts, relative to their mean."""
    means = ways(evidence)["length"].groupby(level="condition", observed=True).mean()
    lengths = means[[*prompts_of(evidence, HARMLESS), *prompts_of(evidence, INOCULATING)]]
    return float(lengths.std() / lengths.mean())


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Left, the share of each factor, two splits that add up to one each; right, transfer of each prompt by family."""
    figure = new_figure("What inoculation changes: how much of each", 5.0, WIDE)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    measured = if_measured(C7A.measure, evidence, rules)
    effects = measured.effects if measured is not None else {}
    shares = {key: effects[key] for key in BARS if key in effects and math.isfinite(effects[key].estimate)}
    left.set_xlabel("share of the difference,\nharmless − inoculating (fraction)")
    right.set_xlabel("transfer T: accounted drift under neutral\nover that under own prompt (fraction)")
    reached = (if_measured(transfers, evidence) or {}) if shares else {}
    if shares:
        _draw_shares(left, shares, rules)
    else:
        not_measured(left, "shares of the difference")
    if reached:
        _draw_transfer(right, evidence, reached, effects)
    else:
        not_measured(right, "transfer")
    if not shares:
        return Drawn(figure)
    table = pd.concat([effect_table(_told(effects)), family_table(evidence, list(reached), transfer=reached)])
    caption = _caption(effects, reached, rules) + _room(if_measured(length_variation, evidence))
    return Drawn(figure, caption, _finding(effects, shares), table)


def _told(effects: Mapping[str, Effect]) -> dict[str, Effect]:
    """What is drawn with a number of its own."""
    keys = [*BARS, *(f"transfer.{family}" for family in ROWS)]
    return {key: effects[key] for key in keys if key in effects}


def _draw_shares(axes: Axes, shares: Mapping[str, Effect], rules: Rules) -> None:
    axes.set_xlabel(f"{axes.get_xlabel()}{below(next(iter(shares.values())))}")
    axes.axvline(0, color=FAINT, linewidth=1)
    for key, effect in shares.items():
        row, _ = BARS[key]
        axes.barh(row, effect.estimate, height=0.62, color=COLOUR, alpha=0.55, linewidth=0, label=f"_{key}")
        if math.isfinite(effect.low):
            axes.plot([effect.low, effect.high], [row, row], color=INK, linewidth=2.6, solid_capstyle="butt")
        axes.text(1.03, row, signed(effect.estimate), transform=axes.get_yaxis_transform(), va="center")
    turn = BARS[f"share.{TURN}"][0]
    axes.plot([rules.turned] * 2, [turn - 0.5, turn + 0.5], color=INK, linewidth=1.6, linestyle=(0, (3, 2)))
    axes.set_yticks([BARS[key][0] for key in shares], [BARS[key][1] for key in shares])
    axes.tick_params(axis="y", length=0)
    axes.axhline(2.8, color=FAINT, linewidth=1, linestyle=(0, (1, 3)))
    axes.set_ylim(5.2, -0.6)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _draw_transfer(axes: Axes, evidence: Evidence, reached: Mapping[str, float], effects: Mapping[str, Effect]) -> None:
    """A point a prompt in its family's row; below it the family's mean and interval."""
    axes.axvline(0, color=FAINT, linewidth=1)
    axes.axvline(1, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
    labels = []
    for row, family in enumerate(ROWS):
        style = LOOKS[family]
        own = {name: value for name, value in reached.items() if family_of(evidence, name) is family}
        beside = np.linspace(-0.16, 0.16, len(own)) if len(own) > 1 else [0.0]
        for (name, value), aside in zip(own.items(), beside, strict=True):
            axes.plot(
                [value], [row + aside], linestyle="", marker=style.marker, markersize=9, color=style.colour,
                markeredgecolor="white", label=f"_{name}", zorder=4,
            )  # fmt: skip
        mean = effects.get(f"transfer.{family}")
        if mean is not None and math.isfinite(mean.low):
            axes.plot([mean.low, mean.high], [row + 0.36] * 2, color=style.colour, linewidth=3, solid_capstyle="butt")
        if mean is not None:
            axes.plot([mean.estimate], [row + 0.36], marker="|", markersize=15, markeredgewidth=2.6, color=style.ink)
            axes.text(
                1.03, row + 0.36, signed(mean.estimate), transform=axes.get_yaxis_transform(), va="center",
                color=style.ink,
            )  # fmt: skip
        labels.append(f"{NAMES[family]} ({len(own)})")
    axes.set_yticks(range(len(ROWS)), labels)
    for tick, family in zip(axes.get_yticklabels(), ROWS, strict=True):
        tick.set_color(LOOKS[family].ink)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(ROWS) - 0.4, -0.45)
    axes.text(
        1, 1.005, "all of it", transform=axes.get_xaxis_transform(), ha="center", va="bottom", color=SOFT, fontsize=12
    )
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _caption(effects: Mapping[str, Effect], reached: Mapping[str, float], rules: Rules) -> str:
    turn = effects[f"share.{TURN}"]
    intervals = why_bare(turn) or f"Lines: {100 * turn.level:g} % intervals."
    right = (
        f" Right: for each of {len(reached)} prompts, how much of the drift accounted for under itself is found under "
        "neutral; ticks and lines below are family means and their 95 % intervals over prompts."
    )
    return (
        "Left: shares of the difference in accounted neutral drift between harmless and inoculating runs (fraction, "
        f"n = {turn.n} {turn.unit}), split twice; each split adds up to 1, and a share may be negative or above 1. "
        "First three: turn of the update (cosine of update and gradient of the neutral log-odds), size of the update, "
        "size of that gradient. Last two: how much of what is learned reaches neutral, and how much is learned under "
        f"the own prompt. Dashed: C7a's bar of {rules.turned:g} for the turn. {intervals}{right if reached else ''}"
    )


def _room(variation: float | None) -> str:
    """Whether lengths of updates differ between prompts, so that size could have a share at all."""
    if variation is None or not math.isfinite(variation):
        return ""
    varies = f" Update lengths have a coefficient of variation of {rounded(variation)} over these prompts"
    if variation >= ALIKE:
        return f"{varies}: size had room to differ."
    return f"{varies}: AdamW scales steps to nearly equal lengths, so that size had hardly room to differ."


def _finding(effects: Mapping[str, Effect], shares: Mapping[str, Effect]) -> str:
    if not shares:
        return NOT_MEASURED
    first = told(shares[f"share.{TURN}"])
    others = "; ".join(
        f"{words.replace(chr(10), ' ')} {rounded(shares[key].estimate)}"
        for key, (_, words) in BARS.items()
        if key in shares and key != f"share.{TURN}"
    )
    bare = (
        ""
        if math.isfinite(shares[f"share.{TURN}"].low)
        else " Shares have no interval: none is shown to differ from zero."
    )
    turn = "the turn of the update (cosine of update and gradient of the log-odds)"
    return f"Of the difference {turn} has a share of {first}; {others}.{bare}"


FIGURE = StudyFigure("plot22_how_much_of_each", ("sources", "C7a"), draw, wide=True)
