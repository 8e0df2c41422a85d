"""Panels of how far runs moved: a prompt a row, a point a run, the mean of each family behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradinoc.claims.evidence.measures import drift_by_question, drift_families
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.report.figures.prompts.families import NAMES, by_families, family_of, is_rephrased, look
from gradinoc.report.figures.prompts.rows import draw_family_means
from gradinoc.report.figures.study_figure import told
from gradinoc.report.figures.style import FAINT, SOFT, not_measured
from gradinoc.report.numbers import if_measured
from gradinoc.report.wording import listed
from gradinoc.stats.effect import Effect
from gradinoc.stats.families import contrast
from gradinoc.study.prompts.family import Family


def shifts_by_run(evidence: Evidence, measure: str) -> pd.Series:
    """Mean drift of each run: index (condition, seed); empty where it was not measured."""
    wide = if_measured(drift_by_question, evidence, measure, False)
    if wide is None or wide.empty:
        return pd.Series(dtype=float)
    return wide.mean().dropna()


def family_shifts(evidence: Evidence, measure: str) -> dict[Family, Effect]:
    """Family -> its mean drift over prompts, of neutral over runs, as C6 and G5 rest on it."""
    families = if_measured(drift_families, evidence, measure)
    if families is None:
        return {}
    keys = families.values  # noqa: PD011 - not of pandas
    found = {Family(key): contrast(families, {key: 1.0}, f"{measure}, {key}") for key in keys}
    return {family: found[family] for family in Family if family in found}


def families_in_words(effects: Mapping[Family, Effect]) -> str:
    """Each family's mean drift with its interval."""
    counted = {key: replace(each, unit="runs") if key is Family.NEUTRAL else each for key, each in effects.items()}
    return listed((NAMES[key], told(each)) for key, each in counted.items()) or "not measured"


def draw_shifts(axes: Axes, evidence: Evidence, measure: str, rows: Mapping[str, float]) -> bool:
    """Whether anything was measured: every run a point on its prompt's row, a family's mean behind; zero as a line."""
    runs = shifts_by_run(evidence, measure)
    if runs.empty:
        not_measured(axes, "drift")
        return False
    axes.axvline(0, color=FAINT, linewidth=1)
    members = {
        family: [name for name in names if not is_rephrased(evidence, name)]
        for family, names in by_families(evidence, rows).items()
    }
    draw_family_means(axes, rows, members, family_shifts(evidence, measure))
    for name, row in rows.items():
        if name not in runs.index:
            axes.text(0.5, row, "–", transform=axes.get_yaxis_transform(), ha="center", va="center", color=SOFT)
            continue
        own, style = runs[name].to_numpy(dtype=float), look(evidence, name)
        hollow = is_rephrased(evidence, name)
        offsets = np.linspace(-0.2, 0.2, len(own)) if len(own) > 1 else np.zeros(1)
        axes.plot(
            own, row + offsets, linestyle="", marker=style.marker, markersize=8, alpha=0.9, zorder=4,
            markerfacecolor="white" if hollow else style.colour, markeredgecolor=style.colour if hollow else "white",
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(4))
    return True


def shift_table(evidence: Evidence, measures: Sequence[str]) -> pd.DataFrame:
    """A row a run: condition, family, seed, and its drift by each of `measures`."""
    table = pd.DataFrame({measure: shifts_by_run(evidence, measure) for measure in measures})
    if table.empty:
        return table
    table.index.names = ["condition", "seed"]
    table = table.reset_index()
    table.insert(1, "family", [str(family_of(evidence, name)) for name in table["condition"]])
    return table
