"""Effects that several claims rest on: alignment and drift, another condition minus inoculation."""

from __future__ import annotations

import math

from gradinoc.claims.measures import UNSCORED, drift_by_run, example_groups, is_unscored, per_example
from gradinoc.claims.tables import AFTER, Evidence
from gradinoc.stats.clustered import grouped_pairs
from gradinoc.stats.effect import Effect, bare, paired_effect, tost
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.rules import Rules

CONTROLS = (NEUTRAL, LOSS_MATCHED)


def inoculation_contrast(evidence: Evidence, rules: Rules, other: str) -> Effect:
    """Mean D = alignment(other) - alignment(inoculation), band mean, paired by example, frozen model.

    Clustered by template where the examples have groups.
    """
    means = per_example(evidence)
    name = f"alignment, {other} - inoculation"
    groups = example_groups(evidence, "alignments", means.index)
    return grouped_pairs(means[other], means[INOCULATION], groups, name, 1 - rules.alpha)


def cosine_margin(evidence: Evidence, rules: Rules) -> float:
    """The change of alignment that counts as none: `rules.equivalence` of the neutral alignment."""
    return rules.equivalence * abs(float(per_example(evidence)[NEUTRAL].mean()))


def cosine_change(evidence: Evidence, rules: Rules, other: str = NEUTRAL) -> Effect:
    """Mean D tested for equivalence to zero within `cosine_margin`."""
    return tost(inoculation_contrast(evidence, rules, other), cosine_margin(evidence, rules), rules.alpha)


def drift_difference(
    evidence: Evidence, rules: Rules, measure: str = "log_odds", other: str = NEUTRAL, phase: str = AFTER
) -> Effect:
    """Mean over seeds of drift(other) - drift(inoculation), paired by seed, t with seeds - 1 df; NaN where unscored."""
    name = f"{'' if phase == AFTER else f'{phase} '}drift in {measure}, {other} - inoculation"
    if is_unscored(evidence, measure, phase):
        return bare(name, math.nan, 0, "seeds", UNSCORED)
    drift = drift_by_run(evidence, measure, phase)
    return paired_effect(drift[other], drift[INOCULATION], name, "seeds", 1 - rules.alpha)
