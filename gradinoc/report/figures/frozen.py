"""Figures of the frozen base model: what the direction separates, how gradients align."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.style import (
    BAND,
    FAINT,
    SOFT,
    height_beside,
    label_ends,
    look,
    new_figure,
    not_measured,
    note,
    styled,
    wrapped,
)  # fmt: skip
from gradinoc.report.figures.summaries import (
    mean_interval,
)  # fmt: skip

SIDES = {"suppress": "#9a9a9a", "promote": "#332288"}  # no condition's colours: a side is not a condition


def clearest_layer(evidence: Evidence) -> int | None:
    """The band layer with the largest held-out separation; None without a band."""
    layers = evidence.layers[evidence.layers["in_band"]].dropna(subset=["cohens_d"])
    return None if layers.empty else int(layers["layer"].to_numpy()[layers["cohens_d"].to_numpy().argmax()])


@styled
def plot_projection_distributions(evidence: Evidence) -> Figure:
    """Histograms of held-out prompts' projections on v by side, in the clearest band layer."""
    layer = clearest_layer(evidence)
    figure = new_figure("Held-out prompts" + ("" if layer is None else f", layer {layer}"))
    axes = figure.add_subplot()
    axes.set(xlabel="projection on trait direction\n(hidden-state units)", ylabel="prompts (count)")
    frame = evidence.projections[evidence.projections["layer"] == layer].dropna(subset=["projection"])
    if frame.empty:
        not_measured(axes, "projections")
        return figure
    edges = np.histogram_bin_edges(frame["projection"], bins=24)
    for side, colour in SIDES.items():
        values = frame.loc[frame["side"] == side, "projection"].to_numpy()
        counts, _ = np.histogram(values, edges)
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.35)
        axes.stairs(counts, edges, color=colour, linewidth=1.8)
        if len(values):
            axes.annotate(
                side, (float(np.median(values)), counts.max()), (0, 5), textcoords="offset points", ha="center",
                color=colour if side == "promote" else SOFT, fontweight="bold", annotation_clip=False,
            )  # fmt: skip
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    row = evidence.layers[evidence.layers["layer"] == layer].iloc[0]
    note(
        axes,
        f"AUC {row['auc']:.3f}, Cohen's d {row['cohens_d']:.1f}, n = {frame['example'].nunique()} a side",
    )
    return figure


def _shade_band(axes: Axes, band: list[int]) -> None:
    """Grey behind every stretch of neighbouring band layers, named once."""
    if not band:
        return
    breaks = [0, *(i for i in range(1, len(band)) if band[i] != band[i - 1] + 1), len(band)]
    for start, stop in pairwise(breaks):
        axes.axvspan(band[start] - 0.5, band[stop - 1] + 0.5, color=BAND, linewidth=0, zorder=0)
    axes.text(
        (band[0] + band[-1]) / 2, 0.985, "band", transform=axes.get_xaxis_transform(), ha="center", va="top",
        color=SOFT,
    )  # fmt: skip


@styled
def plot_alignment_by_layer(evidence: Evidence) -> Figure:
    """Mean alignment of each condition at each layer with 95 % t intervals over examples; the band shaded."""
    figure = new_figure("Alignment by layer, before training", height_beside(evidence.conditions))
    axes = figure.add_subplot()
    axes.set(xlabel="layer (decoder block)", ylabel="alignment (cosine)")
    frame = evidence.alignments
    frame = frame[frame["position"] == evidence.primary_position].dropna(subset=["alignment"])
    if frame.empty:
        not_measured(axes, "alignments")
        return figure
    _shade_band(axes, evidence.band)
    axes.axhline(0, color=FAINT, linewidth=1)
    ends = []
    for condition in evidence.conditions:
        group = frame[frame["condition"] == condition]
        if group.empty:
            continue
        means = {layer: mean_interval(rows["alignment"], rows.get("group")) for layer, rows in group.groupby("layer")}
        style, layers = look(condition, evidence.conditions), list(means)
        estimates = [mean.estimate for mean in means.values()]
        axes.fill_between(
            layers, [mean.low for mean in means.values()], [mean.high for mean in means.values()],
            color=style.colour, alpha=0.22, linewidth=0,
        )  # fmt: skip
        axes.plot(
            layers, estimates, color=style.colour, linestyle=style.line, marker=style.marker,
            markersize=7 if len(layers) < 16 else 4,
        )  # fmt: skip
        ends.append((layers[-1], estimates[-1], wrapped(condition), style.ink))
    axes.set_xlim(frame["layer"].min() - 0.5, frame["layer"].max() + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.1 * (high - low))  # room for the band's name
    label_ends(axes, ends)
    return figure
