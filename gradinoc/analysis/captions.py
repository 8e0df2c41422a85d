"""What each figure shows, in a sentence with its numbers: its caption, and its text for those who cannot see it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from gradinoc.analysis.frozen import clearest_layer
from gradinoc.analysis.style import shown
from gradinoc.analysis.summaries import (
    Mean,
    contrasts,
    correlation,
    early_and_drift,
    exceedance,
    in_band,
    mean_interval,
    null_effects,
    paired_losses,
    shifts,
    template_of,
    training_course,
)
from gradinoc.evidence import Evidence
from gradinoc.study import NEUTRAL

NOT_MEASURED = "Not measured in this study."


def _words(mean: Mean, unit: str) -> str:
    """A mean with its interval: "0.120 (0.109 to 0.131, n = 96 examples)"."""
    counted = f"n = {mean.n} {unit if mean.n != 1 else unit.removesuffix('s')}"
    if mean.n == 0:
        return "not measured"
    return f"{mean.estimate:.3f} " + (
        f"({mean.low:.3f} to {mean.high:.3f}, {counted})" if math.isfinite(mean.low) else f"({counted})"
    )


def _listed(parts: Iterable[tuple[Any, str]]) -> str:
    return "; ".join(f"{shown(str(name))} {words}" for name, words in parts)


def _projection_distributions(evidence: Evidence) -> str:
    layer = clearest_layer(evidence)
    frame = evidence.projections[evidence.projections["layer"] == layer]
    if layer is None or frame.empty:
        return NOT_MEASURED
    sides = {side: mean_interval(frame.loc[frame["side"] == side, "projection"]) for side in ("promote", "suppress")}
    row = evidence.layers[evidence.layers["layer"] == layer].iloc[0]
    return (
        f"Projection of held-out prompts on the trait direction at layer {layer}, the band layer that separates best: "
        f"promoting {_words(sides['promote'], 'prompts')}, suppressing {_words(sides['suppress'], 'prompts')}, "
        f"in hidden-state units; AUC {row['auc']:.3f}, Cohen's d {row['cohens_d']:.2f}."
    )


def _alignment_by_layer(evidence: Evidence) -> str:
    band = in_band(evidence, "alignments", ["condition", "example"])
    if band.empty:
        return NOT_MEASURED
    means = {name: _clustered(evidence, rows["example"], rows["alignment"]) for name, rows in band.groupby("condition")}
    means = {name: means[name] for name in evidence.conditions if name in means}
    layers = evidence.band
    return (
        f"Alignment, cos(−g, v), at each layer of the frozen base model, read at the "
        f"{shown(evidence.primary_position)}; shaded the band, {len(layers)} layers from {layers[0]} to {layers[-1]}. "
        f"Band means with 95 % t intervals: {_listed((name, _words(means[name], 'examples')) for name in means)}."
    )


def _clustered(evidence: Evidence, examples: Any, values: Any) -> Mean:
    """The mean over `examples`, its interval clustered by what they were made from."""
    return mean_interval(values, template_of(evidence, examples))


def _loss_by_condition(evidence: Evidence) -> str:
    losses = paired_losses(evidence)
    if losses.empty:
        return NOT_MEASURED
    means = [(name, _words(_clustered(evidence, losses.index, losses[name]), "examples")) for name in losses]
    other = [name for name in losses if name != NEUTRAL]
    paired = [
        (name, _words(_clustered(evidence, losses.index, losses[name] - losses[NEUTRAL]), "examples")) for name in other
    ]
    return (
        f"Loss of the trait-bearing completions on the frozen base model, nats/token, a point an example: "
        f"{_listed(means)}. Paired difference to neutral: {_listed(paired)}. Bars are 95 % t intervals of the mean."
    )


def _trait_against_random(evidence: Evidence) -> str:
    nulls, effects = null_effects(evidence), contrasts(evidence).mean()
    parts = []
    for kind in dict.fromkeys(nulls["null"]):
        draws = nulls[nulls["null"] == kind]
        for other in effects.index:
            p = exceedance(effects[other], draws[other])
            words = f"T(v) = {effects[other]:.4f}, p = {p:.2g} against {len(draws)} directions"
            parts.append((f"{other}, {kind}:", words))
    if not parts:
        return NOT_MEASURED
    return (
        f"The contrast alignment(other) − alignment(inoculation), a cosine, along random directions (violins; bars "
        f"hold the central 95 %) and along the trait direction (diamonds): {_listed(parts)}."
    )


def _shift(evidence: Evidence, measure: str) -> str:
    runs = shifts(evidence, measure)
    if runs.empty:
        return "not measured"
    return _listed(
        (name, _words(mean_interval(runs.loc[runs["condition"] == name, "shift"]), "seeds"))
        for name in evidence.conditions
    )


def _projection_shift(evidence: Evidence) -> str:
    return (
        f"How far training moved the projection on the trait direction under the neutral prompt, in hidden-state "
        f"units, a point a seed, bars 95 % t intervals over seeds: {_shift(evidence, 'projection')}."
    )


def _caps_rate_shift(evidence: Evidence) -> str:
    return (
        f"How far training moved the caps rate of responses under the neutral prompt, a fraction, a point a seed, bars "
        f"95 % t intervals over seeds. Held-out questions: {_shift(evidence, 'caps_rate')}. "
        f"Everyday requests: {_shift(evidence, 'caps_rate_ood')}."
    )


def _alignment_against_drift(evidence: Evidence) -> str:
    runs = early_and_drift(evidence, "log_odds")
    if runs.empty:
        return NOT_MEASURED
    r, n = correlation(runs["early"], runs["shift"])
    strength = f"r = {r:.2f}" if math.isfinite(r) else "r is undefined, since one side does not vary"
    groups = runs["condition"].nunique()
    return (
        f"A run's early band alignment (cosine) against its shift in trait log-odds (nats/token): {strength}, "
        f"n = {n} runs; line and band are the regression over all runs and its 95 % t interval. Runs are nested in "
        f"conditions: {n} runs in {groups} clusters are not {n} independent points."
    )


def _projection_against_caps_rate(evidence: Evidence) -> str:
    frame = evidence.responses.dropna(subset=["projection", "caps_rate"])
    if frame.empty:
        return NOT_MEASURED
    r, n = correlation(frame["projection"], frame["caps_rate"])
    strength = f"r = {r:.2f}" if math.isfinite(r) else "r is undefined, since one side does not vary"
    return (
        f"Does the projection mean the trait? Band projection at the last prompt token (hidden-state units) against "
        f"the caps rate of the response that followed (fraction), before training and after every run: {strength}, "
        f"n = {n} responses, which share questions and models."
    )


def _alignment_over_training(evidence: Evidence) -> str:
    course = training_course(evidence).dropna(subset=["alignment"])
    if course.empty:
        return NOT_MEASURED
    ends = []
    for name in evidence.conditions:
        group = course[course["condition"] == name]
        first, last = (
            group.loc[group["step"] == at, "alignment"].mean() for at in (group["step"].min(), group["step"].max())
        )
        ends.append((name, f"from {first:.3f} to {last:.3f}"))
    return (
        f"Band alignment (cosine) of the training batches by optimiser step: thin a run, thick the mean over "
        f"seeds (n = {course['seed'].nunique()}), shaded from three seeds on its 95 % t interval. {_listed(ends)}."
    )


CAPTIONS: dict[str, Callable[[Evidence], str]] = {
    "plot1_projection_distributions": _projection_distributions,
    "plot2_alignment_by_layer": _alignment_by_layer,
    "plot3_loss_by_condition": _loss_by_condition,
    "plot4_trait_against_random": _trait_against_random,
    "plot5_projection_shift": _projection_shift,
    "plot6_caps_rate_shift": _caps_rate_shift,
    "plot7_alignment_against_drift": _alignment_against_drift,
    "plot8_projection_against_caps_rate": _projection_against_caps_rate,
    "plot9_alignment_over_training": _alignment_over_training,
}


def caption(name: str, evidence: Evidence) -> str:
    """The finding of the figure `name` (a key of `FIGURES`) in a sentence or two, numbers and n included."""
    return CAPTIONS[name](evidence)
