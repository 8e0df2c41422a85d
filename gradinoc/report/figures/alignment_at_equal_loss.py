"""Plot 12: alignment at equal loss, by every way of making losses equal."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.c3 import adjusted_contrasts, loss_audit, loss_gaps, matched_checkpoints
from gradinoc.claims.measures import inoculation_contrast, per_example
from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.loss_overlap import gap_in_words, pairs_with_loss
from gradinoc.report.figures.study_figure import Drawn, StudyFigure
from gradinoc.report.figures.style import (
    BAND,
    FAINT,
    SOFT,
    label_ends,
    look,
    new_figure,
    not_measured,
    signed,
    styled,
    wrapped,
)  # fmt: skip
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, between, estimated, listed, rounded, side
from gradinoc.stats.effect import Array, Effect
from gradinoc.stats.equal_loss import Paired
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

ROW = 0.53  # inches
CHECKPOINT = "matched checkpoint"
WAYS = {"regression": "regression", "bins": "loss bins", "within": "within examples"}  # C3's keys, in words


def ancova_lines(pairs: Paired) -> tuple[Array, Array]:
    """The lines of alignment on loss that `ancova` compares: losses [2] and heights [2, 2], (neutral, inoculation).

    One slope for both conditions; the lines run over the common range of losses.
    """
    keep = pairs.common
    columns = np.nonzero(keep)[1]
    value, loss = pairs.value[keep], pairs.loss[keep]
    centre = np.array([[values[columns == column].mean() for column in (0, 1)] for values in (value, loss)])
    rest = loss - centre[1][columns]
    slope = float(rest @ (value - centre[0][columns]) / (rest @ rest)) if (rest != 0).any() else math.nan
    ends = np.array([loss.min(), loss.max()])
    return ends, centre[0][:, None] + slope * (ends[None] - centre[1][:, None])


def at_equal_loss(pairs: Paired | None, rules: Rules) -> dict[str, Effect]:
    """Alignment, neutral minus inoculation, among common losses: unadjusted, and at equal loss in three ways."""
    if pairs is None:
        return {}
    raw, adjusted = adjusted_contrasts(pairs, rules)
    effects = {"unadjusted": raw, **{WAYS[key]: effect for key, effect in adjusted.items()}}
    return {name: effect for name, effect in effects.items() if math.isfinite(effect.estimate)}


def matched_contrasts(evidence: Evidence, rules: Rules) -> dict[str, tuple[Effect, float]]:
    """What was chosen for its loss -> its alignment minus inoculation's, and its loss gap as a share of neutral's.

    Each control, and neutral runs' matched checkpoints on the base model's examples. What was not measured is left out.
    """
    found = {}
    for name in evidence.conditions:
        effect = if_measured(inoculation_contrast, evidence, rules, name)
        if effect is not None and name not in (NEUTRAL, INOCULATION):
            found[name] = effect, loss_audit(evidence, rules, name)[0].estimate
    checkpoints = if_measured(matched_checkpoints, evidence, rules)
    if checkpoints:
        losses = per_example(evidence, "loss").mean()
        losses[CHECKPOINT] = losses[INOCULATION] + checkpoints["checkpoint.loss"].estimate
        found[CHECKPOINT] = checkpoints["checkpoint"], float(loss_gaps(losses)[CHECKPOINT])
    return found


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Above, alignment against loss by example with the regression's lines; below, the effect at equal loss."""
    pairs = pairs_with_loss(evidence)
    at_equal, chosen = at_equal_loss(pairs, rules), matched_contrasts(evidence, rules)
    rows = _rows(at_equal, chosen, evidence, rules)
    heights = [4.0, 1.4 + ROW * max(3, len(rows))]
    figure = new_figure("Alignment at equal loss", sum(heights))
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]  # each with its own left margin
    _draw_examples(halves[0].add_subplot(), evidence, pairs)
    _draw_forest(halves[1].add_subplot(), rows)
    return Drawn(figure, _caption(at_equal, chosen, rules), _finding(at_equal))


def _draw_examples(axes: Axes, evidence: Evidence, pairs: Paired | None) -> None:
    """A point an example and condition, hollow outside the common range of losses, and the ANCOVA's two lines."""
    axes.set(xlabel="loss (nats/token)", ylabel="alignment (cosine)")
    if pairs is None:
        not_measured(axes, "alignment at common losses")
        return
    inside = pairs.common
    axes.axvspan(pairs.loss[inside].min(), pairs.loss[inside].max(), color=BAND, linewidth=0, zorder=0)
    ends, heights = ancova_lines(pairs)
    labels = []
    for column, condition in enumerate((NEUTRAL, INOCULATION)):
        style, shared = look(condition, evidence.conditions), inside[:, column]
        value, loss = pairs.value[:, column], pairs.loss[:, column]
        axes.scatter(
            loss[shared], value[shared], s=26, marker=style.marker, color=style.colour, alpha=0.45, linewidth=0
        )
        axes.scatter(
            loss[~shared], value[~shared], s=26, marker=style.marker, facecolor="none", edgecolor=style.colour,
            alpha=0.8, linewidth=1,
        )  # fmt: skip
        axes.plot(ends, heights[column], color=style.colour, linestyle=style.line, linewidth=3)
        labels.append((float(ends[-1]), float(heights[column, -1]), wrapped(condition), style.ink))
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.12 * (high - low))
    axes.text(
        float(ends.mean()), 0.985, "common range", transform=axes.get_xaxis_transform(), ha="center", va="top",
        color=SOFT, bbox={"facecolor": BAND, "edgecolor": "none", "pad": 1},
    )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(5))
    label_ends(axes, labels)


def _rows(
    at_equal: dict[str, Effect], chosen: dict[str, tuple[Effect, float]], evidence: Evidence, rules: Rules
) -> list[tuple[str, Effect, str, bool]]:
    """Name, effect, colour and whether losses are equal, for each row of the forest."""
    neutral = look(NEUTRAL, evidence.conditions).colour
    rows = [(name, effect, neutral, name != "unadjusted") for name, effect in at_equal.items()]
    for name, (effect, share) in chosen.items():
        colour = neutral if name == CHECKPOINT else look(name, evidence.conditions).colour
        gap = f"\n(loss gap {100 * share:.0f} %)" if math.isfinite(share) else ""
        rows.append((wrapped(name, 22, 1) + gap, effect, colour, share <= rules.loss_match))
    return rows


def _draw_forest(axes: Axes, rows: list[tuple[str, Effect, str, bool]]) -> None:
    """One effect a row with its 95 % interval, hollow where losses differ, its estimate in figures beside it."""
    axes.set_xlabel("alignment minus\ninoculation's (cosine)")
    if not rows:
        not_measured(axes, "effects at equal loss")
        return
    axes.axvline(0, color=FAINT, linewidth=1)
    for row, (_, mean, colour, equal) in enumerate(rows):
        axes.plot([mean.low, mean.high], [row, row], color=colour, linewidth=3, solid_capstyle="butt")
        axes.plot(
            [mean.estimate], [row], marker="o", markersize=9, linestyle="", color=colour, markeredgecolor=colour,
            markerfacecolor=colour if equal else "white", markeredgewidth=2, zorder=4,
        )  # fmt: skip
        axes.text(1.03, row, signed(mean.estimate), transform=axes.get_yaxis_transform(), va="center")
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _caption(at_equal: dict[str, Effect], chosen: dict[str, tuple[Effect, float]], rules: Rules) -> str:
    parts = [(name, estimated(effect)) for name, effect in at_equal.items()]
    parts += [(name, f"{estimated(effect)}{gap_in_words(share)}") for name, (effect, share) in chosen.items()]
    if not parts:
        return NOT_MEASURED
    kept = ""
    if "regression" in at_equal and at_equal["unadjusted"].estimate != 0:
        share = at_equal["regression"].estimate / at_equal["unadjusted"].estimate
        kept = f" The regression keeps {100 * share:.0f} % of the unadjusted difference."
    return (
        f"Above: every example's alignment (cosine) against its loss, hollow outside the losses that neutral and "
        f"inoculation both reach, with the regression's lines. Below: alignment minus inoculation's with "
        f"{100 * (1 - rules.alpha):g} % intervals, neutral at common losses in four ways, then what was chosen for its "
        f"loss (hollow: not adjusted "
        f"for loss, or a loss gap above {100 * rules.loss_match:g} % of neutral's). {listed(parts)}.{kept}"
    )


def _finding(at_equal: dict[str, Effect]) -> str:
    found = at_equal.get("regression")
    if found is None:
        return NOT_MEASURED
    return (
        f"At equal loss alignment is {side(found)} under inoculation than under neutral: neutral minus inoculation "
        f"{rounded(found.estimate)} ({between(found)}) by regression."
    )


FIGURE = StudyFigure("plot12_alignment_at_equal_loss", ("C3",), draw)
