"""The bars that decide."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gradinoc.study.fields import Fraction, Section, whole


class Rules(Section):
    """The bars that decide, fixed before any result was seen; `gradinoc.claims.verdict` says what each is for."""

    alpha: Annotated[float, Field(strict=True, gt=0, lt=0.5)] = 0.05  # a two-sided interval has a level above 0
    auc: Fraction = 0.9
    split_half: Fraction = 0.8
    max_unscorable: Fraction = 0.05
    ceiling: Fraction = 0.95
    null_margin: Fraction = 0.25
    loss_match: Fraction = 0.25
    overlap: Fraction = 0.2
    equivalence: Fraction = 0.10
    early_fraction: Fraction = 0.2
    correlation_margin: Annotated[float, Field(strict=True, ge=0.001, lt=1)] = 0.3
    bins: Annotated[int, whole(2)] = 5
