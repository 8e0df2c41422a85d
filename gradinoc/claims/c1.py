"""C1: inoculation lowers alignment.

D(control) = alignment(control) - alignment(inoculation): a cosine, mean over the layer band, paired by example, frozen
model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from gradinoc.claims.criteria import above_zero, at_or_below_zero, equivalent
from gradinoc.claims.finding import Claim, Measured, Outcome, refuted, supported, undecided
from gradinoc.claims.gates import ON_DIRECTION
from gradinoc.claims.measures import (
    CONTROLS,
    cosine_change,
    cosine_margin,
    diverged_runs,
    inoculation_contrast,
    per_step,
    training_null_contrasts,
)
from gradinoc.claims.tables import Evidence
from gradinoc.stats.effect import Array, Effect, bare, clustered_mean, null_p, serial_mean
from gradinoc.study.prompts import INOCULATION
from gradinoc.study.rules import Rules


def measure(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """D against each control, the same tested for equivalence to zero; secondary: the contrasts during training."""
    deciding = {f"alignment.{other}": inoculation_contrast(evidence, rules, other) for other in CONTROLS}
    same = {f"equivalence.{other}": cosine_change(evidence, rules, other) for other in CONTROLS}
    training = dict(_training_contrasts(evidence, rules)) if secondary else {}
    pooled = "; ".join(f"{each.name}: {each}" for each in training.values() if each.unit in ("seeds", "directions"))
    none = "training logs are not finite, so training is left out"
    neutral, matched = deciding.values()
    statement = (
        f"Alignment under neutral minus that under inoculation is {neutral}, under loss_matched minus "
        f"that under inoculation {matched}. Beside it, {pooled or none}."
    )
    return Measured({**deciding, **same, **training}, statement, {"margin": cosine_margin(evidence, rules)})


def decide(found: Measured, rules: Rules) -> Outcome:
    """Supported if both intervals lie above zero; refuted if either lies at or below zero, or is equivalent to it."""
    contrasts = {other: found[f"alignment.{other}"] for other in CONTROLS}
    falls = {other: above_zero(effect) for other, effect in contrasts.items()}
    below = {other: at_or_below_zero(effect) for other, effect in contrasts.items()}
    same = {other: equivalent(effect, found.facts["margin"], rules.alpha) for other, effect in contrasts.items()}
    criteria = (*falls.values(), *below.values(), *same.values())
    if all(falls.values()):
        return supported(
            "Both intervals lie above zero; one that reached zero would have left it undecided.", *criteria
        )
    if against := [other for other in CONTROLS if below[other] or (same[other] and not falls[other])]:
        return refuted(
            f"Against {' and '.join(against)} the interval lies below zero, or around zero within "
            f"{100 * rules.equivalence:g} % of the neutral alignment; intervals above zero against both would "
            "have supported it.",
            *criteria,
        )
    return undecided("An interval straddles zero; more examples would narrow it to one side or the other.", *criteria)


def _training_contrasts(evidence: Evidence, rules: Rules) -> Iterator[tuple[str, Effect]]:
    """D in training, paired by seed and step: over seeds, among random directions, by seed; none if a log diverged."""
    if diverged_runs(evidence):
        return
    steps, level = per_step(evidence), 1 - rules.alpha
    for other in CONTROLS:
        difference = steps[other] - steps[INOCULATION]
        name, key = f"alignment in training, {other} - inoculation", f"training.{other}"
        pooled = clustered_mean(difference, difference.index.get_level_values("seed"), name, "seeds", level)
        yield key, pooled
        if not evidence.training_nulls.empty:
            yield f"{key}.place", _among_random(pooled, training_null_contrasts(evidence, other))
        for seed in evidence.seeds:
            yield f"{key}.seed_{seed}", serial_mean(difference.loc[seed], f"{name}, seed {seed}", "steps", level)


def _among_random(pooled: Effect, draws: Array) -> Effect:
    """The trait direction's training contrast with its place among those of random directions [draws]."""
    method = "(1 + #{T(u) >= T(v)}) / (1 + K), mean over steps and seeds"
    place = bare(f"{pooled.name}, among random directions", pooled.estimate, len(draws), "directions", method)
    return replace(place, p=null_p(pooled.estimate, draws))


C1 = Claim(
    "C1",
    "Inoculation lowers alignment.",
    measure,
    decide,
    ON_DIRECTION,
    "Supported if the {level} intervals of alignment, neutral minus inoculation and loss_matched minus "
    "inoculation, both lie above zero. Refuted if either lies at or below zero, or around zero and is "
    "equivalent to it (within {equivalence} of the neutral alignment). Otherwise undecided.",
)
