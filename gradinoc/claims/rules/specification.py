"""The specification curve: the contrast that decides, under every other choice that could have been declared.

Directions (three wordings of the trait's prompts and the contrast of responses) x positions x thirds of the layers x
{frozen, thirds of training} x measures (mean cosine, push, cosine of the mean gradient): each cell is the mean of
harmless prompts less that of inoculating ones. What decides (C1) is the mean over the band on the frozen model: cells
agree if they have its sign. The cell that is marked is its own but for the layers, of which it has the upper third.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from gradinoc.claims.c1 import family_contrast
from gradinoc.claims.evidence.tables import COSINE, FROZEN, TRAIT_DIRECTION, Evidence
from gradinoc.claims.evidence.wide import once
from gradinoc.stats.specifications import Curve, summarise
from gradinoc.study.description import POSITIONS
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules

CELL = ("direction", "position", "window", "third", "measure")
LAST_THIRD = 2
DECLARED = (TRAIT_DIRECTION, POSITIONS[0], FROZEN, LAST_THIRD, COSINE)


@dataclass(frozen=True)
class Specifications:
    """Every cell's contrast, and how their signs are shared."""

    cells: pd.Series  # index CELL, contrast in the cell's own units
    decides: float  # the contrast of C1, cosine

    @cached_property
    def curve(self) -> Curve:
        """Shares of cells by sign, the declared one marked."""
        return summarise({key: float(value) for key, value in self.cells.items()}, DECLARED, self.decides)

    @property
    def same_sign(self) -> float:
        """Share of cells with the sign of the contrast that decides."""
        return self.curve.agreeing

    def agreed(self, rules: Rules) -> bool:
        """Whether enough cells have its sign."""
        return self.same_sign >= rules.signs

    @property
    def warning(self) -> str:
        """What is to be said where they have not."""
        return (
            f"Only {100 * self.same_sign:.0f} % of {self.curve.cells} specifications show the sign of the contrast "
            "that decides."
        )


@once
def curve_of(evidence: Evidence) -> Specifications | None:
    """The specification curve; None where no cell was measured."""
    if evidence.cells.empty:
        return None
    means = evidence.cells.groupby([*CELL, "condition"], observed=True)["value"].mean()  # over seeds
    wide = means.unstack("condition")  # noqa: PD010 - a series has no pivot_table
    harmless, inoculating = (
        list(evidence.family(family, list(wide.columns))) for family in (Family.HARMLESS, Family.INOCULATION)
    )
    cells = (wide[harmless].mean(axis=1) - wide[inoculating].mean(axis=1)).dropna()
    return Specifications(cells, family_contrast(evidence, Rules()).estimate)  # bars have no say in an estimate
