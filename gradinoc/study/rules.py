"""The bars that decide."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gradinoc.study.fields import Fraction, Name, Section

VERSION = 2  # of the rules: what is measured, and what decides


Positive = Annotated[float, Field(strict=True, gt=0)]


class Rules(Section):
    """The bars that decide, fixed before any result was seen that they decide.

    Attributes:
        alpha: level of every test; intervals are two-sided at 1 - alpha.
        auc, split_half: least AUC and split-half cosine of the trait direction in the band (G1, G2).
        elicited: least rise of the expected score (fraction of the scale) that promoting and inoculating prompts have
            to be shown to make (G7); elicited_nats: least rise of the decision log-odds where scores are too weak.
        either_loss: by how much steering may raise the loss of either form at the places that decide, nats (G8).
        least_drift: least drift of neutral runs, fraction of the scale (G5).
        ceiling: mean score above which nothing is left to explain: of every condition (G5); of neutral runs, from
            where log-odds decide in the score's place (C4, C6).
        room: share of neutral drift below which harmless runs leave none.
        max_unscorable: share of responses that cannot be scored (G6).
        agreement: by how much the shares removed may differ between measures; rank_agreement: least rank correlation
            of runs (G9).
        lead: how many times its size along an unrelated trait the effect has to be (C2).
        equal_loss: share of the effect that may be left where loss is said to explain it (C3).
        share: least share of the neutral drift that is inoculation's own (C6).
        accounted: between which slopes of measured on accounted change, and accounted_r2: with which R^2 at least, a
            run's steps account for what came of them (G10).
        turned: share of the difference in accounted drift that is due to the turn of updates (C7a), or to their size
            (MAGNITUDE).
        carried: share of that difference which runs along the direction (C7b).
        removed: share of what inoculation removes that removing the component along the direction has to remove (C5).
        projected: |cosine| with the direction below which a projected gradient has no component left but rounding;
            cut: share of the neutral runs' shift along it that has to be gone (G11).
        alike: by how much loss or weights may change more or less for runs to be compared at their ends (C5).
        signs: least share of specifications whose sign is that of a contrast which decides; below it the verdict warns.
    """

    alpha: Annotated[float, Field(strict=True, gt=0, lt=0.5)] = 0.05  # a two-sided interval has a level above 0
    auc: Fraction = 0.9
    split_half: Fraction = 0.8
    elicited: Fraction = 0.10
    elicited_nats: Annotated[float, Field(strict=True, ge=0)] = 0.5
    either_loss: Annotated[float, Field(strict=True, ge=0)] = 0.2
    least_drift: Fraction = 0.10
    ceiling: Fraction = 0.95
    room: Fraction = 0.15
    max_unscorable: Fraction = 0.05
    agreement: Fraction = 0.25
    rank_agreement: Fraction = 0.7
    lead: Annotated[float, Field(strict=True, ge=1)] = 2.0
    equal_loss: Fraction = 0.25
    share: Fraction = 0.25
    accounted: tuple[Positive, Positive] = (0.8, 1.25)
    accounted_r2: Fraction = 0.9
    turned: Fraction = 0.5
    carried: Fraction = 0.25
    removed: Fraction = 0.25
    projected: Positive = 0.005
    cut: Fraction = 0.8
    alike: Fraction = 0.05
    signs: Fraction = 0.8


class Published(Section):
    """What was published of a ready study before the present rules were made, to be shown beside what they come to.

    Attributes:
        dtype: that in which the published numbers were computed.
        carried: share along the direction that C7b found of what inoculation changes, on this model and trait.
        first_verdict: by version 1 of the rules. It had been seen when version 2's were made.
    """

    dtype: Name | None = None
    carried: float | None = None
    first_verdict: Literal["supported", "loss_mediated", "refuted", "undecided"] | None = None
