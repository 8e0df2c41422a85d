"""The figure of what has no trait in it: where the trait's effect stands among random and unrelated directions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.c2 import UNRELATED
from gradinoc.claims.tables import COVARIANCE, ISOTROPIC, SIGN_FLIPPED, Evidence
from gradinoc.report.figures.comparisons import Places, null_places
from gradinoc.report.figures.style import FAINT, INK, SOFT, Look, look, new_figure, not_measured, shown, styled
from gradinoc.report.figures.summaries import Array

KINDS = {ISOTROPIC: "isotropic", COVARIANCE: "covariance-matched", SIGN_FLIPPED: "sign-flipped"}
TOP = -0.75  # the row of headings; violins are on rows 0, 1, 2, unrelated traits below them
NEAR = 0.5  # height of an unrelated trait's row, that of a violin being 1


def shown_p(p: float) -> str:
    """A p in a column of its own, two digits; a dash where there is none."""
    if not math.isfinite(p):
        return "–"
    if p < 0.001:
        return "< .001"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.2g}"


@styled
def plot_trait_against_random(evidence: Evidence) -> Figure:
    """T(u) for directions without the trait, one kind a row, with the trait's T(v); a panel a contrast, p beside it."""
    contrasts = null_places(evidence)
    traits = [str(trait) for trait in contrasts[0].unrelated.index]
    figure = new_figure("Trait against other directions", 2.6 + 0.62 * (len(KINDS) + 1) + 0.32 * len(traits))
    panels = figure.subplots(1, len(contrasts), sharex=True, sharey=True)
    measured = bool(traits) or any(len(draws) for draws in contrasts[0].draws.values())
    for axes, places in zip(panels, contrasts, strict=True):
        style = look(places.other, evidence.conditions)
        axes.set_xlabel("alignment minus\ninoculation's (cosine)")
        axes.set_title(shown(places.other), loc="left", color=style.ink, fontweight="bold")
        if measured:
            _draw_panel(axes, places, style)
        else:
            not_measured(axes, "other directions")
    if measured:
        _name_rows(panels[0], traits)
        panels[1].tick_params(axis="y", length=0, labelleft=False)
        for axes, places in zip(panels, contrasts, strict=True):  # once the common limits are known
            _name_trait(axes, places.effect)
    return figure


def _draw_panel(axes: Axes, places: Places, style: Look) -> None:
    """A violin for each kind of random direction, the unrelated traits below, and p to the right of both."""
    axes.axvline(0, color=FAINT, linewidth=1)
    axes.axvline(places.effect, color=style.colour, linewidth=1.6)
    rows = {**places.draws, UNRELATED: places.unrelated.to_numpy(dtype=float)}
    _write_p(axes, TOP, "p", style="italic")
    for row, (kind, values) in enumerate(rows.items()):
        _write_p(axes, row, shown_p(places.p[kind]))
        if not len(values):
            axes.text(
                0.5, row, "not\nmeasured", ha="center", va="center", transform=axes.get_yaxis_transform(), color=SOFT,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 2}, zorder=6,
            )  # fmt: skip
            continue
        if kind != UNRELATED:
            _violin(axes, values, row, style.colour)
        axes.plot(
            [places.effect], [row], marker="D", markersize=9, color=style.colour, markeredgecolor=INK, zorder=5,
            clip_on=False,
        )  # fmt: skip
    for height, effect in zip(_heights(len(places.unrelated)), rows[UNRELATED], strict=True):
        # Which end of a contrast is called promoting is arbitrary: the bar reaches as far to either side.
        axes.plot([-abs(effect), abs(effect)], [height, height], color="#c4c4c4", linewidth=3, solid_capstyle="butt")
        axes.plot([effect], [height], marker="o", markersize=7.5, color=SOFT, linestyle="", zorder=4)
    axes.xaxis.set_major_locator(MaxNLocator(3))


def _heights(traits: int) -> list[float]:
    """The rows of unrelated traits, below that of their common p."""
    return [len(KINDS) + NEAR * (row + 1.25) for row in range(traits)]


def _write_p(axes: Axes, row: float, text: str, **style: Any) -> None:
    axes.text(1.05, row, text, transform=axes.get_yaxis_transform(), va="center", **style)


def _name_trait(axes: Axes, effect: float) -> None:
    """Name the trait's line above the rows, on the side where there is more room."""
    if math.isfinite(effect):
        right = effect > sum(axes.get_xlim()) / 2
        axes.annotate(
            "trait", (effect, TOP), (-6 if right else 6, 0), textcoords="offset points", va="center",
            ha="right" if right else "left", fontweight="bold", annotation_clip=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip


def _name_rows(axes: Axes, traits: list[str]) -> None:
    """Kinds down the y axis, and below them the unrelated traits, smaller."""
    names = [name.replace("-", "-\n") for name in KINDS.values()] + [UNRELATED.replace(" ", "\n")]
    heights = _heights(len(traits))
    axes.set_yticks([*range(len(names)), *heights], [*names, *map(shown, traits)])
    for tick in axes.get_yticklabels()[len(names) :]:
        tick.set(color=SOFT, fontsize=12.5)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max([len(KINDS), *heights]) + 0.45, TOP - 0.3)


def _violin(axes: Axes, draws: Array, row: int, colour: str) -> None:
    """The distribution of `draws` on its row, its central 95 % as a bar; a tick where the draws do not vary."""
    if not len(draws):
        return
    if np.ptp(draws) > 0:
        body: Any = axes.violinplot(draws, [row], orientation="horizontal", widths=0.75, showextrema=False)
        for part in body["bodies"]:
            part.set(facecolor=colour, edgecolor=colour, alpha=0.3)
    low, middle, high = np.quantile(draws, [0.025, 0.5, 0.975])
    axes.plot([low, high], [row, row], color=SOFT, linewidth=2.4, solid_capstyle="butt")
    axes.plot([middle], [row], marker="|", markersize=12, markeredgewidth=2.2, color=SOFT)
