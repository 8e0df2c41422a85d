"""C7b: what inoculation changes runs along the trait direction.

At a layer phi is a sum over directions of the residual stream; what runs along one of them is its share.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradinoc.claims.c2 import DIFFERENCE
from gradinoc.claims.evidence.measures import DIVERGED, HARMLESS, INOCULATING, diverged_runs
from gradinoc.claims.evidence.sources import accounted, along, along_nulls, families_of, prompts_of
from gradinoc.claims.evidence.tables import TRAIT_DIRECTION, WHOLE, Evidence
from gradinoc.claims.gates import OF_ACCOUNTS
from gradinoc.claims.rules.criteria import above, interval_below, p_at_most
from gradinoc.claims.rules.finding import Claim, Measured, Outcome, in_words, refuted, supported, undecided
from gradinoc.stats.effect import Effect, bare
from gradinoc.stats.families import Families, contrast
from gradinoc.stats.places import place_among
from gradinoc.stats.reach import smallest_rank_p
from gradinoc.stats.shares.ratios import part_of
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules
from gradinoc.study.settings import NULLS


def _along(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """Which share of the difference in phi runs along v in the band, and its place among other directions."""
    if diverged_runs(evidence):
        return Measured({}, DIVERGED)
    whole = families_of(evidence, along(evidence, WHOLE), "attribution")
    trait = families_of(evidence, along(evidence, TRAIT_DIRECTION), "attribution")
    share = part_of(trait, whole, DIFFERENCE, "share of the difference that runs along v", rules.carried)
    effects, fewest = {"share": share}, 0
    observed = contrast(trait, DIFFERENCE, "accounted along v, harmless - inoculating, nats", 1 - rules.alpha)
    total = contrast(whole, DIFFERENCE, "accounted by way of the band, harmless - inoculating, nats", 1 - rules.alpha)
    effects["whole"] = total
    if not np.isfinite(observed.standard_error):
        return Measured(effects, f"What runs along v cannot be told: {observed.method}.")
    harmless, inoculating = (prompts_of(evidence, family) for family in (HARMLESS, INOCULATING))
    for null, kind in NULLS.items():
        table = along_nulls(evidence, null)[[*harmless, *inoculating]].to_numpy(dtype=np.float64)
        first = np.arange(table.shape[1]) < len(harmless)
        effects[f"null.{null}"] = replace(place_among(observed, table, first), name=f"v among {kind.label}")
        fewest = min(fewest or len(table), len(table))
        if secondary:
            shares = (table[:, first].mean(axis=1) - table[:, ~first].mean(axis=1)) / total.estimate
            effects[f"random.{null}"] = _spread(shares, f"share along {kind.label}", rules)
    if secondary:
        name = "share along v of the difference neutral - inoculating runs"
        effects["share.neutral"] = part_of(trait, whole, {NEUTRAL: 1.0, INOCULATING: -1.0}, name, rules.carried)
        effects |= _named(evidence, whole) | _of_phi(evidence, whole)
    places = "; ".join(f"{NULLS[null].label} {in_words(effects[f'null.{null}'].p)}" for null in NULLS)
    statement = (
        f"Of the difference between harmless and inoculating runs, by way of the band, {effects['share']} runs along "
        f"v; its p among other directions: {places}."
    )
    return Measured(effects, statement, {"smallest p": smallest_rank_p(fewest)})


def _spread(shares: np.ndarray, name: str, rules: Rules) -> Effect:
    """The mean over directions, and between which bounds all but alpha of them lie."""
    low, high = np.quantile(shares, [rules.alpha / 2, 1 - rules.alpha / 2])
    effect = bare(name, float(shares.mean()), len(shares), "directions", "quantiles over directions")
    return replace(effect, low=float(low), high=float(high), level=1 - rules.alpha)


def _named(evidence: Evidence, whole: Families) -> dict[str, Effect]:
    """The share along every direction that has a name but v and the whole."""
    names = [name for name in evidence.shares["direction"].unique() if name not in (WHOLE, TRAIT_DIRECTION)]
    return {
        f"named.{name}": part_of(
            families_of(evidence, along(evidence, name)), whole, DIFFERENCE, f"share along {name.replace('_', ' ')}"
        )
        for name in names
    }


def _of_phi(evidence: Evidence, whole: Families) -> dict[str, Effect]:
    """Which part of the difference in phi passes through the band at all, and which share of it runs along each."""
    wide = accounted(evidence).loc[along(evidence, WHOLE).index]
    phi = families_of(evidence, wide)
    name = "part of the difference in phi that passes through the band"
    effects = {"through": part_of(whole, phi, DIFFERENCE, name)}
    for direction in evidence.shares["direction"].unique():
        if direction != WHOLE:
            key = "share_of_phi" if direction == TRAIT_DIRECTION else f"named_of_phi.{direction}"
            words = "v" if direction == TRAIT_DIRECTION else direction.replace("_", " ")
            part = families_of(evidence, along(evidence, direction))
            effects[key] = part_of(part, phi, DIFFERENCE, f"share of the difference in phi along {words}")
    return effects


def _runs_along(found: Measured, rules: Rules) -> Outcome:
    """Supported if the share's lower bound reaches the bar with small p among every null; refuted if it lies below."""
    if not found.effects:
        return undecided(found.statement)
    share = found["share"]
    enough, less = above(share, rules.carried), interval_below(share, rules.carried)
    tails = [p_at_most(found[f"null.{null}"], rules.alpha) for null in NULLS if f"null.{null}" in found]
    criteria = (enough, less, *tails)
    if not np.isfinite(share.low):
        return undecided(f"Undecided because the share has no interval: {share.method}.", *criteria)
    if enough and all(tails):
        return supported(f"More than {rules.carried:g} runs along v, more than along other directions.", *criteria)
    if less:
        return refuted(f"The share's interval lies below {rules.carried:g}.", *criteria)
    why = "other directions carry as much" if enough else f"the share is not shown to be above {rules.carried:g}"
    return undecided(f"Undecided because {why}.", *criteria)


C7B = Claim(
    "C7b",
    "What inoculation changes runs along the trait direction.",
    _along,
    _runs_along,
    (*OF_ACCOUNTS, "G8a", "G8b"),
    "Supported if the {level} interval of the share, of what passes through the band's layers of the difference in "
    "phi, that runs along v lies above {carried} with a p among each null of at most {alpha}. Refuted if it lies below "
    "{carried}. Otherwise undecided.",
    headline="share",
    needs=("attribution", "shares", "share_nulls"),
)
