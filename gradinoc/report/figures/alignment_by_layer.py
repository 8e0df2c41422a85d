"""Plot 2: alignment of each condition at each layer of the frozen base model."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.measures import inoculation_contrast, per_example
from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import (
    BAND,
    FAINT,
    SOFT,
    height_beside,
    label_ends,
    look,
    new_figure,
    not_measured,
    styled,
    wrapped,
)  # fmt: skip
from gradinoc.report.numbers import if_measured, mean_interval, over_examples
from gradinoc.report.wording import NOT_MEASURED, between, by_condition, estimated, listed, rounded, shown, side
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Mean alignment of each condition at each layer with 95 % t intervals over examples; the band shaded."""
    figure = new_figure("Alignment by layer, before training", height_beside(evidence.conditions))
    axes = figure.add_subplot()
    axes.set(xlabel="layer (decoder block)", ylabel="alignment (cosine)")
    frame = evidence.alignments
    frame = frame[frame["position"] == evidence.primary_position].dropna(subset=["alignment"])
    if frame.empty:
        not_measured(axes, "alignments")
        return Drawn(figure)
    _shade_band(axes, evidence.band)
    axes.axhline(0, color=FAINT, linewidth=1)
    groups = {name: frame[frame["condition"] == name] for name in evidence.conditions}
    ends = [_draw_condition(axes, evidence, name, group) for name, group in groups.items() if len(group)]
    axes.set_xlim(frame["layer"].min() - 0.5, frame["layer"].max() + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.1 * (high - low))  # room for the band's name
    label_ends(axes, ends)
    return Drawn(figure, *_words(evidence, rules))


def _shade_band(axes: Axes, band: list[int]) -> None:
    """Grey behind every stretch of neighbouring band layers, named once."""
    if not band:
        return
    breaks = [0, *(i for i in range(1, len(band)) if band[i] != band[i - 1] + 1), len(band)]
    for start, stop in pairwise(breaks):
        axes.axvspan(band[start] - 0.5, band[stop - 1] + 0.5, color=BAND, linewidth=0, zorder=0)
    middle = (band[0] + band[-1]) / 2
    axes.text(middle, 0.985, "band", transform=axes.get_xaxis_transform(), ha="center", va="top", color=SOFT)


def _draw_condition(
    axes: Axes, evidence: Evidence, condition: str, group: pd.DataFrame
) -> tuple[float, float, str, str]:
    """Draw a condition's means and intervals over layers; where its line ends, its name and ink."""
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
    return layers[-1], estimates[-1], wrapped(condition), style.ink


def _words(evidence: Evidence, rules: Rules) -> tuple[str, str]:
    """Caption and finding, of band means."""
    by_example = per_example(evidence, strict=False)
    if by_example.empty:
        return NOT_MEASURED, NOT_MEASURED
    means = {name: over_examples(evidence, by_example[name]) for name in by_example if by_example[name].notna().any()}
    layers = evidence.band
    caption = (
        f"Alignment, cos(−g, v), at each layer of the frozen base model, read at the "
        f"{shown(evidence.primary_position)}; shaded the band, {len(layers)} layers from {layers[0]} to {layers[-1]}. "
        f"Band means with 95 % t intervals: {listed((name, estimated(mean)) for name, mean in means.items())}."
    )
    mean = if_measured(inoculation_contrast, evidence, rules, NEUTRAL)
    if mean is None:
        return caption, NOT_MEASURED
    finding = (
        f"Over the band, alignment is {side(mean)} under inoculation than under neutral: "
        f"{by_condition((name, each.estimate) for name, each in means.items())}; neutral minus inoculation "
        f"{rounded(mean.estimate)} ({between(mean)})."
    )
    return caption, finding


FIGURE = StudyFigure("plot2_alignment_by_layer", ("C1",), draw)
