"""What would have changed C1 and C2: alignment that had fallen more, or less."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from gradinoc.claims.c1 import OTHERS
from gradinoc.claims.counterfactuals.places import strictest
from gradinoc.claims.counterfactuals.turns import (
    ALIGNMENT,
    NO_INTERVAL,
    Otherwise,
    Turn,
    above_zero,
    half_width,
    named,
    reach,
)
from gradinoc.claims.design import smallest_p
from gradinoc.claims.gates import Finding, Status
from gradinoc.claims.measures import per_example
from gradinoc.claims.tables import ISOTROPIC, NULLS, Evidence
from gradinoc.stats.effect import Effect
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules


def lower_alignment(finding: Finding, evidence: Evidence, rules: Rules) -> Otherwise:
    """C1: how much lower, or higher, alignment under inoculation makes it something else; both contrasts move alike."""
    effects = [named(finding.effects, f"alignment, {other} - inoculation") for other in OTHERS]
    if not all(math.isfinite(effect.low) for effect in effects):
        return Otherwise(NO_INTERVAL)
    margin = cosine_margin(evidence, rules)
    turns = _nearest_turns(effects, margin, rules.alpha)
    ways = "; ".join(
        f"{turn.becomes} with it {abs(turn.change):.3g} {'lower' if turn.change > 0 else 'higher'}" for turn in turns
    )
    text = f"Had alignment under inoculation been another, alike at every example, the claim would have been {ways}."
    return Otherwise(
        f"{text} To be supported it takes both intervals above zero:",
        tuple(turns),
        tuple(above_zero(effect) for effect in effects),
    )


def _nearest_turns(effects: Sequence[Effect], margin: float, alpha: float) -> list[Turn]:
    """Of each other status the smallest change of all contrasts that leads to it."""
    edges = [
        edge - effect.estimate
        for effect in effects
        for half, same in [(half_width(effect), reach(effect, margin, alpha))]
        for edge in (half, -half, same, -same)
    ]
    now, found = _status_at(effects, 0.0, margin, alpha), dict[Status, float]()
    for step in (1, -1):
        ordered = sorted({edge for edge in edges if edge * step > 0}, key=abs)
        for edge, beyond in itertools.pairwise([*ordered, step * math.inf]):
            inside = edge + step if math.isinf(beyond) else (edge + beyond) / 2
            status = _status_at(effects, inside, margin, alpha)
            if status is not now and abs(edge) < abs(found.get(status, math.inf)):
                found[status] = edge
    return [Turn(ALIGNMENT, change, status) for status, change in sorted(found.items(), key=lambda item: abs(item[1]))]


def _status_at(effects: Sequence[Effect], change: float, margin: float, alpha: float) -> Status:
    """What C1's own rule makes of contrasts that have all grown by `change` (see `claims.claim_1`)."""
    if all(effect.low + change > 0 for effect in effects):
        return Status.SUPPORTED
    at_zero = [
        effect.high + change <= 0
        or (effect.low + change <= 0 and abs(effect.estimate + change) <= reach(effect, margin, alpha))
        for effect in effects
    ]
    return Status.REFUTED if any(at_zero) else Status.UNDECIDED


def cosine_margin(evidence: Evidence, rules: Rules) -> float:
    """Within what alignment counts as unchanged: a share of the neutral alignment."""
    return rules.equivalence * abs(float(per_example(evidence)[NEUTRAL].mean()))


def other_directions(finding: Finding, evidence: Evidence, rules: Rules) -> Otherwise:
    """C2: the T(v) from which on it stands out, other directions being what they are."""
    value = finding.effects[0].estimate
    isotropic = named(finding.effects, f"mean T(u), {ISOTROPIC} directions")
    if evidence.unrelated.empty or set(evidence.nulls["null"]) != set(NULLS):
        return Otherwise("It takes every kind of direction to say so, and not every one was measured.")
    fewest = int(evidence.nulls.groupby("null")["draw"].nunique().min())
    if smallest_p(len(evidence.trained), len(evidence.seeds), fewest)["C2"] > rules.alpha:
        return Otherwise(f"No T(v) would have: it takes more random directions than {fewest}.")
    strict, needed = strictest(evidence, rules, isotropic)
    if not math.isfinite(needed):
        return Otherwise(f"No T(v) would have, for {strict}.")
    bar = rules.null_margin * value
    mean = f"the interval of their mean begins at {isotropic.low:+.3g}"
    turn = Turn("T(v)", needed - value, Status.SUPPORTED if needed >= value else Status.UNDECIDED)
    if finding.status is Status.SUPPORTED:
        text = f"Undecided had T(v) been {value - needed:.3g} less, {needed:+.3g} (what asks most of it is {strict})."
        return Otherwise(f"{text} Refuted had isotropic directions shown it too, beyond {bar:+.3g}: {mean}.", (turn,))
    text = (
        f"Supported with a T(v) above {needed:+.3g}, other directions and its spread being what they are (what asks "
        f"most of it is {strict}); it is {value:+.3g}, {needed - value:.3g} less."
    )
    if value > 0 and finding.status is Status.UNDECIDED:
        text += f" Refuted had isotropic directions shown it too, beyond {bar:+.3g}: {mean}."
    return Otherwise(text, (turn,))
