"""Plot 11: how far the losses of conditions overlap."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from gradinoc.claims.c3 import loss_gaps, paired_with_loss
from gradinoc.claims.measures import per_example
from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import (
    BAND,
    BESIDE,
    SOFT,
    height_beside,
    look,
    new_figure,
    not_measured,
    styled,
    wrapped,
)  # fmt: skip
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, listed, rounded, shown
from gradinoc.stats.effect import overlap
from gradinoc.stats.equal_loss import Paired
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules


def overlap_with_inoculation(losses: pd.DataFrame) -> dict[str, float]:
    """Other condition -> the overlap coefficient of its losses with inoculation's, where both were measured."""
    losses = losses.dropna(how="all")
    complete = [str(name) for name in losses if len(losses) and losses[name].notna().all()]
    if INOCULATION not in complete:
        return {}
    return {name: overlap(losses[name], losses[INOCULATION]) for name in complete if name != INOCULATION}


def pairs_with_loss(evidence: Evidence) -> Paired | None:
    """Alignment and loss under neutral and inoculation; None where not measured, or losses have no common range."""
    pairs = if_measured(paired_with_loss, evidence, NEUTRAL)
    return pairs if pairs is not None and pairs.common.any(axis=0).all() else None


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Densities of the measured examples' losses by condition, the common range of neutral and inoculation shaded."""
    losses, pairs = per_example(evidence, "loss", strict=False), pairs_with_loss(evidence)
    shared = overlap_with_inoculation(losses)
    words = _caption(losses, pairs, shared), _finding(losses, shared, rules)
    figure = new_figure("Losses before training, by example", height_beside(evidence.conditions))
    axes = figure.add_subplot()
    axes.set(xlabel="loss (nats/token)", ylabel="density of examples\n(per nat/token)")
    samples = {str(name): losses[name].dropna().to_numpy(dtype=float) for name in losses}
    samples = {name: values for name, values in samples.items() if len(values) > 1 and np.ptp(values) > 0}
    if not samples:
        not_measured(axes, "losses")
        return Drawn(figure, *words)
    pad = 3 * max(values.std() for values in samples.values())
    grid = np.linspace(min(map(np.min, samples.values())) - pad, max(map(np.max, samples.values())) + pad, 400)
    handles = []
    for name, values in samples.items():
        style, density = look(name, evidence.conditions), stats.gaussian_kde(values)(grid)
        if name in (NEUTRAL, INOCULATION):
            axes.fill_between(grid, density, color=style.colour, alpha=0.18, linewidth=0)
        handles += axes.plot(grid, density, color=style.colour, linestyle=style.line, label=wrapped(name))
    axes.set_ylim(0, axes.get_ylim()[1] * 1.12)
    if pairs is not None:
        _shade_common(axes, pairs)
    axes.legend(handles=handles, **{**BESIDE, "handlelength": 1.8})
    if NEUTRAL in shared:
        axes.set_title(f"overlap {shared[NEUTRAL]:.2f}, n = {len(losses)} examples", loc="left")
    return Drawn(figure, *words)


def _shade_common(axes: Axes, pairs: Paired) -> None:
    """Grey behind the range of losses that both neutral and inoculation reach."""
    inside, place = pairs.loss[pairs.common], axes.get_xaxis_transform()
    axes.axvspan(inside.min(), inside.max(), color=BAND, linewidth=0, zorder=0)
    axes.text(inside.mean(), 0.985, "common range", transform=place, ha="center", va="top", color=SOFT)


def _caption(losses: pd.DataFrame, pairs: Paired | None, shared: dict[str, float]) -> str:
    if not shared:
        return NOT_MEASURED
    gaps = loss_gaps(losses.mean()).drop(NEUTRAL)
    parts = ((name, f"{value:.2f}{gap_in_words(gaps.get(name, math.nan))}") for name, value in shared.items())
    inside = (
        "neutral and inoculation reach no common loss"
        if pairs is None
        else f"shaded the range that neutral and inoculation both reach, {int(pairs.common.sum())} of "
        f"{pairs.common.size} losses"
    )
    return (
        f"How far the losses of the measured examples overlap with inoculation's, as area under the lower of two "
        f"densities (1: alike, 0: apart); {inside}. Overlap coefficient: {listed(parts)}."
    )


def gap_in_words(share: float) -> str:
    """How far a mean loss is from inoculation's, where that can be said as a share of neutral's distance."""
    return f", loss gap {100 * share:.0f} % of neutral's" if math.isfinite(share) else ""


def _finding(losses: pd.DataFrame, shared: dict[str, float], rules: Rules) -> str:
    if NEUTRAL not in shared:
        return NOT_MEASURED
    gaps = loss_gaps(losses.mean())
    near = [shown(str(name)) for name in gaps.index if name != INOCULATION and gaps[name] <= rules.loss_match]
    return (
        f"Losses under neutral and inoculation overlap by {rounded(shared[NEUTRAL])}; of the controls "
        f"{' and '.join(near) or 'none'} {'is' if len(near) < 2 else 'are'} loss-matched."
    )


FIGURE = StudyFigure("plot11_loss_overlap", ("C3",), draw)
