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
# What a side is called: in one job, or in all.
LABELS = {
    ("evaluation", "ours"): "ours, 10 models at once",
    ("evaluation", "ours_one_by_one"): "ours, one by one",
    ("evaluation", "plain_one_by_one"): "plain, one by one",
    ("training", "ours"): "ours, 101 directions",
    ("cuda", "ours"): "ours, 101 directions",
    "captum": "Captum",
    "transformer_lens": "TransformerLens",
    "each_direction": "a pass a direction*",
    "steering_vectors": "steering-vectors",
    "plain": "Trainer + PEFT",
    "plain_autocast": "same, autocast",
    "ours_unlogged": "ours, no logging",
    "ours_1000": "ours, 1,001 directions",
    "floor": "bare products",
}
EXTRAPOLATED = "* one backward pass timed, times 101"
TITLES = {
    "alignment": "alignment: 24 examples, 101 directions",
    "directions": "directions: 250 questions, 2 prompts",
    "training": "training: one step",
    "evaluation": "evaluation: base and 9 adapters",
    "cuda": "training on CUDA: one step",
}
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)
ROW, PANEL = 0.36, 1.3  # inches of a side, and of a panel's title and axis


@styled
def plot_benchmarks(figures: pd.DataFrame) -> Figure:
    """A panel a job (and setting), a row a side: median time over our median, with the least and largest repetition.

    Args:
        figures: as `summary.measurements` gives it.
    """
    seconds = figures[figures["quantity"] == "seconds"]
    others = seconds[seconds["job"] != GROWTH].groupby(["job", "setting"], sort=False)
    panels = {(str(job), str(setting)): mine for (job, setting), mine in others if (mine["side"] == "ours").any()}
    growth = seconds[seconds["job"] == GROWTH]
    sizes = [mine["side"].nunique() for mine in panels.values()]
    sizes += [growth["setting"].nunique()] if len(growth) else []
    figure = new_figure("Time relative to ours", height=0.6 + sum(ROW * size + PANEL for size in sizes or [4]))
    places = figure.subplots(
        max(1, len(sizes)), 1, squeeze=False, height_ratios=[s + PANEL / ROW for s in sizes or [4]]
    )[:, 0]
    for axes, ((job, setting), mine) in zip(places, panels.items(), strict=False):
        _sides(axes, job, mine)
        axes.set_title(TITLES.get(job, job) + (f", {setting}" if setting else ""), loc="left")
    if len(growth):
        _growth(places[-1], growth)
    if not sizes:
        not_measured(places[0], "times")
    return figure


def label(job: str, side: str) -> str:
    """What a job's side is called in the figure."""
    return LABELS.get((job, side)) or LABELS.get(side) or side.replace("_", " ")


def _sides(axes: Axes, job: str, mine: pd.DataFrame) -> None:
    """Each side of a job relative to the median of ours, on a logarithmic axis; the median in seconds beside it."""
    base = float(mine.loc[mine["side"] == "ours", "value"].median())
    sides = {str(side): group["value"].to_numpy(dtype=float) for side, group in mine.groupby("side", sort=False)}
    for row, (side, seconds) in enumerate(sides.items()):
        _dot(axes, row, seconds / base, _look(side))
        axes.annotate(
            f"{np.median(seconds):.3g} s", (1.0, row), (4, 0), color=INK, fontsize=12, va="center",
            xycoords=axes.get_yaxis_transform(), textcoords="offset points", annotation_clip=False,
        )  # fmt: skip
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    low, high = min(low, 0.5) * 0.85, max(high, 2.0) * 1.2
    axes.set_xlim(low, high)
    axes.axvline(1.0, color=FAINT, linewidth=1.2, zorder=0)
    ticks = [tick for tick in TICKS if low <= tick <= high]
    if len(ticks) > 7:
        ticks = [tick for tick in ticks if f"{tick:g}".strip("0.") == "1"]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("time / ours" + (f"      {EXTRAPOLATED}" if "each_direction" in sides else ""), loc="left")
    _rows(axes, [label(job, side) for side in sides])


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
    axes.set_title("growth: what logging adds to a step", loc="left")
    axes.set_xlabel("time / time without logging", loc="left")
    _rows(axes, [_counted(name) for name in names])


def _counted(setting: str) -> str:
    """`layers 1` as `1 layer`: a setting of the growth job."""
    what, _, count = setting.partition(" ")
    if not count.isdigit():
        return setting
    if what == "batch":
        return f"batch of {count}"
    return f"{int(count):,} {what.removesuffix('s') if count == '1' else what}"


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
    axes.set(yticks=range(len(names)), ylim=(len(names) - 0.4, -0.6))
    axes.set_yticklabels(names)
    axes.tick_params(axis="y", length=0)
