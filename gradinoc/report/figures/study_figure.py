"""The form of a study's figure: its file, the findings that it shows, how it is drawn, its caption and its finding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from gradinoc.claims.tables import Evidence
from gradinoc.report.wording import NOT_MEASURED
from gradinoc.study.rules import Rules


@dataclass(frozen=True)
class Drawn:
    """A figure of one study, its caption, and its finding in one sentence: its alternative text."""

    figure: Figure
    caption: str = NOT_MEASURED
    finding: str = NOT_MEASURED


@dataclass(frozen=True)
class StudyFigure:
    """A figure that every study has.

    Attributes:
        name: of its files, without suffix.
        shows: keys of the findings it belongs to. The first is the section of the report's page that holds it: a
            claim's key, "gates" or "drift".
        draw: from a study's tables and rules.
    """

    name: str
    shows: tuple[str, ...]
    draw: Callable[[Evidence, Rules], Drawn]
