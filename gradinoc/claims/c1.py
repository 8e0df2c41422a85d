"""C1: inoculation lowers alignment.

Alignment is a cosine, mean over the layer band, on the frozen model. Two units: the plan's rule compares its own three
prompts over examples; families are compared over prompts.
"""

from __future__ import annotations

import numpy as np

from gradinoc.claims.evidence.measures import (
    HARMLESS,
    INOCULATING,
    alignment_families,
    diverged_runs,
    in_window,
    per_example,
    question_groups,
)
from gradinoc.claims.evidence.tables import WINDOWS, Evidence
from gradinoc.claims.gates import OF_DIRECTION
from gradinoc.claims.rules.criteria import above_zero, at_or_below_zero
from gradinoc.claims.rules.finding import Claim, Measured, Outcome, refuted, supported, undecided
from gradinoc.stats.clustered import grouped_pairs
from gradinoc.stats.effect import Effect, paired_effect
from gradinoc.stats.families import Families, contrast, permuted_labels, rank_among
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules

CONTROLS = (NEUTRAL, LOSS_MATCHED)
CORE = (NEUTRAL, INOCULATION, LOSS_MATCHED)
SEED_OF_LABELS = 0


def measure(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """The plan's contrasts, by example; harmless less inoculating prompts, by prompt; secondary: rank, labels, push."""
    effects = {f"alignment.{other}": plan_contrast(evidence, rules, other) for other in CONTROLS}
    effects["families"] = family_contrast(evidence, rules)
    if secondary:
        effects |= _beside(evidence, rules)
    neutral, matched, families = effects["alignment.neutral"], effects["alignment.loss_matched"], effects["families"]
    statement = (
        f"Alignment under neutral minus that under inoculation is {neutral}, under loss_matched minus that under "
        f"inoculation {matched}; over prompts, harmless minus inoculating ones, {families}."
    )
    return Measured(effects, statement)


def plan_contrast(evidence: Evidence, rules: Rules, other: str) -> Effect:
    """Mean of alignment(other) - alignment(inoculation), the plan's own prompts: paired by example, by template."""
    means = per_example(evidence, among=CORE)
    name = f"alignment, {other} - inoculation"
    groups = question_groups(evidence, "alignments", means.index)
    return grouped_pairs(means[other], means[INOCULATION], groups, name, 1 - rules.alpha)


def family_contrast(evidence: Evidence, rules: Rules) -> Effect:
    """Mean alignment of harmless prompts less that of inoculating ones; prompts are the unit."""
    name = "alignment, harmless - inoculating prompts"
    return contrast(alignment_families(evidence), {HARMLESS: 1.0, INOCULATING: -1.0}, name, 1 - rules.alpha)


def _beside(evidence: Evidence, rules: Rules) -> dict[str, Effect]:
    """What accompanies the contrasts: labels permuted, the plan's prompt among harmless ones, push, training."""
    families, rng = alignment_families(evidence), np.random.default_rng(SEED_OF_LABELS)
    means = families.means
    effects = {
        "families.labels": permuted_labels(
            means[HARMLESS], means[INOCULATING], rng, "alignment, families, labels permuted"
        )
    }
    wide = per_example(evidence)
    harmless = evidence.family(Family.HARMLESS, list(wide.columns))
    tables = {"one": -wide[[INOCULATION]].to_numpy().T, "others": -wide[list(harmless)].to_numpy().T}
    effects["rank"] = rank_among(
        Families(tables, families.groups), "one", "others", "inoculation among harmless prompts, alignment lowered by"
    )
    push = per_example(evidence, "projection", among=CORE)
    groups = question_groups(evidence, "alignments", push.index)
    for other in CONTROLS:
        name = f"push, {other} - inoculation"
        effects[f"push.{other}"] = grouped_pairs(push[other], push[INOCULATION], groups, name, 1 - rules.alpha)
    if not diverged_runs(evidence):
        effects |= _in_training(evidence, rules)
    return effects


def _in_training(evidence: Evidence, rules: Rules) -> dict[str, Effect]:
    """The plan's contrasts in each third of training, paired by seed."""
    effects = {}
    for window in WINDOWS:
        aligned = in_window(evidence, window)
        if aligned.empty:  # fewer steps than windows
            continue
        for other in CONTROLS:
            first, second = (aligned[name].reindex(evidence.seeds) for name in (other, INOCULATION))
            name = f"alignment in the {window} third of training, {other} - inoculation"
            effects[f"training.{other}.{window}"] = paired_effect(first, second, name, "seeds", 1 - rules.alpha)
    return effects


def decide(found: Measured, rules: Rules) -> Outcome:
    """Supported if all three intervals lie above zero; refuted if that over prompts lies at or below zero."""
    falls = [above_zero(found[f"alignment.{other}"]) for other in CONTROLS]
    over_prompts, against = above_zero(found["families"]), at_or_below_zero(found["families"])
    criteria = (*falls, over_prompts, against)
    if all(falls) and over_prompts:
        return supported(
            "All three intervals lie above zero; one that reached zero would have left it undecided.", *criteria
        )
    if against:
        return refuted(
            "Over prompts the interval lies at or below zero: inoculating prompts lower alignment no more than "
            "harmless ones do.", *criteria,
        )  # fmt: skip
    short = [_told(found[criterion.key]) for criterion in (*falls, over_prompts) if not criterion]
    return undecided(f"Undecided because no interval above zero is shown for {'; '.join(short)}.", *criteria)


def _told(effect: Effect) -> str:
    """The effect's name, and why it has no interval where it has none."""
    return effect.name if np.isfinite(effect.low) else f"{effect.name} ({effect.method})"


C1 = Claim(
    "C1",
    "Inoculation lowers alignment.",
    measure,
    decide,
    OF_DIRECTION,
    "Supported if the {level} intervals of alignment, neutral minus inoculation and loss_matched minus inoculation, by "
    "example, and harmless minus inoculating prompts, by prompt, all lie above zero. Refuted if that over prompts lies "
    "at or below zero. Otherwise undecided.",
    headline="families",
)
