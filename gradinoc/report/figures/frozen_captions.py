"""What the figures of the frozen base model show, in words."""

from __future__ import annotations

import math

from gradinoc.claims.c2 import UNRELATED
from gradinoc.claims.tables import CANDIDATE, Evidence
from gradinoc.report.figures.comparisons import (
    CHECKPOINT,
    Places,
    at_equal_loss,
    checkpoint_contrast,
    control_contrasts,
    loss_gaps,
    null_places,
    overlap_with_inoculation,
    pairs_with_loss,
    pool_losses,
)
from gradinoc.report.figures.frozen import clearest_layer
from gradinoc.report.figures.nulls import KINDS
from gradinoc.report.figures.style import shown
from gradinoc.report.figures.summaries import in_band, mean_interval, paired_losses
from gradinoc.report.figures.wording import NOT_MEASURED, clustered, listed, words
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules


def projection_distributions(evidence: Evidence) -> str:
    """Plot 1."""
    layer = clearest_layer(evidence)
    frame = evidence.projections[evidence.projections["layer"] == layer]
    if layer is None or frame.empty:
        return NOT_MEASURED
    sides = {side: mean_interval(frame.loc[frame["side"] == side, "projection"]) for side in ("promote", "suppress")}
    row = evidence.layers[evidence.layers["layer"] == layer].iloc[0]
    return (
        f"Projection of held-out prompts on the trait direction at layer {layer}, the band layer that separates best: "
        f"promoting {words(sides['promote'], 'prompts')}, suppressing {words(sides['suppress'], 'prompts')}, "
        f"in hidden-state units; AUC {row['auc']:.3f}, Cohen's d {row['cohens_d']:.2f}."
    )


def alignment_by_layer(evidence: Evidence) -> str:
    """Plot 2."""
    band = in_band(evidence, "alignments", ["condition", "example"])
    if band.empty:
        return NOT_MEASURED
    means = {name: clustered(evidence, rows["example"], rows["alignment"]) for name, rows in band.groupby("condition")}
    means = {name: means[name] for name in evidence.conditions if name in means}
    layers = evidence.band
    return (
        f"Alignment, cos(−g, v), at each layer of the frozen base model, read at the "
        f"{shown(evidence.primary_position)}; shaded the band, {len(layers)} layers from {layers[0]} to {layers[-1]}. "
        f"Band means with 95 % t intervals: {listed((name, words(means[name], 'examples')) for name in means)}."
    )


def loss_by_condition(evidence: Evidence) -> str:
    """Plot 3."""
    losses = paired_losses(evidence)
    if losses.empty:
        return NOT_MEASURED
    means = [(name, words(clustered(evidence, losses.index, losses[name]), "examples")) for name in losses]
    other = [name for name in losses if name != NEUTRAL]
    paired = [
        (name, words(clustered(evidence, losses.index, losses[name] - losses[NEUTRAL]), "examples")) for name in other
    ]
    return (
        f"Loss of the trait-bearing completions on the frozen base model, nats/token, a point an example: "
        f"{listed(means)}. Paired difference to neutral: {listed(paired)}. Bars are 95 % t intervals of the mean."
    )


def trait_against_random(evidence: Evidence) -> str:
    """Plot 4."""
    parts = [(f"{places.other}:", _places(places)) for places in null_places(evidence)]
    parts = [(name, text) for name, text in parts if text]
    if not parts:
        return NOT_MEASURED
    return (
        f"The contrast alignment(other) − alignment(inoculation), a cosine, along the trait direction (line and "
        f"diamonds), along random directions (violins; bars hold the central 95 %) and along the directions of "
        f"unrelated traits (points; the bar reaches as far to either side, since the sign of such a contrast is "
        f"arbitrary). {listed(parts)}."
    )


def _places(places: Places) -> str:
    """T(v) and its p against each kind of direction that was measured."""
    against = {kind: f"{len(draws)} {KINDS[kind]} directions" for kind, draws in places.draws.items()}
    if len(places.unrelated):
        closest = places.unrelated.abs().idxmax()
        largest = f"the largest {shown(str(closest))}, {places.unrelated[closest]:.4f}"
        against[UNRELATED] = f"all of {len(places.unrelated)} unrelated traits ({largest})"
    found = [
        f"p = {places.p[kind]:.2g} against {name}" for kind, name in against.items() if math.isfinite(places.p[kind])
    ]
    return f"T(v) = {places.effect:.4f}, {', '.join(found)}" if found else ""


def prompt_pool(evidence: Evidence, rules: Rules) -> str:
    """Plot 10."""
    pool = pool_losses(evidence)
    pool = pool[pool["gap"].notna()]
    if pool.empty:
        return NOT_MEASURED
    questions = evidence.pool["example"].nunique()
    own = [
        (row["role"], f"{row['loss']:.3f} ({row['gap']:+.3f})")
        for row in pool.to_dict("records")
        if row["role"] != CANDIDATE
    ]
    candidates = evidence.pool.loc[evidence.pool["role"] == CANDIDATE, "prompt"].nunique()
    chosen = pool[pool["chosen"]]
    picked = ""
    if len(chosen):
        row = chosen.iloc[0]
        picked = (
            f" Chosen (ringed), the candidate closest to inoculation: {row['loss']:.3f}, a gap of {row['gap']:+.3f} "
            f"({row['low']:+.3f} to {row['high']:+.3f})."
        )
    distance = pool.loc[pool["role"] == NEUTRAL, "gap"]
    shaded = f" Shaded: within {100 * rules.loss_match:g} % of neutral's distance." if len(distance) else ""
    return (
        f"Mean loss of the trait-bearing answers under each of {candidates} harmless system prompts and under the "
        f"conditions' own, n = {questions} calibration questions, nats/token, as the difference to inoculation's with "
        f"its paired 95 % t interval. Loss, and in brackets that difference: {listed(own)}.{picked}{shaded}"
    )


def loss_overlap(evidence: Evidence) -> str:
    """Plot 11."""
    shared, losses = overlap_with_inoculation(evidence), paired_losses(evidence).mean()
    if not shared:
        return NOT_MEASURED
    gaps = loss_gaps(losses).drop(NEUTRAL)
    parts = [(name, f"{value:.2f}{_gap(gaps.get(name, math.nan))}") for name, value in shared.items()]
    pairs = pairs_with_loss(evidence)
    inside = (
        "neutral and inoculation reach no common loss"
        if pairs is None
        else f"shaded the range that neutral and inoculation both reach, {int(pairs.common.sum())} of "
        f"{pairs.common.size} losses"
    )
    return (
        f"How far the losses of the measured examples overlap with inoculation's, as area under the lower of two "
        f"densities (1: alike, 0: apart); {inside}. Overlap coefficient: {listed(parts)}."
    )


def _gap(share: float) -> str:
    """How far a mean loss is from inoculation's, where that can be said as a share of neutral's distance."""
    return f", loss gap {100 * share:.0f} % of neutral's" if math.isfinite(share) else ""


def alignment_at_equal_loss(evidence: Evidence, rules: Rules) -> str:
    """Plot 12."""
    at_equal = at_equal_loss(evidence, rules)
    parts = [(name, words(mean, "examples")) for name, mean in at_equal.items()]
    checkpoint, left = checkpoint_contrast(evidence)
    chosen = [*control_contrasts(evidence).items(), *([(CHECKPOINT, (checkpoint, left))] if checkpoint.n else [])]
    for name, (mean, share) in chosen:
        parts.append((name, f"{words(mean, 'examples')}{_gap(share)}"))
    if not parts:
        return NOT_MEASURED
    kept = ""
    if "regression" in at_equal and at_equal["unadjusted"].estimate != 0:
        share = at_equal["regression"].estimate / at_equal["unadjusted"].estimate
        kept = f" The regression keeps {100 * share:.0f} % of the unadjusted difference."
    return (
        f"Above: every example's alignment (cosine) against its loss, hollow outside the losses that neutral and "
        f"inoculation both reach, with the regression's lines. Below: alignment minus inoculation's with 95 % "
        f"intervals, neutral at common losses in four ways, then what was chosen for its loss (hollow: not adjusted "
        f"for loss, or a loss gap above {100 * rules.loss_match:g} % of neutral's). {listed(parts)}.{kept}"
    )
