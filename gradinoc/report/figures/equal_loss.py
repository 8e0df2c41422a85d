"""The figure of alignment at equal loss: every example, and the effect by every way of making losses equal."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.tables import Evidence
from gradinoc.report.figures.comparisons import (
    CHECKPOINT,
    ancova_lines,
    at_equal_loss,
    checkpoint_contrast,
    control_contrasts,
    pairs_with_loss,
)
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
from gradinoc.report.figures.summaries import RULES, Mean
from gradinoc.stats.equal_loss import Paired
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

ROW = 0.53  # inches


@styled
def plot_alignment_at_equal_loss(evidence: Evidence, rules: Rules = RULES) -> Figure:
    """Above, alignment against loss by example with the regression's lines; below, the effect at equal loss."""
    pairs, rows = pairs_with_loss(evidence), _rows(evidence, rules)
    heights = [4.0, 1.4 + ROW * max(3, len(rows))]
    figure = new_figure("Alignment at equal loss", sum(heights))
    halves = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]  # each with its own left margin
    _draw_examples(halves[0].add_subplot(), evidence, pairs)
    _draw_forest(halves[1].add_subplot(), rows)
    return figure


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


def _rows(evidence: Evidence, rules: Rules) -> list[tuple[str, Mean, str, bool]]:
    """Name, effect, colour and whether losses are equal, for each row of the forest."""
    neutral = look(NEUTRAL, evidence.conditions).colour
    rows = [(name, mean, neutral, name != "unadjusted") for name, mean in at_equal_loss(evidence, rules).items()]
    for name, (mean, share) in (*control_contrasts(evidence).items(), (CHECKPOINT, checkpoint_contrast(evidence))):
        if mean.n:
            colour = neutral if name == CHECKPOINT else look(name, evidence.conditions).colour
            rows.append((_with_gap(wrapped(name, 22, 1), share), mean, colour, share <= rules.loss_match))
    return rows


def _with_gap(name: str, share: float) -> str:
    """The name of a row whose losses were made equal by choice, with the gap that this leaves."""
    return f"{name}\n(loss gap {100 * share:.0f} %)" if math.isfinite(share) else name


def _draw_forest(axes: Axes, rows: list[tuple[str, Mean, str, bool]]) -> None:
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
