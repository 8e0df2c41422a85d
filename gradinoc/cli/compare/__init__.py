"""`gradinoc compare`: print two studies side by side, and draw their figure."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradinoc.claims.evidence.sources import LEARNED_LESS, SIZE, STEEPNESS, TRANSFER, TURN
from gradinoc.claims.evidence.tables import DECISION, EXPECTED, LEARNED, WINDOWS
from gradinoc.claims.rules.verdict import RULES_OF
from gradinoc.cli.compare.comparison import (
    ONE,
    OTHER,
    StudyArtifacts,
    comparison,
    differing_settings,
    read_artifacts,
    verdicts,
)
from gradinoc.cli.output import MISSING, print_table
from gradinoc.errors import StudyError, printable
from gradinoc.report.figures.lettering import drawable, fitted
from gradinoc.report.figures.style import (
    FAINT,
    PANEL,
    Look,
    broken,
    new_figure,
    not_measured,
    save_figure,
    signed,
    styled,
    up_to,
)
from gradinoc.report.tables import write_table
from gradinoc.report.wording import shown
from gradinoc.study.prompts import CONDITIONS, INOCULATION, NEUTRAL
from gradinoc.study.traits.registry import TRAITS

LONGEST = 40  # characters of a setting's value
FIRST, SECOND = Look("#000000", "o", "-"), Look("#CC79A7", "D", "-")  # no condition's colours
ROW, AROUND = 0.5, 1.0  # inches of a row, and of what a panel has around them
APART = 0.16  # rows, from the middle to either study
WORDS = 22  # characters of a line of a row's name
LEGEND = 5.4  # inches, of a study's name
EFFECTS = {  # title of a panel -> claim and key -> as the figure names it
    "difference in alignment (cosine)": {
        ("C1", "families"): "harmless − inoculating prompts",
        ("C3", "prompts"): "the same at equal loss",
        ("C1", f"alignment.{NEUTRAL}"): f"{NEUTRAL} − {INOCULATION}, examples",
        ("C1", f"training.{NEUTRAL}.{WINDOWS[0]}"): "the same, first third of training",
    },
    "share of the neutral drift": {
        ("C6", "removed"): "inoculation removes",
        ("C6", "share"): "beyond harmless prompts",
        ("C6", "rephrased"): "the same, rephrased pair",
    },
    "share of the accounted difference": {
        ("C7a", f"share.{TURN}"): "turn of the update",
        ("C7a", f"share.{SIZE}"): "size of the update",
        ("C7a", f"share.{STEEPNESS}"): "size of the gradient",
        ("C7a", f"share.{TRANSFER}"): "transfer to neutral",
        ("C7a", f"share.{LEARNED_LESS}"): "learned under the own prompt",
        ("C7b", "share"): "along v",
        ("C7b", f"named.{LEARNED}"): "along learned drift",
        ("C7b", "named.responses"): "along the response contrast",
    },
    "accounted difference (nats)": {
        ("C7a", "phi"): "in all",
        ("C7b", "whole"): "through the band",
        ("C7a", "own"): "under the own prompt",
    },
}
DRIFT = {EXPECTED: "drift in the expected {score}", DECISION: "drift in decision log-odds (nats)"}


def compare_studies(first: Path, second: Path, out: Path | None) -> None:
    """Print both studies' verdicts, claims, drift and differing settings; write `compare.csv`, `.png` and `.svg`."""
    if first.resolve() == second.resolve():
        raise StudyError(f"{first}: given twice; expected the folders of two studies")
    one, other = read_artifacts(first), read_artifacts(second)
    names = (_named(one, other), _named(other, one))
    table = comparison(one, other)
    folder = out or second / f"compared-with-{first.resolve().name}"
    _print_verdicts(one, other, names)
    _print_claims(table, names)
    _print_drift(table, names)
    _print_settings(one, other, names)
    path = write_table(table, folder / "compare.csv")
    figure, _ = save_figure(plot_comparison(table, names, _score(one, other)), folder, "compare")
    sys.stdout.write(f"\nTable: {printable(path)}\nFigure: {printable(figure)}\n")


def _named(study: StudyArtifacts, other: StudyArtifacts) -> str:
    """Return a study's name, with its folder's where both have the same."""
    return study.name if study.name != other.name else f"{study.name} in {study.folder}"


def _score(one: StudyArtifacts, other: StudyArtifacts) -> str:
    """Return the name of the score, if both studies have the same built-in trait."""
    trait = one.study.get("trait")
    known = trait if isinstance(trait, str) and trait == other.study.get("trait") else ""
    return TRAITS[known].score_name if known in TRAITS else "trait's score"


def _print_verdicts(one: StudyArtifacts, other: StudyArtifacts, names: tuple[str, str]) -> None:
    first, second = verdicts(one), verdicts(other)
    rows = [[key, first.get(key, MISSING), second.get(key, MISSING)] for key in {**first, **second}]
    print_table(("", *names), rows)


def _print_claims(table: pd.DataFrame, names: tuple[str, str]) -> None:
    """Print the main effect of every gate and claim: all effects are in the file."""
    _head("The effect that stands for each gate and claim (compare.csv has all)")
    rows = table[table["part"] == "claim"]
    headlines = {key: rule.headline for key, rule in RULES_OF.items()}
    stands = rows["key"] == rows["item"].map(headlines)
    rows = rows[stands | ~rows["item"].isin(rows.loc[stands, "item"])].drop_duplicates("item")
    cells = [
        [row.item, row.quantity, _interval(row, ONE), _interval(row, OTHER), _signed(row.difference)]
        for row in rows.itertuples()
    ]
    print_table(("", "effect", *names, "second - first"), cells)


def _print_drift(table: pd.DataFrame, names: tuple[str, str]) -> None:
    _head("Drift by prompt trained under: mean over its runs [least, largest]")
    rows = table[table["part"] == "drift"].sort_values("quantity", kind="stable")
    cells = [
        [row.quantity, shown(row.item), _interval(row, ONE), _interval(row, OTHER), _signed(row.difference)]
        for row in rows.itertuples()
    ]
    print_table(("measure", "prompt", *names, "second - first"), cells)


def _print_settings(one: StudyArtifacts, other: StudyArtifacts, names: tuple[str, str]) -> None:
    _head("Settings that differ")
    rows = [[key, *(_cut(value) for value in values)] for key, *values in differing_settings(one, other)]
    if rows:
        print_table(("setting", *names), rows)
    else:
        sys.stdout.write("none\n")


def _head(text: str) -> None:
    sys.stdout.write(f"\n{text}\n\n")


def _cut(value: str) -> str:
    return (value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…") or MISSING


def _interval(row: object, side: str) -> str:
    value, low, high = (getattr(row, f"{side}{end}") for end in ("", "_low", "_high"))
    return f"{_signed(value)} [{_signed(low)}, {_signed(high)}]" if pd.notna(low) else _signed(value)


def _signed(value: float) -> str:
    """Return a number with a true minus sign; a dash where it is missing."""
    if pd.isna(value):
        return MISSING
    return signed(value) if value == 0 or abs(value) >= 0.1 else f"{value:.2g}".replace("-", "−")


@styled
def plot_comparison(table: pd.DataFrame, names: tuple[str, str], score: str) -> Figure:
    """Draw both studies' effects, with intervals where they have them, and the three conditions' drift over their runs.

    `table` is that of `comparison`, `score` the name of the traits' score.
    """
    named = table[table["part"] == "claim"].set_index(["item", "key"])
    parts = []
    for title, effects in EFFECTS.items():
        rows = named.reindex([effect for effect in effects if effect in named.index])
        parts.append((title, rows.assign(row=[effects[effect] for effect in rows.index])))
    drift = table[(table["part"] == "drift") & table["item"].isin(CONDITIONS)]
    drift = drift.assign(row=drift["item"].map(shown))
    for measure, title in DRIFT.items():
        title = fitted(title.format(score=drawable(score)), up_to(PANEL))
        parts.append((title, drift[drift["key"] == measure]))
    heights = [max(1, len(rows)) * ROW + AROUND for _, rows in parts]
    figure = new_figure("Two studies side by side", sum(heights) + 1.9)
    panels = figure.subplots(len(parts), 1, height_ratios=heights)
    for axes, (title, rows) in zip(panels, parts, strict=True):
        axes.set_title(title, loc="left")
        _draw(axes, rows, title)
    panels[len(EFFECTS) - 1].set_xlabel("estimate and interval at each study's\nlevel; hollow: without an interval")
    panels[-1].set_xlabel("mean and range of the runs")
    handles = [
        panels[0].plot([], [], color=drawn.colour, marker=drawn.marker, linewidth=2, label=broken(name, 48, 2, LEGEND))[
            0
        ]
        for drawn, name in ((FIRST, names[0]), (SECOND, names[1]))
    ]
    figure.legend(handles=handles, loc="outside lower left", frameon=False)
    return figure


def _draw(axes: Axes, rows: pd.DataFrame, title: str) -> None:
    """Draw a row each: the first study above the second, with a line from low to high; hollow where there is none."""
    if rows.empty:
        not_measured(axes, title)
        return
    places = np.arange(len(rows), dtype=float)
    axes.axvline(0, color=FAINT, linewidth=1)
    for side, drawn, aside in ((ONE, FIRST, -APART), (OTHER, SECOND, APART)):
        middle, low, high = (rows[f"{side}{end}"].to_numpy(dtype=float) for end in ("", "_low", "_high"))
        axes.hlines(places + aside, low, high, color=drawn.colour, linewidth=2.4)
        for known, face in ((np.isfinite(low), drawn.colour), (~np.isfinite(low), "white")):
            axes.plot(
                middle[known], places[known] + aside, color=drawn.colour, marker=drawn.marker, linestyle="none",
                markersize=8, markerfacecolor=face, markeredgewidth=1.6,
            )  # fmt: skip
    axes.set_yticks(places, [broken(name, WORDS, 2) for name in rows["row"]])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=5)
