"""Plot 21: what gradients say before training, beside the drift that training left."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.patches import Rectangle

from gradinoc.claims.c7.c7c import C7C, kernel_of
from gradinoc.claims.evidence.measures import matrix
from gradinoc.claims.evidence.tables import LORA, Evidence
from gradinoc.claims.rules.finding import Measured
from gradinoc.report.figures.drift.matrix import COLOURS
from gradinoc.report.figures.lettering import drawable, fitted, within
from gradinoc.report.figures.prompts.families import in_order, look, order_of
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import INK, WIDE, new_figure, not_measured, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, p_value, rounded, shown
from gradinoc.stats.effect import Array, Effect
from gradinoc.study.rules import Rules

CELL, AROUND, LABELS = 0.27, 3.6, 2.2  # inches: of a cell, of what panels have around them, of a name
TOWARDS, AWAY = (  # halves of the matrix's colours
    LinearSegmentedColormap.from_list("half", COLOURS(np.linspace(*ends, 32))) for ends in ((0.5, 1.0), (0.0, 0.5))
)
SMALL = 11.0  # points, of a name
TITLES = ("before training: kernel", "after training: drift")
UNITS = ("inner product (nats per learning rate)", "drift (nats)")


def both_of(evidence: Evidence) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Kernel and trained matrix, [evaluated under, trained under] with the same names in the same order."""
    kernel, trained = if_measured(kernel_of, evidence, LORA), if_measured(matrix, evidence)
    if kernel is None or trained is None:
        return None
    columns = in_order(evidence, [name for name in map(str, evidence.prompts["condition"]) if name in kernel.index])
    columns = [name for name in columns if name in trained.index]
    rows = [name for name in columns if name in kernel and name in trained]
    declared = in_order(evidence, map(str, evidence.prompts["condition"]))
    rows += [name for name in declared if name not in rows and name in kernel and name in trained]
    tables = kernel.reindex(columns, axis=0)[rows].T, trained.reindex(columns, axis=0)[rows].T
    return tables if all(table.size and np.isfinite(table.to_numpy()).any() for table in tables) else None


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Two heat maps, a column the prompt of training, a row that of evaluation, each with a colour scale of its own."""
    both = both_of(evidence)
    rows = len(both[0]) if both else 6
    figure = new_figure("Gradients before training, and drift after it", AROUND + CELL * rows, WIDE)
    panels = figure.subplots(1, 2)
    for axes, title, unit, index in zip(panels, TITLES, UNITS, (0, 1), strict=True):
        axes.set_title(title)
        axes.set_xlabel("trained under")
        if both is None:
            not_measured(axes, unit)
            continue
        _draw_cells(axes, both[index], unit)
        _name(axes, evidence, both[index], names=index == 0)
    panels[0].set_ylabel("evaluated under")
    if both is None:
        return Drawn(figure)
    measured = if_measured(C7C.measure, evidence, rules)
    return Drawn(figure, _caption(evidence, both[0], measured), _finding(measured), _table(both))


def _draw_cells(axes: Axes, table: pd.DataFrame, unit: str) -> None:
    values = table.to_numpy(dtype=np.float64)
    (norm, colours), (height, width) = _scale(values), values.shape
    axes.pcolormesh(
        np.arange(width + 1) - 0.5, np.arange(height + 1) - 0.5, np.ma.masked_invalid(values), cmap=colours, norm=norm,
        edgecolors="white", linewidth=0.6,
    )  # fmt: skip
    own = [(column, row) for column, name in enumerate(table) for row, each in enumerate(table.index) if name == each]
    for column, row in own:
        frame = Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, fill=False, edgecolor=INK, linewidth=1.6, zorder=5)
        axes.add_patch(frame)
    if own and len(own) < height:
        axes.axhline(max(row for _, row in own) + 0.5, color=INK, linewidth=2)
    axes.set(xlim=(-0.55, width - 0.45), ylim=(height - 0.45, -0.55))
    axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(
        ScalarMappable(norm, colours), ax=axes, orientation="horizontal", pad=0.02, aspect=30, shrink=0.8
    )
    bar.set_label(unit, fontsize=13)
    bar.ax.tick_params(labelsize=12)


def _scale(values: Array) -> tuple[Normalize, Colormap]:
    """White zero where values lie on both sides of it; else white that nearest to zero, so that cells can differ."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    most = max(abs(low), abs(high)) or 1.0
    if low >= 0 and low < high:
        return Normalize(low, high), TOWARDS
    if high <= 0 and low < high:
        return Normalize(low, high), AWAY
    return Normalize(-most, most), COLOURS


def _name(axes: Axes, evidence: Evidence, table: pd.DataFrame, *, names: bool) -> None:
    """Names of columns, and of rows where `names`: both panels have the same."""
    fits = within(LABELS, SMALL)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    for axis, keys in ((axes.xaxis, list(table)), (axes.yaxis, list(table.index) if names else [])):
        axis.set_ticks(range(len(keys)), [fitted(drawable(shown(name)), fits, 1) for name in keys], fontsize=SMALL)
        for tick, name in zip(axis.get_ticklabels(), keys, strict=True):
            tick.set_color(look(evidence, name).ink)
    axes.tick_params(axis="x", rotation=90)
    axes.tick_params(length=0)


def _table(both: tuple[pd.DataFrame, pd.DataFrame]) -> pd.DataFrame:
    """A row a cell: trained, evaluation, kernel, drift."""
    keys = ["trained", "evaluation"]
    long = [
        table.rename_axis("evaluation").reset_index().melt("evaluation", var_name="trained", value_name=name)
        for table, name in zip(both, ("kernel", "drift"), strict=True)
    ]
    return long[0].merge(long[1], on=keys)[[*keys, "kernel", "drift"]]


def _caption(evidence: Evidence, kernel: pd.DataFrame, measured: Measured | None) -> str:
    effects = measured.effects if measured is not None else {}
    words = {
        "r2": "neutral drift by the kernel",
        "r2.alignment": "neutral drift by cos(−g, v)",
        "r2.matrix": "all cells by the kernel, whole prompts left out",
    }
    predicted = "; ".join(f"{words[key]} {_r2(effects[key])}" for key in words if key in effects)
    told = (
        f" R² of prompts left out one at a time: {predicted}. Below zero: worse than their mean." if predicted else ""
    )
    return (
        "A column the prompt of training, a row that of evaluation, in the same order on both sides "
        f"({len(kernel.columns)} × {len(kernel)} prompts); framed a model's own prompt, below the line prompts for "
        "evaluation alone. Left: inner product of the descent direction of the training loss and the gradient of the "
        "decision log-odds in the space of a fresh adapter, before any training (nats per learning rate). Right: "
        "drift of the decision log-odds after training (nats, mean over seeds and questions). Each side has a scale of "
        f"its own, blue towards the trait; white is zero, or the least where all cells have one sign.{told} "
        f"Names are coloured by family: {order_of(evidence, kernel.columns)}."
    )


def _r2(effect: Effect) -> str:
    tested = f"p {p_value(effect.p)}, " if math.isfinite(effect.p) else ""
    return f"{rounded(effect.estimate)} ({tested}n = {effect.n} {effect.unit})"


def _finding(measured: Measured | None) -> str:
    if measured is None:
        return NOT_MEASURED
    if not measured.effects:
        return measured.statement
    r2 = measured["r2"]
    if not math.isfinite(r2.estimate):
        return f"Whether gradients before training foretell drift cannot be told from {r2.n} {r2.unit}."
    return f"Of prompts left out, gradients before training predict neutral drift with R² {_r2(r2)}."


FIGURE = StudyFigure("plot21_kernel_and_matrix", ("sources", "C7c"), draw, wide=True)
