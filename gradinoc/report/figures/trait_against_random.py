"""Plot 4: where the trait's effect stands among directions without the trait."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.c2 import UNRELATED, unrelated_tail
from gradinoc.claims.measures import minus_inoculation, null_contrasts, per_example, unrelated_contrasts
from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import FAINT, INK, SOFT, Look, look, new_figure, not_measured, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, listed, rounded, shown
from gradinoc.stats.effect import Array, null_p
from gradinoc.study.description import NULLS
from gradinoc.study.prompts import LOSS_MATCHED, NEUTRAL
from gradinoc.study.rules import Rules

LABELS = {null: kind.label for null, kind in NULLS.items()}
TOP = -0.75  # the row of headings; violins are on rows 0, 1, ..., unrelated traits below them
NEAR = 0.5  # height of an unrelated trait's row, that of a violin being 1


@dataclass(frozen=True)
class Places:
    """Where the trait's T(v) stands, for the contrast `other` minus inoculation.

    `draws` holds the T(u) of each kind of random direction, `unrelated` those of unrelated traits, by trait, and `p`
    the p of each kind and of all unrelated traits together (key `UNRELATED`), NaN where it was not measured.
    """

    other: str
    effect: float
    draws: dict[str, Array]
    unrelated: pd.Series
    p: dict[str, float]


def null_places(evidence: Evidence) -> list[Places]:
    """The trait's place against neutral, which decides, and against loss_matched."""
    effects = minus_inoculation(per_example(evidence, strict=False)).mean()
    measured, found = set(evidence.nulls["null"]), []
    for other in (NEUTRAL, LOSS_MATCHED):
        effect = float(effects[other])
        draws = dict.fromkeys(NULLS, np.empty(0))
        for kind in measured & set(NULLS):
            contrasts = if_measured(null_contrasts, evidence, kind, other)
            draws[kind] = draws[kind] if contrasts is None else contrasts
        by_trait = if_measured(unrelated_contrasts, evidence, other)
        unrelated = pd.Series(dtype=float) if by_trait is None else by_trait.mean()
        p = {
            kind: null_p(effect, values) if len(values) and math.isfinite(effect) else math.nan
            for kind, values in draws.items()
        }
        tail = if_measured(unrelated_tail, evidence, other)
        p[UNRELATED] = math.nan if tail is None else tail.p
        found.append(Places(other, effect, draws, unrelated, p))
    return found


def shown_p(p: float) -> str:
    """A p in a column of its own, two digits; a dash where there is none."""
    if not math.isfinite(p):
        return "–"
    if p < 0.001:
        return "< .001"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.2g}"


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """T(u) for directions without the trait, one kind a row, with the trait's T(v); a panel a contrast, p beside it."""
    contrasted = null_places(evidence)
    traits = [str(trait) for trait in contrasted[0].unrelated.index]
    figure = new_figure("Trait against other directions", 2.6 + 0.62 * (len(LABELS) + 1) + 0.32 * len(traits))
    panels = figure.subplots(1, len(contrasted), sharex=True, sharey=True)
    measured = bool(traits) or any(len(draws) for draws in contrasted[0].draws.values())
    for axes, places in zip(panels, contrasted, strict=True):
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
        for axes, places in zip(panels, contrasted, strict=True):  # once the common limits are known
            _name_trait(axes, places.effect)
    return Drawn(figure, _caption(contrasted), _finding(contrasted[0], rules))


def _caption(contrasted: list[Places]) -> str:
    parts = [(f"{places.other}:", _against(places)) for places in contrasted]
    parts = [(name, text) for name, text in parts if text]
    if not parts:
        return NOT_MEASURED
    return (
        f"The contrast alignment(other) − alignment(inoculation), a cosine, along the trait direction (line and "
        f"diamonds), along random directions (violins; bars hold the central 95 %) and along the directions of "
        f"unrelated traits (points; the bar reaches as far to either side, since the sign of such a contrast is "
        f"arbitrary). {listed(parts)}."
    )


def _against(places: Places) -> str:
    """T(v) and its p against each kind of direction that was measured."""
    against = {kind: f"{len(draws)} {LABELS[kind]} directions" for kind, draws in places.draws.items()}
    if len(places.unrelated):
        closest = places.unrelated.abs().idxmax()
        largest = f"the largest {shown(str(closest))}, {places.unrelated[closest]:.4f}"
        against[UNRELATED] = f"all of {len(places.unrelated)} unrelated traits ({largest})"
    found = [
        f"p = {places.p[kind]:.2g} against {name}" for kind, name in against.items() if math.isfinite(places.p[kind])
    ]
    return f"T(v) = {places.effect:.4f}, {', '.join(found)}" if found else ""


def _finding(places: Places, rules: Rules) -> str:
    known = {kind: p for kind, p in places.p.items() if math.isfinite(p)}
    if not known:
        return NOT_MEASURED
    worst = max(known, key=lambda kind: known[kind])
    how = "exceeds" if known[worst] <= rules.alpha else "does not exceed"
    return (
        f"The trait direction's effect, {rounded(places.effect)} against neutral, {how} what directions without the "
        f"trait show: the largest p is {rounded(known[worst])}, against {LABELS.get(worst, worst)} directions."
    )


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
    return [len(LABELS) + NEAR * (row + 1.25) for row in range(traits)]


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
    names = [name.replace("-", "-\n") for name in LABELS.values()] + [UNRELATED.replace(" ", "\n")]
    heights = _heights(len(traits))
    axes.set_yticks([*range(len(names)), *heights], [*names, *map(shown, traits)])
    for tick in axes.get_yticklabels()[len(names) :]:
        tick.set(color=SOFT, fontsize=12.5)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max([len(LABELS), *heights]) + 0.45, TOP - 0.3)


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


FIGURE = StudyFigure("plot4_trait_against_random", ("C2",), draw)
