"""Plot 14: the decision log-odds over steps of training: drift at every dose that was kept."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.evidence.measures import drift_by_question
from gradinoc.claims.evidence.tables import BASE, BEFORE, DECISION, Evidence
from gradinoc.report.figures.prompts.families import NAMES, by_families, family_key, family_of, is_rephrased, look
from gradinoc.report.figures.study_figure import Drawn, StudyFigure, told
from gradinoc.report.figures.style import FAINT, LOOKS, new_figure, not_measured, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, listed, rounded
from gradinoc.stats.effect import Effect, mean_effect
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules


def dose_curves(evidence: Evidence) -> pd.DataFrame:
    """Drift of the decision log-odds, nats: index (condition, seed), a column a step, from 0, no drift, to the last.

    The last is the drift that claims rest on; checkpoints are of the same questions, less the same base model.
    """
    rows = evidence.drift[(evidence.drift["measure"] == DECISION) & (evidence.drift["phase"] == BEFORE)]
    before = rows[rows["condition"] == BASE].set_index("example")["value"]
    kept = evidence.checkpoints.astype({"condition": str}).set_index(["step", "condition", "seed", "example"])[
        "log_odds"
    ]
    moved = kept - before.reindex(kept.index.get_level_values("example")).to_numpy()
    wide = moved.groupby(["condition", "seed", "step"], observed=True).mean().unstack("step")  # noqa: PD010 - of a series
    last = if_measured(drift_by_question, evidence, DECISION, False)
    if last is not None and len(evidence.runs):
        steps = evidence.runs.set_index(["condition", "seed"])["steps"].max()
        ends = last.mean().rename(index=str, level="condition").rename(int(steps))
        wide = wide.drop(columns=[int(steps)], errors="ignore").join(ends, how="outer")
    wide = wide.dropna(axis="columns", how="all")
    if wide.shape[1]:
        wide.insert(0, 0, 0.0)
    return wide.sort_index(axis=1)


def family_curves(evidence: Evidence, curves: pd.DataFrame) -> dict[Family, dict[int, Effect]]:
    """Family -> step -> mean over its prompts, each its seeds' mean; of neutral over runs."""
    prompts = curves.groupby(level="condition").mean()
    found = {}
    for family, names in by_families(evidence, prompts.index).items():
        fixed = [name for name in names if not is_rephrased(evidence, name)]
        own = curves.loc[[NEUTRAL]] if family is Family.NEUTRAL else prompts.loc[fixed]
        unit = "runs" if family is Family.NEUTRAL else "prompts"
        if len(own):
            found[family] = {
                int(step): mean_effect(own[step].dropna(), f"{family} at step {step}", unit)
                for step in own
                if own[step].notna().any()
            }
    return found


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Drift of the decision log-odds by step: thick a family's mean and interval, thin a prompt (of neutral a run)."""
    figure = new_figure("Dose: drift over steps of training", 5.0)
    axes = figure.add_subplot()
    axes.set(xlabel="optimiser step", ylabel="decision log-odds,\nafter − before (nats)")
    curves = if_measured(dose_curves, evidence)
    if curves is None or curves.empty:
        not_measured(axes, "drift")
        return Drawn(figure)
    families = family_curves(evidence, curves)
    axes.axhline(0, color=FAINT, linewidth=1)
    _draw_single(axes, evidence, curves)
    for family, steps in families.items():
        _draw_family(axes, family, steps)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    dotted = {"color": "#777777", "linewidth": 1.4, "linestyle": (0, (1, 1))}
    names = list(pd.unique(curves.index.get_level_values("condition")))
    rephrased = any(is_rephrased(evidence, name) for name in names)
    family_key(axes, evidence, names, {"rephrased": dotted} if rephrased else {}, lines=True)
    table = curves.reset_index()
    table.insert(1, "family", [str(family_of(evidence, name)) for name in table["condition"]])
    return Drawn(figure, _caption(families), _finding(families), table)


def _draw_single(axes: Axes, evidence: Evidence, curves: pd.DataFrame) -> None:
    """A thin line a prompt, of neutral one a run; dotted the rephrased ones."""
    lines = curves.groupby(level="condition").mean()
    singles = [(NEUTRAL, row) for _, row in curves.loc[[NEUTRAL]].iterrows()] if NEUTRAL in lines.index else []
    singles += [(name, row) for name, row in lines.iterrows() if name != NEUTRAL]
    for name, row in singles:
        row, style, drawn_anew = row.dropna(), look(evidence, name), is_rephrased(evidence, name)
        axes.plot(
            row.index, row, color=style.colour, alpha=0.8 if drawn_anew else 0.5, linewidth=1.6 if drawn_anew else 0.9,
            linestyle=(0, (1, 1)) if drawn_anew else "-",
        )  # fmt: skip


def _draw_family(axes: Axes, family: Family, steps: dict[int, Effect]) -> None:
    style = LOOKS[family]
    ends = np.array([(each.estimate, each.low, each.high) for each in steps.values()])
    axes.plot(
        list(steps), ends[:, 0], color=style.colour, linestyle=style.line, linewidth=3, marker=style.marker,
        markersize=7, markeredgecolor="white", zorder=4,
    )  # fmt: skip
    if next(iter(steps.values())).n > 2:  # two values' t interval is 13 standard errors wide: it would hide the lines
        axes.fill_between(list(steps), ends[:, 1], ends[:, 2], color=style.colour, alpha=0.13, linewidth=0)


def _last(steps: dict[int, Effect]) -> Effect:
    return steps[max(steps)]


def _caption(families: dict[Family, dict[int, Effect]]) -> str:
    words = listed((NAMES[family], told(_last(steps))) for family, steps in families.items())
    return (
        f"Drift of the decision log-odds under the neutral prompt (nats) by optimiser step, at every adapter that was "
        f"kept: thin a prompt (mean over its seeds; of neutral a run), thick a family's mean, shaded from three on its "
        f"95 % t interval; dotted: rephrased. At the last step, by family: {words}."
    )


def _finding(families: dict[Family, dict[int, Effect]]) -> str:
    if not families:
        return NOT_MEASURED
    parts = []
    for family, steps in families.items():
        kept = sorted(step for step in steps if step)
        told_at = [f"{rounded(steps[step].estimate)} at step {step}" for step in dict.fromkeys((*kept[:1], *kept[-1:]))]
        if told_at:
            parts.append(f"{NAMES[family]} {' and '.join(told_at)}")
    return f"Drift of the decision log-odds: {'; '.join(parts)} (nats)."


FIGURE = StudyFigure("plot14_dose_curves", ("mind", "G5", "C6"), draw)
