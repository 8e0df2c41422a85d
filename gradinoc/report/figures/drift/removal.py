"""Plot 23: drift when the gradient's component along the direction is removed, and when it is restored."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gradinoc.claims.c5 import C5, deciding
from gradinoc.claims.evidence.arms import arms_of, by_strength, mean_drift
from gradinoc.claims.evidence.measures import deciding_measure
from gradinoc.claims.evidence.tables import DECISION, Evidence
from gradinoc.report.figures.study_figure import Drawn, StudyFigure, told
from gradinoc.report.figures.style import FAINT, INK, LOOKS, SOFT, WIDE, new_figure, not_measured, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, rounded, signs
from gradinoc.stats.effect import Effect
from gradinoc.study.arms import ABLATE, FULL, LEARNED, PROJECT, RESTORE, SHRINK, STEER
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules

DRAWN = "#9a9a9a"  # runs along drawn directions
BESIDE = 0.13  # strengths, by which drawn directions stand beside the arm's own


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Left, drift by run over the strength of removing, beside drawn directions; right, every other arm."""
    figure = new_figure("Drift when the component along the direction is taken away", 4.8, WIDE)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    left.set(xlabel="share of the component removed (λ)", ylabel="drift (fraction of the scale, or nats)")
    right.set_xlabel("drift (fraction of the scale, or nats)")
    found = if_measured(C5.measure, evidence, rules) if len(evidence.arms) else None
    if found is None or "share" not in found:
        not_measured(left, "arms")
        not_measured(right, "arms")
        return Drawn(figure)
    measured = deciding_measure(evidence, rules.ceiling)
    units = "nats" if measured == DECISION else "fraction of the scale"
    name = "decision log-odds" if measured == DECISION else f"expected {evidence.trait.score_name}"
    means = mean_drift(evidence, measured)
    left.set(ylabel=f"drift, {name}\n({units})")
    right.set_xlabel(f"drift, {name}\n({units})")
    _draw_dose(left, evidence, measured, means)
    rows = _rows(evidence)
    _draw_rows(right, rows, means)
    table = pd.DataFrame(
        [
            (label, condition, seed, means[condition, seed])
            for label, names in rows.items()
            for condition, seed in means.index
            if condition in names
        ],
        columns=["of", "condition", "seed", "drift"],
    )  # fmt: skip
    return Drawn(figure, _caption(found.effects, evidence, rules), _finding(found.effects, rules), table)


def _draw_dose(axes: Axes, evidence: Evidence, measured: str, means: pd.Series) -> None:
    table, neutral, own = by_strength(evidence, measured), LOOKS[Family.NEUTRAL], arms_of(evidence, PROJECT)
    for condition, family in ((NEUTRAL, Family.NEUTRAL), (INOCULATION, Family.INOCULATION)):
        level = float(means[condition].mean())
        axes.axhline(level, color=LOOKS[family].colour, linewidth=1.4, linestyle=LOOKS[family].line, alpha=0.8)
        axes.text(
            1.01, level, condition, transform=axes.get_yaxis_transform(), va="center", color=LOOKS[family].ink,
            fontsize=13,
        )  # fmt: skip
    drawn = [means[condition].mean() for condition in own.drawn]
    if drawn:
        axes.plot(
            np.full(len(drawn), FULL + BESIDE), drawn, linestyle="", marker="o", markersize=6, markerfacecolor="white",
            markeredgecolor=DRAWN, label="_matched",
        )  # fmt: skip
        axes.annotate(
            "matched directions", (FULL + BESIDE, max(drawn)), (0, 7), textcoords="offset points", ha="center",
            va="bottom", color=SOFT, fontsize=13,
        )  # fmt: skip
        axes.margins(y=0.12)  # for these words
    axes.plot(
        table["strength"], table["drift"], linestyle="", marker="o", markersize=7, color=neutral.colour, alpha=0.7,
        markeredgecolor="white", label="_runs",
    )  # fmt: skip
    by = table.groupby("strength")["drift"].mean()
    axes.plot(by.index, by, color=INK, linewidth=1.8)
    axes.margins(x=0.06)


def _rows(evidence: Evidence) -> dict[str, tuple[str, ...]]:
    """Label -> conditions, from the top."""
    removed, restored = arms_of(evidence, PROJECT), arms_of(evidence, RESTORE)
    rows: dict[str, tuple[str, ...]] = {"neutral": (NEUTRAL,)}
    if FULL in removed.own:
        rows["component removed"] = (removed.own[FULL],)
    rows["… along matched directions"] = removed.drawn
    for kind, label in ((SHRINK, "gradient shrunk as much"), (ABLATE, "stream's component removed")):
        rows[label] = tuple(arms_of(evidence, kind).own.values())
    learned = arms_of(evidence, PROJECT, LEARNED)
    rows["removed along neutral runs' shift"] = tuple(learned.own.values())
    rows["… along what is matched to it"] = learned.drawn
    for strength, condition in arms_of(evidence, STEER).own.items():
        rows[f"steered by {strength:g} in training"] = (condition,)
    rows["inoculation"] = (INOCULATION,)
    if FULL in restored.own:
        rows["component restored"] = (restored.own[FULL],)
    rows["… restored along matched ones"] = restored.drawn
    return {label: names for label, names in rows.items() if names}


def _draw_rows(axes: Axes, rows: Mapping[str, tuple[str, ...]], means: pd.Series) -> None:
    for row, (label, names) in enumerate(rows.items()):
        values = np.concatenate([means[name].to_numpy() for name in names])
        drawn = label.startswith("…")
        family = Family.INOCULATION if row >= [*rows].index("inoculation") else Family.NEUTRAL
        colour = DRAWN if drawn else LOOKS[family].colour
        axes.plot(
            values, np.full(len(values), row), linestyle="", marker=LOOKS[family].marker, markersize=7, alpha=0.7,
            color="white" if drawn else colour, markeredgecolor=colour if drawn else "white", label=f"_{label}",
        )  # fmt: skip
        axes.plot([values.mean()], [row], marker="|", markersize=17, markeredgewidth=2.6, color=INK)
    axes.set_yticks(range(len(rows)), list(rows))
    for tick, label in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(SOFT if label.startswith("…") else INK)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axvline(0, color=FAINT, linewidth=1)
    axes.margins(x=0.06)


def _caption(effects: Mapping[str, Effect], evidence: Evidence, rules: Rules) -> str:
    removed, restored = arms_of(evidence, PROJECT), arms_of(evidence, RESTORE)
    matched = (
        f" Hollow: {len(removed.drawn)} random directions that hold as much of the gradient's energy, a run each"
        f"{f', and {len(restored.drawn)} along which the component is restored' if restored.drawn else ''}."
        if removed.drawn
        else ""
    )
    share = deciding(effects, "share", rules)
    at_loss = "" if share is effects["share"] else ", by decision log-odds at the same training loss"
    interval = f" C5 asks for a share above {rules.removed:g} of what inoculation removes."
    return (
        "Drift under the neutral prompt, a point a run. Left: neutral runs whose gradient loses a share λ of its "
        "component along the direction at each block of the band (1: all of it; 2: reflected; −1: doubled; 0: as it "
        f"is), line: means.{matched} Right: every arm, ticks are means. Restored: under inoculation the component is "
        f"what it is under the neutral prompt. The share removed is {told(share)}{at_loss}.{interval}"
    )


def _finding(effects: Mapping[str, Effect], rules: Rules) -> str:
    share, place = (deciding(effects, key, rules) for key in ("share", "place"))
    places = (
        (place, "among matched directions"),
        (effects.get("restored.place"), "restored, among matched directions"),
    )
    parts = [f"{words} p {rounded(each.p)}" for each, words in places if each is not None and np.isfinite(each.p)]
    if not np.isfinite(share.estimate):
        return NOT_MEASURED
    beside = f" ({'; '.join(parts)})" if parts else ""
    at_loss = "" if share is effects["share"] else ", at the same training loss"
    return signs(f"Removing the component removes {told(share)} of what inoculation removes{at_loss}{beside}.")


FIGURE = StudyFigure("plot23_removing_the_component", ("C5", "G11"), draw, wide=True)
