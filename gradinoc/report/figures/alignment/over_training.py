"""Plot 9: alignment of the training batches, step by step, beside harmless prompts and random directions."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.evidence.measures import HARMLESS, INOCULATING, in_window, nulls_in_window
from gradinoc.claims.evidence.tables import WINDOWS, Evidence
from gradinoc.claims.evidence.wide import band_rows
from gradinoc.claims.gates.direction import G8C
from gradinoc.report.figures.prompts.families import by_families, difference, family_key, is_rephrased, look, spread_of
from gradinoc.report.figures.study_figure import Drawn, StudyFigure, told
from gradinoc.report.figures.style import BESIDE, FAINT, INK, SOFT, new_figure, not_measured, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, listed, number, rounded
from gradinoc.stats.effect import Effect
from gradinoc.stats.families import Families, contrast
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules

POINTS = 25  # of a line: with more steps each is a mean over a stretch of them
DIFFERENCE = {HARMLESS: 1.0, INOCULATING: -1.0}


def course(evidence: Evidence, table: str = "training") -> pd.DataFrame:
    """Band alignment by step, a column a prompt (mean over seeds); of `training_nulls` index (draw, step)."""
    keys = ("draw", "step") if table == "training_nulls" else ("step",)
    rows = band_rows(evidence, table, "alignment", strict=False)
    means = rows.groupby([*keys, "condition"], observed=True)["alignment"].mean().dropna()
    if means.empty:
        return pd.DataFrame()
    wide = means.unstack("condition")  # noqa: PD010 - a series has no pivot_table
    step = wide.index.get_level_values("step").to_numpy()
    stretch = math.ceil((step.max() + 1) / POINTS)
    middle = pd.Series((step // stretch) * stretch + (stretch - 1) / 2, index=wide.index, name="step")
    return wide.groupby([*(wide.index.get_level_values(key) for key in keys[:-1]), middle]).mean()


def contrast_in(evidence: Evidence, window: str) -> Effect | None:
    """Harmless less inoculating prompts' alignment in a third of training: Welch over prompts, each its seeds' mean."""
    means = in_window(evidence, window).groupby(level="condition").mean()
    values = {
        str(family): means.reindex(list(evidence.family(family, list(means.index)))).to_numpy(dtype=float)[:, None]
        for family in (Family.HARMLESS, Family.INOCULATION)
    }
    if not all(map(len, values.values())):
        return None
    return contrast(
        Families(values, None), DIFFERENCE, f"alignment, harmless - inoculating, {window} third of training"
    )


def random_in(evidence: Evidence, window: str) -> tuple[float, float] | None:
    """The central 95 % of the same difference along random directions."""
    wide = nulls_in_window(evidence, window).T.groupby(level="condition").mean().T
    return spread_of(difference(evidence, wide))


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Above, alignment by step, thin a prompt, thick a family; below, harmless less inoculating, random ones grey."""
    figure = new_figure("Alignment over training", 7.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.25, 1])
    upper.set_ylabel("alignment (cosine)")
    lower.set(ylabel="harmless −\ninoculating (cosine)", xlabel="optimiser step")
    steps, random = course(evidence), course(evidence, "training_nulls")
    if steps.empty:
        for axes in (upper, lower):
            not_measured(axes, "training")
        return Drawn(figure)
    _draw_courses(upper, evidence, steps)
    _draw_difference(lower, evidence, steps, random)
    thirds = float(evidence.runs["steps"].max()) / 3 if len(evidence.runs) else math.nan
    for axes in (upper, lower):
        for place in (thirds - 0.5, 2 * thirds - 0.5) if math.isfinite(thirds) else ():
            axes.axvline(place, color=FAINT, linewidth=1, linestyle=(0, (1, 2)))
    lower.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    contrasts = {window: if_measured(contrast_in, evidence, window) for window in WINDOWS}
    spreads = {window: if_measured(random_in, evidence, window) for window in WINDOWS}
    words = _caption(contrasts, spreads), _finding(evidence, rules, contrasts, spreads)
    return Drawn(figure, *words, steps.reset_index())


def _draw_courses(axes: Axes, evidence: Evidence, steps: pd.DataFrame) -> None:
    axes.axhline(0, color=FAINT, linewidth=1)
    for names in by_families(evidence, list(steps)).values():
        style, fixed = look(evidence, names[0]), [name for name in names if not is_rephrased(evidence, name)]
        for name in names:
            if len(fixed) > 1 or name not in fixed:
                line = (0, (1, 1)) if name not in fixed else "-"
                axes.plot(steps.index, steps[name], color=style.colour, alpha=0.5, linewidth=0.9, linestyle=line)
        if fixed:
            axes.plot(
                steps.index, steps[fixed].mean(axis=1), color=style.colour, linestyle=style.line, linewidth=3, zorder=4
            )
    family_key(axes, evidence, list(steps), lines=True)


def _draw_difference(axes: Axes, evidence: Evidence, steps: pd.DataFrame, random: pd.DataFrame) -> None:
    axes.axhline(0, color=FAINT, linewidth=1)
    along_v = difference(evidence, steps)
    if along_v.empty:
        not_measured(axes, "both families")
        return
    if len(random):
        along = difference(evidence, random).groupby(level="step")
        low, high = along.quantile(0.025), along.quantile(0.975)
        axes.fill_between(
            low.index, low, high, color=SOFT, alpha=0.25, linewidth=0, label="random\ndirections,\ncentral 95 %"
        )
    axes.plot(along_v.index, along_v, color=INK, linewidth=2.6, label="along v")
    low_, high_ = axes.get_ylim()
    axes.set_ylim(low_, high_ + 0.15 * (high_ - low_))
    axes.text(0.01, 0.985, "first third", transform=axes.transAxes, va="top", color=SOFT, fontsize=12)
    axes.legend(*(part[::-1] for part in axes.get_legend_handles_labels()), **{**BESIDE, "handlelength": 1.2})


def _caption(contrasts: Mapping[str, Effect | None], spreads: Mapping[str, tuple[float, float] | None]) -> str:
    return (
        f"Above: band alignment (cosine) of the training batches by optimiser step; thin a prompt (mean over its "
        f"seeds; dotted: rephrased), thick a family's mean. Below: the mean of harmless prompts less that of "
        f"inoculating ones, and the central 95 % of the same difference along random directions; dotted lines part the "
        f"thirds of training, of which the first decides C4. By third, over prompts: {_by_third(contrasts, spreads)}."
    )


def _by_third(contrasts: Mapping[str, Effect | None], spreads: Mapping[str, tuple[float, float] | None]) -> str:
    parts = []
    for window, effect in contrasts.items():
        if effect is not None:
            spread = spreads[window]
            beside = (f"random {rounded(spread[0])} to {rounded(spread[1])}",) if spread else ()
            parts.append((window, told(effect, *beside)))
    return listed(parts) or "not measured"


def _finding(
    evidence: Evidence, rules: Rules, contrasts: Mapping[str, Effect | None],
    spreads: Mapping[str, tuple[float, float] | None],
) -> str:  # fmt: skip
    gate = if_measured(G8C.measure, evidence, rules)
    parts = []
    if gate is not None and not gate.effects:
        parts.append(gate.statement.removesuffix("."))
    elif gate is not None:
        place = gate["place"]
        among = f" (p {number(place.p)} among {place.n} random directions)" if math.isfinite(place.p) else ""
        parts.append(f"Neutral alignment in the first third of training is {rounded(place.estimate)}{among}")
    if any(contrasts.values()):
        parts.append(f"harmless minus inoculating prompts by third of training: {_by_third(contrasts, spreads)}")
    return f"{'; '.join(parts)}." if parts else NOT_MEASURED


FIGURE = StudyFigure("plot9_alignment_over_training", ("C1", "G8c"), draw)
