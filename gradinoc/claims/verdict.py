"""The verdict on the research question: every gate and claim judged, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gradinoc.claims.c1 import C1
from gradinoc.claims.c2 import C2
from gradinoc.claims.c3 import C3
from gradinoc.claims.c4 import C4
from gradinoc.claims.c6 import C6, any_prompt
from gradinoc.claims.finding import Claim, Finding, Status
from gradinoc.claims.gates import gates_of
from gradinoc.claims.specification import curve_of
from gradinoc.claims.tables import Evidence
from gradinoc.claims.warnings import warnings_of
from gradinoc.study.rules import Rules

CLAIMS: tuple[Claim, ...] = (C1, C2, C3, C4, C6)
NOT_RUN = {  # claims that a verdict needs and this version's studies train no arms for: what they would show
    "C5": "removing the component along the direction removes the drift",
    "C7a": "the update turns away from what raises drift",
    "C7b": "what it turns away from lies along the direction",
}


class Verdict(StrEnum):
    """The answer to: does inoculation reduce drift by rotating gradients away from the trait's direction?"""

    ANY_PROMPT = "any_prompt"
    UNDECIDED = "undecided"
    SUPPORTED = "supported"
    CONSISTENT = "consistent"
    MAGNITUDE = "magnitude"
    OTHER_DIRECTION = "other_direction"
    REFUTED = "refuted"


@dataclass(frozen=True)
class Judgement:
    """Gates, claims and the verdict, with its sentence and what limits it."""

    gates: tuple[Finding, ...]
    claims: tuple[Finding, ...]
    verdict: Verdict
    sentence: str
    warnings: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> Finding:
        """The gate or claim of that key."""
        return {finding.key: finding for finding in (*self.gates, *self.claims)}[key]


def judge(evidence: Evidence, rules: Rules) -> Judgement:
    """Every gate and claim, the verdict, and warnings.

    Raises:
        ValueError: a number that decides is missing.
    """
    gates = gates_of(evidence, rules)
    claims = tuple(claim.judge(evidence, rules, gates) for claim in CLAIMS)
    verdict, why = conclusion(gates, claims, rules)
    curve = curve_of(evidence)
    sentence = f"{verdict.name.replace('_', ' ')}: {why}"
    if curve is not None and not curve.agreed(rules):
        sentence += f" {curve.warning}"
    return Judgement(gates, claims, verdict, sentence, tuple(warnings_of(evidence, rules, claims)))


def conclusion(gates: Sequence[Finding], claims: Sequence[Finding], rules: Rules) -> tuple[Verdict, str]:
    """The verdict and its reason: the first of these that applies.

    1. ANY_PROMPT: C6 is refuted, the gates on which it rests being sound, and inoculation is shown to remove drift.
    2. UNDECIDED: a gate failed on which the following rest.
    3. SUPPORTED: C1, C2, C3, C4, C6, C7b and C5.
    4. CONSISTENT: the same without C5; no causal word.
    5. MAGNITUDE: C6 supported, C7a refuted with at least half of the difference due to the size of updates.
    6. OTHER_DIRECTION: C6 and C7a supported, C7b refuted: gradients rotate, not along v.
    7. REFUTED: C6 supported, C7b and, where run, C5 refuted.
    8. UNDECIDED: none of these could be shown.

    A claim that was not run pronounces nothing.
    """
    found = {claim.key: claim for claim in claims}
    status: Mapping[str, Status | None] = {
        key: found[key].status if key in found else None for key in (*found, *NOT_RUN)
    }

    def all_are(wanted: Status, *keys: str) -> bool:
        return all(status[key] is wanted for key in keys)

    if all_are(Status.REFUTED, "C6") and any_prompt(found["C6"], rules):
        return (
            Verdict.ANY_PROMPT,
            f"harmless prompts keep the drift down as well, at the doses tried. {found['C6'].statement}",
        )
    failed = [gate.key for gate in gates if gate.status is not Status.SUPPORTED]
    if failed:
        return Verdict.UNDECIDED, f"the apparatus is not shown to be sound, {' and '.join(failed)} failed."
    if all_are(Status.SUPPORTED, "C1", "C2", "C3", "C4", "C6", "C7b"):
        if all_are(Status.SUPPORTED, "C5"):
            return Verdict.SUPPORTED, "every claim is supported, removing the component along the direction included."
        if status["C5"] is None:
            return (
                Verdict.CONSISTENT,
                "every claim that was run is supported; that the component causes the drift was not tested.",
            )
    if all_are(Status.SUPPORTED, "C6"):
        if all_are(Status.REFUTED, "C7a"):
            return Verdict.MAGNITUDE, "updates are smaller, not turned."
        if all_are(Status.SUPPORTED, "C7a") and all_are(Status.REFUTED, "C7b"):
            return Verdict.OTHER_DIRECTION, "updates turn away from the drift, but not along the trait's direction."
        if all_are(Status.REFUTED, "C7b") and status["C5"] in (None, Status.REFUTED):
            return Verdict.REFUTED, "the trait's direction carries less than a quarter of what inoculation changes."
    return Verdict.UNDECIDED, _left_open(claims)


def _left_open(claims: Sequence[Finding]) -> str:
    """Why nothing could be pronounced: claims that are not supported, and those that were not run."""
    parts = [
        f"{claim.key} is {claim.status}: {claim.reason}" for claim in claims if claim.status is not Status.SUPPORTED
    ]
    present = {claim.key for claim in claims}
    absent = [f"{key} ({words})" for key, words in NOT_RUN.items() if key not in present]
    if absent:
        parts.append(f"Not run: {'; '.join(absent)}; what needs them cannot be pronounced.")
    return " ".join(parts)
