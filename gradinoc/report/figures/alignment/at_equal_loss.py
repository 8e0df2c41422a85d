"""Plot 12: alignment at equal loss, over prompts and within examples."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.c3 import C3
from gradinoc.claims.evidence.measures import alignment_families, per_example
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.report.figures.prompts.families import effect_table, family_key, family_table, shade_random, spread_of
from gradinoc.report.figures.prompts.points import draw_prompts, extremes, name_points
from gradinoc.report.figures.study_figure import Drawn, StudyFigure, told
from gradinoc.report.figures.style import BAND, FAINT, INK, SOFT, new_figure, not_measured, signed, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, listed, rounded, side
from gradinoc.stats.effect import Effect
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules

ROW = 0.62  # inches
ROWS = {  # C3's effects: which are at equal loss, and what a figure calls them
    "families": (False, "harmless − inoculating,\nover prompts"),
    "prompts": (True, "the same at equal loss"),
    "alignment.neutral": (False, "neutral − inoculation,\nover examples"),
    "within": (True, "the same at equal loss,\nwithin examples"),
    "alignment.loss_matched": (False, "loss matched − inoculation,\nover examples"),
}


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Above, alignment against loss, a point a prompt; below, C3's effects with and without regard to loss."""
    measured = if_measured(C3.measure, evidence, rules)
    effects = {key: measured[key] for key in ROWS} if measured else {}
    heights = [4.6, 1.5 + ROW * len(ROWS)]
    figure = new_figure("Alignment at equal loss", sum(heights))
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]  # each with its own left margin
    table = _draw_points(halves[0].add_subplot(), evidence)
    _draw_forest(halves[1].add_subplot(), effects)
    table = pd.concat([effect_table(effects), table], ignore_index=True)
    return Drawn(figure, _caption(evidence, effects, rules), _finding(effects), table)


def _draw_points(axes: Axes, evidence: Evidence) -> pd.DataFrame:
    """Mean alignment against mean loss of every measured prompt; grey the losses that both families reach."""
    axes.set(xlabel="loss (nats/token)", ylabel="alignment (cosine)")
    alignment, loss = (if_measured(per_example, evidence, column) for column in ("alignment", "loss"))
    if alignment is None or loss is None:
        not_measured(axes, "alignment and loss")
        return pd.DataFrame()
    x, y = ({str(key): float(value) for key, value in wide.mean().items()} for wide in (loss, alignment))
    families = [[x[name] for name in evidence.family(each, list(x))] for each in (Family.HARMLESS, Family.INOCULATION)]
    low, high = (max(map(min, families)), min(map(max, families))) if all(families) else (math.nan, math.nan)
    if low < high:
        axes.axvspan(low, high, color=BAND, linewidth=0, zorder=0)
        axes.text(
            (low + high) / 2, 1.005, "reached by both", transform=axes.get_xaxis_transform(), ha="center", va="bottom",
            color=SOFT, fontsize=12,
        )  # fmt: skip
    beside = shade_random(axes, evidence)
    draw_prompts(axes, evidence, x, y)
    axes.margins(0.09, 0.12)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    family_key(axes, evidence, x, beside)
    name_points(axes, evidence, x, y, [INOCULATION, LOSS_MATCHED, *extremes(y), *extremes(x)])
    return family_table(evidence, list(x), loss=x, alignment=y)


def _draw_forest(axes: Axes, effects: dict[str, Effect]) -> None:
    """One effect a row with its interval, hollow where loss is not held equal, its estimate in figures beside it."""
    axes.set_xlabel("difference of alignment (cosine)")
    if not effects:
        not_measured(axes, "effects at equal loss")
        return
    axes.axvline(0, color=FAINT, linewidth=1)
    for row, (key, (equal, _)) in enumerate(ROWS.items()):
        effect = effects[key]
        if not math.isfinite(effect.estimate):
            axes.text(
                0.5, row, "not to be told", transform=axes.get_yaxis_transform(), ha="center", va="center", color=SOFT
            )
            continue
        if math.isfinite(effect.low):
            axes.plot([effect.low, effect.high], [row, row], color=INK, linewidth=2.6, solid_capstyle="butt")
        axes.plot(
            [effect.estimate], [row], marker="o", markersize=9, linestyle="", markeredgecolor=INK, zorder=4,
            markerfacecolor=INK if equal else "white", markeredgewidth=2,
        )  # fmt: skip
        axes.text(1.03, row, signed(effect.estimate), transform=axes.get_yaxis_transform(), va="center")
    axes.set_yticks(range(len(ROWS)), [label for _, label in ROWS.values()], fontsize=12)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(ROWS) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _caption(evidence: Evidence, effects: dict[str, Effect], rules: Rules) -> str:
    if not effects:
        return NOT_MEASURED
    words = {key: label.replace("\n", " ") for key, (_, label) in ROWS.items()}
    families = if_measured(alignment_families, evidence)
    harmless = () if families is None else families.values[Family.HARMLESS].mean(axis=1)  # noqa: PD011 - not of pandas
    beside = ""
    if len(harmless):
        low, high = spread_of(harmless, 1.0)
        beside = f" Single harmless prompts' alignments lie from {rounded(low)} to {rounded(high)}."
    return (
        f"Above: mean alignment (cosine) against mean loss on the frozen model, a point a prompt; shaded the losses "
        f"that harmless and inoculating prompts both reach, inside which they are compared at equal loss; grey the "
        f"central 95 % of alignment along instruction contrasts. Below: differences of alignment with "
        f"{100 * (1 - rules.alpha):g} % intervals, full at equal loss, hollow without regard to it: "
        f"{listed((words[key], told(effect)) for key, effect in effects.items())}.{beside}"
    )


def _finding(effects: dict[str, Effect]) -> str:
    found = effects.get("prompts")
    if found is None:
        return NOT_MEASURED
    if not math.isfinite(found.estimate):
        return f"Whether alignment differs at equal loss cannot be told over prompts: {found.method}."
    return (
        f"At equal loss alignment is {side(found)} under inoculating than under harmless prompts: harmless minus "
        f"inoculating {told(found)}."
    )


FIGURE = StudyFigure("plot12_alignment_at_equal_loss", ("C3",), draw)
