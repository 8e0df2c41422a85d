"""From gates and claims to one verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from gradinoc.claims.c1 import C1
from gradinoc.claims.c2 import C2
from gradinoc.claims.c3 import C3, loss_audit
from gradinoc.claims.c4 import C4, apart, control_differences, within_conditions
from gradinoc.claims.criteria import above_zero, at_or_below_zero, p_at_most
from gradinoc.claims.finding import Finding, Measured, Status
from gradinoc.claims.gates import GATES, gates_of
from gradinoc.claims.measures import diverged_runs, example_groups, per_layer
from gradinoc.claims.tables import EARLY, Evidence
from gradinoc.stats.clustered import grouped_mean
from gradinoc.stats.correlation import repeated_measures
from gradinoc.stats.effect import Effect, bare
from gradinoc.study.design import Design, design_warnings
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules

CLAIMS = (C1, C2, C3, C4)
RULES_OF = {each.key: each for each in (*GATES, *CLAIMS)}  # every gate and claim by its key


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
    gates = gates_of(evidence, rules)
    claims = tuple(claim.judge(evidence, rules, gates) for claim in CLAIMS)
    verdict, why = conclusion(rules, gates, claims)
    sentence = f"{verdict.name.replace('_', ' ')}: {why}"
    warnings = [*design_warnings(design_behind(evidence, rules)), *audit_warnings(evidence, rules), *evidence.caveats]
    return Judgement(gates, claims, verdict, sentence, tuple(warnings))


def design_behind(evidence: Evidence, rules: Rules) -> Design:
    """The design that left `evidence`, as its tables tell."""
    draws = evidence.nulls.groupby("null")["draw"].nunique()
    return Design(
        trained=len(evidence.trained),
        seeds=len(evidence.seeds),
        directions=int(draws.min()) if len(draws) else 0,
        examples=int(evidence.alignments["example"].nunique()),
        rules=rules,
    )


def conclusion(rules: Rules, gates: Sequence[Finding], claims: Sequence[Finding]) -> tuple[Verdict, str]:
    """The verdict and its reason: the first of these that applies.

    1. UNDECIDED: a gate failed.
    2. SUPPORTED: all four claims.
    3. LOSS_MEDIATED: C3 is refuted because the effect vanishes at equal loss; or because the cosine is equivalent to
       unchanged while loss or norm fall, and inoculated runs drift less (otherwise loss has nothing to explain).
       Before REFUTED, since it says more: alignment does not fall by itself, and what falls instead is known.
    4. REFUTED: against neutral, D's interval lies below zero, or around it and equivalent to zero.
    5. DIFFERENT_MECHANISM: C1 and C2 supported, C4 refuted, and alignment is shown not to go with drift (`c4.apart`);
       that inoculated runs do not drift less is not enough.
    6. UNDECIDED.
    """
    failed = [gate.key for gate in gates if gate.status is not Status.SUPPORTED]
    if failed:
        return Verdict.UNDECIDED, f"the apparatus is not sound, {' and '.join(failed)} failed."
    if all(claim.status is Status.SUPPORTED for claim in claims):
        return Verdict.SUPPORTED, "all four claims are supported."
    c1, c2, c3, c4 = claims
    neutral, same = c1["alignment.neutral"], c1["equivalence.neutral"]
    falls = above_zero(neutral)
    unchanged = p_at_most(same, rules.alpha) and not falls
    if c3.status is Status.REFUTED:
        if not unchanged:
            return Verdict.LOSS_MEDIATED, f"alignment falls by {neutral}, but not at equal loss."
        drift = c4["drift.neutral"]
        if above_zero(drift):
            return (
                Verdict.LOSS_MEDIATED,
                f"loss or gradient norm and drift (by {drift}) fall, alignment does not ({same}).",
            )
    if at_or_below_zero(neutral) or (not falls and unchanged):
        return Verdict.REFUTED, f"inoculation does not lower alignment: neutral - inoculation is {neutral}."
    if c1.status is c2.status is Status.SUPPORTED and c4.status is Status.REFUTED:
        shown = apart(Measured({effect.key: effect for effect in c4.effects}), rules)
        if shown:
            words = "; ".join(words for _, words in shown)
            return (
                Verdict.DIFFERENT_MECHANISM,
                f"inoculation lowers alignment, but drift does not go with alignment: {words}.",
            )
    open_claims = [claim for claim in claims if claim.status is not Status.SUPPORTED]
    return Verdict.UNDECIDED, " ".join(f"{claim.key} is {claim.status}: {claim.reason}" for claim in open_claims)


def audit_warnings(evidence: Evidence, rules: Rules) -> list[str]:
    """What was measured and decides nothing, but limits what a verdict means: control, system prompts, direction."""
    audit, words = loss_audit(evidence, rules)
    warnings = [words] if audit.estimate > rules.loss_match else []
    if not diverged_runs(evidence):
        warnings += [
            "any system prompt may do: the control is not shown to drift more than inoculation "
            f"({effect.name}: {effect})"
            for effect in control_differences(evidence, rules).values()
            if effect.low <= 0
        ]
        warnings += _within(within_conditions(evidence, rules))
    rising, falling = mixed_layers(evidence, rules)
    if rising and falling:
        warnings.append(
            f"the band averages layers of both kinds: under inoculation alignment falls in {falling} and rises in "
            f"{rising} of {len(evidence.band)} layers, each by its own interval"
        )
    tracking = trait_tracking(evidence)
    if tracking.estimate <= 0 or tracking.low <= 0:
        warnings.append(
            f"the trait direction does not track the trait in responses (r = {tracking}): what alignment with it means "
            "for the trait is open"
        )
    return warnings


def _within(correlation: Effect) -> list[str]:
    """What is to be said where alignment and drift do not go together within conditions."""
    if correlation.low > 0:
        return []
    shown = "are not shown to go together"
    if correlation.high < 0:
        shown = "go against each other"
    return [
        f"alignment and drift {shown} within conditions (r = {correlation}): between them, a prompt that moves both, "
        "each in a way of its own, would look the same"
    ]


def mixed_layers(evidence: Evidence, rules: Rules) -> tuple[int, int]:
    """In how many layers of the band alignment rises under inoculation, and in how many it falls.

    By the interval of neutral - inoculation at the layer alone, without a correction for their number: descriptive.
    """
    differences = per_layer(evidence, NEUTRAL)
    groups = example_groups(evidence, "alignments", differences.index)
    effects = [grouped_mean(values, groups, f"layer {layer}", 1 - rules.alpha) for layer, values in differences.items()]
    return sum(effect.high < 0 for effect in effects), sum(effect.low > 0 for effect in effects)


def trait_tracking(evidence: Evidence) -> Effect:
    """The correlation of a response's score with its prompt's band projection, within domains of questions.

    Over every evaluated response with both, before training and after; a plain interval, as if responses were
    independent. NaN where nothing varies or fewer than three responses have both.
    """
    name = f"projection and {evidence.trait.score_name} of responses, within domains"
    responses = evidence.responses[evidence.responses["phase"] != EARLY]
    columns = responses[["projection", "score"]].to_numpy(dtype=np.float64)
    rows = np.isfinite(columns).all(axis=1)
    if rows.sum() < 3:
        return bare(name, math.nan, int(rows.sum()), "responses", "too few responses")
    projection, rate = columns[rows].T
    effect = repeated_measures(projection, rate, responses["domain"].to_numpy()[rows], name)
    return replace(effect, unit="responses")
