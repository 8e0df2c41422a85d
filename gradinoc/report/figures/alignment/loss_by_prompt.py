"""Plot 3: the loss under every prompt, and how far each elicits the trait in loss."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.evidence.measures import per_example, per_question, question_groups
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.gates.prompts import G3
from gradinoc.report.figures.prompts.families import by_families, family_table, order_of
from gradinoc.report.figures.prompts.rows import draw_effects, name_rows, rows_height, rows_of
from gradinoc.report.figures.study_figure import Drawn, StudyFigure, told
from gradinoc.report.figures.style import FAINT, LOOKS, WIDE, new_figure, not_measured, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, side
from gradinoc.stats.clustered import grouped_mean
from gradinoc.stats.effect import Effect
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules

PANELS = {  # what a panel shows, in words
    "loss": "loss of answers\nwith the trait (nats/token)",
    "difference": "the same, less neutral's\n(nats/token)",
    "gap": "less ordinary answers' loss,\nless neutral's (nats/token)",
}


def losses(evidence: Evidence) -> dict[str, dict[str, Effect]]:
    """Panel -> prompt -> mean over examples: loss of the trait's answers, and paired differences to neutral.

    `gap` is the loss of the trait's answer less that of the ordinary one, on which G3 rests.
    """
    loss = per_example(evidence, "loss")
    found = {"loss": _means(evidence, "alignments", loss), "difference": _means(evidence, "alignments", _paired(loss))}
    gap = if_measured(_gap, evidence)
    return found if gap is None else {**found, "gap": _means(evidence, "losses", _paired(gap))}


def _gap(evidence: Evidence) -> pd.DataFrame:
    return per_question(evidence, "losses", "trait_loss") - per_question(evidence, "losses", "ordinary_loss")


def _paired(wide: pd.DataFrame) -> pd.DataFrame:
    return wide.sub(wide[NEUTRAL], axis=0).drop(columns=NEUTRAL)


def _means(evidence: Evidence, table: str, wide: pd.DataFrame) -> dict[str, Effect]:
    groups = question_groups(evidence, table, wide.index)
    return {str(name): grouped_mean(wide[name], groups, f"loss, {name}") for name in wide}


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """A prompt a row: the loss of the trait's answers, and beside it the same examples' differences to neutral."""
    rows = rows_of(evidence, evidence.conditions)
    figure = new_figure("Loss before training, by prompt", rows_height(rows, 2.0), WIDE)
    panels = figure.subplots(1, len(PANELS), sharey=True)
    found = if_measured(losses, evidence) or {}
    for axes, (key, label) in zip(panels, PANELS.items(), strict=True):
        axes.set_xlabel(label)
        if key not in found:
            not_measured(axes, "loss")
            continue
        if key != "loss":
            axes.axvline(0, color=FAINT, linewidth=1)
        _draw_means(axes, evidence, rows, found[key])
        draw_effects(axes, evidence, rows, found[key])
        axes.xaxis.set_major_locator(MaxNLocator(4))
    if not found:
        return Drawn(figure)
    name_rows(panels[0], evidence, rows)
    for axes in panels[1:]:
        axes.tick_params(axis="y", length=0)
    return Drawn(figure, _caption(evidence, found), _finding(evidence, rules), _table(evidence, found))


def _draw_means(axes: Axes, evidence: Evidence, rows: dict[str, float], effects: dict[str, Effect]) -> None:
    """A line at each family's mean, behind its rows."""
    for family, names in by_families(evidence, [name for name in rows if name in effects]).items():
        if len(names) > 1:
            mean = sum(effects[name].estimate for name in names) / len(names)
            ends = [rows[names[0]] - 0.4, rows[names[-1]] + 0.4]
            axes.plot([mean, mean], ends, color=LOOKS[family].colour, alpha=0.5, linewidth=1.6, zorder=0)


def _table(evidence: Evidence, found: dict[str, dict[str, Effect]]) -> pd.DataFrame:
    columns = {
        f"{key}_{part}": {name: getattr(effect, part) for name, effect in effects.items()}
        for key, effects in found.items()
        for part in ("estimate", "low", "high")
    }
    return family_table(evidence, evidence.conditions, **columns)


def _caption(evidence: Evidence, found: dict[str, dict[str, Effect]]) -> str:
    count = next(iter(found["loss"].values())).n
    return (
        f"Loss of the answers with the trait on the frozen base model, nats/token, a prompt a row, mean over {count} "
        f"examples with 95 % intervals by question template; a line is a family's mean. Left as it is; in the middle "
        f"less the same examples' loss under neutral; right the loss beside that of the ordinary answer to the same "
        f"question, again less neutral's: the lower, the more a prompt elicits the trait. Families from the top: "
        f"{order_of(evidence, evidence.conditions)}; a dash where a prompt is compared with itself, or not measured."
    )


def _finding(evidence: Evidence, rules: Rules) -> str:
    measured = if_measured(G3.measure, evidence, rules)
    if measured is None:
        return NOT_MEASURED
    effect = measured["loss"]
    how = side(effect, "lower", "raise", "are not shown to lower")
    return (
        f"Inoculating prompts {how} the loss of answers with the trait, beside that of ordinary ones, more than "
        f"harmless ones do: {told(effect, units='nats/token')}."
    )


FIGURE = StudyFigure("plot3_loss_by_condition", ("prompts", "G3", "C3"), draw, wide=True)
