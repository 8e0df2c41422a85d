"""Plot 20: along which directions of the residual stream runs what inoculation changes; and at which layers."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.c7.c7b import C7B
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.finding import Measured
from gradinoc.report.figures.lettering import drawable, fitted, within
from gradinoc.report.figures.prompts.families import effect_table
from gradinoc.report.figures.sources.layers import caption_of, draw_layers, finding_of
from gradinoc.report.figures.study_figure import Drawn, StudyFigure, told
from gradinoc.report.figures.style import FAINT, INK, SOFT, WIDE, new_figure, not_measured, signed, styled
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import NOT_MEASURED, between, listed, number, rounded, shown
from gradinoc.stats.effect import Effect
from gradinoc.study.rules import Rules
from gradinoc.study.settings import NULLS

ROW, AROUND = 0.34, 2.5  # inches: of a row, and of what the panel has around them
SMALL, NAME = 12.0, 2.6  # points and inches, of a row's name
NAMED, RANDOM, TRAIT = "named.", "random.", "share"
WORDS = {TRAIT: "trait direction v", "named.learned": "learned drift", "named.responses": "response contrast"}


def words_of(key: str) -> str:
    """What a figure or table calls the direction of one of C7b's effects."""
    if key in WORDS:
        return WORDS[key]
    if key.startswith(RANDOM):
        return NULLS[key.removeprefix(RANDOM)].label
    name = shown(key.removeprefix(NAMED))
    return f"v, {name}" if name.startswith("wording ") else name


def shares_of(measured: Measured | None) -> dict[str, Effect]:
    """C7b's shares in the order in which they are drawn: v, named directions, unrelated traits, random directions."""
    effects = measured.effects if measured is not None else {}
    first = [TRAIT, "named.learned", "named.responses", *(key for key in effects if key.startswith("named.wording_"))]
    keys = dict.fromkeys([*first, *(key for key in effects if key.startswith(NAMED)), *map(RANDOM.__add__, NULLS)])
    return {key: effects[key] for key in keys if key in effects and math.isfinite(effects[key].estimate)}


def below(effect: Effect) -> str:
    """A line for below an axis of shares: that they have no intervals, where they have none."""
    if math.isfinite(effect.low):
        return ""
    return "\nno intervals: the difference may be zero" if "zero" in effect.method else "\nno intervals"


def why_bare(effect: Effect) -> str:
    """Why an effect has no interval, as a sentence; empty where it has one."""
    return "" if math.isfinite(effect.low) else f"{effect.method[:1].upper()}{effect.method[1:]}."


@styled
def draw(evidence: Evidence, rules: Rules) -> Drawn:
    """Left, a row a direction with its share; right, what runs along some of them at each layer, in nats."""
    shares = shares_of(if_measured(C7B.measure, evidence, rules))
    figure = new_figure("Along which directions does the difference run?", AROUND + ROW * max(8, len(shares)), WIDE)
    places = figure.add_gridspec(2, 2)
    _draw_shares(figure.add_subplot(places[:, 0]), shares, rules)
    upper, lower = (figure.add_subplot(places[row, 1]) for row in (0, 1))
    layers = draw_layers(upper, lower, evidence)
    figure.align_ylabels([upper, lower])
    if not shares:
        return Drawn(figure)
    caption, finding, table = _caption(shares, rules), _finding(shares, rules), effect_table(shares)
    if layers is None:
        return Drawn(figure, caption, finding, table)
    return Drawn(figure, caption + caption_of(layers), finding + finding_of(layers), pd.concat([table, layers.table]))


def _draw_shares(axes: Axes, shares: dict[str, Effect], rules: Rules) -> None:
    """A row a direction: its share as a point, with its interval where there is one; random ones as bars of spread."""
    axes.set_xlabel("share of the difference,\nharmless − inoculating (fraction)")
    if not shares:
        not_measured(axes, "shares by direction")
        return
    axes.set_xlabel(f"{axes.get_xlabel()}{below(next(iter(shares.values())))}")
    axes.axvline(0, color=FAINT, linewidth=1)
    axes.axvline(rules.carried, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=0)
    axes.text(
        rules.carried, 1.005, f"C7b's bar, {rules.carried:g}", transform=axes.get_xaxis_transform(), ha="center",
        va="bottom", color=SOFT, fontsize=SMALL,
    )  # fmt: skip
    for row, (key, effect) in enumerate(shares.items()):
        _draw_row(axes, row, key, effect)
    names = [fitted(drawable(words_of(key)), within(NAME, SMALL), 1) for key in shares]
    axes.set_yticks(range(len(shares)), names, fontsize=SMALL)
    for tick, key in zip(axes.get_yticklabels(), shares, strict=True):
        tick.set(fontweight="bold" if key == TRAIT else "normal", color=SOFT if key.startswith(RANDOM) else INK)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(shares) - 0.4, -0.6)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _draw_row(axes: Axes, row: int, key: str, effect: Effect) -> None:
    random = key.startswith(RANDOM)
    if math.isfinite(effect.low):
        ends = [effect.low, effect.high]
        axes.plot(
            ends, [row, row], solid_capstyle="butt", label=f"_{key}", color=SOFT if random else INK,
            alpha=0.45 if random else 1.0, linewidth=9 if random else 2.6,
        )  # fmt: skip
    axes.plot(
        [effect.estimate], [row], linestyle="", marker="|" if random else "o", markersize=13 if random else 9,
        color=SOFT if random else INK, markeredgewidth=2.4 if random else 1, zorder=4, label=f"_{key}",
    )  # fmt: skip
    axes.text(
        1.03, row, signed(effect.estimate), transform=axes.get_yaxis_transform(), va="center", fontsize=SMALL,
        color=SOFT if random else INK, fontweight="bold" if key == TRAIT else "normal",
    )  # fmt: skip


def _caption(shares: dict[str, Effect], rules: Rules) -> str:
    first = next(iter(shares.values()))
    random = {key: effect for key, effect in shares.items() if key.startswith(RANDOM)}
    intervals = why_bare(first) or f"Lines: {100 * first.level:g} % intervals."
    spread = ", ".join(f"{effect.n} {words_of(key)}" for key, effect in random.items())
    about = f" Grey: mean (tick) and central 95 % (bar) of {spread}." if random else ""
    return (
        "Left: share of the difference in accounted neutral drift between harmless and inoculating runs, by way of the "
        f"band, that runs along a direction of the residual stream (fraction, n = {first.n} {first.unit}). Directions "
        "overlap, so shares do not add up to 1. Learned drift is the direction in which neutral runs moved, the "
        f"response contrast that of answers with and without the trait. {intervals}{about} Dashed: {rules.carried:g}, "
        "above which C7b asks for the interval of v."
    )


def _finding(shares: dict[str, Effect], rules: Rules) -> str:
    share = shares.get(TRAIT)
    if share is None:
        return NOT_MEASURED
    side = _side(share, rules.carried)
    parts = [(key, shares[key]) for key in ("named.learned", "named.responses") if key in shares]
    beside = f"; {listed((words_of(key), rounded(effect.estimate)) for key, effect in parts)}" if parts else ""
    random = [effect for key, effect in shares.items() if key.startswith(RANDOM)]
    spread = f"; 95 % of random directions lie from {number(min(each.low for each in random))} to " if random else ""
    spread += number(max(each.high for each in random)) if random else ""
    return f"Along v runs a share of {told(share)} of the difference, {side}{beside}{spread}."


def _side(share: Effect, bar: float) -> str:
    """Where a share's interval lies; without one nothing is shown."""
    if not math.isfinite(share.low):
        return "an estimate without an interval"
    place = "above" if share.low > bar else "below" if share.high < bar else "not shown to lie on either side of"
    return f"{place} {bar:g} ({between(share)})" if place.startswith("not") else f"{place} {bar:g}"


FIGURE = StudyFigure("plot20_shares_by_direction", ("sources", "C7b"), draw, wide=True)
