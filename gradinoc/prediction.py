"""C4: a run's early alignment predicts its drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from gradinoc.claims import Outcome, conclude, drift_difference, smallest_p
from gradinoc.contrasts import diverged_runs, drift_by_run, early_alignment
from gradinoc.correlation import (
    correlation_tost,
    leave_one_out,
    repeated_measures,
    stratified_correlation,
    stratified_p,
)
from gradinoc.evidence import MEASURES, Evidence
from gradinoc.gates import Finding, Status
from gradinoc.statistics import Array, Effect, bare, tost
from gradinoc.study import NEUTRAL, Rules

PRIMARY = "log_odds"  # never at a ceiling, as caps rates are
SEED_OF_ARRANGEMENTS = 0  # of permutations too many to count; fixed, so that a verdict can be reproduced


@dataclass(frozen=True)
class Runs:
    """One entry a run, all [runs]: early alignment `x`, drift `y`, its seed and its condition."""

    x: Array
    y: Array
    seed: npt.NDArray[np.int64]
    condition: npt.NDArray[np.str_]


def runs_of(early: pd.DataFrame, drift: pd.DataFrame) -> Runs:
    """The runs of two tables [seed, condition], early alignment and drift, as one list."""
    drift = drift.loc[early.index, early.columns]
    seed = np.repeat(early.index.to_numpy(dtype=np.int64), early.shape[1])
    condition = np.tile(np.array(early.columns, dtype=np.str_), len(early))
    return Runs(early.to_numpy(dtype=np.float64).ravel(), drift.to_numpy(dtype=np.float64).ravel(), seed, condition)


def claim_4(evidence: Evidence, rules: Rules, gates: Sequence[Finding]) -> Finding:
    """C4: supported if r > 0 with a seed-stratified permutation p <= alpha, and inoculated runs drift less.

    r is between a run's mean band alignment over its first `rules.early_fraction` of steps and its drift in trait
    log-odds; the drift difference neutral - inoculation is paired by seed and has a t interval. Refuted if that
    interval lies at or below zero, or r < 0 with its own permutation p <= alpha, or one of them is equivalent to zero
    (r: Fisher z, margin `rules.correlation_margin`; drift: `rules.null_margin` of the neutral drift). Other measures
    of drift, ranks, the correlation within conditions and leaving one condition out stand beside it.
    """
    if diverged_runs(evidence):
        statement = "Not computed, because runs logged numbers that are not finite (see G4)."
        return conclude("C4", Outcome(Status.UNDECIDED, statement), statement, (), gates)
    rng = np.random.default_rng(SEED_OF_ARRANGEMENTS)
    early, drift = early_alignment(evidence, rules.early_fraction), drift_by_run(evidence, PRIMARY)
    runs = runs_of(early, drift)
    pearson, ranks = stratified_correlation(runs.x, runs.y, runs.seed, rng, f"early alignment and drift in {PRIMARY}")
    lower, how = stratified_p(runs.x, runs.y, runs.seed, rng, tail="less")
    opposite = replace(pearson, name=f"{pearson.name}, opposite", p=lower, method=f"Pearson, {how}, one-sided below")
    difference = drift_difference(evidence, rules, PRIMARY)
    equal = [correlation_tost(pearson, rules.correlation_margin, rules.alpha)]
    if drift[NEUTRAL].mean() > 0:
        equal.append(tost(difference, rules.null_margin * float(drift[NEUTRAL].mean()), rules.alpha))
    grouped = _by_condition(runs)
    statement = (
        f"Early alignment and drift correlate by r = {pearson}; within conditions by {grouped[0]}; without one "
        f"condition by {min(e.estimate for e in grouped[1:]):+.2f} to {max(e.estimate for e in grouped[1:]):+.2f}. "
        f"Drift of neutral runs minus that of inoculated ones is {difference} nats/token. Runs are nested in "
        f"conditions: {len(runs.x)} runs in {early.shape[1]} clusters are not {len(runs.x)} independent points, "
        "and conditions drive both."
    )
    effects = [pearson, difference, ranks, opposite, *equal, *grouped, *_beside(evidence, rules, early, rng)]
    seeds, conditions = early.shape
    floor = smallest_p(conditions, seeds, draws=1)["C4"]
    words = f"{conditions} conditions with {seeds} seed(s) reach no p below {floor:.3g}" if floor > rules.alpha else ""
    outcome = _predicts(pearson, opposite, difference, equal, rules)
    return conclude("C4", outcome, statement, effects, gates, words)


def _by_condition(runs: Runs) -> list[Effect]:
    """The correlation within conditions, then the correlations that leave out one condition each."""
    name = "early alignment and drift"
    within = repeated_measures(runs.x, runs.y, runs.condition, f"{name} within conditions")
    left_out = leave_one_out(runs.x, runs.y, runs.condition)
    kept = {condition: int(np.sum(runs.condition != condition)) for condition in left_out}
    return [within, *(bare(f"{name} without {c}", r, kept[c], "runs", "Pearson") for c, r in left_out.items())]


def _beside(evidence: Evidence, rules: Rules, early: pd.DataFrame, rng: np.random.Generator) -> list[Effect]:
    """The correlation and the drift difference by the other measures of drift, which do not decide."""
    effects = []
    for measure in MEASURES:
        if measure != PRIMARY:
            runs = runs_of(early, drift_by_run(evidence, measure))
            name = f"early alignment and drift in {measure}"
            effects.append(stratified_correlation(runs.x, runs.y, runs.seed, rng, name)[0])
            effects.append(drift_difference(evidence, rules, measure))
    return effects


def _predicts(pearson: Effect, opposite: Effect, difference: Effect, equal: Sequence[Effect], rules: Rules) -> Outcome:
    if pearson.estimate > 0 and pearson.p <= rules.alpha and difference.low > 0:
        return Outcome(
            Status.SUPPORTED,
            f"r is above zero with p at most {rules.alpha:g}, and the drift difference's interval lies above "
            "zero; without either it would have been undecided.",
        )
    against = []
    if difference.high <= 0:
        against.append("inoculated runs do not drift less")
    if opposite.estimate < 0 and opposite.p <= rules.alpha:
        against.append(f"the correlation is below zero (p {opposite.p:.2g})")
    against += [f"{effect.name} to zero holds (p {effect.p:.2g})" for effect in equal if effect.p <= rules.alpha]
    if against:
        reason = f"Refuted because {'; '.join(against)}; the absence of significance alone would not have refuted it."
        return Outcome(Status.REFUTED, reason)
    missing = []
    if not (pearson.estimate > 0 and pearson.p <= rules.alpha):
        missing.append(f"r is {pearson.estimate:+.2f} with p {pearson.p:.2g}")
    if not difference.low > 0:
        missing.append("the drift difference's interval is not above zero")
    return Outcome(
        Status.UNDECIDED,
        f"Undecided because {' and '.join(missing)}; nothing is shown to be equivalent to zero.",
    )
