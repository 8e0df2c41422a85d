"""G11: did removing the component along the direction do to the gradient, and to the stream, what it should?"""

from __future__ import annotations

import numpy as np

from gradinoc.claims.evidence.arms import (
    arms_of,
    compared,
    largest_alignment,
    leak,
    learned,
    mean_alignment,
    moved,
    moves,
    removes,
    shift,
    soundness,
)
from gradinoc.claims.evidence.measures import DIVERGED, diverged_runs
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.criteria import Criterion, at_least, below, interval
from gradinoc.claims.rules.finding import Claim, Measured, Outcome, held, refuted
from gradinoc.stats.effect import bare
from gradinoc.study.arms import FULL, PROJECT
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules


def _taken(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """What is left of the gradient along v, of the stream's movement along it, and of what was learned."""
    if diverged_runs(compared(evidence)):
        return Measured({}, DIVERGED)
    own = arms_of(evidence, PROJECT).own.get(FULL)
    if own is None:
        return Measured({}, "Not computed, because no arm removes the whole component along the direction.")
    runs = len([run for run in compared(evidence).planned_runs if run[0] == own])
    before, after = moves(evidence, 1 - rules.alpha), shift(evidence, own)
    how = "mean over runs and band"
    cut = 1 - abs(after) / abs(before.estimate) if before.estimate else float("nan")
    sound = soundness(evidence)
    effects = {
        "alignment": bare(
            "largest |cosine| of the projected gradient with v", largest_alignment(evidence, (own,)), runs, "runs",
            "largest over steps, examples and band",
        ),
        "cut": bare("share of the shift along v that is cut", cut, runs, "runs", how),
        "shift.neutral": before,
        "failed": bare(
            "projected runs that did not learn, and runs that began with another adapter than the neutral run of "
            "their seed", sound.failed, sound.runs, "runs", "count",
        ),
        "unscorable": bare(
            "share of responses of runs with an intervention that cannot be scored", sound.unscorable, sound.runs,
            "runs", "of greedy responses, or of questions without a scored sample: the larger",
        ),
    }  # fmt: skip
    if secondary:
        effects |= {
            "alignment.neutral": bare(
                "mean |cosine| of neutral runs", mean_alignment(evidence, NEUTRAL), runs, "runs", how
            ),
            "shift.removed": bare("shift along v of removed runs, hidden-state units", after, runs, "runs", how),
            "leak.neutral": bare(
                "share of the weights learned along v, neutral", leak(evidence, NEUTRAL), runs, "runs", how
            ),
            "leak.removed": bare(
                "share of the weights learned along v, removed", leak(evidence, own), runs, "runs", how
            ),
        }
    effects["loss"] = bare(
        "fall of the training loss, removed / neutral", learned(evidence, own, NEUTRAL), runs,
        "runs", how,
    )  # fmt: skip
    effects["step"] = bare("change of weights, removed / neutral", moved(evidence, own, NEUTRAL), runs, "runs", how)
    taken = f"of the shift along v {100 * cut:.0f} % is cut" if not cut < 0 else (
        f"the stream moves by {after:.3g} along v, farther than with the component, by {before.estimate:.3g}"
    )  # fmt: skip
    statement = (
        f"The projected gradient's cosine with v is {effects['alignment'].estimate:.2g} at most; {taken}; the training "
        f"loss falls by {effects['loss'].estimate:.3f} times as much, and weights change by "
        f"{effects['step'].estimate:.3f} times as much."
    )
    if sound.failed:
        statement += (
            f" {sound.failed} of {sound.runs} runs with an intervention did not learn though projected, or began with "
            "another adapter than the neutral run of their seed."
        )
    return Measured(effects, statement)


def _took(found: Measured, rules: Rules) -> Outcome:
    if not found.effects:
        return refuted(found.statement)
    rule = (
        f"a cosine of less than {rules.projected:g}; neutral runs shown to move along v, and at least {rules.cut:g} of "
        f"that cut; projected runs that learn, and fewer than {100 * rules.max_unscorable:g} % of whose "
        "responses cannot be scored"
    )
    moved = found["shift.neutral"]
    away = Criterion(
        moved.key, f"{interval(moved)} of {moved.name} without zero", moved.low > 0 or moved.high < 0,
        max(moved.low, -moved.high),
    )  # fmt: skip
    learn = Criterion(
        "failed", "every projected run learns, and every run begins with the adapter of its seed",
        not found["failed"].estimate, np.nan,
    )  # fmt: skip
    return held(
        rule, below(found["alignment"], rules.projected), away, at_least(found["cut"], rules.cut), learn,
        below(found["unscorable"], rules.max_unscorable),
    )  # fmt: skip


G11 = Claim("G11", "The intervention took.", _taken, _took, needs=("arms",), asked=removes)
