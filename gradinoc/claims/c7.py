"""C7: where the drift comes from, in the space of weights; no direction is needed to begin with.

Phi is what a run's steps account for of the change of the decision log-odds S under the neutral prompt: the sum of
<step, gradient of S>, with the steps that the optimiser took. It is cosine x length of the way x norm of the gradient
(C7a), and at a layer a sum over directions of the residual stream (C7b). C7c asks what could be told before training.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from gradinoc.claims.c2 import DIFFERENCE
from gradinoc.claims.c4 import by_prompt, covariates_of
from gradinoc.claims.criteria import above, above_zero, at_or_below_zero, interval_below, p_at_most
from gradinoc.claims.finding import Claim, Finding, Measured, Outcome, refuted, supported, undecided
from gradinoc.claims.gates import OF_DRIFT
from gradinoc.claims.measures import (
    DIVERGED,
    HARMLESS,
    INOCULATING,
    NOT_SCORED,
    diverged_runs,
    matrix,
    nothing_scored,
    per_example,
)
from gradinoc.claims.sources import (
    LEARNED_LESS,
    OWN,
    SIZE,
    STEEPNESS,
    TRANSFER,
    TURN,
    Factors,
    accounted,
    along,
    along_nulls,
    factors,
    families_of,
    prompts_of,
    transfer_factors,
)
from gradinoc.claims.tables import DECISION, FULL, LORA, TRAIT_DIRECTION, WHOLE, Evidence
from gradinoc.stats.effect import Effect, bare, mean_effect
from gradinoc.stats.families import Families, compare, contrast
from gradinoc.stats.places import place_among
from gradinoc.stats.prediction import left_out_r2, prediction
from gradinoc.stats.prompt_slope import prompt_slope
from gradinoc.stats.ratios import part_of
from gradinoc.stats.reach import smallest_rank_p
from gradinoc.study.description import NULLS
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules

SEED_OF_ORDERS = 0
ORDERS = 999  # permutations of prompts, where R^2 is computed anew for each
OF_ACCOUNTS = (*OF_DRIFT, "G10")
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
    if secondary:
        effects |= _transfer(evidence, rules)
    statement = (
        f"Of the neutral drift harmless runs have {effects['phi']} nats more than inoculating ones, to first order. "
        f"The turn of the update has a share of {effects['share.turn']}, its size {effects['share.size']}."
    )
    return Measured(effects, statement)


def _transfer(evidence: Evidence, rules: Rules) -> dict[str, Effect]:
    """How much of what is learned under the own prompt reaches neutral; and the difference split into the two."""
    split, level = transfer_factors(evidence), 1 - rules.alpha
    effects = _shares(split, 0.0)
    effects["transfer"] = contrast(split.turns, DIFFERENCE, "transfer to neutral, harmless - inoculating", level)
    own = families_of(evidence, accounted(evidence, OWN))
    effects["own"] = contrast(own, DIFFERENCE, "learned under the own prompt, harmless - inoculating, nats", level)
    for family in (HARMLESS, INOCULATING):
        reached = split.turns.means[family]
        effects[f"transfer.{family}"] = mean_effect(reached, f"transfer to neutral, {family} prompts", "prompts", level)
    phi = families_of(evidence, accounted(evidence))
    for family in (HARMLESS, INOCULATING):
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
    """Whether at least half of the difference is shown to be due to the size of updates, of C7a's finding."""
    size = finding.get("share.size")
    return size is not None and bool(above(size, rules.turned))


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
        effects |= _named(evidence, whole)
    places = "; ".join(f"{NULLS[null].label} {effects[f'null.{null}'].p:.2g}" for null in NULLS)
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


def _foretold(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """Drift of the log-odds on what the kernel says before training, over prompts; and how well each is predicted."""
    if diverged_runs(evidence):
        return Measured({}, DIVERGED)
    if nothing_scored(evidence):
        return Measured({}, NOT_SCORED)
    prompts, kernel = by_prompt(evidence), kernel_of(evidence, LORA)
    names = [name for name in prompts.index if name in kernel.index]
    prompts, foreseen = prompts.loc[names], kernel.loc[names, NEUTRAL].to_numpy(dtype=np.float64)
    drift = prompts[DECISION].to_numpy(dtype=np.float64)
    alignment = per_example(evidence)[names].mean().to_numpy(dtype=np.float64)
    rng = np.random.default_rng(SEED_OF_ORDERS)
    name = "neutral drift of log-odds per unit of the kernel, at equal elicitation, length and loss"
    effects = {
        "slope": prompt_slope(foreseen, drift, covariates_of(prompts), rng, name),
        "r2": prediction(foreseen, drift, "left-out R2 of neutral drift by the kernel", rng, ORDERS),
    }
    statement = (
        f"Over {len(names)} prompts neutral drift goes with the kernel before training by {effects['slope']}; left out "
        f"one at a time, drift is predicted with R2 {effects['r2'].estimate:.2f} (p {effects['r2'].p:.2g})"
    )
    if secondary:
        name = "left-out R2 of neutral drift by cos(-g, v)"
        effects["r2.alignment"] = prediction(alignment, drift, name, rng, ORDERS)
        statement += f", by alignment with {effects['r2.alignment'].estimate:.2f}"
        trained = matrix(evidence)
        shared = [each for each in trained.columns if each in kernel.columns]
        cells, found = kernel.loc[names, shared].to_numpy(), trained.loc[names, shared].to_numpy()
        effects["r2.matrix"] = prediction(cells, found, "left-out R2 of the matrix by the kernel", rng, ORDERS)
        full = kernel_of(evidence, FULL).loc[names, NEUTRAL].to_numpy(dtype=np.float64)
        r2, count = left_out_r2(full, drift), len(names)
        effects["r2.full"] = bare(
            "left-out R2 by the kernel of the full weights", r2, count, "prompts", "leave-one-out R2"
        )
    return Measured(effects, f"{statement}.")


def kernel_of(evidence: Evidence, space: str) -> pd.DataFrame:
    """The kernel before training, nats per learning rate: a row a prompt, a column an evaluation prompt."""
    rows = evidence.kernel[evidence.kernel["space"] == space]
    return rows.pivot_table(index="condition", columns="evaluation", values="kernel", observed=True)


def _foretells(found: Measured, rules: Rules) -> Outcome:
    """Supported if drift rises with the kernel and each prompt's is predicted from the others'; refuted if it falls."""
    if not found.effects:
        return undecided(found.statement)
    slope, r2 = found["slope"], found["r2"]
    follows, shown, against = above_zero(slope), p_at_most(slope, rules.alpha), at_or_below_zero(slope)
    predicts = p_at_most(r2, rules.alpha)
    criteria = (follows, shown, predicts, against)
    if not np.isfinite(slope.estimate):
        return undecided(f"Undecided because no slope can be told: {slope.method}.", *criteria)
    if follows and shown and predicts:
        return supported("Drift rises with the kernel, and is predicted by it.", *criteria)
    if against:
        return refuted("The slope's interval lies at or below zero.", *criteria)
    return undecided(f"Undecided because drift is not shown to follow the kernel (p {slope.p:.2g}).", *criteria)


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
    needs="attribution",
)
C7B = Claim(
    "C7b",
    "What inoculation changes runs along the trait direction.",
    _along,
    _runs_along,
    (*OF_ACCOUNTS, "G8a", "G8b"),
    "Supported if the {level} interval of the share of the difference in phi that runs along v, mean over the band, "
    "lies above {carried} with a p among each null of at most {alpha}. Refuted if it lies below {carried}. Otherwise "
    "undecided.",
    headline="share",
    needs="shares",
)
C7C = Claim(
    "C7c",
    "Gradients before training foretell the drift.",
    _foretold,
    _foretells,
    OF_DRIFT,
    "Supported if over prompts, neutral left out, neutral drift of the log-odds rises with the kernel between the "
    "training gradient and that of the log-odds, before training and at equal elicitation, length and loss ({level} "
    "interval above zero, p by permutation at most {alpha}), and predicts prompts that are left out (p at most "
    "{alpha}). Refuted if the interval lies at or below zero. Otherwise undecided. It decides no verdict.",
    headline="r2",
    needs="kernel",
)
