"""A row a prompt: family by family, its estimate with its interval, its family's mean behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib.axes import Axes

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.report.figures.lettering import drawable, fitted, within
from gradinoc.report.figures.prompts.families import PLANNED, SMALL, by_families, is_rephrased, look
from gradinoc.report.figures.style import INK, LOOKS, SOFT
from gradinoc.report.wording import shown
from gradinoc.stats.effect import Effect
from gradinoc.study.prompts.family import Family

ROW, NAME = 0.27, 2.2  # inches, of a prompt's row, and of the longest name beside it


def rows_of(evidence: Evidence, among: Iterable[str]) -> dict[str, float]:
    """Prompt -> its row, family by family from 0, half a row between families."""
    rows, place = {}, 0.0
    for names in by_families(evidence, list(among)).values():
        for name in names:
            rows[name] = place
            place += 1
        place += 0.5
    return rows


def rows_height(rows: Mapping[str, float], around: float) -> float:
    """The height in inches of a figure with these rows."""
    return around + ROW * (max([*rows.values(), 8.0]) + 1)


def name_rows(axes: Axes, evidence: Evidence, rows: Mapping[str, float]) -> None:
    """Prompts down the y axis, the first on top, each name in its family's ink."""
    fits = within(NAME, SMALL)
    axes.set_yticks(list(rows.values()), [fitted(drawable(shown(name)), fits, 1) for name in rows])
    for tick, name in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set(color=look(evidence, name).ink, fontsize=SMALL, fontweight="bold" if name in PLANNED else "normal")
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(rows.values(), default=0) + 0.8, -0.8)


def draw_effects(axes: Axes, evidence: Evidence, rows: Mapping[str, float], effects: Mapping[str, Effect]) -> None:
    """A prompt's mean and interval on its row; a dash where it was not measured."""
    for name, row in rows.items():
        effect, style = effects.get(name), look(evidence, name)
        if effect is None or not np.isfinite(effect.estimate):
            axes.text(0.5, row, "–", transform=axes.get_yaxis_transform(), ha="center", va="center", color=SOFT)
            continue
        if np.isfinite([effect.low, effect.high]).all():
            axes.plot([effect.low, effect.high], [row, row], color=style.colour, linewidth=2.2, solid_capstyle="butt")
        hollow = is_rephrased(evidence, name)
        axes.plot(
            [effect.estimate], [row], linestyle="", marker=style.marker, markersize=8, zorder=4,
            markerfacecolor="white" if hollow else style.colour, markeredgecolor=style.colour,
        )  # fmt: skip


def draw_family_means(
    axes: Axes, rows: Mapping[str, float], members: Mapping[Family, list[str]], means: Mapping[Family, Effect]
) -> None:
    """Behind the rows of a family its mean as a line, and its interval over prompts as a band."""
    for family, effect in means.items():
        own = [rows[name] for name in members.get(family, []) if name in rows]
        if not own or not np.isfinite(effect.estimate):
            continue
        low, high = min(own) - 0.45, max(own) + 0.45
        if np.isfinite([effect.low, effect.high]).all():
            axes.fill_betweenx(
                [low, high], effect.low, effect.high, color=LOOKS[family].colour, alpha=0.16, linewidth=0
            )
        axes.plot([effect.estimate] * 2, [low, high], color=INK, linewidth=1.2, zorder=1)
