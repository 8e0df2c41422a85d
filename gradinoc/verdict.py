"""From gates and claims to one verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gradinoc.claims import (
    claim_1,
    cosine_change,
    drift_difference,
    inoculation_contrast,
    smallest_p,
)
from gradinoc.evidence import Evidence
from gradinoc.gates import Finding, Status, gate_1, gate_2, gate_3, gate_4, gate_5, gate_6
from gradinoc.mediation import claim_3, loss_audit
from gradinoc.prediction import claim_4
from gradinoc.specificity import claim_2
from gradinoc.statistics import smallest_sign_flip_p
from gradinoc.study import NEUTRAL, Rules

__all__ = [
    "CLAIMS",
    "GATES",
    "Finding",
    "Judgement",
    "Status",
    "Verdict",
    "claim_1",
    "claim_2",
    "claim_3",
    "claim_4",
    "conclusion",
    "design_warnings",
    "gate_1",
    "gate_2",
    "gate_3",
    "gate_4",
    "gate_5",
    "gate_6",
    "judge",
]

GATES = (gate_1, gate_2, gate_3, gate_4, gate_5, gate_6)
CLAIMS = (claim_1, claim_2, claim_3, claim_4)


class Verdict(StrEnum):
    """The answer to the research question."""

    SUPPORTED = "supported"
    LOSS_MEDIATED = "loss_mediated"
    DIFFERENT_MECHANISM = "different_mechanism"
    REFUTED = "refuted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Judgement:
    """Every gate and claim, the verdict, why in a sentence or two, and what a reader should be warned of."""

    gates: tuple[Finding, ...]
    claims: tuple[Finding, ...]
    verdict: Verdict
    sentence: str
    warnings: tuple[str, ...]


def judge(evidence: Evidence, rules: Rules) -> Judgement:
    """What the evidence says: gates first, then the claims that rest on them, then one verdict.

    Raises:
        ValueError: a number that decides is missing, NaN or infinite; the message names its table and column.
    """
    gates = tuple(gate(evidence, rules) for gate in GATES)
    claims = tuple(claim(evidence, rules, gates) for claim in CLAIMS)
    verdict, why = conclusion(evidence, rules, gates, claims)
    sentence = f"{verdict.name.replace('_', ' ')}: {why}"
    warnings = (*design_warnings(evidence, rules), *_audit_warnings(evidence, rules))
    return Judgement(gates, claims, verdict, sentence, warnings)


def conclusion(
    evidence: Evidence, rules: Rules, gates: Sequence[Finding], claims: Sequence[Finding]
) -> tuple[Verdict, str]:
    """The verdict and its reason: the first of these that applies.

    1. UNDECIDED: a gate failed.
    2. SUPPORTED: all four claims.
    3. LOSS_MEDIATED: C3 is refuted because the effect vanishes at equal loss; or because the cosine is equivalent to
       unchanged while loss or norm fall, and inoculated runs drift less (otherwise there is nothing to mediate).
       Before REFUTED, since it says more: alignment does not fall by itself, and what falls instead is known.
    4. REFUTED: against neutral, D's interval lies below zero, or around it and equivalent to zero.
    5. DIFFERENT_MECHANISM: C1 and C2 supported, C4 refuted, which takes equivalence or the opposite sign.
    6. UNDECIDED.
    """
    failed = [gate.key for gate in gates if gate.status is not Status.SUPPORTED]
    if failed:
        return Verdict.UNDECIDED, f"the apparatus is not sound, {' and '.join(failed)} failed."
    status = {claim.key: claim.status for claim in claims}
    if all(value is Status.SUPPORTED for value in status.values()):
        return Verdict.SUPPORTED, "all four claims are supported."
    neutral, same = inoculation_contrast(evidence, rules, NEUTRAL), cosine_change(evidence, rules)
    unchanged = same.p <= rules.alpha
    if status["C3"] is Status.REFUTED:
        if not unchanged:
            return Verdict.LOSS_MEDIATED, f"alignment falls by {neutral}, but not at equal loss."
        drift = drift_difference(evidence, rules)
        if drift.low > 0:
            return (
                Verdict.LOSS_MEDIATED,
                f"loss or gradient norm and drift (by {drift}) fall, alignment does not ({same}).",
            )
    if neutral.high <= 0 or (neutral.low <= 0 and unchanged):
        return Verdict.REFUTED, f"inoculation does not lower alignment: neutral - inoculation is {neutral}."
    if status["C1"] is status["C2"] is Status.SUPPORTED and status["C4"] is Status.REFUTED:
        return (
            Verdict.DIFFERENT_MECHANISM,
            "inoculation lowers alignment, but drift does not go with alignment.",
        )
    open_claims = [claim for claim in claims if claim.status is not Status.SUPPORTED]
    return Verdict.UNDECIDED, " ".join(f"{claim.key} is {claim.status}: {claim.reason}" for claim in open_claims)


def design_warnings(evidence: Evidence, rules: Rules) -> list[str]:
    """What the design cannot do: claims whose smallest p is above alpha, and what few seeds rest on."""
    seeds = len(evidence.seeds)
    draws = evidence.nulls.groupby("null")["draw"].nunique().min()
    floors = smallest_p(len(evidence.conditions), seeds, int(draws))
    warnings = [
        f"{key}: the smallest p that this design can reach is {p:.3g}, above {rules.alpha:g}; the claim ends undecided"
        for key, p in floors.items()
        if p > rules.alpha
    ]
    flips = smallest_sign_flip_p(seeds)
    if flips > rules.alpha:
        warnings.append(
            f"{seeds} paired seeds reach no one-sided sign-flip p below {flips:.3g}: what is paired by seed rests "
            "on the t distribution, and that on nearly normal differences; five seeds would reach 0.031"
        )
    return warnings


def _audit_warnings(evidence: Evidence, rules: Rules) -> list[str]:
    audit, words = loss_audit(evidence, rules)
    return [words] if audit.estimate > rules.loss_match else []
