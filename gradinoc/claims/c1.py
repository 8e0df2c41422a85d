"""What the claims share, and the first of them: C1, inoculation lowers alignment.

A claim is UNDECIDED when a gate on which it rests failed, or when its design cannot reach significance,
whatever its numbers; these are reported all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from gradinoc.claims.gates import Finding, Status
from gradinoc.claims.measures import (
    UNSCORED,
    diverged_runs,
    drift_by_run,
    example_groups,
    is_unscored,
    per_example,
    per_step,
    training_null_contrasts,
)
from gradinoc.claims.tables import AFTER, Evidence
from gradinoc.stats.clustered import grouped_pairs
from gradinoc.stats.effect import (
    Array,
    Effect,
    bare,
    clustered_mean,
    null_p,
    paired_effect,
    serial_mean,
    tost,
)
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.rules import Rules

RESTS_ON = {
    "C1": ("G1", "G2", "G3"),
    "C2": ("G1", "G2", "G3"),
    "C3": ("G1", "G2", "G3"),
    "C4": ("G1", "G2", "G4", "G5", "G6"),
}
CLAIMS = {
    "C1": "Inoculation lowers alignment.",
    "C2": "Random directions do not show it.",
    "C3": "Loss does not explain it.",
    "C4": "Alignment predicts drift.",
}
OTHERS = (NEUTRAL, LOSS_MATCHED)


@dataclass(frozen=True)
class Outcome:
    """What a claim's own rule makes of its numbers, before gates and design have their say."""

    status: Status
    reason: str


def conclude(
    key: str,
    outcome: Outcome,
    statement: str,
    effects: Sequence[Effect],
    gates: Sequence[Finding],
    floor: str = "",
) -> Finding:
    """A claim's finding: `outcome`, unless a gate failed or the design's `floor` (in words) is too high."""
    by_key = {gate.key: gate for gate in gates}
    absent = [gate for gate in RESTS_ON[key] if gate not in by_key]
    if absent:
        raise ValueError(f"{key} rests on the gates {RESTS_ON[key]}, and {absent} were not judged")
    failed = [gate for gate in RESTS_ON[key] if by_key[gate].status is not Status.SUPPORTED]
    if failed:
        words = " ".join(f"{gate}: {by_key[gate].statement}" for gate in failed)
        reason = f"Undecided because {' and '.join(failed)} failed, on which it rests. {words}"
        outcome = Outcome(Status.UNDECIDED, reason)
    elif floor:
        outcome = Outcome(Status.UNDECIDED, f"Undecided because the design cannot decide: {floor}.")
    return Finding(key, CLAIMS[key], outcome.status, statement, outcome.reason, tuple(effects), RESTS_ON[key])


def inoculation_contrast(evidence: Evidence, rules: Rules, other: str) -> Effect:
    """Mean D = alignment(other) - alignment(inoculation), band mean, paired by example, frozen model.

    Clustered by template where the examples have groups.
    """
    means = per_example(evidence)
    name = f"alignment, {other} - inoculation"
    groups = example_groups(evidence, "alignments", means.index)
    return grouped_pairs(means[other], means[INOCULATION], groups, name, 1 - rules.alpha)


def cosine_change(evidence: Evidence, rules: Rules, other: str = NEUTRAL) -> Effect:
    """Mean D tested for equivalence to zero; the margin is `rules.equivalence` of the neutral alignment."""
    margin = rules.equivalence * abs(float(per_example(evidence)[NEUTRAL].mean()))
    return tost(inoculation_contrast(evidence, rules, other), margin, rules.alpha)


def shows_no_change(evidence: Evidence, rules: Rules) -> bool:
    """Whether the cosine is equivalent to unchanged against neutral, and not shown to fall all the same.

    A fall that is small, but whose interval lies above zero, is a fall.
    """
    falls = inoculation_contrast(evidence, rules, NEUTRAL).low > 0
    return cosine_change(evidence, rules).p <= rules.alpha and not falls


def drift_difference(
    evidence: Evidence, rules: Rules, measure: str = "log_odds", other: str = NEUTRAL, phase: str = AFTER
) -> Effect:
    """Mean over seeds of drift(other) - drift(inoculation), paired by seed, t with seeds - 1 df; NaN where unscored."""
    name = f"{'' if phase == AFTER else f'{phase} '}drift in {measure}, {other} - inoculation"
    if is_unscored(evidence, measure, phase):
        return bare(name, math.nan, 0, "seeds", UNSCORED)
    drift = drift_by_run(evidence, measure, phase)
    return paired_effect(drift[other], drift[INOCULATION], name, "seeds", 1 - rules.alpha)


def claim_1(evidence: Evidence, rules: Rules, gates: Sequence[Finding]) -> Finding:
    """C1: supported if the interval of mean D lies above zero against both other conditions.

    Refuted if either interval lies at or below zero: wholly below, or around zero and equivalent to it (TOST,
    margin `rules.equivalence` of the neutral alignment). What was seen in training stands beside it and does
    not decide.
    """
    contrasts = [inoculation_contrast(evidence, rules, other) for other in OTHERS]
    same = [cosine_change(evidence, rules, other) for other in OTHERS]
    at_zero = [d.high <= 0 or (d.low <= 0 and e.p <= rules.alpha) for d, e in zip(contrasts, same, strict=True)]
    if all(effect.low > 0 for effect in contrasts):
        outcome = Outcome(
            Status.SUPPORTED,
            "Both intervals lie above zero; one that reached zero would have left it undecided.",
        )
    elif any(at_zero):
        where = " and ".join(other for other, hit in zip(OTHERS, at_zero, strict=True) if hit)
        outcome = Outcome(
            Status.REFUTED,
            f"Against {where} the interval lies below zero, or around zero within "
            f"{100 * rules.equivalence:g} % of the neutral alignment; intervals above zero against both would "
            "have supported it.",
        )
    else:
        outcome = Outcome(
            Status.UNDECIDED,
            "An interval straddles zero; more examples would narrow it to one side or the other.",
        )
    training = list(_training_contrasts(evidence, rules))
    pooled = "; ".join(f"{effect.name}: {effect}" for effect in training if effect.unit in ("seeds", "directions"))
    none = "training logs are not finite, so nothing is said of training"
    beside = f" Beside it, {pooled or none}."
    statement = (
        f"Alignment under neutral minus that under inoculation is {contrasts[0]}, under loss_matched minus "
        f"that under inoculation {contrasts[1]}."
    )
    return conclude("C1", outcome, statement + beside, [*contrasts, *same, *training], gates)


def _training_contrasts(evidence: Evidence, rules: Rules) -> Iterator[Effect]:
    """D in training, paired by seed and step: over seeds, among random directions, by seed; none if a log diverged."""
    if diverged_runs(evidence):
        return
    steps, level = per_step(evidence), 1 - rules.alpha
    for other in OTHERS:
        difference = steps[other] - steps[INOCULATION]
        name = f"alignment in training, {other} - inoculation"
        pooled = clustered_mean(difference, difference.index.get_level_values("seed"), name, "seeds", level)
        yield pooled
        if not evidence.training_nulls.empty:
            yield _among_random(pooled, training_null_contrasts(evidence, other))
        for seed in evidence.seeds:
            yield serial_mean(difference.loc[seed], f"{name}, seed {seed}", "steps", level)


def _among_random(pooled: Effect, draws: Array) -> Effect:
    """The trait direction's training contrast with its place among those of random directions [draws]."""
    method = "(1 + #{T(u) >= T(v)}) / (1 + K), mean over steps and seeds"
    place = bare(f"{pooled.name}, among random directions", pooled.estimate, len(draws), "directions", method)
    return replace(place, p=null_p(pooled.estimate, draws))
