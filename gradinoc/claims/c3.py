"""C3: loss does not explain why alignment falls: harmless and inoculating prompts compared at equal loss."""

from __future__ import annotations

from gradinoc.claims.c1 import CONTROLS, CORE, family_contrast, plan_contrast
from gradinoc.claims.evidence.measures import (
    HARMLESS,
    INOCULATING,
    alignment_families,
    by_family,
    per_example,
    question_groups,
)
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.gates import OF_DIRECTION
from gradinoc.claims.rules.criteria import above_zero, equivalent
from gradinoc.claims.rules.finding import Claim, Measured, Outcome, refuted, supported, undecided
from gradinoc.stats.effect import at_level
from gradinoc.stats.regression.equal_loss import Paired, families_at_equal_loss, within_example
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules


def measure(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """Alignment at equal loss, over prompts and within examples; and the contrast that loss might explain."""
    level = 1 - rules.alpha
    losses = per_example(evidence, "loss")
    groups = question_groups(evidence, "alignments", losses.index)
    by_prompt = by_family(evidence, losses, groups).means
    name = "alignment at equal loss, harmless - inoculating prompts"
    prompts = families_at_equal_loss(alignment_families(evidence), by_prompt, HARMLESS, INOCULATING, name)
    alignment, loss = per_example(evidence, among=CORE), per_example(evidence, "loss", among=CORE)
    columns = [NEUTRAL, INOCULATION]
    pairs = Paired(
        alignment[columns].to_numpy(dtype=float), loss[columns].to_numpy(dtype=float),
        question_groups(evidence, "alignments", alignment.index),
    )  # fmt: skip
    within = at_level(within_example(pairs, "alignment at equal loss within examples, neutral - inoculation"), level)
    contrasts = {f"alignment.{other}": plan_contrast(evidence, rules, other) for other in CONTROLS}
    effects = {
        "prompts": at_level(prompts, level),
        "within": within,
        "families": family_contrast(evidence, rules),
        **contrasts,
    }
    statement = (
        f"At equal loss alignment differs by {effects['prompts']} over prompts, and by {within} within examples; "
        f"without regard to loss by {effects['families']} over prompts."
    )
    return Measured(effects, statement)


def decide(found: Measured, rules: Rules) -> Outcome:
    """Supported if both intervals at equal loss lie above zero.

    Refuted if alignment falls (as C1 has it), and at equal loss over prompts the difference is equivalent to zero
    (within `rules.equal_loss` of the fall's lower bound) while none is shown within examples.
    """
    kept = [above_zero(found[key]) for key in ("prompts", "within")]
    falls = [above_zero(found[key]) for key in ("families", *(f"alignment.{other}" for other in CONTROLS))]
    criteria = (*kept, *falls)
    if all(kept):
        return supported(
            "At equal loss both intervals lie above zero; one that reached zero would have left it undecided.",
            *criteria,
        )
    if all(falls):
        gone = equivalent(found["prompts"], rules.equal_loss * found["families"].low, rules.alpha)
        if gone and not kept[1]:
            return refuted(
                f"Alignment falls, and at equal loss the difference is within {100 * rules.equal_loss:g} % of that "
                "fall: loss explains it. Intervals above zero would have supported the claim.", *criteria, gone,
            )  # fmt: skip
        criteria = (*criteria, gone)
    short = [f"{found[each.key].name}{_why(found, each.key)}" for each in kept if not each]
    return undecided(f"Undecided because no interval above zero is shown for {'; '.join(short)}.", *criteria)


def _why(found: Measured, key: str) -> str:
    """Why there is no interval, where there is none."""
    effect = found[key]
    return "" if effect.low == effect.low else f" ({effect.method})"  # NaN is the one number that differs from itself


C3 = Claim(
    "C3",
    "Loss does not explain it.",
    measure,
    decide,
    OF_DIRECTION,
    "Supported if alignment at equal loss lies above zero, for harmless minus inoculating prompts with the prompt's "
    "loss as covariate, within the range of losses that both families reach, and for neutral minus inoculation within "
    "examples. Refuted if alignment falls and at equal loss over prompts is equivalent to zero (within {equal_loss} of "
    "the fall's lower bound), and none is shown within examples. Otherwise undecided.",
    headline="prompts",
)
