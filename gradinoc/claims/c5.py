"""C5: removing the gradient's component along the direction removes the drift, and giving it back brings it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from gradinoc.claims.evidence.arms import (
    REMOVED,
    Chosen,
    arm_families,
    arms_of,
    by_strength,
    less_twin,
    mean_drift,
    whole,
)
from gradinoc.claims.evidence.measures import DIVERGED, NOT_SCORED, deciding_measure, diverged_runs, nothing_scored
from gradinoc.claims.evidence.same_loss import at_same_loss
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.gates import OF_DRIFT
from gradinoc.claims.gates.interventions import G11
from gradinoc.claims.rules.criteria import Criterion, above, interval_below, p_at_most, positive
from gradinoc.claims.rules.finding import Claim, Measured, Outcome, refuted, supported, undecided
from gradinoc.stats.effect import Effect, bare, mean_effect, null_p
from gradinoc.stats.reach import smallest_rank_p
from gradinoc.stats.regression.correlation import spearman, stratified_p
from gradinoc.stats.shares.ratios import ratio
from gradinoc.study.arms import ABLATE, FULL, LEARNED, PROJECT, RESTORE, SHRINK, STEER, TRAIT
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

OVER, UNDER = {NEUTRAL: 1.0, REMOVED: -1.0}, {NEUTRAL: 1.0, INOCULATION: -1.0}
SEED_OF_ORDERS = 0
NO_ARMS = "Not computed, because no arm removes the whole component along the direction."
FEW_SEEDS = "no interval: a single run"
SHARE = "drift that removing the component removes, as a share of what inoculation removes"
PLACE = "share removed along v among directions matched in energy"


def measure(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """Which share of what inoculation removes removing the component removes; its place, its dose, the way back."""
    everything = whole(evidence)
    if diverged_runs(everything):
        return Measured({}, DIVERGED)
    if nothing_scored(everything):
        return Measured({}, NOT_SCORED)
    if FULL not in arms_of(evidence, PROJECT).own:
        return Measured({}, NO_ARMS)
    measured = deciding_measure(evidence, rules.ceiling)
    effects, few = _of_direction(evidence, measured, rules, TRAIT)
    if secondary:
        effects |= _beside(evidence, measured)
    if secondary and FULL in arms_of(evidence, PROJECT, LEARNED).own:
        found, _ = _of_direction(evidence, measured, rules, LEARNED)
        effects |= {
            f"{LEARNED}.{key}": replace(each, name=f"{each.name}, the direction neutral runs moved along in v's place")
            for key, each in found.items()
        }
    taken = G11.measure(evidence, rules).effects
    effects |= {key: taken[key] for key in ("loss", "step")}
    statement = f"Removing the component along v removes {effects['share']} of the drift that inoculation removes."
    for key, words in (("place", "its p among matched directions"), ("restored.place", "of the restored arm's")):
        if key in effects:
            statement += f" {words[:1].upper()}{words[1:]}: {effects[key].p:.2g}."
    return Measured(effects, statement, {"smallest p": smallest_rank_p(few)} if few else {})


def _of_direction(evidence: Evidence, measured: str, rules: Rules, direction: str) -> tuple[dict[str, Effect], int]:
    """Effects of removing and restoring a direction's component, and how few others it is compared with."""
    removed, restored = (arms_of(evidence, kind, direction) for kind in (PROJECT, RESTORE))
    effects = {
        "share": replace(
            ratio(arm_families(evidence, measured, direction), OVER, UNDER, SHARE, rules.removed), unit="runs"
        ),
        "share.same_loss": replace(
            ratio(
                at_same_loss(
                    whole(evidence), {NEUTRAL: NEUTRAL, REMOVED: removed.own[FULL]}, {INOCULATION: INOCULATION}
                ),
                OVER, UNDER, f"{SHARE}, at the same training loss, by decision log-odds", rules.removed,
            ),
            unit="runs",
        ),
        "dose": _dose(evidence, measured, direction),
    }  # fmt: skip
    few = []
    for key, chosen, twin, sign, name in (
        ("place", removed, NEUTRAL, -1.0, PLACE),
        ("restored.place", restored, INOCULATION, 1.0, "drift that restoring brings back, among matched directions"),
    ):
        if FULL in chosen.own:
            effects[key] = _place(evidence, measured, chosen, twin, sign, name)
            few.append(effects[key].n)
    return effects, min(few, default=0)


def _place(evidence: Evidence, measured: str, chosen: Chosen, twin: str, sign: float, name: str) -> Effect:
    """Change of drift against the twin run of the seed, mean over seeds, and its upper place among drawn directions.

    A drawn direction has one run: its change varies by that run's noise too, so that p is rather too large.
    """
    own = sign * less_twin(evidence, measured, (chosen.own[FULL],), twin)
    effect = mean_effect(own, name, "runs")
    if not chosen.drawn:
        return replace(effect, p=np.nan, n=0, unit="directions", method="no p: no direction was drawn")
    draws = sign * less_twin(evidence, measured, chosen.drawn, twin)
    method = f"place among {len(draws)} directions, one-sided p; interval: {effect.method}"
    return replace(effect, p=null_p(effect.estimate, draws), n=len(draws), unit="directions", method=method)


def _dose(evidence: Evidence, measured: str, direction: str) -> Effect:
    """Rank correlation of drift with the strength of removing, p by permutation of strengths within seeds."""
    table = by_strength(evidence, measured, direction)
    strengths, drift = table["strength"].to_numpy(), table["drift"].to_numpy()
    name = "rank correlation of drift with the strength of removing"
    p, how = stratified_p(
        strengths, drift, table["seed"].to_numpy(), np.random.default_rng(SEED_OF_ORDERS), tail="less"
    )
    estimate = spearman(strengths, drift) if np.ptp(drift) else 0.0
    return replace(bare(name, estimate, len(table), "runs", f"Spearman; {how}, one-sided"), p=p)


def _beside(evidence: Evidence, measured: str) -> dict[str, Effect]:
    """Drift of every other arm less that of its twin: preventative steering, ablation, a shrunken gradient."""
    means, effects = mean_drift(evidence, measured), {}
    for kind in (STEER, ABLATE, SHRINK):
        for strength, condition in arms_of(evidence, kind).own.items():
            name = f"drift, {condition} - {NEUTRAL}"
            effects[f"{kind}.{strength:g}"] = mean_effect(
                less_twin(evidence, measured, (condition,), NEUTRAL), name, "runs"
            )
    for strength, condition in arms_of(evidence, PROJECT).own.items():
        effects[f"drift.{strength:g}"] = mean_effect(
            means[condition].to_numpy(), f"drift, {strength:g} of the component removed", "runs"
        )
    if own := arms_of(evidence, RESTORE).own.get(FULL):
        effects["drift.restored"] = mean_effect(means[own].to_numpy(), "drift, component restored", "runs")
    for condition in (NEUTRAL, INOCULATION):
        effects[f"drift.{condition}"] = mean_effect(means[condition].to_numpy(), f"drift, {condition}", "runs")
    return effects


def _alike(effect: Effect, rules: Rules) -> bool:
    return abs(effect.estimate - 1) <= rules.alike


def deciding_share(found: Mapping[str, Effect] | Measured, rules: Rules) -> Effect:
    """The share that decides: at the same training loss where the arm learned, or moved, more or less than neutral."""
    alike = all(_alike(found[key], rules) for key in ("loss", "step"))
    return found["share"] if alike else found["share.same_loss"]


def decide(found: Measured, rules: Rules) -> Outcome:
    """Supported if the share, its place, its dose and the way back are all shown; refuted if the share lies below."""
    if not found.effects:
        return undecided(found.statement)
    share = deciding_share(found, rules)
    enough, less = above(share, rules.removed), interval_below(share, rules.removed)
    shown: list[Criterion] = [p_at_most(found["dose"], rules.alpha)]
    shown += [p_at_most(found[key], rules.alpha) for key in ("place", "restored.place") if key in found]
    shown += [positive(found["restored.place"])] if "restored.place" in found else []
    criteria = (enough, less, *shown)
    if not np.isfinite(share.low):
        return undecided(f"Undecided because the share has no interval: {share.method}.", *criteria)
    if less:
        return refuted(f"The share's interval lies below {rules.removed:g}.", *criteria)
    missing = [key for key in ("place", "restored.place") if key not in found or not found[key].n]
    if enough and not missing and all(shown):
        return supported(
            f"The share's interval lies above {rules.removed:g}, other directions do not do it, drift falls with the "
            "strength, and restoring the component brings it back.",
            *criteria,
        )
    if not enough:
        why = f"the share is not shown to be above {rules.removed:g}"
    elif missing:
        why = "arms along matched directions, or the restored arm, were not trained"
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
    "that this removes over that which inoculation removes; at the same training loss where loss or weights change by "
    "more than {alike} less or more. Supported if its {level} interval lies above {removed}, it is among the largest "
    "of directions matched in energy (p at most {alpha}), drift falls with the strength (permutation within seeds), "
    "and under inoculation restoring the component brings drift back, more than along matched directions. Refuted if "
    "the interval lies below {removed}. Otherwise undecided.",
    headline="share",
    needs=("arms",),
)
