"""The figure of a calibration: false positives, power and coverage against their bars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradinoc.power.calibration.cases import ALPHA, MINIMUM_EFFECTS, POWER
from gradinoc.power.calibration.tables import COVERAGE, FALSE_POSITIVE, POWERFUL, RIGHT, at_least, at_most
from gradinoc.report.figures.style import BAND, INK, WIDTH, look, new_figure, not_measured, styled
from gradinoc.study.prompts import INOCULATION, NEUTRAL

EFFECTS = {  # as the rows of the third panel name them
    "C1.alignment.neutral": "alignment,\nto neutral",
    "C1.alignment.loss_matched": "alignment,\nto control",
    "C1.training.neutral": "in training\n(3 seeds)",
    "C4.drift.neutral": "drift\n(3 seeds)",
    "C3.regression": "at equal loss,\nregression",
    "C3.bins": "at equal loss,\nbins",
    "C3.within": "at equal loss,\nwithin examples",
}
_VERDICTS = {"SUPPORTED": "verdict\nsupported", "wrong": "any wrong\nverdict"}
UNITS = {"C1": "cosine", "C2": "cosine", "C3": "cosine", "C4": "nats/token"}


@styled
def plot_calibration(rate: pd.DataFrame, cover: pd.DataFrame) -> Figure:
    """Three panels, a dot for each scenario: false positives by claim, power at the stated minimum, coverage by effect.

    Grey is what the Monte-Carlo error of so many studies lets pass beyond a bar.

    Args:
        rate: as `tables.rates` gives it.
        cover: as `tables.coverage` gives it.
    """
    count = int(rate["n"].max())
    figure = new_figure(f"{count:,} simulated studies of each scenario", height=0.6 * WIDTH * 2.9)
    top, middle, bottom = figure.subplots(3, 1, height_ratios=[6, 4, 8])
    false = rate[rate["kind"] == FALSE_POSITIVE]
    claims = list(dict.fromkeys(rate.loc[rate["kind"] != RIGHT, "claim"]))
    shown = [claim if claim in MINIMUM_EFFECTS else _VERDICTS[claim] for claim in claims]
    _dots(top, [false.loc[false["claim"] == claim] for claim in claims], shown)
    top.axvspan(100 * ALPHA, 100 * at_most(ALPHA, count), color=BAND, linewidth=0)
    top.axvline(100 * ALPHA, color=INK, linewidth=1.2)
    top.set_xlim(-0.3, max(10.0, 105 * float(false["rate"].max())))
    top.set(xlabel="% of studies")
    top.set_title("Supported where it is false (bar: 5 %)", loc="left")
    least = rate[(rate["kind"] == POWERFUL) & (rate["case"] != "minimum")]
    if least.empty:
        not_measured(middle, "power")
    else:
        names = [f"{claim}: {MINIMUM_EFFECTS[claim]:g}\n{UNITS[claim]}" for claim in least["claim"]]
        _dots(middle, [least.iloc[[place]] for place in range(len(least))], names)
        middle.axvline(100 * POWER, color=INK, linewidth=1.2)
        middle.set_xlim(0, 101)
        middle.set(xlabel="% of studies")
    middle.set_title("Supported at the stated minimum (80 %)", loc="left")
    _dots(bottom, [cover[cover["effect"] == effect] for effect in EFFECTS], list(EFFECTS.values()))
    low, high = COVERAGE
    bottom.axvspan(100 * at_least(low, count), 100 * at_most(high, count), color=BAND, linewidth=0)
    for edge in COVERAGE:
        bottom.axvline(100 * edge, color=INK, linewidth=1.2)
    bottom.set_xlim(min(90.0, 100 * float(cover["rate"].min()) - 1), 100.5)
    bottom.set(xlabel="% of studies")
    bottom.set_title("Intervals that cover the truth (93–97 %)", loc="left")
    return figure


def _dots(axes: Axes, groups: Sequence[pd.DataFrame], names: Sequence[str]) -> None:
    """A row of dots for each group, a single one with its Monte-Carlo error; squares miss their bar."""
    fine, missed = (look(condition, ()) for condition in (NEUTRAL, INOCULATION))
    for row, group in enumerate(groups):
        if group.empty:
            continue
        height = row + (np.linspace(-0.3, 0.3, len(group)) if len(group) > 1 else np.zeros(1))
        passed = group["passed"].to_numpy(dtype=bool)
        rates, errors = 100 * group["rate"].to_numpy(), 100 * group["error"].to_numpy()
        for which, one in ((passed, fine), (~passed, missed)):
            bars = errors[which] if len(group) == 1 else None
            axes.errorbar(
                rates[which], height[which], xerr=bars, fmt=one.marker, color=one.colour, markersize=4.5,
                elinewidth=1.4, linewidth=0,
            )  # fmt: skip
    axes.set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
    axes.set_yticklabels(names)
    axes.tick_params(axis="y", length=0)
