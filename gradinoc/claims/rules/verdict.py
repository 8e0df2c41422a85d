"""The verdict on the research question: every gate and claim judged, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from gradinoc.claims.c1 import C1
from gradinoc.claims.c2 import C2
from gradinoc.claims.c3 import C3
from gradinoc.claims.c4 import C4
from gradinoc.claims.c5 import C5
from gradinoc.claims.c6 import C6, any_prompt
from gradinoc.claims.c7.c7a import C7A, by_size
from gradinoc.claims.c7.c7b import C7B
from gradinoc.claims.c7.c7c import C7C
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.gates import GATES, gates_of
from gradinoc.claims.rules.finding import Claim, Finding, Status, listed
from gradinoc.claims.rules.specification import curve_of
from gradinoc.claims.rules.warnings import warnings_of
from gradinoc.study.rules import Rules

CLAIMS: tuple[Claim, ...] = (C1, C2, C3, C4, C5, C6, C7A, C7B, C7C)
RULES_OF = {rule.key: rule for rule in (*GATES, *CLAIMS)}
OPTIONAL = {  # claims that a verdict needs and a study may not run: what they would show
    "C5": "removing the component along the direction removes the drift",
    "C7a": "the update turns away from what raises drift",
    "C7b": "what it turns away from lies along the direction",
}
# Gates on which C5 alone rests: where one fails it is undecided, and the rest of the verdict as it would be without.
OF_CAUSE = set(C5.rests_on).difference(*(claim.rests_on for claim in CLAIMS if claim is not C5))
ON_DIRECTION = ("C1", "C2", "C3", "C4", "C6", "C7b")  # what it takes to speak of the trait's direction


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
    claims = tuple(claim.judge(evidence, rules, gates) for claim in CLAIMS if claim.ran(evidence))
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
    4. CONSISTENT: the same where C5 was not run or is left open; no causal word.
    5. MAGNITUDE: C6 supported, C7a refuted with more than half of the difference due to the size of updates.
    6. OTHER_DIRECTION: C6 and C7a supported, C7b refuted: updates turn, and little of the difference runs along v. Not
       where C5 is supported: then removing what runs along v removes the drift, and the two do not go together.
    7. REFUTED: C6 supported, C7b and, where run, C5 refuted.
    8. UNDECIDED: none of these could be shown.

    A claim that was not run pronounces nothing.
    """
    c6 = next(claim for claim in claims if claim.key == C6.key)
    if c6.status is Status.REFUTED and all(any_prompt(c6, rules)):
        return Verdict.ANY_PROMPT, f"harmless prompts keep the drift down too, at the doses tried. {c6.statement}"
    failed = [gate.key for gate in gates if gate.status is not Status.SUPPORTED and gate.key not in OF_CAUSE]
    if failed:
        return Verdict.UNDECIDED, f"the apparatus is not shown to be sound, {listed(failed)} failed."
    status = {claim.key: claim.status for claim in claims}
    sized = any(claim.key == C7A.key and by_size(claim, rules) for claim in claims)
    return _pronounced(status, sized=sized) or (Verdict.UNDECIDED, _left_open(claims))


def not_run(claims: Sequence[Finding]) -> dict[str, str]:
    """The claims that a verdict needs and that were not run: what each would show."""
    present = {claim.key for claim in claims}
    return {key: words for key, words in OPTIONAL.items() if key not in present}


def _pronounced(status: Mapping[str, Status], *, sized: bool) -> tuple[Verdict, str] | None:
    """What the claims come to where the apparatus is sound; None if they leave it open."""

    def all_are(wanted: Status, *keys: str) -> bool:
        return all(status.get(key) is wanted for key in keys)

    rules = (  # a verdict, when it is pronounced, why
        (
            Verdict.SUPPORTED,
            all_are(Status.SUPPORTED, *ON_DIRECTION, "C5"),
            "every claim is supported, removing the component along the direction included.",
        ),
        (
            Verdict.CONSISTENT,
            all_are(Status.SUPPORTED, *ON_DIRECTION) and status.get("C5") is not Status.REFUTED,
            "every claim but C5 is supported; whether the component along the direction causes the drift is "
            f"{'not shown' if 'C5' in status else 'not tested'}.",
        ),
        (
            Verdict.MAGNITUDE,
            all_are(Status.SUPPORTED, "C6") and all_are(Status.REFUTED, "C7a") and sized,
            "more than half of the difference is the size of updates, less than half their turn.",
        ),
        (
            Verdict.OTHER_DIRECTION,
            all_are(Status.SUPPORTED, "C6", "C7a")
            and all_are(Status.REFUTED, "C7b")
            and status.get("C5") is not Status.SUPPORTED,
            "updates turn, and of what passes through the layer band less than a quarter runs along the trait's "
            "direction.",
        ),
        (
            Verdict.REFUTED,
            all_are(Status.SUPPORTED, "C6") and all_are(Status.REFUTED, "C7b", *({"C5"} & set(status))),
            "of what passes through the layer band of the difference between harmless and inoculating runs, less than "
            "a quarter runs along the trait's direction.",
        ),
    )
    return next(((verdict, why) for verdict, holds, why in rules if holds), None)


def _left_open(claims: Sequence[Finding]) -> str:
    """Why nothing could be pronounced: claims that are not supported, and those that were not run."""
    parts = [
        f"{claim.key} is {claim.status}: {claim.reason}" for claim in claims if claim.status is not Status.SUPPORTED
    ]
    absent = [f"{key} ({words})" for key, words in not_run(claims).items()]
    if absent:
        parts.append(f"Not run: {'; '.join(absent)}; what needs them cannot be pronounced.")
    return " ".join(parts)
