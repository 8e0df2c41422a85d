"""C2: random directions do not show the effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradinoc.claims import OTHERS, Outcome, conclude, inoculation_contrast, smallest_p
from gradinoc.contrasts import null_contrasts, null_names
from gradinoc.evidence import Evidence
from gradinoc.gates import Finding, Status
from gradinoc.statistics import Array, Effect, bare, mean_effect, noisy_null_p, null_p, tost
from gradinoc.study import NEUTRAL, Rules

ISOTROPIC = "isotropic"


def claim_2(evidence: Evidence, rules: Rules, gates: Sequence[Finding]) -> Finding:
    """C2: supported if T(v) exceeds every null (p <= alpha) and the isotropic mean is equivalent to zero.

    T is mean D against neutral; against loss_matched it stands beside. Two p a null, and both have to be
    small: T(v)'s place among the T(u), and the same with T(v)'s sampling error added (see `noisy_null_p`).
    Refuted if the isotropic mean's interval lies above the margin (`rules.null_margin` of T(v)): then random
    directions show it too. At T(v) <= 0 there is nothing to compare.
    """
    names = null_names(evidence)
    if ISOTROPIC not in names:
        raise ValueError(f"Evidence table 'nulls': expected isotropic directions, received {names}")
    observed = {other: inoculation_contrast(evidence, rules, other) for other in OTHERS}
    tails = {
        other: [tail for null in names for tail in null_tails(value, null_contrasts(evidence, null, other), null)]
        for other, value in observed.items()
    }
    name = "mean T(u), isotropic directions"
    draws = null_contrasts(evidence, ISOTROPIC, NEUTRAL)
    isotropic = mean_effect(draws, name, "directions", 1 - rules.alpha)
    deciding, value = tails[NEUTRAL], observed[NEUTRAL].estimate
    effects = [effect for group in tails.values() for effect in group] + [isotropic]
    places = ", ".join(f"{effect.name} {effect.p:.2g} (n {effect.n})" for effect in deciding)
    statement = f"The trait direction's T(v) is {value:+.3g}; p is: {places}. Their isotropic mean is {isotropic}."
    fewest = min(effect.n for effect in deciding)
    floor = smallest_p(len(evidence.conditions), len(evidence.seeds), fewest)["C2"]
    words = f"{fewest} null directions reach no p below {floor:.3g}" if floor > rules.alpha else ""
    if value > 0:
        same = tost(isotropic, rules.null_margin * value, rules.alpha)
        effects.append(same)
        outcome = _beyond_nulls(deciding, isotropic, same, rules.null_margin * value, rules)
    else:
        reason = "Undecided because T(v) is not above zero: random directions could share no effect."
        outcome = Outcome(Status.UNDECIDED, reason)
    return conclude("C2", outcome, statement, effects, gates, words)


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
