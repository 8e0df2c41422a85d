"""Figures of losses: by condition, of the pool that the control is chosen from, and how far they overlap."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from gradinoc.claims.tables import CANDIDATE, Evidence
from gradinoc.report.figures.comparisons import overlap_with_inoculation, pairs_with_loss, pool_losses
from gradinoc.report.figures.rows import draw_rows, name_rows, rows_height
from gradinoc.report.figures.style import (
    BAND,
    BESIDE,
    FAINT,
    HEIGHT,
    INK,
    SOFT,
    Look,
    height_beside,
    label_ends,
    look,
    new_figure,
    not_measured,
    styled,
    wrapped,
)  # fmt: skip
from gradinoc.report.figures.summaries import RULES, paired_losses, template_of
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

OTHER_PROMPT = Look("#9a9a9a", "o", "-")


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
    drawn = {name: drawn.get(name, np.empty(0)) for name in evidence.conditions}
    draw_rows(right, evidence, drawn, NEUTRAL, groups)
    name_rows(left, evidence, evidence.conditions)
    left.set_xlabel("loss\n(nats/token)")
    right.set_xlabel("paired difference to\nneutral (nats/token)")
    right.tick_params(axis="y", length=0)
    return figure


@styled
def plot_prompt_pool(evidence: Evidence, rules: Rules = RULES) -> Figure:
    """Every prompt of the pool by its loss gap to inoculation on the calibration questions, the chosen one ringed."""
    pool = pool_losses(evidence)
    figure = new_figure(
        "System prompts by loss", height_beside((*evidence.conditions, ""), max(HEIGHT, 2.0 + 0.14 * len(pool)))
    )
    axes = figure.add_subplot()
    axes.set_xlabel("loss on calibration questions\nminus inoculation's (nats/token)")
    if pool["gap"].isna().all():
        not_measured(axes, "pool of prompts")
        return figure
    axes.axvline(0, color=FAINT, linewidth=1)
    axes.set_ylim(-0.7, len(pool) + 0.9)
    _shade_allowed(axes, pool, rules)
    ends = [_draw_prompt(axes, row, prompt, evidence) for row, prompt in enumerate(pool.to_dict("records"))]
    axes.set(yticks=[], ylabel=f"{len(pool)} prompts, by loss")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    label_ends(axes, [end for end in ends if end[2]])
    return figure


def _shade_allowed(axes: Axes, pool: pd.DataFrame, rules: Rules) -> None:
    """Grey behind the gaps at which a control counts as loss-matched."""
    distance = pool.loc[pool["role"] == NEUTRAL, "gap"].abs().max()
    if not math.isfinite(distance):
        return
    margin = rules.loss_match * float(distance)
    axes.axvspan(-margin, margin, color=BAND, linewidth=0, zorder=0)
    axes.text(0, 0.985, "matched", transform=axes.get_xaxis_transform(), ha="center", va="top", color=SOFT)


def _draw_prompt(axes: Axes, row: int, prompt: dict[str, Any], evidence: Evidence) -> tuple[float, float, str, str]:
    """Draw one prompt on its row; where its interval ends, its name (none for an unchosen candidate) and ink."""
    own = prompt["role"] != CANDIDATE
    style = look(prompt["role"], evidence.conditions) if own else OTHER_PROMPT
    gap, reach = prompt["gap"], prompt["high"] if math.isfinite(prompt["high"]) else prompt["gap"]
    axes.plot([prompt["low"], prompt["high"]], [row, row], color=style.colour, linewidth=2, solid_capstyle="butt")
    axes.plot([gap], [row], marker=style.marker, markersize=9 if own else 6, color=style.colour, zorder=4)
    if prompt["chosen"]:
        axes.plot(
            [gap], [row], marker="o", markersize=16, color="none", markeredgecolor=INK, markeredgewidth=1.8, zorder=5
        )
    name = wrapped(prompt["role"]) if own else "chosen" * prompt["chosen"]
    return reach, float(row), name + ("\n(chosen)" if own and prompt["chosen"] else ""), style.ink if own else INK


@styled
def plot_loss_overlap(evidence: Evidence) -> Figure:
    """Densities of the measured examples' losses by condition, the common range of neutral and inoculation shaded."""
    losses = paired_losses(evidence)
    figure = new_figure("Losses before training, by example", height_beside(evidence.conditions))
    axes = figure.add_subplot()
    axes.set(xlabel="loss (nats/token)", ylabel="density of examples\n(per nat/token)")
    samples = {str(name): losses[name].dropna().to_numpy(dtype=float) for name in losses}
    samples = {name: values for name, values in samples.items() if len(values) > 1 and np.ptp(values) > 0}
    if not samples:
        not_measured(axes, "losses")
        return figure
    pad = 3 * max(values.std() for values in samples.values())
    grid = np.linspace(min(map(np.min, samples.values())) - pad, max(map(np.max, samples.values())) + pad, 400)
    handles = []
    for name, values in samples.items():
        style, density = look(name, evidence.conditions), stats.gaussian_kde(values)(grid)
        if name in (NEUTRAL, INOCULATION):
            axes.fill_between(grid, density, color=style.colour, alpha=0.18, linewidth=0)
        handles += axes.plot(grid, density, color=style.colour, linestyle=style.line, label=wrapped(name))
    axes.set_ylim(0, axes.get_ylim()[1] * 1.12)
    _shade_common(axes, evidence)
    axes.legend(handles=handles, **{**BESIDE, "handlelength": 1.8})
    shared = overlap_with_inoculation(evidence).get(NEUTRAL)
    axes.set_title(f"overlap {shared:.2f}, n = {len(losses)} examples" if shared is not None else "", loc="left")
    return figure


def _shade_common(axes: Axes, evidence: Evidence) -> None:
    """Grey behind the range of losses that both neutral and inoculation reach."""
    pairs = pairs_with_loss(evidence)
    if pairs is None:
        return
    inside = pairs.loss[pairs.common]
    axes.axvspan(inside.min(), inside.max(), color=BAND, linewidth=0, zorder=0)
    axes.text(
        inside.mean(), 0.985, "common range", transform=axes.get_xaxis_transform(), ha="center", va="top", color=SOFT
    )
