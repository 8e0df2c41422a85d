"""The figure of the benchmarks: time of each side relative to ours, and what logging adds as things grow."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradinoc.analysis.style import FAINT, INK, Look, look, new_figure, not_measured, styled
from gradinoc.study import INOCULATION, LOSS_MATCHED, NEUTRAL

OURS, PEERS, FLOOR = (look(condition, ()) for condition in (NEUTRAL, INOCULATION, LOSS_MATCHED))
GROWTH = "growth"
ROW, PANEL = 0.36, 1.15  # inches of a side, and of a panel's title and axis


@styled
def plot_benchmarks(figures: pd.DataFrame) -> Figure:
    """A panel a job, a row a side: median time over our median, with the least and the largest repetition.

    Args:
        figures: as `summary.measurements` gives it.
    """
    seconds = figures[figures["quantity"] == "seconds"]
    jobs = [job for job in dict.fromkeys(seconds["job"]) if job != GROWTH]
    growth = seconds[seconds["job"] == GROWTH]
    sizes = [seconds.loc[seconds["job"] == job, ["setting", "side"]].drop_duplicates().shape[0] for job in jobs]
    sizes += [growth["setting"].nunique()] if len(growth) else []
    figure = new_figure("Time of a side over ours", height=0.6 + sum(ROW * size + PANEL for size in sizes or [4]))
    panels = figure.subplots(
        max(1, len(sizes)), 1, squeeze=False, height_ratios=[s + PANEL / ROW for s in sizes or [4]]
    )
    for axes, job in zip(panels[:, 0], jobs, strict=False):
        _sides(axes, seconds[seconds["job"] == job])
        axes.set_title(job, loc="left")
    if len(growth):
        _growth(panels[-1, 0], growth)
    if not sizes:
        not_measured(panels[0, 0], "times")
    return figure


def _sides(axes: Axes, mine: pd.DataFrame) -> None:
    """Each side of a job relative to the median of ours, on a logarithmic axis."""
    names: list[str] = []
    base = {setting: _base(group) for setting, group in mine.groupby("setting")}
    for (setting, side), group in mine.groupby(["setting", "side"], sort=False):
        times = group["value"].to_numpy(dtype=float) / base[setting]
        _dot(axes, len(names), times, _look(str(side)))
        axes.annotate(
            f"{np.median(group['value']):.3g} s", (float(np.median(times)), len(names)), (0, 7), color=INK, fontsize=11,
            textcoords="offset points", ha="center", va="bottom",
        )  # fmt: skip
        names.append(str(side).replace("_", " ") + (f", {setting}" if setting else ""))
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.5) * 0.85, max(high, 2.0) * 1.2)
    axes.axvline(1.0, color=FAINT, linewidth=1.2, zorder=0)
    ticks = [
        tick for tick in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low * 0.9 <= tick <= max(high, 2.0) * 1.1
    ]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    _rows(axes, names)


def _base(group: pd.DataFrame) -> float:
    ours = group.loc[group["side"] == "ours", "value"]
    return float(np.median(ours if len(ours) else group["value"]))


def _growth(axes: Axes, mine: pd.DataFrame) -> None:
    """Logged over unlogged time at each setting, repetition by repetition."""
    wide = mine.pivot_table(index=["setting", "repetition"], columns="side", values="value", sort=False)
    names = list(dict.fromkeys(mine["setting"]))
    for row, name in enumerate(names):
        times = wide.loc[name]
        each = (times["ours"] / times["ours_unlogged"]).to_numpy(dtype=float)
        middle = float(times["ours"].median() / times["ours_unlogged"].median())
        _dot(axes, row, each, OURS, middle)
    axes.axvline(1.0, color=FAINT, linewidth=1.2, zorder=0)
    axes.set_title("growth: logged over unlogged step", loc="left")
    _rows(axes, names)


def _dot(axes: Axes, row: int, values: np.ndarray, how: Look, middle: float | None = None) -> None:
    median = float(np.median(values)) if middle is None else middle
    low, high = min(median, values.min()), max(median, values.max())
    axes.errorbar(
        [median], [row], xerr=[[median - low], [high - median]], fmt=how.marker, color=how.colour, markersize=7,
        elinewidth=1.8, linewidth=0,
    )  # fmt: skip


def _look(side: str) -> Look:
    return FLOOR if side == "floor" else OURS if side.startswith("ours") else PEERS


def _rows(axes: Axes, names: list[str]) -> None:
    axes.set(yticks=range(len(names)), ylim=(len(names) - 0.4, -0.8))
    axes.set_yticklabels(names)
    axes.tick_params(axis="y", length=0)
