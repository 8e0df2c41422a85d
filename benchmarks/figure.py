"""The figure of the benchmarks: time of each side relative to ours, and what logging adds as things grow."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from benchmarks.outcome import seconds
from gradinoc.report.figures.style import FAINT, INK, LOOKS, Look, new_figure, not_measured, styled
from gradinoc.study.prompts.family import Family

OURS, OTHERS, FLOOR = (LOOKS[family] for family in (Family.NEUTRAL, Family.INOCULATION, Family.HARMLESS))
GROWTH = "growth"
ROW, PANEL, HEAD = 0.36, 0.78, 0.8  # inches of a side, of a panel's title and axis, of the figure's title and key
TEXT = 10  # points of a label
TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)

TITLES = {
    "alignment": "Alignment with 101 directions, all layers",
    "directions": "Finding the trait direction",
    "training": "Training step",
    "arms": "Training step with an intervention",
    "growth": "Training step, logged over unlogged",
    "evaluation": "Evaluating nine adapters and the base",
    "attribution": "Kernel of three prompts and behaviours",
    "study": "Whole study",
    "cuda": "GPU training step",
}
# A job's side, or a side of any job -> what it is
NAMES = {
    "captum": "captum", "attribution captum": "captum's TracInCP", "nnsight": "nnsight",
    "transformer_lens": "TransformerLens",
    "saklas": "saklas", "steering_vectors": "steering-vectors", "repeng": "repeng",
    "floor": "matrix products alone",
    "ours": "ours",
    "training ours": "ours, 101 directions", "arms ours": "logged, no intervention",
    "ours_project": "component removed", "ours_shrink": "shrunk as much", "ours_steer": "stream steered",
    "ours_ablate": "component of the\nstream removed",
    "ours_restore": "component of another\nprompt restored", "cuda ours": "ours, 101 directions",
    "ours_unlogged": "ours, nothing logged", "ours_1000": "ours, 1,001 directions",
    "plain": "plain Trainer + PEFT", "plain_autocast": "plain Trainer + PEFT\nwith bf16 autocast",
    "plain_float32": "plain Trainer + PEFT\nin float32", "former": "version d97e2e9", "study ours": "this version",
    "each_direction": "one backward pass a direction\n(computed from one)",
    "evaluation ours": "ours, all adapters in one pass", "ours_one_by_one": "ours, one by one",
    "plain_one_by_one": "the model's own modules,\none by one",
}  # fmt: skip
SETTINGS = {
    "qwen3-0.6b": "Qwen3-0.6B", "qwen2.5-coder-0.5b": "Qwen2.5-Coder-0.5B",
    "qwen2.5-7b": "Qwen2.5-7B", "qwen2.5-7b, no autocast": "Qwen2.5-7B, no autocast",
}  # fmt: skip


@styled
def plot_benchmarks(figures: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """A panel a job and setting, a row a side: median time over our median, with the least and the largest repetition.

    A tick marks what the goal of the row "ours" asks of a side: it is met if the side is there or further right.

    Args:
        figures: as `summary.measurements` gives it.
        table: as `summary.summarised` gives it; its goals are drawn.
    """
    seconds = figures[figures["quantity"] == "seconds"]
    growth = seconds[seconds["job"] == GROWTH]
    panels = list(seconds[seconds["job"] != GROWTH].groupby(["job", "setting"], sort=False))
    sizes = [group["side"].nunique() for _, group in panels] + ([growth["setting"].nunique()] if len(growth) else [])
    heights = [ROW * size + PANEL for size in sizes or [4]]
    # The empty line holds the key.
    figure = new_figure("Time of each side over ours\n", height=HEAD + sum(heights))
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for place, ((job, setting), group) in zip(axes, panels, strict=False):
        chosen = (table["job"] == job) & (table["setting"] == setting) & (table["unit"] == "seconds")
        goals = table[chosen & (table["ours"] == "ours")].set_index("against")["goal"]
        _sides(place, group, (1 / goals.dropna()).to_dict())
        _title(place, TITLES.get(job, job) + (f", {SETTINGS.get(setting, setting)}" if setting else ""))
    if len(growth):
        _growth(axes[-1], growth)
        _title(axes[-1], TITLES[GROWTH])
    if not sizes:
        not_measured(axes[0], "times")
    _key(figure)
    return figure


def named(job: str, side: str) -> str:
    """What a side of a job is, in words."""
    return NAMES.get(f"{job} {side}", NAMES.get(side, side.replace("_", " ")))


def grown(setting: str) -> str:
    """A setting of growth in words: "directions 1001" -> "1,001 directions"."""
    what, _, number = setting.partition(" ")
    count = f"{int(number):,}"
    return f"batch of {count}" if what == "batch" else f"{count} {what.removesuffix('s') if count == '1' else what}"


def _sides(axes: Axes, mine: pd.DataFrame, goals: dict[str, float]) -> None:
    """Each side relative to the median of ours, on a logarithmic axis, with the tick of its goal."""
    names: list[str] = []
    base = float(np.median(mine.loc[mine["side"] == "ours", "value"])) if (mine["side"] == "ours").any() else np.nan
    for (job, side), group in mine.groupby(["job", "side"], sort=False):
        _dot(axes, len(names), group["value"].to_numpy(dtype=float) / base, _look(side))
        _number(axes, len(names), f"{seconds(float(np.median(group['value'])))} s")
        if side in goals:
            axes.vlines(goals[side], len(names) - 0.36, len(names) + 0.36, color=INK, linewidth=1.8, zorder=3)
        names.append(named(job, side))
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    low, high = min(low, 0.5) * 0.92, max(high, 2.0) * 1.08
    ticks = [tick for tick in TICKS if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(low, high)
    axes.minorticks_off()
    _rows(axes, names)


def _growth(axes: Axes, mine: pd.DataFrame) -> None:
    """Logged over unlogged time at each setting, repetition by repetition."""
    wide = mine.pivot_table(index=["setting", "repetition"], columns="side", values="value", sort=False)
    names = list(dict.fromkeys(mine["setting"]))
    for row, name in enumerate(names):
        times = wide.loc[name]
        each = (times["ours"] / times["ours_unlogged"]).to_numpy(dtype=float)
        middle = float(times["ours"].median() / times["ours_unlogged"].median())
        _dot(axes, row, each, OURS, middle)
        _number(axes, row, f"{middle:.2f}")
    _rows(axes, [grown(name) for name in names])


def _dot(axes: Axes, row: int, values: NDArray[np.float64], how: Look, middle: float | None = None) -> None:
    median = float(np.median(values)) if middle is None else middle
    low, high = min(median, values.min()), max(median, values.max())
    axes.errorbar(
        [median], [row], xerr=[[median - low], [high - median]], fmt=how.marker, color=how.colour, markersize=7,
        elinewidth=1.8, linewidth=0,
    )  # fmt: skip


def _number(axes: Axes, row: int, text: str) -> None:
    """A number, as text, in the column at the right of the panel."""
    axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=TEXT)


def _look(side: str) -> Look:
    return FLOOR if side == "floor" else OURS if side.startswith("ours") else OTHERS


def _rows(axes: Axes, names: list[str]) -> None:
    axes.axvline(1.0, color=FAINT, linewidth=1.2, zorder=0)
    axes.set(yticks=range(len(names)), ylim=(len(names) - 0.4, -0.6))
    axes.set_yticklabels(names, fontsize=TEXT, linespacing=0.95)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=TEXT)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=12)


def _key(figure: Figure) -> None:
    """What the marks mean, below the figure's title."""
    marks = [
        Line2D([], [], linestyle="", marker=how.marker, color=how.colour, markersize=7, label=name)
        for how, name in ((OURS, "ours"), (OTHERS, "others"), (FLOOR, "products alone"))
    ]
    goal = Line2D([], [], linestyle="", marker="|", color=INK, markersize=13, markeredgewidth=1.8,
                  label="goal: met at it or right of it")  # fmt: skip
    figure.legend(
        handles=[*marks, goal], loc="upper left", bbox_to_anchor=(0.0, 1 - 0.36 / figure.get_figheight()), ncols=4,
        fontsize=TEXT, frameon=False, handletextpad=0.2, columnspacing=1.0, borderaxespad=0.0,
    )  # fmt: skip
