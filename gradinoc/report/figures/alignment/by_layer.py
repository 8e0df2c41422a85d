"""Plot 2: alignment at every layer of the frozen model, and what is inoculation's own, beside random directions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.c1 import family_contrast
from gradinoc.claims.evidence.measures import HARMLESS, INOCULATING, by_family, question_groups
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.report.figures.alignment.trait_against_others import draws_along
from gradinoc.report.figures.prompts.families import by_families, difference, family_key, look, spread_of
from gradinoc.report.figures.study_figure import Drawn, StudyFigure, told
from gradinoc.report.figures.style import BESIDE, FAINT, INK, SOFT, new_figure, not_measured, shade_band, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, rounded, shown, side
from gradinoc.stats.effect import Effect
from gradinoc.stats.families import contrast
from gradinoc.study.rules import Rules
from gradinoc.study.settings import INSTRUCTION, NULLS

RANDOM = "instruction\ncontrasts,\ncentral 95 %"


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Above, alignment by layer, a thin line a prompt and a thick one a family; below, harmless less inoculating."""
    figure = new_figure("Alignment by layer, frozen model", 7.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.25, 1])
    upper.set_ylabel("alignment (cosine)")
    lower.set(ylabel="harmless −\ninoculating (cosine)", xlabel="decoder block (0-based)")
    rows = evidence.alignments[evidence.alignments["position"] == evidence.primary_position]
    means = rows.pivot_table(index="layer", columns="condition", values="alignment", observed=True)
    if means.empty:
        for axes in (upper, lower):
            not_measured(axes, "alignment")
        return Drawn(figure)
    effects, random = contrast_by_layer(evidence, rows, rules), random_by_layer(evidence)
    _draw_prompts(upper, evidence, means)
    _draw_contrast(lower, effects, random)
    for axes in (upper, lower):
        shade_band(axes, evidence.band, named=axes is upper)
    lower.set_xlim(means.index.min() - 0.5, means.index.max() + 0.5)
    lower.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    return Drawn(figure, *_words(evidence, rules), _table(means, effects, random))


def contrast_by_layer(evidence: Evidence, rows: pd.DataFrame, rules: Rules) -> dict[int, Effect]:
    """C1's contrast over prompts, harmless less inoculating ones, at each layer by itself."""
    found = {}
    for layer, own in rows.groupby("layer"):
        wide = own.pivot(index="example", columns="condition", values="alignment").dropna()  # noqa: PD010 - no aggregate
        families = if_measured(by_family, evidence, wide, question_groups(evidence, "alignments", wide.index))
        if families is None:
            continue
        name = f"alignment, harmless - inoculating prompts, layer {layer}"
        effect = if_measured(contrast, families, {HARMLESS: 1.0, INOCULATING: -1.0}, name, 1 - rules.alpha)
        if effect is not None:
            found[int(str(layer))] = effect
    return found


def random_by_layer(evidence: Evidence) -> dict[int, tuple[float, float]]:
    """The central 95 % of the same contrast along instruction contrasts, the class of directions that v belongs to."""
    rows = evidence.nulls[evidence.nulls["null"] == INSTRUCTION]
    found = {}
    for layer, own in rows.groupby("layer"):
        wide = own.pivot_table(index="draw", columns="condition", values="alignment", observed=True)
        values = difference(evidence, wide)
        if len(values):
            found[int(str(layer))] = spread_of(values)
    return found


def _draw_prompts(axes: Axes, evidence: Evidence, means: pd.DataFrame) -> None:
    axes.axhline(0, color=FAINT, linewidth=1)
    for names in by_families(evidence, list(means)).values():
        style = look(evidence, names[0])
        for name in names if len(names) > 1 else ():
            axes.plot(means.index, means[name], color=style.colour, alpha=0.45, linewidth=0.9)
        axes.plot(
            means.index, means[names].mean(axis=1), color=style.colour, linestyle=style.line, linewidth=3,
            marker=style.marker, markersize=7 if len(means) < 16 else 4, zorder=4,
        )  # fmt: skip
    family_key(axes, evidence, list(means), lines=True)


def _draw_contrast(axes: Axes, effects: Mapping[int, Effect], random: Mapping[int, tuple[float, float]]) -> None:
    axes.axhline(0, color=FAINT, linewidth=1)
    if not effects:
        not_measured(axes, "the contrast of families")
        return
    if random:
        low, high = np.array([random[layer] for layer in sorted(random)]).T
        axes.fill_between(sorted(random), low, high, color=SOFT, alpha=0.25, linewidth=0, label=RANDOM)
    layers = sorted(effects)
    ends = np.array([(effects[layer].estimate, effects[layer].low, effects[layer].high) for layer in layers])
    axes.errorbar(
        layers, ends[:, 0], yerr=np.abs(ends[:, 1:].T - ends[:, 0]), color=INK, linewidth=2.4, elinewidth=1.6,
        capsize=3, marker="o", markersize=5 if len(layers) < 16 else 3, label="along v",
    )  # fmt: skip
    axes.legend(*(part[::-1] for part in axes.get_legend_handles_labels()), **{**BESIDE, "handlelength": 1.2})


def _table(
    means: pd.DataFrame, effects: Mapping[int, Effect], random: Mapping[int, tuple[float, float]]
) -> pd.DataFrame:
    """A row a layer: the contrast with its interval, random directions' central 95 %, each prompt's mean alignment."""
    table = pd.DataFrame(index=means.index)
    for column in ("estimate", "low", "high"):
        table[f"harmless_less_inoculating_{column}"] = {layer: getattr(each, column) for layer, each in effects.items()}
    for place, end in enumerate(("low", "high")):
        table[f"instruction_contrasts_{end}"] = {layer: ends[place] for layer, ends in random.items()}
    return pd.concat([table, means.add_prefix("alignment_")], axis=1).reset_index()


def _words(evidence: Evidence, rules: Rules) -> tuple[str, str]:
    """Caption and finding, of the band."""
    layers = evidence.band
    caption = (
        f"Above: alignment, cos(−g, v), at each layer of the frozen base model, read at the "
        f"{shown(evidence.primary_position)}, mean over examples; a thin line a prompt, a thick one a family's mean, "
        f"so that the spread of harmless prompts stands beside any difference. Below: the mean of harmless prompts "
        f"less that of inoculating ones, with {100 * (1 - rules.alpha):g} % intervals over prompts and question "
        f"templates; grey the central 95 % of the same difference along {NULLS[INSTRUCTION].label}. Shaded: the band, "
        f"{len(layers)} layers" + (f" from {layers[0]} to {layers[-1]}." if layers else ".")
    )
    effect = if_measured(family_contrast, evidence, rules)
    if effect is None:
        return caption, NOT_MEASURED
    draws = if_measured(draws_along, evidence, INSTRUCTION)
    beside = ""
    if draws is not None:
        low, high = spread_of(draws)
        beside = (
            f"; along {NULLS[INSTRUCTION].label} 95 % of such differences lie from {rounded(low)} to {rounded(high)}"
        )
    finding = (
        f"Over the band, alignment is {side(effect)} under inoculating than under harmless prompts: "
        f"harmless minus inoculating {told(effect)}{beside}."
    )
    return f"{caption} Over the band the difference is {told(effect)}{beside}.", finding


FIGURE = StudyFigure("plot2_alignment_by_layer", ("C1",), draw)
