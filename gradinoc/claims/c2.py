"""C2: directions without the trait do not show the effect.

Four kinds of direction u stand against the trait's v. Three are drawn at random: *isotropic*; *covariance*, with the
residual stream's covariance; *sign-flipped*, from the trait's own contrasts with the labels of each question swapped at
random. The fourth are *unrelated traits'* directions, too few to be a distribution: each is compared with v by example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from scipy import stats

from gradinoc.claims.c1 import OTHERS, Outcome, conclude, inoculation_contrast
from gradinoc.claims.design import smallest_p
from gradinoc.claims.gates import Finding, Status
from gradinoc.claims.measures import example_groups, null_contrasts, per_example, unrelated_contrasts
from gradinoc.claims.tables import ISOTROPIC, NULLS, Evidence
from gradinoc.stats.clustered import Groups, by_template, grouped_mean
from gradinoc.stats.effect import Array, Effect, bare, mean_effect, noisy_null_p, null_p, tost
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

UNRELATED = "unrelated traits"


def claim_2(evidence: Evidence, rules: Rules, gates: Sequence[Finding]) -> Finding:
    """C2: supported if T(v) exceeds every null (p <= alpha) and the isotropic mean is equivalent to zero.

    T is mean D against neutral; against loss_matched it stands beside. Two p for each random null, and both have to
    be small: T(v)'s place among the T(u), and the same with T(v)'s sampling error added (see `noisy_null_p`). One p for
    unrelated traits (see `unrelated_tail`). Refuted if the isotropic mean's interval lies above the margin
    (`rules.null_margin` of T(v)): then random directions show it too. At T(v) <= 0 there is nothing to compare.

    Raises:
        ValueError: a kind of null was not measured.
    """
    measured = set(evidence.nulls["null"])
    if not measured >= set(NULLS):
        raise ValueError(f"Evidence table 'nulls': expected the kinds {NULLS}, received {sorted(measured)}")
    observed = {other: inoculation_contrast(evidence, rules, other) for other in OTHERS}
    draws = {null: null_contrasts(evidence, null, NEUTRAL) for null in NULLS}
    by_null = {null: null_tails(observed[NEUTRAL], draws[null], null) for null in NULLS}
    beyond, fewest = unrelated_tail(evidence, NEUTRAL), min(len(each) for each in draws.values())
    deciding = [*(tail for tails in by_null.values() for tail in tails), beyond]
    beside = [
        tail
        for other in OTHERS[1:]
        for null in NULLS
        for tail in null_tails(observed[other], null_contrasts(evidence, null, other), null)
    ]
    floor = smallest_p(len(evidence.trained), len(evidence.seeds), fewest)["C2"]
    beside += [*(unrelated_tail(evidence, other) for other in OTHERS[1:]), *unrelated_effects(evidence, rules)]
    isotropic = mean_effect(draws[ISOTROPIC], "mean T(u), isotropic directions", "directions", 1 - rules.alpha)
    value = observed[NEUTRAL].estimate
    effects = [*deciding, *beside, isotropic]
    places = [f"{null.replace('_', '-')} {draw.p:.2g} and {noisy.p:.2g}" for null, (draw, noisy) in by_null.items()]
    statement = (
        f"The trait direction's T(v) is {value:+.3g}. Its p, as it stands and with its sampling error, is among random "
        f"directions: {'; '.join(places)} (of {fewest} each or more); beyond every unrelated trait: {beyond.p:.2g} (n "
        f"{beyond.n} {beyond.unit}). The isotropic mean is {isotropic}."
    )
    if value > 0:
        same = tost(isotropic, rules.null_margin * value, rules.alpha)
        effects.append(same)
        outcome = _beyond_nulls(deciding, isotropic, same, rules.null_margin * value, rules)
    else:
        reason = "Undecided because T(v) is not above zero: other directions could share no effect."
        outcome = Outcome(Status.UNDECIDED, reason)
    words = f"{fewest} null directions reach no p below {floor:.3g}" if floor > rules.alpha else ""
    return conclude("C2", outcome, statement, effects, gates, words)


def unrelated_effects(evidence: Evidence, rules: Rules) -> list[Effect]:
    """T(u) of each unrelated trait, neutral - inoculation, with its interval; descriptive."""
    groups, differences = _grouped_unrelated(evidence, NEUTRAL)
    name = "alignment along {}, neutral - inoculation"
    return [grouped_mean(values, groups, name.format(trait), 1 - rules.alpha) for trait, values in differences.items()]


def unrelated_tail(evidence: Evidence, other: str) -> Effect:
    """Whether T(v) exceeds the effect along every unrelated trait's direction: an intersection-union test.

    Each direction u is compared with v example by example (one-sided paired t, clustered by template), with either
    sign, since which end of a contrast is called promoting is arbitrary. The p of "v exceeds all of them" is the
    largest of theirs, and needs no correction; the estimate is the smallest lead. Source: Berger, Technometrics 24
    (1982).
    """
    groups, differences = _grouped_unrelated(evidence, other)
    means = per_example(evidence)
    trait = means[other] - means[INOCULATION]
    leads = {
        (name, sign): grouped_mean(trait - sign * values, groups, "lead")
        for name, values in differences.items()
        for sign in (1, -1)
    }
    tails = {key: _upper_tail(lead) for key, lead in leads.items()}
    (closest, sign), p = max(tails.items(), key=lambda item: item[1])
    found = bare(
        f"{UNRELATED}, {other} - inoculation",
        leads[closest, sign].estimate,
        len(trait),
        "examples",
        f"largest of {len(leads)} one-sided p of T(v) - (+-T(u)), paired t by example"
        f"{'' if groups is None else f', {by_template(groups)}'}; the closest of {differences.shape[1]} traits is "
        f"{closest}{' reversed' if sign < 0 else ''}",
    )
    return replace(found, p=p, standard_error=leads[closest, sign].standard_error, df=leads[closest, sign].df)


def _grouped_unrelated(evidence: Evidence, other: str) -> tuple[Groups, pd.DataFrame]:
    differences = unrelated_contrasts(evidence, other)
    return example_groups(evidence, "alignments", differences.index), differences


def _upper_tail(lead: Effect) -> float:
    """The one-sided p of `lead` > 0; 1 where nothing varies and it is not."""
    if not lead.standard_error > 0:
        return 0.0 if lead.estimate > 0 else 1.0
    return float(stats.t.sf(lead.estimate / lead.standard_error, lead.df))


def null_tails(observed: Effect, draws: Array, null: str) -> list[Effect]:
    """T(v) among the T(u) `draws` of one kind of null: p as it stands, and p with T(v)'s sampling error."""
    contrast = observed.name.removeprefix("alignment, ")
    method = "(1 + #{T(u) >= T(v)}) / (1 + K)"
    place = bare(f"{null}, {contrast}", observed.estimate, len(draws), "directions", method)
    noisy = replace(place, name=f"{place.name}, with sampling error", method="(1 + sum of t tails) / (1 + K)")
    return [
        replace(place, p=null_p(observed.estimate, draws)),
        replace(noisy, p=noisy_null_p(observed, draws)),
    ]


def _beyond_nulls(tails: Sequence[Effect], isotropic: Effect, same: Effect, margin: float, rules: Rules) -> Outcome:
    if isotropic.low > margin:
        return Outcome(
            Status.REFUTED,
            f"The isotropic mean lies above {margin:.3g}, {100 * rules.null_margin:g} % of T(v): random "
            "directions show it too. Below that, T(v)'s place among them would have decided.",
        )
    weak = [effect.name for effect in tails if effect.p > rules.alpha]
    if not weak and same.p <= rules.alpha:
        return Outcome(
            Status.SUPPORTED,
            f"Every p is at most {rules.alpha:g}, and the isotropic mean is within {margin:.3g} of zero "
            f"(p {same.p:.2g}); one p above would have left it undecided.",
        )
    large = f"p is above {rules.alpha:g} for {'; '.join(weak)}"
    far = f"the isotropic mean is not shown to be within {margin:.3g} of zero"
    return Outcome(Status.UNDECIDED, f"Undecided because {large if weak else far}.")
