"""Plot 18: what adding the direction does to the frozen model, beside other directions of the same length."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.evidence.measures import question_groups
from gradinoc.claims.evidence.tables import PROMOTE, TRAIT_DRAW, Evidence
from gradinoc.claims.gates.direction import G8A
from gradinoc.claims.rules.finding import Measured
from gradinoc.report.figures.direction.projection_distributions import SIDES
from gradinoc.report.figures.study_figure import Drawn, StudyFigure, told
from gradinoc.report.figures.style import BESIDE, FAINT, INK, SOFT, new_figure, not_measured, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, number, rounded
from gradinoc.stats.clustered import grouped_mean
from gradinoc.stats.effect import Effect
from gradinoc.study.rules import Rules

TRAIT = SIDES[PROMOTE]  # v leads there; no condition's colour


def by_strength(evidence: Evidence) -> dict[float, Effect]:
    """Strength along v -> how far decision log-odds lie above the unsteered ones, mean over questions, nats."""
    rows = evidence.steering[evidence.steering["draw"] == TRAIT_DRAW]
    wide = rows.pivot_table(index="example", columns="strength", values="log_odds")
    groups = question_groups(evidence, "steering", wide.index)
    return {float(at): grouped_mean(wide[at] - wide[0.0], groups, f"log_odds at {at:g}") for at in wide}


def others(evidence: Evidence) -> pd.DataFrame:
    """The same along the directions of the same length: index strength, a column a draw."""
    rows = evidence.steering[evidence.steering["draw"] != TRAIT_DRAW]
    wide = rows.pivot_table(index="strength", columns="draw", values="log_odds")
    return wide - wide.loc[0.0] if len(wide) else wide


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Above, decision log-odds by strength, v thick and others thin; below, the loss along v, with the bar of G8a."""
    figure = new_figure("Steering the frozen model", 7.0)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.5, 1])
    upper.set_ylabel("decision log-odds\n− unsteered (nats)")
    lower.set(
        xlabel="strength α (half distances from suppressing to promoting)",
        ylabel="loss of either form\n− unsteered (nats)",
    )
    lower.xaxis.label.set_fontsize(12.5)
    found = if_measured(by_strength, evidence)
    if found:
        _draw_log_odds(upper, found, others(evidence))
    else:
        not_measured(upper, "steering")
    rise = if_measured(loss_rise, evidence)
    if rise:
        _draw_loss(lower, rise, rules)
    else:
        not_measured(lower, "loss under steering")
    measured = if_measured(G8A.measure, evidence, rules)
    if measured is None:
        return Drawn(figure)
    return Drawn(
        figure, _caption(evidence, measured, rules), _finding(measured), _table(found or {}, rise or {}, evidence)
    )


def loss_rise(evidence: Evidence) -> dict[float, Effect]:
    """Strength -> how far the loss of either form lies above the unsteered one, nats."""
    wide = evidence.steering_losses.pivot_table(index="example", columns="strength", values="loss")
    groups = question_groups(evidence, "steering_losses", wide.index)
    return {float(at): grouped_mean(wide[at] - wide[0.0], groups, f"loss at {at:g}") for at in wide}


def _draw_log_odds(axes: Axes, found: dict[float, Effect], matched: pd.DataFrame) -> None:
    for place, draw_ in enumerate(matched):
        label = f"{matched.shape[1]} directions\nof the same\nlength" if place == 0 else None
        axes.plot(matched.index, matched[draw_], color=SOFT, linewidth=0.9, alpha=0.6, label=label)
    ends = np.array([(each.estimate, each.low, each.high) for each in found.values()])
    axes.axhline(0, color=FAINT, linewidth=1)
    axes.errorbar(
        list(found), ends[:, 0], yerr=np.nan_to_num(np.abs(ends[:, 1:].T - ends[:, 0])), color=TRAIT, linewidth=3,
        marker="o", markersize=8, elinewidth=1.8, capsize=4, label="along v", zorder=5,
    )  # fmt: skip
    axes.legend(*(part[::-1] for part in axes.get_legend_handles_labels()), **{**BESIDE, "handlelength": 1.2})


def _draw_loss(axes: Axes, rise: dict[float, Effect], rules: Rules) -> None:
    ends = np.array([(each.estimate, each.low, each.high) for each in rise.values()])
    axes.axhline(0, color=FAINT, linewidth=1)
    axes.axhline(rules.either_loss, color=INK, linewidth=1.4, linestyle=(0, (4, 2)), label=f"bar {rules.either_loss:g}")
    axes.errorbar(
        list(rise), ends[:, 0], yerr=np.nan_to_num(np.abs(ends[:, 1:].T - ends[:, 0])), color=TRAIT, linewidth=2.4,
        marker="o", markersize=7, elinewidth=1.6, capsize=4, label="along v",
    )  # fmt: skip
    axes.set_xticks(list(rise))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.legend(**{**BESIDE, "handlelength": 1.2})


def _table(found: dict[float, Effect], rise: dict[float, Effect], evidence: Evidence) -> pd.DataFrame:
    """A row a strength: log-odds along v with interval, the range of other directions, the rise of the loss."""
    matched = others(evidence)
    rows = []
    for at, effect in found.items():
        own = matched.loc[at] if at in matched.index else pd.Series(dtype=float)
        loss = rise.get(at)
        rows.append(
            {
                "strength": at, "log_odds_rise": effect.estimate, "low": effect.low, "high": effect.high,
                "others_lowest": own.min(), "others_highest": own.max(),
                "loss_rise": loss.estimate if loss else math.nan, "loss_low": loss.low if loss else math.nan,
                "loss_high": loss.high if loss else math.nan,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _caption(evidence: Evidence, measured: Measured, rules: Rules) -> str:
    slope, place, loss = (measured[key] for key in ("slope", "place", "loss"))
    count = others(evidence).shape[1]
    return (
        f"Above: how far decision log-odds (nats) of the frozen model under the neutral prompt rise, mean over "
        f"questions, with α times half the distance from the suppressing to the promoting prompt added along the "
        f"direction, in every band layer from the last prompt token on; thick along v with 95 % intervals over "
        f"questions, thin along {count} directions of the same length with the stream's covariance. Along v the slope "
        f"is {told(slope, units='nats per unit')}, p = {number(place.p)} among these. Below: how far the loss of "
        f"either form, trait or ordinary, rises along v, the bar at {rules.either_loss:g} nats; at worst by "
        f"{told(replace(loss, unit='questions'), units='nats')}."
    )


def _finding(measured: Measured) -> str:
    if "slope" not in measured:
        return NOT_MEASURED
    slope, place, loss = (measured[key] for key in ("slope", "place", "loss"))
    among = f"p = {number(place.p)} among directions of the same length"
    return (
        f"Adding the direction moves the decision log-odds by {told(slope, among, units='nats per unit of strength')}, "
        f"and the loss of either form by at most {rounded(loss.estimate)} nats."
    )


FIGURE = StudyFigure("plot18_steering", ("gates", "G8a"), draw)
