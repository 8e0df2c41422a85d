"""`gradinoc compare`: two studies side by side, as tables and a figure."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

from gradinoc.cli.compare_figure import plot_comparison
from gradinoc.cli.comparison import ONE, OTHER, Left, comparison, differing_settings, read_left, verdicts
from gradinoc.cli.output import MISSING, say_table
from gradinoc.errors import StudyError, printable
from gradinoc.report.figures.style import save_figure, signed
from gradinoc.report.tables import write_table
from gradinoc.report.wording import shown
from gradinoc.study.traits.registry import TRAITS

LONGEST = 40  # characters of a setting's value


def compare_studies(first: Path, second: Path, out: Path | None) -> None:
    """Print both studies' verdicts, claims, drift and differing settings; write `compare.csv`, `.png` and `.svg`."""
    if first.resolve() == second.resolve():
        raise StudyError(f"{first}: given twice; expected the folders of two studies")
    one, other = read_left(first), read_left(second)
    names = (_named(one, other), _named(other, one))
    table = comparison(one, other)
    folder = out or second / f"compared-with-{first.resolve().name}"
    _say_verdicts(one, other, names)
    _say_claims(table, names)
    _say_drift(table, names)
    _say_settings(one, other, names)
    path = write_table(table, folder / "compare.csv")
    figure, _ = save_figure(plot_comparison(table, names, _score(one, other)), folder, "compare")
    sys.stdout.write(f"\nTable: {printable(path)}\nFigure: {printable(figure)}\n")


def _named(left: Left, other: Left) -> str:
    """A study's name; with its folder's where both have the same."""
    return left.name if left.name != other.name else f"{left.name} in {left.folder}"


def _score(one: Left, other: Left) -> str:
    """What both studies' score is called, if they have one trait, and one that comes with the project."""
    trait = one.study.get("trait")
    known = trait if isinstance(trait, str) and trait == other.study.get("trait") else ""
    return TRAITS[known].score_name if known in TRAITS else "trait's score"


def _say_verdicts(one: Left, other: Left, names: tuple[str, str]) -> None:
    first, second = verdicts(one), verdicts(other)
    rows = [[key, first.get(key, MISSING), second.get(key, MISSING)] for key in {**first, **second}]
    say_table(("", *names), rows)


HEADLINES = {"C3": "alignment at equal loss, regression"}  # where the first effect does not stand for the claim


def _say_claims(table: pd.DataFrame, names: tuple[str, str]) -> None:
    """Of every gate and claim the effect that stands for it: all of them are in the file."""
    _head("The effect that stands for each gate and claim (compare.csv has all)")
    rows = table[table["part"] == "claim"]
    other = rows["item"].map(HEADLINES)
    rows = rows[other.isna() | (rows["quantity"] == other)].drop_duplicates("item")
    cells = [
        [row.item, row.quantity, _interval(row, ONE), _interval(row, OTHER), _signed(row.difference)]
        for row in rows.itertuples()
    ]
    say_table(("", "effect", *names, "second - first"), cells)


def _say_drift(table: pd.DataFrame, names: tuple[str, str]) -> None:
    _head("Drift by condition: mean over seeds [least, largest]")
    rows = table[table["part"] == "drift"].sort_values("quantity", kind="stable")
    cells = [
        [row.quantity, shown(row.item), _interval(row, ONE), _interval(row, OTHER), _signed(row.difference)]
        for row in rows.itertuples()
    ]
    say_table(("measure", "condition", *names, "second - first"), cells)


def _say_settings(one: Left, other: Left, names: tuple[str, str]) -> None:
    _head("Settings that differ")
    rows = [[key, *(_cut(value) for value in values)] for key, *values in differing_settings(one, other)]
    if rows:
        say_table(("setting", *names), rows)
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
    """A number with a true minus sign; a dash where it is missing."""
    if pd.isna(value):
        return MISSING
    return signed(value) if value == 0 or abs(value) >= 0.1 else f"{value:.2g}".replace("-", "−")
