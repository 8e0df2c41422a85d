"""C7a: inoculation turns the update away from what raises neutral drift.

Phi is cosine x length of the way x norm of the gradient.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradinoc.claims.c2 import DIFFERENCE
from gradinoc.claims.evidence.measures import DIVERGED, HARMLESS, INOCULATING, diverged_runs
from gradinoc.claims.evidence.sources import (
    LEARNED_LESS,
    OWN,
    SIZE,
    STEEPNESS,
    TRANSFER,
    TURN,
    Factors,
    accounted,
    factors,
    families_of,
    transfer_factors,
)
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.gates import OF_ACCOUNTS
from gradinoc.claims.rules.criteria import above, above_zero, interval_below
from gradinoc.claims.rules.finding import Claim, Finding, Measured, Outcome, refuted, supported, undecided
from gradinoc.stats.effect import Effect
from gradinoc.stats.families import compare, contrast
from gradinoc.stats.shares.ratios import part_of
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules

WORDS = {
    TURN: "the turn of the update",
    SIZE: "the size of the update",
    STEEPNESS: "the size of the gradient of the log-odds",
    TRANSFER: "transfer to the neutral prompt",
    LEARNED_LESS: "what is learned under the own prompt",
}  # of factors


def _shares(split: Factors, bar: float) -> dict[str, Effect]:
    """Which share of the difference in phi each factor has."""
    return {
        f"share.{name}": part_of(part, split.whole, DIFFERENCE, f"share of the difference due to {WORDS[name]}", bar)
        for name, part in split.parts.items()
    }


def _turned(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """Cosine of update and neutral gradient by family, and which share of the difference in phi is due to it."""
    if diverged_runs(evidence):
        return Measured({}, DIVERGED)
    split = factors(evidence)
    name = "cosine of the update with the gradient of the neutral log-odds, harmless - inoculating"
    effects = {"turn": contrast(split.turns, DIFFERENCE, name, 1 - rules.alpha), **_shares(split, rules.turned)}
    phi = families_of(evidence, accounted(evidence))
    effects["phi"] = contrast(phi, DIFFERENCE, "accounted neutral drift, harmless - inoculating, nats", 1 - rules.alpha)
    effects |= _transfer(evidence, rules, secondary=secondary)
    statement = (
        f"Of the neutral drift harmless runs have {effects['phi']} nats more than inoculating ones, to first order. "
        f"The turn of the update has a share of {effects['share.turn']}, its size {effects['share.size']}."
    )
    return Measured(effects, statement)


def _transfer(evidence: Evidence, rules: Rules, *, secondary: bool) -> dict[str, Effect]:
    """How much of what is learned under the own prompt reaches neutral; and the difference split into the two."""
    split, level = transfer_factors(evidence), 1 - rules.alpha
    effects = _shares(split, 0.0)
    effects["transfer"] = contrast(split.turns, DIFFERENCE, "transfer to neutral, harmless - inoculating", level)
    if not secondary:
        return effects
    for key, share in _shares(transfer_factors(evidence, "measured"), 0.0).items():
        effects[key.replace("share", "measured")] = replace(share, name=f"{share.name}, as measured")
    own = families_of(evidence, accounted(evidence, OWN))
    effects["own"] = contrast(own, DIFFERENCE, "learned under the own prompt, harmless - inoculating, nats", level)
    phi = families_of(evidence, accounted(evidence))
    for family in (HARMLESS, INOCULATING):
        name = f"transfer to neutral, {family} prompts"
        effects[f"transfer.{family}"] = contrast(split.turns, {family: 1.0}, name, level)
        name = f"accounted neutral drift, neutral - {family} runs, nats"
        effects[f"phi.neutral.{family}"] = compare(phi, NEUTRAL, family, name)
    return effects


def _turns(found: Measured, rules: Rules) -> Outcome:
    """Supported if the cosine is lower under inoculation and has half of the difference or more; refuted below that."""
    if not found.effects:
        return undecided(found.statement)
    turn, share, size = found["turn"], found["share.turn"], found["share.size"]
    lower, most, less = above_zero(turn), above(share, rules.turned), interval_below(share, rules.turned)
    criteria = (lower, most, less, above(size, rules.turned))
    if not np.isfinite(share.low):
        return undecided(f"Undecided because the share has no interval: {share.method}.", *criteria)
    if lower and most:
        return supported(f"The cosine is lower under inoculation, and has more than {rules.turned:g}.", *criteria)
    if less:
        return refuted(f"The interval of the turn's share lies below {rules.turned:g}.", *criteria)
    return undecided(f"Undecided because the turn's share is not shown to be above {rules.turned:g}.", *criteria)


def by_size(finding: Finding, rules: Rules) -> bool:
    """Whether more than half of the difference is shown to be due to the size of updates, of C7a's finding."""
    size = finding.get("share.size")
    return size is not None and bool(above(size, rules.turned))


C7A = Claim(
    "C7a",
    "Inoculation turns the update away from what raises neutral drift.",
    _turned,
    _turns,
    OF_ACCOUNTS,
    "Phi, the neutral drift that a run's steps account for, is cosine x size of the update x size of the gradient. "
    "Supported if the cosine of harmless prompts is above that of inoculating ones ({level} interval above zero) and "
    "the interval of its share of the difference in phi lies above {turned}. Refuted if that lies below {turned}. "
    "Otherwise undecided.",
    headline="share.turn",
    needs=("attribution", "lengths"),
)
