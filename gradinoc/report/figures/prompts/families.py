"""Prompts in figures: grouped by family, one colour and marker a family, few of them named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradinoc.claims.evidence.measures import null_table
from gradinoc.claims.evidence.tables import REPHRASED, Evidence
from gradinoc.report.figures.style import BESIDE, LOOKS, SOFT, Look
from gradinoc.report.numbers import if_measured
from gradinoc.stats.effect import Effect, finite
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED
from gradinoc.study.prompts.family import Family
from gradinoc.study.settings import INSTRUCTION

NAMES = {family: style.name for family, style in LOOKS.items()}
PLANNED = (INOCULATION, LOSS_MATCHED)  # the plan's own prompts, the ones that figures name
SMALL = 12.0  # points, of a prompt's name


Key = Mapping[str, Mapping[str, Any]]  # what a legend names -> how its line or marker looks


def family_of(evidence: Evidence, condition: str) -> Family:
    """The family of a prompt; that of the others where the study has no such prompt."""
    rows = evidence.prompts.loc[evidence.prompts["condition"] == condition, "family"]
    return Family(rows.iloc[0]) if len(rows) else Family.OTHER


def look(evidence: Evidence, condition: str) -> Look:
    """How a prompt is drawn: as its family."""
    return LOOKS[family_of(evidence, condition)]


def is_rephrased(evidence: Evidence, condition: str) -> bool:
    """Whether a prompt's wording is drawn anew for every example: such are drawn hollow, and in no family's mean."""
    rows = evidence.prompts
    return bool(((rows["condition"] == condition) & (rows["kind"] == REPHRASED)).any())


def by_families(evidence: Evidence, among: Iterable[str]) -> dict[Family, list[str]]:
    """Those families that have a prompt `among` these, in the order of the families; rephrased prompts come last."""
    found: dict[Family, list[str]] = {}
    for family in Family:
        own = [name for name in among if family_of(evidence, name) is family]
        if own:
            found[family] = sorted(own, key=lambda name: is_rephrased(evidence, name))
    return found


def order_of(evidence: Evidence, among: Iterable[str]) -> str:
    """The families that have a prompt `among` these, in words and in the order in which they are drawn."""
    return ", ".join(NAMES[family] for family in by_families(evidence, list(among)))


def in_order(evidence: Evidence, among: Iterable[str]) -> list[str]:
    """Prompts, family by family."""
    return [name for names in by_families(evidence, list(among)).values() for name in names]


def family_table(evidence: Evidence, among: Sequence[str], **columns: Mapping[str, Any]) -> pd.DataFrame:
    """A row a prompt: `condition`, `family`, and a column for each of `columns`, given as prompt -> value."""
    names = in_order(evidence, among)
    rows = {"condition": names, "family": [str(family_of(evidence, name)) for name in names]}
    return pd.DataFrame({**rows, **{key: [values.get(name) for name in names] for key, values in columns.items()}})


def effect_table(effects: Mapping[str, Effect | None]) -> pd.DataFrame:
    """A row an effect: `key`, estimate, interval, p, n, and what n counts."""
    return pd.DataFrame(
        [
            {
                "key": key, "estimate": each.estimate, "low": each.low, "high": each.high, "p": each.p, "n": each.n,
                "unit": each.unit, "method": each.method,
            }
            for key, each in effects.items()
            if each is not None
        ],
        columns=["key", "estimate", "low", "high", "p", "n", "unit", "method"],
    )  # fmt: skip


def family_key(
    axes: Axes, evidence: Evidence, among: Iterable[str], further: Key | None = None, *, lines: bool = False
) -> None:
    """A legend beside the panel: each family with a prompt `among` these and how many, and what `further` names."""
    handles, beside = [], further or {}
    for family, names in by_families(evidence, list(among)).items():
        style, fixed = LOOKS[family], [name for name in names if not is_rephrased(evidence, name)]
        given: dict[str, Any] = {"linestyle": style.line, "linewidth": 2.4} if lines else {"linestyle": ""}
        if not lines:
            given |= {"marker": style.marker, "markersize": 10, "markeredgecolor": "white"}
        if fixed:
            count = f" ({len(fixed)})" if family is not Family.NEUTRAL else ""
            handles.append(Line2D([], [], color=style.colour, label=f"{NAMES[family]}{count}", **given))
    handles += [Line2D([], [], label=label, **given) for label, given in beside.items()]
    length = 1.8 if lines or any(given.get("linestyle") for given in beside.values()) else 1.0
    axes.legend(handles=handles, **{**BESIDE, "handlelength": length})


HOLLOW: dict[str, Any] = {  # the looks of a hollow marker in a legend
    "linestyle": "", "marker": "o", "markersize": 10, "markerfacecolor": "white", "markeredgecolor": SOFT,
    "markeredgewidth": 1.8,
}  # fmt: skip


def shade_random(axes: Axes, evidence: Evidence) -> dict[str, Mapping[str, Any]]:
    """Grey where alignment along instruction contrasts lies, mean over prompts: a legend's entry, none if not measured.

    The central 95 % of the class of directions that v belongs to, band mean on the frozen model.
    """
    table = if_measured(null_table, evidence, INSTRUCTION)
    if table is None:
        return {}
    axes.axhspan(*spread_of(table.mean(axis=1)), color=SOFT, alpha=0.2, linewidth=0, zorder=0)
    return {"instruction\ncontrasts": {"color": SOFT, "alpha": 0.4, "linewidth": 9, "solid_capstyle": "butt"}}


def difference(evidence: Evidence, wide: pd.DataFrame) -> pd.Series:
    """The mean of harmless prompts less that of inoculating ones, of a table with a column a prompt, row by row."""
    harmless, inoculating = (list(evidence.family(each, list(wide))) for each in (Family.HARMLESS, Family.INOCULATION))
    return (wide[harmless].mean(axis=1) - wide[inoculating].mean(axis=1)).dropna()


def spread_of(values: Iterable[float], share: float = 0.95) -> tuple[float, float]:
    """The central `share` of values, as lower and upper end.

    Raises:
        ValueError: there is no value, or one that is not finite.
    """
    array = finite(np.fromiter(values, dtype=np.float64), "values")
    low, high = np.quantile(array, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)
