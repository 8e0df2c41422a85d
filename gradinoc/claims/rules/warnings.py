"""What was measured and decides nothing, but limits what a verdict means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from gradinoc.claims.evidence.measures import diverged_runs, nothing_scored, per_layer
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.gates.runs import G5
from gradinoc.claims.rules.finding import Finding
from gradinoc.claims.rules.specification import curve_of
from gradinoc.stats.effect import Effect, bare
from gradinoc.stats.regression.correlation import repeated_measures
from gradinoc.study.prompts.family import Family
from gradinoc.study.rules import Rules


def warnings_of(evidence: Evidence, rules: Rules, claims: Sequence[Finding]) -> list[str]:
    """Room, specifications, layers of both signs, tracking of the trait, and notes on how tables were computed."""
    del claims
    return [
        *_of_room(evidence, rules),
        *_of_curve(evidence, rules),
        *_of_layers(evidence),
        *_of_tracking(evidence),
        *evidence.caveats,
    ]


def _of_room(evidence: Evidence, rules: Rules) -> Iterator[str]:
    if diverged_runs(evidence) or nothing_scored(evidence):
        return
    room = G5.measure(evidence, rules)["room"].estimate
    if room < rules.room:
        yield (
            f"no room: harmless prompts leave {100 * room:.0f} % of the neutral drift, less than {100 * rules.room:g} "
            "%, so that inoculation could hardly do better; what C6 says holds at the doses tried"
        )


def _of_curve(evidence: Evidence, rules: Rules) -> Iterator[str]:
    curve = curve_of(evidence)
    if curve is not None and not curve.agreed(rules):
        yield curve.warning[:1].lower() + curve.warning[1:-1]


def _of_layers(evidence: Evidence) -> Iterator[str]:
    """Whether the band averages layers in which the families' contrast is of either sign."""
    layers = per_layer(evidence)
    harmless, inoculating = (
        list(evidence.family(family, list(layers.columns))) for family in (Family.HARMLESS, Family.INOCULATION)
    )
    contrast = layers[harmless].mean(axis=1) - layers[inoculating].mean(axis=1)
    rising, falling = int((contrast < 0).sum()), int((contrast > 0).sum())
    if rising and falling:
        yield (
            f"the band averages layers of both kinds: alignment is lower under inoculating prompts in {falling} and "
            f"higher in {rising} of {len(contrast)} layers"
        )


def _of_tracking(evidence: Evidence) -> Iterator[str]:
    tracking = trait_tracking(evidence)
    if not tracking.low > 0:
        yield (
            f"the trait direction is not shown to track the trait in responses of one model (r = {tracking}): what "
            "alignment with it means for the trait is open"
        )


def trait_tracking(evidence: Evidence) -> Effect:
    """The correlation of a response's score with its prompt's band projection, within models and domains of questions.

    Models are runs and the base model: between them training moves projection and score in ways of its own. NaN where
    nothing varies or fewer than three responses have both.
    """
    name = f"projection and {evidence.trait.score_name} of responses, within models and domains"
    responses = evidence.responses
    columns = responses[["projection", "score"]].to_numpy(dtype=np.float64)
    rows = np.isfinite(columns).all(axis=1)
    if rows.sum() < 3:
        return bare(name, np.nan, int(rows.sum()), "responses", "too few responses")
    groups = responses.groupby(["condition", "seed", "phase", "domain"], observed=True).ngroup().to_numpy()[rows]
    projection, score = columns[rows].T
    return replace(repeated_measures(projection, score, groups, name), unit="responses")
