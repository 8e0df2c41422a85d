"""C5: removing the gradient's component along the direction removes the drift, and giving it back brings it back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from scipy import stats

from gradinoc.claims.evidence.arms import (
    REMOVED,
    Chosen,
    arm_families,
    arms_of,
    by_strength,
    compared,
    less_twin,
    mean_drift,
    removes,
)
from gradinoc.claims.evidence.measures import DIVERGED, NOT_SCORED, deciding_measure, diverged_runs, nothing_scored
from gradinoc.claims.evidence.same_loss import at_same_loss, less_twin_at_same_loss
from gradinoc.claims.evidence.tables import PROJECTION, Evidence
from gradinoc.claims.gates import OF_DRIFT
from gradinoc.claims.gates.interventions import G11
from gradinoc.claims.rules.criteria import Criterion, above, interval_below, p_at_most, positive
from gradinoc.claims.rules.finding import Claim, Measured, Outcome, refuted, supported, undecided
from gradinoc.stats.effect import Array, Effect, bare, mean_effect, null_p
from gradinoc.stats.reach import smallest_rank_p
from gradinoc.stats.regression.correlation import pearson, stratified_p
from gradinoc.stats.shares.ratios import ratio
from gradinoc.study.arms import ABLATE, FULL, LEARNED, PROJECT, RESTORE, SHRINK, STEER, TRAIT
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

OVER, UNDER = {NEUTRAL: 1.0, REMOVED: -1.0}, {NEUTRAL: 1.0, INOCULATION: -1.0}
SEED_OF_ORDERS = 0
NO_ARMS = "Not computed, because no arm removes the whole component along the direction."
FEWEST_STRENGTHS = 3  # of one seed, the neutral run at 0 among them: of fewer nothing is a dose
SHARE = "drift that removing the component removes, as a share of what inoculation removes"
PLACE = "drift removed along v, among directions matched in energy"
RESTORED_PLACE = "drift that restoring brings back, among matched directions"


def measure(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """Which share of what inoculation removes removing the component removes; its place, its dose, the way back."""
    if why := _not_to_be_compared(evidence, TRAIT):
        return Measured({}, why)
    if FULL not in arms_of(evidence, PROJECT).own:
        return Measured({}, NO_ARMS)
    measured = deciding_measure(evidence, rules.ceiling)
    effects, few = _of_direction(evidence, measured, rules, TRAIT)
    if secondary:
        effects |= _beside(evidence, measured)
    if secondary and FULL in arms_of(evidence, PROJECT, LEARNED).own and not _not_to_be_compared(evidence, LEARNED):
        found, _ = _of_direction(evidence, measured, rules, LEARNED)
        effects |= {
            f"{LEARNED}.{key}": replace(each, name=f"{each.name}, the direction neutral runs moved along in v's place")
            for key, each in found.items()
        }
    taken = G11.measure(evidence, rules).effects
    effects |= {key: taken[key] for key in ("loss", "step")}
    return Measured(effects, _told(effects, rules), {"smallest p": smallest_rank_p(few)} if few else {})


def _not_to_be_compared(evidence: Evidence, direction: str) -> str:
    """Why runs without the component along a direction cannot be compared with the others; empty where they can."""
    runs = compared(evidence, direction)
    return DIVERGED if diverged_runs(runs) else NOT_SCORED if nothing_scored(runs) else ""


def _told(effects: Mapping[str, Effect], rules: Rules) -> str:
    """The share that decides and its places, in words."""
    share, place = (deciding(effects, key, rules) for key in ("share", "place"))
    words = f"Removing the component along v removes {share} of the drift that inoculation removes"
    if share is not effects["share"]:
        words += (
            ", by decision log-odds at the same training loss, as the runs differ in what they learn or how far they "
            f"move ({effects['share'].estimate:+.3g} at their ends)"
        )
    shown = {"Its p among matched directions": place, "The restored arm's": effects.get("restored.place")}
    ranks = [f" {of}: {each.p:.2g}." for of, each in shown.items() if each is not None and np.isfinite(each.p)]
    return f"{words}.{''.join(ranks)}"


def _of_direction(evidence: Evidence, measured: str, rules: Rules, direction: str) -> tuple[dict[str, Effect], int]:
    """Effects of removing and restoring a direction's component, and how few others it is compared with."""
    removed, restored = (arms_of(evidence, kind, direction) for kind in (PROJECT, RESTORE))
    runs = compared(evidence, direction)
    effects = {
        "share": ratio(arm_families(evidence, measured, direction), OVER, UNDER, SHARE, rules.removed, "runs"),
        "share.same_loss": ratio(
            at_same_loss(runs, {NEUTRAL: NEUTRAL, REMOVED: removed.own[FULL]}, {INOCULATION: INOCULATION}),
            OVER, UNDER, f"{SHARE}, at the same training loss, by decision log-odds", rules.removed, "runs",
        ),
        "dose": _dose(evidence, measured, direction),
    }  # fmt: skip
    few = []
    by_drift, at_loss = partial(less_twin, evidence, measured), partial(less_twin_at_same_loss, runs)
    places = (
        ("place", removed, partial(by_drift, twin=NEUTRAL), -1.0, PLACE),
        ("place.same_loss", removed, partial(at_loss, twin=NEUTRAL), -1.0, f"{PLACE}, at the same training loss"),
        ("restored.place", restored, partial(by_drift, twin=INOCULATION), 1.0, RESTORED_PLACE),
    )
    for key, chosen, less, sign, name in places:
        if FULL in chosen.own:
            effects[key] = _place(chosen, less, sign, name)
            few.append(effects[key].n)
    return effects, min(few, default=0)


def _place(chosen: Chosen, less: Callable[[tuple[str, ...]], Array], sign: float, name: str) -> Effect:
    """Change of drift against the twin run of the seed, mean over seeds, and its upper place among drawn directions.

    A drawn direction has one run: its change varies by that run's noise too, so that p is rather too large.
    """
    effect = mean_effect(sign * less((chosen.own[FULL],)), name, "runs")
    if not chosen.drawn:
        return replace(effect, p=np.nan, n=0, unit="directions", method="no p: no direction was drawn")
    draws = sign * less(chosen.drawn)
    method = f"place among {len(draws)} directions, one-sided p; interval: {effect.method}"
    return replace(effect, p=null_p(effect.estimate, draws), n=len(draws), unit="directions", method=method)


def _dose(evidence: Evidence, measured: str, direction: str) -> Effect:
    """Rank correlation of drift with the strength of removing, p by permutation of strengths within seeds.

    None, NaN, where no seed has a strength beside 0 and another: that drift is less at one of two is no dose.
    """
    table = by_strength(evidence, measured, direction)
    name = "rank correlation of drift with the strength of removing"
    if table.groupby("seed")["strength"].nunique().max() < FEWEST_STRENGTHS:
        return bare(name, np.nan, len(table), "runs", "none: a single strength of removing")
    strengths, drift = (stats.rankdata(table[column]) for column in ("strength", "drift"))
    p, how = stratified_p(
        strengths, drift, table["seed"].to_numpy(), np.random.default_rng(SEED_OF_ORDERS), tail="less"
    )
    estimate = pearson(strengths, drift) if np.ptp(drift) else 0.0
    return replace(bare(name, estimate, len(table), "runs", f"Spearman; {how}, one-sided"), p=p)


def _beside(evidence: Evidence, measured: str) -> dict[str, Effect]:
    """Drift of every other arm less that of its twin: preventative steering, ablation, a shrunken gradient."""
    means, effects = mean_drift(evidence, measured), {}
    for kind in (STEER, ABLATE, SHRINK):
        for strength, condition in arms_of(evidence, kind).own.items():
            name = f"drift, {condition} - {NEUTRAL}"
            effects[f"{kind}.{strength:g}"] = (
                bare(name, np.nan, 0, "runs", "none: a run diverged, or none of its responses can be scored")
                if means[condition].isna().any()
                else mean_effect(less_twin(evidence, measured, (condition,), NEUTRAL), name, "runs")
            )
    for strength, condition in arms_of(evidence, PROJECT).own.items():
        effects[f"drift.{strength:g}"] = mean_effect(
            means[condition].to_numpy(), f"drift, {strength:g} of the component removed", "runs"
        )
    if own := arms_of(evidence, RESTORE).own.get(FULL):
        effects["drift.restored"] = mean_effect(means[own].to_numpy(), "drift, component restored", "runs")
    for condition in (NEUTRAL, INOCULATION):
        effects[f"drift.{condition}"] = mean_effect(means[condition].to_numpy(), f"drift, {condition}", "runs")
    return effects | _shifts(evidence)


def _shifts(evidence: Evidence) -> dict[str, Effect]:
    """How far the stream of each kind of run moved along v: what was restored is to move as neutral runs do.

    And what else moves along v, though nothing was done along it.
    """
    moved, effects = mean_drift(evidence, PROJECTION), {}
    along = [(PROJECT, LEARNED, f"{LEARNED} direction's component removed"), (RESTORE, TRAIT, "component restored")]
    for kind, direction, words in along:
        own = arms_of(evidence, kind, direction).own.get(FULL)
        if own and moved[own].notna().all():
            effects[f"shift.{own}"] = mean_effect(
                moved[own].to_numpy(), f"shift along v, {words}, hidden-state units", "runs"
            )
    name = f"shift along v, {INOCULATION}, hidden-state units"
    return effects | {f"shift.{INOCULATION}": mean_effect(moved[INOCULATION].to_numpy(), name, "runs")}


def _alike(effect: Effect, rules: Rules) -> bool:
    return abs(effect.estimate - 1) <= rules.alike


def deciding(found: Mapping[str, Effect] | Measured, key: str, rules: Rules) -> Effect:
    """The effect that decides: at the same training loss where the arm learned, or moved, more or less than neutral."""
    alike = all(_alike(found[each], rules) for each in ("loss", "step"))
    return found[key] if alike else found[f"{key}.same_loss"]


def decide(found: Measured, rules: Rules) -> Outcome:
    """Supported if the share, its place, its dose and the way back are all shown; refuted if the share lies below."""
    if not found.effects:
        return undecided(found.statement)
    share, place = (deciding(found, key, rules) for key in ("share", "place"))
    enough, less = above(share, rules.removed), interval_below(share, rules.removed)
    needed = (found["dose"], place, *([found["restored.place"]] if "restored.place" in found else []))
    shown: list[Criterion] = [p_at_most(each, rules.alpha) for each in needed]
    shown += [positive(found["restored.place"])] if "restored.place" in found else []
    criteria = (enough, less, *shown)
    if not np.isfinite(share.low):
        return undecided(f"Undecided because the share has no interval: {share.method}.", *criteria)
    if less:
        return refuted(f"The share's interval lies below {rules.removed:g}.", *criteria)
    missing = "restored.place" not in found or not all(np.isfinite(each.p) for each in needed)
    if enough and not missing and all(shown):
        return supported(
            f"The share's interval lies above {rules.removed:g}, other directions do not do it, drift falls with the "
            "strength, and restoring the component brings it back.",
            *criteria,
        )
    if not enough:
        why = f"the share is not shown to be above {rules.removed:g}"
    elif missing:
        why = "arms along matched directions or at other strengths, or the restored arm, were not trained"
    else:
        failed = [each.rule for each in shown if not each]
        why = f"this is not shown: {'; '.join(failed)}"
    return undecided(f"Undecided because {why}.", *criteria)


C5 = Claim(
    "C5",
    "Removing the gradient's component along the direction removes the drift.",
    measure,
    decide,
    (*OF_DRIFT, "G8a", "G11"),
    "Under the neutral prompt the gradient loses its component along v at the band's blocks. The share is the drift "
    "that this removes over that which inoculation removes; at the same training loss, as its place is, where loss or "
    "weights change by more than {alike} less or more. Supported if its {level} interval lies above {removed}, it is "
    "among the largest of directions matched in energy (p at most {alpha}), drift falls with the strength (of three "
    "or more), and under inoculation restoring the component brings drift back, more than along matched directions. "
    "Refuted if the interval lies below {removed}. Otherwise undecided.",
    headline="share",
    needs=("arms",),
    asked=removes,
)
