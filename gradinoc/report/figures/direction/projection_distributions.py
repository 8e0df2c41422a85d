"""Plot 1: how far the direction separates held-out prompts."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.evidence.tables import PROMOTE, SUPPRESS, Evidence
from gradinoc.report.figures.study_figure import Drawn, StudyFigure, told
from gradinoc.report.figures.style import SOFT, new_figure, not_measured, note, styled
from gradinoc.report.wording import NOT_MEASURED, rounded
from gradinoc.stats.effect import mean_effect
from gradinoc.study.rules import Rules

SIDES = {SUPPRESS: "#9a9a9a", PROMOTE: "#332288"}  # no condition's colours: a side is not a condition


def clearest_layer(evidence: Evidence) -> int | None:
    """The band layer with the largest held-out separation; None without a band."""
    layers = evidence.layers[evidence.layers["in_band"]].dropna(subset=["cohens_d"])
    return None if layers.empty else int(layers["layer"].to_numpy()[layers["cohens_d"].to_numpy().argmax()])


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Histograms of held-out prompts' projections on v by side, in the clearest band layer."""
    layer = clearest_layer(evidence)
    figure = new_figure("Held-out prompts" + ("" if layer is None else f", layer {layer}"))
    axes = figure.add_subplot()
    axes.set(xlabel="projection on trait direction\n(hidden-state units)", ylabel="prompts (count)")
    frame = evidence.projections[evidence.projections["layer"] == layer].dropna(subset=["projection"])
    finding = NOT_MEASURED if layer is None else _finding(evidence, layer, rules)
    if frame.empty:
        not_measured(axes, "projections")
        return Drawn(figure, finding=finding)
    edges = np.histogram_bin_edges(frame["projection"], bins=24)
    for side, colour in SIDES.items():
        values = frame.loc[frame["side"] == side, "projection"].to_numpy()
        counts, _ = np.histogram(values, edges)
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.35)
        axes.stairs(counts, edges, color=colour, linewidth=1.8)
        if len(values):
            axes.annotate(
                side, (float(np.median(values)), counts.max()), (0, 5), textcoords="offset points", ha="center",
                color=colour if side == PROMOTE else SOFT, fontweight="bold", annotation_clip=False,
            )  # fmt: skip
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    row = evidence.layers[evidence.layers["layer"] == layer].iloc[0]
    note(axes, f"AUC {row['auc']:.3f}, Cohen's d {row['cohens_d']:.1f}, n = {frame['example'].nunique()} a side")
    promote, suppress = (
        told(mean_effect(frame.loc[frame["side"] == side, "projection"], f"projection, {side}", "prompts"))
        for side in (PROMOTE, SUPPRESS)
    )
    caption = (
        f"Projection of held-out prompts on the trait direction at layer {layer}, the band layer that separates best: "
        f"promoting {promote}, suppressing {suppress}, in hidden-state units; AUC {row['auc']:.3f}, Cohen's d "
        f"{row['cohens_d']:.2f}."
    )
    return Drawn(figure, caption, finding)


def _finding(evidence: Evidence, layer: int, rules: Rules) -> str:
    auc = float(evidence.layers.loc[evidence.layers["layer"] == layer, "auc"].iloc[0])
    how = "lie apart" if auc >= rules.auc else "overlap"
    return f"Promoting and suppressing prompts {how} along the trait direction: AUC {rounded(auc)} at layer {layer}."


FIGURE = StudyFigure("plot1_projection_distributions", ("gates", "G1", "G2"), draw)
