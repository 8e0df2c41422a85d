"""The form of a study's figure: its file, the findings that it shows, how it is drawn, and what it says in words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.report.wording import NOT_MEASURED, between, rounded
from gradinoc.stats.effect import Effect
from gradinoc.study.rules import Rules


@dataclass(frozen=True)
class Drawn:
    """A figure of one study, its caption, its finding in one sentence (its alternative text), and what it draws.

    `table` has a row for everything that is drawn with a number of its own, effects with their intervals; it is empty
    where another table of the study says the same.
    """

    figure: Figure
    caption: str = NOT_MEASURED
    finding: str = NOT_MEASURED
    table: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class StudyFigure:
    """A figure that every study has.

    Attributes:
        name: of its files, without suffix.
        shows: keys of the findings it belongs to. The first is the section of the report's page that holds it: a
            claim's key, "gates" or "drift".
        draw: from a study's tables and rules.
        wide: whether it takes the whole width of a page.
    """

    name: str
    shows: tuple[str, ...]
    draw: Callable[[Evidence, Rules], Drawn]
    wide: bool = False


def told(effect: Effect, *more: str, units: str = "") -> str:
    """An effect in words, without what a design cannot give: "0.12 nats (0.109 to 0.131, n = 96 examples)"."""
    interval = (between(effect),) if math.isfinite(effect.low) and math.isfinite(effect.high) else ()
    counted = f"n = {effect.n} {effect.unit.removesuffix('s') if effect.n == 1 else effect.unit}"
    return f"{rounded(effect.estimate)}{units and ' ' + units} ({', '.join((*interval, *more, counted))})"
