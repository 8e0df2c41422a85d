"""A table of a page: columns with their units, rows of text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradinoc.report.wording import number
from gradinoc.stats.effect import Effect


@dataclass(frozen=True)
class Column:
    """A column: the name of its values in a row, its title, its unit, and whether it holds numbers."""

    name: str
    title: str
    unit: str = ""
    numeric: bool = True

    def text(self, row: Mapping[str, Any]) -> str:
        """The text of this column in a row."""
        value = row[self.name]
        return str(value) if isinstance(value, int) else number(value) if self.numeric else str(value)


@dataclass(frozen=True)
class Grid:
    """Rows of text below columns; the first cell of a row names it. `about` says what it shows, and what not."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    about: str = ""


def grid(title: str, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], about: str = "") -> Grid:
    """A table with the text of every column in every row."""
    return Grid(title, tuple(columns), tuple(tuple(each.text(row) for each in columns) for row in rows), about)


EFFECT = (
    Column("name", "effect", numeric=False), Column("estimate", "estimate"),
    Column("interval", "interval", numeric=False), Column("n", "n"), Column("unit", "n counts", numeric=False),
)  # fmt: skip


def effect_row(effect: Effect, **further: Any) -> dict[str, Any]:
    """The row of an effect in a table with the columns `EFFECT` and those of `further`."""
    return {
        "name": effect.name, "estimate": effect.estimate, "interval": interval(effect), "n": effect.n,
        "unit": effect.unit, "method": effect.method, **further,
    }  # fmt: skip


def blank_row(name: str, **further: Any) -> dict[str, Any]:
    """The row of what was not measured, in a table with the columns `EFFECT` and those of `further`."""
    return {"name": name, "estimate": math.nan, "interval": "–", "n": 0, "unit": "–", **further}


def interval(effect: Effect) -> str:
    """Both ends and the level of an effect's interval; a dash where it has none."""
    if number(effect.low) == "–":
        return "–"
    return f"{number(effect.low)} to {number(effect.high)} ({100 * effect.level:g}\u00a0%)"
