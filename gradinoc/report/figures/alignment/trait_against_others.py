"""Plot 4: where the trait's effect stands among directions without the trait, and among prompts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.c1 import family_contrast
from gradinoc.claims.c2 import C2, null_by_prompt
from gradinoc.claims.evidence.measures import alignment_families
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.finding import Measured
from gradinoc.report.figures.prompts.families import NAMES
from gradinoc.report.figures.study_figure import Drawn, StudyFigure, told
from gradinoc.report.figures.style import FAINT, LOOKS, SOFT, WIDE, new_figure, not_measured, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, number, rounded, shown
from gradinoc.stats.effect import Array, Effect
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules
from gradinoc.study.settings import NULLS

LABELS = {null: kind.label for null, kind in NULLS.items()}
NEAR = 0.55  # height of an unrelated trait's row, that of a violin being 1
SINGLE = {Family.HARMLESS: -0.2, Family.INOCULATION: 0.2}  # where single prompts of a family stand
TOP = -0.6  # the row of T(v)'s name, above those of prompts
UNRELATED = "unrelated traits"


@dataclass(frozen=True)
class Places:
    """Where T(v) stands: harmless less inoculating prompts' mean alignment along the trait direction.

    Attributes:
        effect: T(v) with its interval over prompts.
        prompts: family -> mean of the harmless prompts less each prompt's own alignment along v.
        draws: null -> T(u) along each of its directions; empty where it was not measured.
        unrelated: trait -> T along its direction.
        p: null, or `UNRELATED` for all unrelated traits, -> p as C2 has it; NaN where it was not measured.
    """

    effect: Effect
    prompts: dict[Family, Array]
    draws: dict[str, Array]
    unrelated: dict[str, Effect]
    p: dict[str, float]


def places_of(evidence: Evidence, rules: Rules) -> Places | None:
    """C2's numbers; None where alignment was not measured by family."""
    effect, families = if_measured(family_contrast, evidence, rules), if_measured(alignment_families, evidence)
    if effect is None or families is None:
        return None
    tables = families.values  # noqa: PD011 - not of pandas
    means = {Family(key): table.mean(axis=1) for key, table in tables.items()}
    prompts = {family: float(means[Family.HARMLESS].mean()) - own for family, own in means.items()}
    measured: Measured | None = if_measured(C2.measure, evidence, rules)
    draws = {}
    for null in NULLS:
        along = if_measured(draws_along, evidence, null)
        draws[null] = np.empty(0) if along is None else along
    effects = measured.effects if measured else {}
    unrelated = {key.removeprefix("unrelated."): each for key, each in effects.items() if key.startswith("unrelated.")}
    p = {null: effects[f"null.{null}"].p if effects else math.nan for null in NULLS}
    return Places(effect, prompts, draws, unrelated, {**p, UNRELATED: effects["lead"].p if effects else math.nan})


def draws_along(evidence: Evidence, null: str) -> Array:
    """T(u), harmless less inoculating prompts' mean alignment, along each direction of a null [directions]."""
    table, first = null_by_prompt(evidence, null)
    harmless = first.astype(bool)
    along: Array = table[:, harmless].mean(axis=1) - table[:, ~harmless].mean(axis=1)
    return along


def shown_p(p: float) -> str:
    """A p in a column of its own, two digits; a dash where there is none."""
    if not math.isfinite(p):
        return "–"
    if p < 0.001:
        return "< .001"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.2g}"


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """T(v) with its interval down the panel; rows of prompts, of random directions, and of unrelated traits."""
    places = places_of(evidence, rules)
    traits = sorted(places.unrelated) if places else []
    figure = new_figure(
        "Trait direction among other directions", 3.2 + 0.62 * (len(LABELS) + 1) + 0.36 * len(traits), WIDE
    )
    axes = figure.add_subplot()
    axes.set_xlabel("T: mean alignment of harmless prompts − that of inoculating ones (cosine)")
    if places is None:
        not_measured(axes, "other directions")
        return Drawn(figure)
    axes.axvline(0, color=FAINT, linewidth=1)
    effect = places.effect
    if math.isfinite(effect.low):
        axes.axvspan(effect.low, effect.high, color=LOOKS[Family.INOCULATION].colour, alpha=0.13, linewidth=0)
    axes.axvline(effect.estimate, color=LOOKS[Family.INOCULATION].colour, linewidth=1.8)
    _draw_prompts(axes, places)
    _draw_nulls(axes, places)
    _draw_traits(axes, places, traits, rules)
    _name_rows(axes, traits)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return Drawn(figure, _caption(places, rules), _finding(places, rules), _table(places))


def _draw_prompts(axes: Axes, places: Places) -> None:
    """How far each prompt's own alignment along v lies below the mean of harmless ones: the spread of prompts."""
    for family, offset in SINGLE.items():
        own, style = places.prompts.get(family, np.empty(0)), LOOKS[family]
        axes.plot(
            own, np.full(len(own), offset), linestyle="", marker=style.marker, markersize=9, color=style.colour,
            markeredgecolor="white", alpha=0.85,
        )  # fmt: skip
    axes.annotate(
        "T(v)", (places.effect.estimate, TOP), (6, 0), textcoords="offset points", va="center", fontweight="bold",
        annotation_clip=False,
    )  # fmt: skip


def _draw_nulls(axes: Axes, places: Places) -> None:
    for row, (null, values) in enumerate(places.draws.items(), 1):
        _write_p(axes, row, shown_p(places.p[null]))
        if not len(values):
            axes.text(
                0.5, row, "not measured", ha="center", va="center", transform=axes.get_yaxis_transform(), color=SOFT
            )
            continue
        if np.ptp(values) > 0:
            body: Any = axes.violinplot(values, [row], orientation="horizontal", widths=0.75, showextrema=False)
            for part in body["bodies"]:
                part.set(facecolor=SOFT, edgecolor=SOFT, alpha=0.3)
        low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
        axes.plot([low, high], [row, row], color=SOFT, linewidth=2.4, solid_capstyle="butt")
        axes.plot([middle], [row], marker="|", markersize=12, markeredgewidth=2.2, color=SOFT)


def _draw_traits(axes: Axes, places: Places, traits: list[str], rules: Rules) -> None:
    """A point a trait with its interval; the pale bar reaches as far as T(v) would have to, to either side."""
    first = len(LABELS) + 1
    _write_p(axes, first, shown_p(places.p[UNRELATED]))
    if not traits:
        axes.text(
            0.5, first, "not measured", ha="center", va="center", transform=axes.get_yaxis_transform(), color=SOFT
        )
    for row, trait in enumerate(traits):
        effect, height = places.unrelated[trait], first + NEAR * (row + 1)
        reach = rules.lead * abs(effect.estimate)
        axes.plot([-reach, reach], [height, height], color="#d4d4d4", linewidth=5, solid_capstyle="butt", zorder=1)
        if math.isfinite(effect.low):
            axes.plot([effect.low, effect.high], [height, height], color=SOFT, linewidth=1.8, zorder=2)
        axes.plot([effect.estimate], [height], marker="o", markersize=7.5, color=SOFT, linestyle="", zorder=4)


def _write_p(axes: Axes, row: float, text: str, **style: Any) -> None:
    axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", **style)


def _name_rows(axes: Axes, traits: list[str]) -> None:
    """What each row holds, down the y axis; p to the right."""
    single = [f"each {NAMES[family]} prompt, along v" for family in SINGLE]
    names = [*single, *LABELS.values(), UNRELATED]
    heights = [len(LABELS) + 1 + NEAR * (row + 1) for row in range(len(traits))]
    axes.set_yticks([*SINGLE.values(), *range(1, len(LABELS) + 2), *heights], [*names, *map(shown, traits)])
    ticks = axes.get_yticklabels()
    for tick, family in zip(ticks, SINGLE, strict=False):
        tick.set(color=LOOKS[family].ink, fontsize=12.5)
    for tick in ticks[len(names) :]:
        tick.set(color=SOFT, fontsize=12.5)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max([len(LABELS) + 1, *heights]) + 0.5, TOP - 0.25)
    _write_p(axes, 0, "p", style="italic")


def _table(places: Places) -> pd.DataFrame:
    """A row a kind of direction, or unrelated trait: T, its ends (of draws: the central 95 %), p, n, what n counts."""
    rows = [
        ("trait", places.effect.estimate, places.effect.low, places.effect.high, math.nan, places.effect.n, "prompts")
    ]
    for null, values in places.draws.items():
        if len(values):
            low, middle, high = np.quantile(values, [0.025, 0.5, 0.975])
            rows.append((null, middle, low, high, places.p[null], len(values), "directions"))
    rows += [
        (f"unrelated.{key}", each.estimate, each.low, each.high, math.nan, each.n, each.unit)
        for key, each in places.unrelated.items()
    ]
    return pd.DataFrame(rows, columns=["direction", "estimate", "low", "high", "p", "n", "unit"])


def _caption(places: Places, rules: Rules) -> str:
    spread = places.prompts[Family.HARMLESS]
    parts = [
        f"{LABELS[null]}: n = {len(values)}, p = {number(places.p[null])}"
        for null, values in places.draws.items() if len(values)
    ]  # fmt: skip
    if places.unrelated:
        closest = max(places.unrelated, key=lambda key: abs(places.unrelated[key].estimate))
        parts.append(
            f"unrelated traits: the largest T is that of {shown(closest)}, "
            f"{rounded(places.unrelated[closest].estimate)}, p = {number(places.p[UNRELATED])}"
        )
    return (
        f"T is the mean alignment of harmless prompts less that of inoculating ones, a cosine. Line and shade: T along "
        f"the trait direction v with its interval, {told(places.effect)}. First rows: how far each single prompt's "
        f"alignment along v lies below the harmless mean; the {len(spread)} "
        f"harmless ones lie from {rounded(float(spread.min()))} to {rounded(float(spread.max()))}. Violins: T along "
        f"random directions, bars their central 95 %; p counts T(v)'s own error. Points: T along unrelated traits' "
        f"directions with intervals; the pale bar reaches {rules.lead:g} times as far, to either side, which T(v) has "
        f"to exceed. {'; '.join(parts)}."
    )


def _finding(places: Places, rules: Rules) -> str:
    known = {key: p for key, p in places.p.items() if math.isfinite(p)}
    if not known:
        return NOT_MEASURED
    worst = max(known, key=lambda key: known[key])
    how = "exceeds" if known[worst] <= rules.alpha else "is not shown to exceed"
    against = LABELS.get(worst) or f"{rules.lead:g} times that of {UNRELATED}"
    return (
        f"The trait direction's effect, {rounded(places.effect.estimate)}, {how} what other directions show: the "
        f"largest p is {rounded(known[worst])}, against {against}."
    )


FIGURE = StudyFigure("plot4_trait_against_random", ("C2",), draw, wide=True)
