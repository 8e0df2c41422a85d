"""What would have changed C3: a fall of alignment that is larger, or smaller, where losses are equal."""

from __future__ import annotations

import math

from gradinoc.claims.c1 import inoculation_contrast
from gradinoc.claims.c3 import matched_controls
from gradinoc.claims.counterfactuals.claims import cosine_margin
from gradinoc.claims.counterfactuals.turns import (
    ALIGNMENT,
    NO_INTERVAL,
    Otherwise,
    Turn,
    above_zero,
    half_width,
    reach,
    short_of_zero,
)
from gradinoc.claims.gates import Finding, Status
from gradinoc.claims.tables import Evidence
from gradinoc.stats.effect import Effect
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules

COMMON = "alignment, neutral - inoculation, common losses"
WAYS = ("regression", "bins", "within examples")


def equal_loss(finding: Finding, evidence: Evidence, rules: Rules) -> Otherwise:
    """By how much more alignment has to fall to fall at equal loss too, whichever way that is looked at."""
    known = {effect.name: effect for effect in finding.effects}
    if COMMON not in known:
        return _not_compared(finding, known, evidence, rules)
    controls = [effect.name for effect in matched_controls(evidence, rules)]
    deciding = [known[name] for name in (COMMON, *(f"alignment at equal loss, {way}" for way in WAYS), *controls)]
    if not all(math.isfinite(effect.low) for effect in deciding):
        return Otherwise(NO_INTERVAL)
    short = short_of_zero(deciding)
    whole = inoculation_contrast(evidence, rules, NEUTRAL)
    near = reach(whole, cosine_margin(evidence, rules), rules.alpha)
    if short > 0 and whole.low + short <= 0 and abs(whole.estimate + short) <= near:
        short = _until_changed(evidence, rules)  # over all losses it would still count as unchanged there
    if finding.status is Status.SUPPORTED:
        nearest = min(deciding, key=lambda effect: effect.low)
        text = (
            f"No longer supported had alignment under inoculation been {-short:.3g} higher, at every example alike: "
            f"closest to zero is {nearest.name}, whose interval begins at {nearest.low:+.3g}."
        )
        return Otherwise(text, (Turn(ALIGNMENT, short, None),))
    text = f"Supported had alignment under inoculation been {short:.3g} lower, at every example alike."
    if finding.status is Status.REFUTED:
        far = rules.null_margin * known[COMMON].estimate
        level = f"{100 * (1 - 2 * rules.alpha):g} %"
        text += f" Undecided had the regression's {level} interval reached beyond {far:.3g} either side of zero."
    text += " To be supported it lacks:"
    lacking = tuple(above_zero(effect) for effect in deciding if not effect.low > 0)
    return Otherwise(text, (Turn(ALIGNMENT, short, Status.SUPPORTED),), lacking)


def _not_compared(finding: Finding, known: dict[str, Effect], evidence: Evidence, rules: Rules) -> Otherwise:
    """Where equal losses did not come into it: alignment that did not change, or losses that hardly overlap."""
    if finding.status is Status.REFUTED:
        change = _until_changed(evidence, rules)
        text = (
            f"Had alignment fallen by more than {change:.3g} more it would not count as unchanged, and would have been "
            "compared at equal loss; and had neither loss nor gradient norm fallen, nothing would have refuted it."
        )
        return Otherwise(text, (Turn(ALIGNMENT, change, None),))
    shared = known["overlap of losses, neutral and inoculation"].estimate
    return Otherwise(
        f"It would have been compared at equal loss had the losses overlapped by {rules.overlap:g}"
        f" or more, and in both conditions' examples; they overlap by {shared:.3g}."
    )


def _until_changed(evidence: Evidence, rules: Rules) -> float:
    """By how much alignment, which counts as unchanged, has to fall until it does not."""
    contrast = inoculation_contrast(evidence, rules, NEUTRAL)
    edge = min(reach(contrast, cosine_margin(evidence, rules), rules.alpha), half_width(contrast))
    return edge - contrast.estimate
