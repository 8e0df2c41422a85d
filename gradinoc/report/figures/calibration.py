"""The figure of a calibration: false findings, power and coverage against their bars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gradinoc.power.calibration.cases import ALPHA, POWER
from gradinoc.power.calibration.studies import EVERY
from gradinoc.power.calibration.tables import (
    ANY_VERDICT,
    COVERAGE,
    POWERFUL,
    REFUTATION,
    RIGHT,
    SUPPORT,
    WRONG,
    at_least,
    at_most,
    quick_look,
)
from gradinoc.power.calibration.worlds import STATED
from gradinoc.power.scenarios import CLAIMS
from gradinoc.report.figures.style import BAND, INK, LOOKS, WIDTH, new_figure, not_measured, styled
from gradinoc.report.wording import shown
from gradinoc.study.prompts.family import Family

EFFECTS = {  # as the rows of the third panel name them
    "C1.families": "alignment,\nfamilies",
    "C6.share": "share of drift,\ninoculation's own",
    "C6.removed": "share of drift\nremoved",
    "C7a.share.turn": "share due\nto the turn",
    "C7a.share.size": "share due\nto size",
    "C7a.share.steepness": "share due\nto gradient",
    "C7a.share.transfer": "share due\nto transfer",
    "C7a.share.learned": "share due\nto learning",
    "C7a.turn": "cosine of\nthe update",
    "C7a.transfer": "transfer",
    "C7b.share": "share\nalong v",
    "C5.share": "share that removing\nthe component removes",
    "C5.share.same_loss": "the same,\nat equal loss",
    "C4.slope": "drift on\nalignment",
    "G3.loss": "elicitation\nin loss",
    "G7.log_odds.inoculation": "elicitation\nin log-odds",
}
FINE, MISSED = (LOOKS[family] for family in (Family.NEUTRAL, Family.INOCULATION))
KINDS = {SUPPORT: "supported", REFUTATION: "refuted"}


@styled
def plot_calibration(rate: pd.DataFrame, cover: pd.DataFrame) -> Figure:
    """Three panels, a dot for each world: false findings, power at the stated effects, coverage by effect.

    Grey is what the Monte-Carlo error of so many studies lets pass beyond a bar.

    Args:
        rate: as `tables.rates` gives it.
        cover: as `tables.coverage` gives it.
    """
    count = int(rate["n"].max())
    look_like = ", a quick look" if quick_look(count) else ""
    figure = new_figure(f"{count:,} simulated studies of each world{look_like}", height=0.6 * WIDTH * 3.6 + 0.9)
    top, middle, bottom = figure.subplots(3, 1, height_ratios=[13, 8, 11])
    rows = {f"{claim}, {words}": (claim, kind) for claim in CLAIMS for kind, words in KINDS.items()}
    rows |= {"all claims, supported": (EVERY, SUPPORT), "wrong verdict": (ANY_VERDICT, WRONG)}
    found = {name: rate[(rate["claim"] == claim) & (rate["kind"] == kind)] for name, (claim, kind) in rows.items()}
    found = {name: group for name, group in found.items() if len(group)}
    _dots(top, list(found.values()), list(found))
    top.axvspan(100 * ALPHA, 100 * at_most(ALPHA, count), color=BAND, linewidth=0)
    top.axvline(100 * ALPHA, color=INK, linewidth=1.2)
    top.set_xlim(-0.3, max(10.0, 105 * max(float(group["rate"].max()) for group in found.values())))
    top.set(xlabel="% of studies")
    top.set_title("False findings (bar: 5 %)", loc="left")
    _power(middle, rate)
    _coverage(bottom, cover, count)
    handles: list[Artist] = [
        Line2D([], [], marker=one.marker, color=one.colour, linestyle="", label=f"a world that {what} the bar")
        for what, one in (("meets", FINE), ("misses", MISSED))
    ]
    handles.append(Patch(color=BAND, label="what chance lets pass beyond it"))
    figure.legend(handles=handles, loc="outside lower left", ncols=1, frameon=False)
    return figure


def _power(axes: Axes, rate: pd.DataFrame) -> None:
    """How often each claim is supported at its stated effect, and the right verdict given where one can be."""
    least, right = rate[rate["kind"] == POWERFUL], rate[rate["kind"] == RIGHT]
    if least.empty and right.empty:
        not_measured(axes, "power")
    else:
        names = [f"{claim}: {STATED[claim].value:g} {STATED[claim].unit}" for claim in least["claim"]]
        names += [f"verdict: {shown(case)}" for case in right["case"]]
        both = pd.concat([least, right])
        _dots(axes, [both.iloc[[place]] for place in range(len(both))], names)
        axes.axvline(100 * POWER, color=INK, linewidth=1.2)
        axes.set_xlim(0, 101)
        axes.set(xlabel="% of studies")
    axes.set_title("Found at the stated effect (80 %)", loc="left")


def _coverage(axes: Axes, cover: pd.DataFrame, count: int) -> None:
    """How often intervals cover the truth; an effect without a name is drawn by its key."""
    names = EFFECTS | {key: key for key in cover["effect"] if key not in EFFECTS}
    present = {effect: name for effect, name in names.items() if (cover["effect"] == effect).any()}
    _dots(axes, [cover[cover["effect"] == effect] for effect in present], list(present.values()))
    low, high = COVERAGE
    axes.axvspan(100 * at_least(low, count), 100 * at_most(high, count), color=BAND, linewidth=0)
    for edge in COVERAGE:
        axes.axvline(100 * edge, color=INK, linewidth=1.2)
    axes.set_xlim(min(90.0, 100 * float(cover["rate"].min()) - 1), 100.5)
    axes.set(xlabel="% of studies")
    axes.set_title("Intervals that cover the truth (93–97 %)", loc="left")


def _dots(axes: Axes, groups: Sequence[pd.DataFrame], names: Sequence[str]) -> None:
    """A row of dots for each group, a single one with its Monte-Carlo error; squares miss their bar."""
    for row, group in enumerate(groups):
        height = row + (np.linspace(-0.3, 0.3, len(group)) if len(group) > 1 else np.zeros(1))
        passed = group["passed"].to_numpy(dtype=bool)
        rates, errors = 100 * group["rate"].to_numpy(), 100 * group["error"].to_numpy()
        for which, one in ((passed, FINE), (~passed, MISSED)):
            bars = errors[which] if len(group) == 1 else None
            axes.errorbar(
                rates[which], height[which], xerr=bars, fmt=one.marker, color=one.colour, markersize=4.5,
                elinewidth=1.4, linewidth=0,
            )  # fmt: skip
    axes.set(yticks=range(len(names)), ylim=(len(names) - 0.5, -0.5))
    axes.set_yticklabels(names)
    axes.tick_params(axis="y", length=0)
