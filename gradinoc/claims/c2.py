"""C2: directions without the trait do not show the effect.

Four kinds of direction u stand against the trait's v. Three are drawn at random: *isotropic*; *covariance*, with the
residual stream's covariance; *sign-flipped*, from the trait's own contrasts with the labels of each question swapped at
random. The fourth are *unrelated traits'* directions, too few to be a distribution: each is compared with v by example.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
from scipy import stats

from gradinoc.claims.criteria import above, equivalent, p_at_most, positive
from gradinoc.claims.finding import Claim, Measured, Outcome, refuted, supported, undecided
from gradinoc.claims.gates import ON_DIRECTION
from gradinoc.claims.measures import (
    CONTROLS,
    example_groups,
    inoculation_contrast,
    null_contrasts,
    per_example,
    unrelated_contrasts,
)
from gradinoc.claims.tables import Evidence
from gradinoc.stats.clustered import Groups, by_template, grouped_mean
from gradinoc.stats.effect import Array, Effect, bare, mean_effect, noisy_null_p, null_p, tost
from gradinoc.study.description import ISOTROPIC, NULLS
from gradinoc.study.design import smallest_p
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

UNRELATED = "unrelated traits"
NOISY = "with_error"  # of keys: with T(v)'s sampling error
DECIDING = (*(key for null in NULLS for key in (f"null.{null}", f"null.{null}.{NOISY}")), "null.unrelated")


def measure(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """T(v)'s place among the T(u) of each kind of direction, and the mean of isotropic ones.

    T is mean D against neutral; against loss_matched it is secondary. Two p for each random null: T(v)'s place among
    the T(u), and the same with T(v)'s sampling error added (see `noisy_null_p`). One p for unrelated traits (see
    `unrelated_tail`).

    Raises:
        ValueError: a kind of null was not measured.
    """
    measured = set(evidence.nulls["null"])
    if not measured >= set(NULLS):
        raise ValueError(f"Evidence table 'nulls': expected the kinds {tuple(NULLS)}, received {sorted(measured)}")
    observed = {other: inoculation_contrast(evidence, rules, other) for other in CONTROLS}
    effects = dict(_places(evidence, observed[NEUTRAL], NEUTRAL))
    effects["null.unrelated"] = unrelated_tail(evidence, NEUTRAL)
    if secondary:
        effects |= dict(_secondary(evidence, rules, observed))
    draws = {null: null_contrasts(evidence, null, NEUTRAL) for null in NULLS}
    fewest, value = min(len(each) for each in draws.values()), observed[NEUTRAL].estimate
    isotropic = mean_effect(draws[ISOTROPIC], "mean T(u), isotropic directions", "directions", 1 - rules.alpha)
    effects["isotropic_mean"] = isotropic
    if value > 0:
        effects["isotropic_mean.equivalence"] = tost(isotropic, rules.null_margin * value, rules.alpha)
    places = [
        f"{null.replace('_', '-')} {effects[f'null.{null}'].p:.2g} and {effects[f'null.{null}.{NOISY}'].p:.2g}"
        for null in NULLS
    ]
    beyond = effects["null.unrelated"]
    statement = (
        f"The trait direction's T(v) is {value:+.3g}. Its p, as it stands and with its sampling error, is among random "
        f"directions: {'; '.join(places)} (of {fewest} each or more); beyond every unrelated trait: {beyond.p:.2g} (n "
        f"{beyond.n} {beyond.unit}). The isotropic mean is {isotropic}."
    )
    floor = smallest_p(len(evidence.trained), len(evidence.seeds), fewest)["C2"]
    return Measured(effects, statement, {"directions": fewest, "smallest p": floor})


def decide(found: Measured, rules: Rules) -> Outcome:
    """Supported if T(v) exceeds every null (p <= alpha) and the isotropic mean is equivalent to zero.

    Refuted if the isotropic mean's interval lies above the margin (`rules.null_margin` of T(v)): then random directions
    show it too. At T(v) <= 0 there is nothing to compare, and with too few directions no p is small enough.
    """
    tails = [p_at_most(found[key], rules.alpha) for key in DECIDING]
    shown = positive(replace(found[DECIDING[0]], name="T(v)"))
    floor = found.facts["smallest p"]
    if floor > rules.alpha:
        words = f"{found.facts['directions']} null directions reach no p below {floor:.3g}"
        return undecided(f"Undecided because the design cannot decide: {words}.", shown, *tails)
    if not shown:
        reason = "Undecided because T(v) is not above zero: other directions could share no effect."
        return undecided(reason, shown, *tails)
    isotropic, margin = found["isotropic_mean"], rules.null_margin * found[DECIDING[0]].estimate
    flat, shared = equivalent(isotropic, margin, rules.alpha), above(isotropic, margin)
    criteria = (shown, *tails, flat, shared)
    if shared:
        return refuted(
            f"The isotropic mean lies above {margin:.3g}, {100 * rules.null_margin:g} % of T(v): random "
            "directions show it too. Below that, T(v)'s place among them would have decided.",
            *criteria,
        )
    if all(tails) and flat:
        return supported(
            f"Every p is at most {rules.alpha:g}, and the isotropic mean is within {margin:.3g} of zero "
            f"(p {found['isotropic_mean.equivalence'].p:.2g}); one p above would have left it undecided.",
            *criteria,
        )
    weak = [found[tail.key].name for tail in tails if not tail]
    large = f"p is above {rules.alpha:g} for {'; '.join(weak)}"
    far = f"the isotropic mean is not shown to be within {margin:.3g} of zero"
    return undecided(f"Undecided because {large if weak else far}.", *criteria)


def _places(evidence: Evidence, observed: Effect, other: str, suffix: str = "") -> Iterator[tuple[str, Effect]]:
    """Key and effect of T(v)'s place among each kind of random direction, without and with its sampling error."""
    for null in NULLS:
        place, noisy = null_tails(observed, null_contrasts(evidence, null, other), null)
        yield f"null.{null}{suffix}", place
        yield f"null.{null}.{NOISY}{suffix}", noisy


def _secondary(evidence: Evidence, rules: Rules, observed: dict[str, Effect]) -> Iterator[tuple[str, Effect]]:
    """Places against the other controls, and T(u) of each unrelated trait."""
    for other in CONTROLS[1:]:
        yield from _places(evidence, observed[other], other, f".{other}")
    for other in CONTROLS[1:]:
        yield f"null.unrelated.{other}", unrelated_tail(evidence, other)
    yield from unrelated_effects(evidence, rules).items()


def unrelated_effects(evidence: Evidence, rules: Rules) -> dict[str, Effect]:
    """T(u) of each unrelated trait, neutral - inoculation, with its interval; secondary."""
    groups, differences = _grouped_unrelated(evidence, NEUTRAL)
    name = "alignment along {}, neutral - inoculation"
    return {
        f"unrelated.{trait}": grouped_mean(values, groups, name.format(trait), 1 - rules.alpha)
        for trait, values in differences.items()
    }


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


C2 = Claim(
    "C2",
    "Random directions do not show it.",
    measure,
    decide,
    ON_DIRECTION,
    "T(v) is alignment, neutral minus inoculation, along the trait direction. Supported if every p of its place "
    "among other directions, with and without its sampling error, is at most {alpha}, and the mean over "
    "isotropic directions is equivalent to zero (within {margin} of T(v)). Refuted if that mean's interval lies "
    "above {margin} of T(v). Otherwise, and where T(v) is not above zero, undecided.",
)
