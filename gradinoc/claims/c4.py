"""C4: a run's early alignment predicts its drift."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from gradinoc.claims.c1 import Outcome, conclude, drift_difference
from gradinoc.claims.design import smallest_p
from gradinoc.claims.gates import Finding, Status
from gradinoc.claims.measures import UNSCORED, diverged_runs, drift_by_run, early_alignment, is_unscored
from gradinoc.claims.tables import AFTER, EARLY, MEASURES, Evidence
from gradinoc.stats.correlation import (
    correlation_tost,
    leave_one_out,
    repeated_measures,
    stratified_correlation,
    stratified_p,
)
from gradinoc.stats.effect import Array, Effect, bare, tost
from gradinoc.study.prompts import LOSS_MATCHED, NEUTRAL
from gradinoc.study.rules import Rules

PRIMARY = "log_odds"  # never at a ceiling, as scores of responses are
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


@dataclass(frozen=True)
class Prediction:
    """What decides C4: r of early alignment and drift, its lower tail and its equivalence to zero; the drift
    difference neutral - inoculation, and its equivalence to zero (None where neutral runs do not drift).
    """

    pearson: Effect
    ranks: Effect
    opposite: Effect
    uncorrelated: Effect
    difference: Effect
    same_drift: Effect | None

    def follows(self, rules: Rules) -> bool:
        """Whether r is above zero with p <= alpha."""
        return self.pearson.estimate > 0 and self.pearson.p <= rules.alpha


def predict(evidence: Evidence, rules: Rules, rng: np.random.Generator) -> Prediction:
    """The numbers on which C4 rests, by the primary measure of drift."""
    drift = drift_by_run(evidence, PRIMARY)
    runs = runs_of(early_alignment(evidence, rules.early_fraction), drift)
    pearson, ranks = stratified_correlation(runs.x, runs.y, runs.seed, rng, f"early alignment and drift in {PRIMARY}")
    lower, how = stratified_p(runs.x, runs.y, runs.seed, rng, tail="less")
    opposite = replace(pearson, name=f"{pearson.name}, opposite", p=lower, method=f"Pearson, {how}, one-sided below")
    uncorrelated = correlation_tost(pearson, rules.correlation_margin, rules.alpha)
    difference, level = drift_difference(evidence, rules, PRIMARY), float(drift[NEUTRAL].mean())
    same = tost(difference, rules.null_margin * level, rules.alpha) if level > 0 else None
    return Prediction(pearson, ranks, opposite, uncorrelated, difference, same)


def within_conditions(evidence: Evidence, rules: Rules) -> Effect:
    """The correlation of early alignment and drift with the conditions' means taken out."""
    runs = runs_of(early_alignment(evidence, rules.early_fraction), drift_by_run(evidence, PRIMARY))
    return repeated_measures(runs.x, runs.y, runs.condition, "early alignment and drift within conditions")


def disconnected(found: Prediction, rules: Rules) -> list[str]:
    """What shows that alignment does not go with drift, in words; empty where nothing does.

    r is equivalent to zero or significantly negative; or inoculated runs drift as much as neutral ones, while r
    is not significantly positive. That the equivalence of the drift lies inside its margin says nothing where the
    interval excludes zero from above: then inoculated runs do drift less, if only little.
    """
    opposite, flat, same = found.opposite, found.uncorrelated, found.same_drift
    shown = []
    if opposite.estimate < 0 and opposite.p <= rules.alpha:
        shown.append(f"the correlation is below zero (p {opposite.p:.2g})")
    if flat.p <= rules.alpha:
        shown.append(f"{flat.name} to zero holds (p {flat.p:.2g})")
    if same and same.p <= rules.alpha and not found.difference.low > 0 and not found.follows(rules):
        shown.append(f"{same.name} to zero holds (p {same.p:.2g})")
    return shown


def not_together(evidence: Evidence, rules: Rules) -> list[str]:
    """`disconnected` of a study; empty where runs diverged."""
    if diverged_runs(evidence):
        return []
    return disconnected(predict(evidence, rules, np.random.default_rng(SEED_OF_ARRANGEMENTS)), rules)


def claim_4(evidence: Evidence, rules: Rules, gates: Sequence[Finding]) -> Finding:
    """C4: supported if r > 0 with a seed-stratified permutation p <= alpha, and inoculated runs drift less.

    r is between a run's mean band alignment over its first `rules.early_fraction` of steps and its drift in trait
    log-odds; the drift difference neutral - inoculation is paired by seed and has a t interval. Refuted if that
    interval lies at or below zero, or r < 0 with its own permutation p <= alpha, or r is equivalent to zero (Fisher z,
    margin `rules.correlation_margin`), or the drift difference is (`rules.null_margin` of the neutral drift) unless
    its interval lies above zero or r does (see `disconnected`). The control's drift, other measures of drift, ranks,
    the correlation within conditions, leaving one condition out and drift amid training stand beside it.
    """
    if diverged_runs(evidence):
        statement = "Not computed, because runs logged numbers that are not finite (see G4)."
        return conclude("C4", Outcome(Status.UNDECIDED, statement), statement, (), gates)
    rng = np.random.default_rng(SEED_OF_ARRANGEMENTS)
    found = predict(evidence, rules, rng)
    early = early_alignment(evidence, rules.early_fraction)
    grouped = _by_condition(runs_of(early, drift_by_run(evidence, PRIMARY)))
    control = control_differences(evidence, rules)
    statement = _statement(found, grouped, control, evidence.trait.score_name)
    same = [found.same_drift] if found.same_drift else []
    effects = [found.pearson, found.difference, found.ranks, found.opposite, found.uncorrelated, *same, *control]
    effects += [*grouped, *_beside(evidence, rules, early, rng)]
    seeds, conditions = early.shape
    floor = smallest_p(conditions, seeds, draws=1)["C4"]
    words = f"{conditions} conditions with {seeds} seed(s) reach no p below {floor:.3g}" if floor > rules.alpha else ""
    return conclude("C4", _predicts(found, rules), statement, effects, gates, words)


def control_differences(evidence: Evidence, rules: Rules) -> list[Effect]:
    """Drift of the loss_matched runs minus that of the inoculated ones, in log-odds and in the score of responses.

    Not above zero, any system prompt may do what inoculation does. It does not decide.
    """
    return [drift_difference(evidence, rules, measure, LOSS_MATCHED) for measure in (PRIMARY, "score")]


def _statement(found: Prediction, grouped: Sequence[Effect], control: Sequence[Effect], score: str) -> str:
    within, *left_out = grouped
    without = [effect.estimate for effect in left_out]
    n = found.pearson.n
    one_out = f"{min(without):+.2f} to {max(without):+.2f}" if np.isfinite(without).all() else "not measurable"
    return (
        f"Early alignment and drift correlate by r = {found.pearson}; within conditions r is {within}, without one "
        f"condition {one_out}. Drift of neutral runs minus that of inoculated ones "
        f"is {found.difference} nats/token; of loss_matched runs minus that of inoculated ones {control[0]} "
        f"nats/token, and {control[1]} in {score}. Runs are nested in conditions: {n} runs in {len(left_out)} "
        f"clusters are not {n} independent points, and conditions drive both."
    )


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
            effects.append(_correlation(evidence, early, (measure, AFTER), rng))
            effects.append(drift_difference(evidence, rules, measure))
    return [*effects, *_amid_training(evidence, rules, early, rng)]


def _amid_training(evidence: Evidence, rules: Rules, early: pd.DataFrame, rng: np.random.Generator) -> Iterator[Effect]:
    """The same at the early checkpoint, where no measure is at its ceiling yet; none where it was not measured."""
    amid = evidence.drift[evidence.drift["phase"] == EARLY]
    for measure in MEASURES:
        if (amid["measure"] == measure).any():
            yield _correlation(evidence, early, (measure, EARLY), rng)
            yield drift_difference(evidence, rules, measure, phase=EARLY)


def _correlation(evidence: Evidence, early: pd.DataFrame, drift: tuple[str, str], rng: np.random.Generator) -> Effect:
    """Early alignment with a measure of drift at a phase; NaN where no response could be scored."""
    measure, phase = drift
    name = f"early alignment and {'' if phase == AFTER else f'{phase} '}drift in {measure}"
    if is_unscored(evidence, measure, phase):
        return bare(name, math.nan, 0, "runs", UNSCORED)
    runs = runs_of(early, drift_by_run(evidence, measure, phase))
    return stratified_correlation(runs.x, runs.y, runs.seed, rng, name)[0]


def _predicts(found: Prediction, rules: Rules) -> Outcome:
    difference, pearson = found.difference, found.pearson
    if found.follows(rules) and difference.low > 0:
        return Outcome(
            Status.SUPPORTED,
            f"r is above zero with p at most {rules.alpha:g}, and the drift difference's interval lies above "
            "zero; without either it would have been undecided.",
        )
    against = ["inoculated runs do not drift less"] if difference.high <= 0 else []
    against += disconnected(found, rules)
    if against:
        reason = f"Refuted because {'; '.join(against)}; the absence of significance alone would not have refuted it."
        return Outcome(Status.REFUTED, reason)
    missing = []
    if not found.follows(rules):
        missing.append(f"r is {pearson.estimate:+.2f} with p {pearson.p:.2g}")
    if not difference.low > 0:
        missing.append("the drift difference's interval is not above zero")
    shown = "nothing is shown to be equivalent to zero"
    if found.same_drift and found.same_drift.p <= rules.alpha:
        yet = "its interval lies above zero" if difference.low > 0 else "r is above zero"
        shown = f"the drift difference is equivalent to zero, yet {yet}, so it does not refute"
    return Outcome(Status.UNDECIDED, f"Undecided because {' and '.join(missing)}; {shown}.")
