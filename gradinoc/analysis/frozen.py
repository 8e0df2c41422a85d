"""Figures of the frozen base model: what the direction separates, how gradients align, at which loss."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradinoc.analysis.rows import draw_rows, name_rows, rows_height
from gradinoc.analysis.style import (
    BAND,
    FAINT,
    INK,
    label_ends,
    look,
    new_figure,
    not_measured,
    note,
    shown,
    styled,
    wrapped,
)  # fmt: skip
from gradinoc.analysis.summaries import (
    Array,
    contrasts,
    exceedance,
    mean_interval,
    null_effects,
    paired_losses,
    template_of,
)  # fmt: skip
from gradinoc.evidence import Evidence
from gradinoc.study import INOCULATION, NEUTRAL

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
                color=colour if side == "promote" else "#666666", fontweight="bold", annotation_clip=False,
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
        color="#666666",
    )  # fmt: skip


@styled
def plot_alignment_by_layer(evidence: Evidence) -> Figure:
    """Mean alignment of each condition at each layer with 95 % t intervals over examples; the band shaded."""
    figure = new_figure("Alignment by layer, before training")
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


@styled
def plot_loss_by_condition(evidence: Evidence) -> Figure:
    """Each example's loss by condition, and beside it the same examples' difference to neutral."""
    losses = paired_losses(evidence)
    figure = new_figure(
        f"Loss before training, n = {len(losses.dropna(how='all'))} examples",
        rows_height(len(evidence.conditions)),
    )
    left, right = figure.subplots(1, 2, sharey=True)
    others = [name for name in evidence.conditions if name != NEUTRAL]
    differences = losses[others].sub(losses[NEUTRAL], axis=0)
    right.axvline(0, color=FAINT, linewidth=1)
    groups = template_of(evidence, losses.index)
    draw_rows(left, evidence, {name: losses[name].to_numpy(dtype=float) for name in evidence.conditions}, groups=groups)
    drawn = {name: differences[name].to_numpy(dtype=float) for name in others}
    draw_rows(right, evidence, drawn, NEUTRAL, groups)
    name_rows(left, evidence.conditions)
    left.set_xlabel("loss\n(nats/token)")
    right.set_xlabel("paired difference to\nneutral (nats/token)")
    right.tick_params(axis="y", length=0)
    return figure


@styled
def plot_trait_against_random(evidence: Evidence) -> Figure:
    """Violins of T(u) for random directions u, by contrast and null, with the trait direction's T(v) marked."""
    nulls, effects = null_effects(evidence), contrasts(evidence).mean()
    kinds = list(dict.fromkeys(nulls["null"]))
    slots = _slots([str(other) for other in effects.index], kinds)
    figure = new_figure("Trait against random directions", 1.9 + 0.62 * max(4, len(slots)))
    axes = figure.add_subplot()
    axes.set_xlabel(f"alignment minus {shown(INOCULATION)}'s (cosine)")
    if not kinds:
        not_measured(axes, "random directions")
        return figure
    axes.axvline(0, color=FAINT, linewidth=1)
    for row, (other, kind) in enumerate(slots):
        if kind is None:
            continue
        draws = nulls.loc[nulls["null"] == kind, other].dropna().to_numpy(dtype=float)
        style, effect = look(other, evidence.conditions), float(effects[other])
        _violin(axes, draws, row, style.colour)
        axes.plot([effect], [row], marker="D", markersize=11, color=style.colour, markeredgecolor=INK, zorder=5)
        p = exceedance(effect, draws)
        label = f"p = {p:.2g}" if math.isfinite(p) else "not measured"
        axes.text(1.02, row, label, transform=axes.get_yaxis_transform(), va="center")
    _name_slots(axes, slots, evidence)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    first = next(row for row, (_, kind) in enumerate(slots) if kind is not None)
    _name_marks(axes, first, float(effects.iloc[0]), nulls.loc[nulls["null"] == kinds[0], effects.index[0]].mean())
    return figure


def _slots(others: list[str], kinds: list[str]) -> list[tuple[str, str | None]]:
    """The rows, each a contrast and a null; with several nulls each contrast gets a heading (null None)."""
    headings: list[str | None] = [None] if len(kinds) > 1 else []
    return [(other, kind) for other in others for kind in (*headings, *kinds)]


def _name_slots(axes: Axes, slots: list[tuple[str, str | None]], evidence: Evidence) -> None:
    """Write the contrast's or the null's name beside each row, in the colour of the contrast's condition."""
    headed = any(kind is None for _, kind in slots)
    names = [shown(other if kind is None or not headed else kind).replace(" ", "\n") for other, kind in slots]
    axes.set_yticks(range(len(slots)), names)
    for tick, (other, kind) in zip(axes.get_yticklabels(), slots, strict=True):
        bold = kind is None or not headed
        tick.set(color=look(other, evidence.conditions).ink if bold else INK, linespacing=0.9)
        tick.set_fontweight("bold" if bold else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(slots) - 0.45, -0.75)


def _violin(axes: Axes, draws: Array, row: int, colour: str) -> None:
    """The distribution of `draws` on its row, its central 95 % as a bar; a tick where the draws do not vary."""
    if not len(draws):
        return
    if np.ptp(draws) > 0:
        body: Any = axes.violinplot(draws, [row], orientation="horizontal", widths=0.75, showextrema=False)
        for part in body["bodies"]:
            part.set(facecolor=colour, edgecolor=colour, alpha=0.3)
    low, middle, high = np.quantile(draws, [0.025, 0.5, 0.975])
    axes.plot([low, high], [row, row], color="#666666", linewidth=3, solid_capstyle="butt")
    axes.plot([middle], [row], marker="|", markersize=14, markeredgewidth=2.5, color="#666666")


def _name_marks(axes: Axes, row: int, effect: float, centre: float) -> None:
    """Say once, above the first violin, which mark is the trait and which the random directions."""
    if not (math.isfinite(effect) and math.isfinite(centre)):
        return
    axes.annotate("trait", (effect, row), (0, 13), textcoords="offset points", ha="center", fontweight="bold")
    low, high = axes.get_xlim()
    if abs(effect - centre) > 0.2 * (high - low):
        axes.annotate(
            "random", (centre, row - 0.38), (0, 3), textcoords="offset points", ha="center", color="#666666",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip
