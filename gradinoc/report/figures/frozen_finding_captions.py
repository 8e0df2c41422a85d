"""What each figure of the frozen base model found, in one sentence."""

from __future__ import annotations

import math

from gradinoc.claims.tables import CANDIDATE, Evidence
from gradinoc.report.figures.comparisons import (
    at_equal_loss,
    loss_gaps,
    null_places,
    overlap_with_inoculation,
    pool_losses,
)
from gradinoc.report.figures.frozen import clearest_layer
from gradinoc.report.figures.nulls import KINDS
from gradinoc.report.figures.style import shown
from gradinoc.report.figures.summaries import contrasts, in_band, paired_losses
from gradinoc.report.figures.wording import NOT_MEASURED, between, by_condition, clustered, rounded, side
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules


def projection_distributions(evidence: Evidence, rules: Rules) -> str:
    """Plot 1."""
    layer = clearest_layer(evidence)
    row = evidence.layers[evidence.layers["layer"] == layer]
    if layer is None or row.empty:
        return NOT_MEASURED
    found = float(row["auc"].iloc[0])
    how = "lie apart" if found >= rules.auc else "overlap"
    return f"Promoting and suppressing prompts {how} along the trait direction: AUC {rounded(found)} at layer {layer}."


def alignment_by_layer(evidence: Evidence, rules: Rules) -> str:  # noqa: ARG001 - called alike
    """Plot 2."""
    band, differences = in_band(evidence, "alignments", ["condition", "example"]), contrasts(evidence)
    if band.empty or NEUTRAL not in differences:
        return NOT_MEASURED
    means = band.groupby("condition")["alignment"].mean()
    mean = clustered(evidence, differences.index, differences[NEUTRAL])
    how = side(mean, "lower", "higher", "not shown to be other")
    levels = by_condition((name, means[name]) for name in evidence.conditions if name in means)
    return (
        f"Over the band, alignment is {how} under inoculation than under neutral: {levels}; neutral minus inoculation "
        f"{rounded(mean.estimate)} ({between(mean)})."
    )


def loss_by_condition(evidence: Evidence, rules: Rules) -> str:  # noqa: ARG001 - called alike
    """Plot 3."""
    losses = paired_losses(evidence)
    if losses.empty:
        return NOT_MEASURED
    mean = clustered(evidence, losses.index, losses[NEUTRAL] - losses[INOCULATION])
    how = side(mean, "lower", "higher", "not shown to be other")
    levels = ", ".join(f"{value:.3f} under {shown(str(name))}" for name, value in losses.mean().items())
    return f"The loss is {how} under inoculation than under neutral: {levels} nats/token."


def trait_against_random(evidence: Evidence, rules: Rules) -> str:
    """Plot 4."""
    places = next(iter(null_places(evidence)), None)
    known = {} if places is None else {kind: p for kind, p in places.p.items() if math.isfinite(p)}
    if places is None or not known:
        return NOT_MEASURED
    worst = max(known, key=lambda kind: known[kind])
    how = "exceeds" if known[worst] <= rules.alpha else "does not exceed"
    return (
        f"The trait direction's effect, {rounded(places.effect)} against neutral, {how} what directions without the "
        f"trait show: the largest p is {rounded(known[worst])}, against {KINDS.get(worst, worst)} directions."
    )


def prompt_pool(evidence: Evidence, rules: Rules) -> str:  # noqa: ARG001 - called alike
    """Plot 10."""
    pool = pool_losses(evidence).dropna(subset=["gap"])
    chosen, neutral = pool[pool["chosen"]], pool[pool["role"] == NEUTRAL]
    if chosen.empty or neutral.empty:
        return NOT_MEASURED
    count = evidence.pool.loc[evidence.pool["role"] == CANDIDATE, "prompt"].nunique()
    return (
        f"Of {count} harmless prompts the one that comes closest to inoculation's loss is "
        f"{rounded(chosen['gap'].iloc[0])} nats/token from it, neutral {rounded(neutral['gap'].iloc[0])}."
    )


def loss_overlap(evidence: Evidence, rules: Rules) -> str:
    """Plot 11."""
    shared = overlap_with_inoculation(evidence)
    if NEUTRAL not in shared:
        return NOT_MEASURED
    gaps = loss_gaps(paired_losses(evidence).mean())
    near = [shown(str(name)) for name in gaps.index if name != INOCULATION and gaps[name] <= rules.loss_match]
    return (
        f"Losses under neutral and inoculation overlap by {rounded(shared[NEUTRAL])}; of the controls "
        f"{' and '.join(near) or 'none'} {'is' if len(near) < 2 else 'are'} loss-matched."
    )


def alignment_at_equal_loss(evidence: Evidence, rules: Rules) -> str:
    """Plot 12."""
    found = at_equal_loss(evidence, rules).get("regression")
    if found is None:
        return NOT_MEASURED
    how = side(found, "lower", "higher", "not shown to be other")
    return (
        f"At equal loss alignment is {how} under inoculation than under neutral: neutral minus inoculation "
        f"{rounded(found.estimate)} ({between(found)}) by regression."
    )
