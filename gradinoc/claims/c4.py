"""C4: a run's early alignment predicts its drift."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from gradinoc.claims.criteria import Criterion, above_zero, at_or_below_zero, p_at_most, positive
from gradinoc.claims.finding import Claim, Measured, Outcome, refuted, supported, undecided
from gradinoc.claims.gates import ON_RUNS
from gradinoc.claims.measures import (
    diverged_runs,
    drift_by_run,
    early_alignment,
)
from gradinoc.claims.tables import AFTER, BEFORE, EARLY, MEASURES, SCORED, Evidence
from gradinoc.stats.correlation import (
    correlation_tost,
    leave_one_out,
    repeated_measures,
    stratified_correlation,
    stratified_p,
)
from gradinoc.stats.effect import Array, Effect, bare, paired_effect, tost
from gradinoc.study.design import smallest_p
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.rules import Rules

PRIMARY = "log_odds"  # never at a ceiling, as scores of responses are
UNSCORED = "no example had a response that could be scored in every run"
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


def predict(evidence: Evidence, rules: Rules, rng: np.random.Generator) -> dict[str, Effect]:
    """The effects on which C4 rests, by the primary measure of drift.

    r of early alignment and drift, its lower tail and its equivalence to zero; the drift difference neutral -
    inoculation, and its equivalence to zero (absent where neutral runs do not drift).
    """
    drift = drift_by_run(evidence, PRIMARY)
    runs = runs_of(early_alignment(evidence, rules.early_fraction), drift)
    pearson, ranks = stratified_correlation(runs.x, runs.y, runs.seed, rng, f"early alignment and drift in {PRIMARY}")
    lower, how = stratified_p(runs.x, runs.y, runs.seed, rng, tail="less")
    difference, level = drift_difference(evidence, rules, PRIMARY), float(drift[NEUTRAL].mean())
    found = {
        "r": pearson,
        "drift.neutral": difference,
        "r.ranks": ranks,
        "r.opposite": replace(
            pearson, name=f"{pearson.name}, opposite", p=lower, method=f"Pearson, {how}, one-sided below"
        ),
        "r.equivalence": correlation_tost(pearson, rules.correlation_margin, rules.alpha),
    }
    if level > 0:
        found["drift.neutral.equivalence"] = tost(difference, rules.null_margin * level, rules.alpha)
    return found


def within_conditions(evidence: Evidence, rules: Rules) -> Effect:
    """The correlation of early alignment and drift with the conditions' means taken out."""
    runs = runs_of(early_alignment(evidence, rules.early_fraction), drift_by_run(evidence, PRIMARY))
    return repeated_measures(runs.x, runs.y, runs.condition, "early alignment and drift within conditions")


def measure(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """R between a run's early alignment and its drift, and the drift difference neutral - inoculation.

    Early alignment is a run's mean over the layer band in its first `rules.early_fraction` of steps; drift is in trait
    log-odds. Secondary: the control's drift, other measures of drift, the correlation within conditions, leaving one
    condition out, and drift at the midpoint checkpoint.
    """
    if diverged_runs(evidence):
        return Measured({}, "Not computed, because runs logged numbers that are not finite (see G4).")
    rng = np.random.default_rng(SEED_OF_ARRANGEMENTS)
    found = predict(evidence, rules, rng)
    seeds, conditions = len(evidence.seeds), len(evidence.trained)
    facts = {"seeds": seeds, "conditions": conditions, "smallest p": smallest_p(conditions, seeds, draws=1)["C4"]}
    if not secondary:
        return Measured(found, facts=facts)
    early = early_alignment(evidence, rules.early_fraction)
    grouped = _by_condition(runs_of(early, drift_by_run(evidence, PRIMARY)))
    control = control_differences(evidence, rules)
    statement = _statement(found, grouped, control, evidence.trait.score_name)
    beside = dict(_other_drift(evidence, rules, early, rng))
    return Measured({**found, **control, **grouped, **beside}, statement, facts)


def apart(found: Measured, rules: Rules) -> list[tuple[Criterion, str]]:
    """What shows that alignment does not go with drift, each with its words; empty where nothing does.

    r is equivalent to zero or significantly negative; or inoculated runs drift as much as neutral ones, while r
    is not significantly positive. That the equivalence of the drift lies inside its margin says nothing where the
    interval excludes zero from above: then inoculated runs do drift less, if only little.
    """
    shown = []
    opposite, flat = found["r.opposite"], found["r.equivalence"]
    if opposite.estimate < 0 and (criterion := p_at_most(opposite, rules.alpha)):
        shown.append((criterion, f"the correlation is below zero (p {opposite.p:.2g})"))
    if criterion := p_at_most(flat, rules.alpha):
        shown.append((criterion, f"{flat.name} to zero holds (p {flat.p:.2g})"))
    if (
        "drift.neutral.equivalence" in found
        and not above_zero(found["drift.neutral"])
        and not all(_follows(found, rules))
    ):
        same = found["drift.neutral.equivalence"]
        if criterion := p_at_most(same, rules.alpha):
            shown.append((criterion, f"{same.name} to zero holds (p {same.p:.2g})"))
    return shown


def _follows(found: Measured, rules: Rules) -> tuple[Criterion, Criterion]:
    """That r is above zero, with p <= alpha."""
    return positive(found["r"]), p_at_most(found["r"], rules.alpha)


def decide(found: Measured, rules: Rules) -> Outcome:
    """Supported if r > 0 with a seed-stratified permutation p <= alpha, and inoculated runs drift less.

    Refuted if the interval of the drift difference lies at or below zero, or alignment is shown not to go with drift
    (see `apart`). Undecided where runs diverged, or the design reaches no such p.
    """
    if not found.effects:
        return undecided(found.statement)
    difference, pearson = found["drift.neutral"], found["r"]
    follows, less, no_less = _follows(found, rules), above_zero(difference), at_or_below_zero(difference)
    against = apart(found, rules)
    criteria = (*follows, less, no_less, *(criterion for criterion, _ in against))
    floor = found.facts["smallest p"]
    if floor > rules.alpha:
        words = (
            f"{found.facts['conditions']} conditions with {found.facts['seeds']} seed(s) reach no p below {floor:.3g}"
        )
        return undecided(f"Undecided because the design cannot decide: {words}.", *criteria)
    if all(follows) and less:
        return supported(
            f"r is above zero with p at most {rules.alpha:g}, and the drift difference's interval lies above "
            "zero; without either it would have been undecided.",
            *criteria,
        )
    if no_less or against:
        shown = [*(["inoculated runs do not drift less"] if no_less else []), *(words for _, words in against)]
        reason = f"Refuted because {'; '.join(shown)}; the absence of significance alone would not have refuted it."
        return refuted(reason, *criteria)
    missing = []
    if not all(follows):
        missing.append(f"r is {pearson.estimate:+.2f} with p {pearson.p:.2g}")
    if not less:
        missing.append("the drift difference's interval is not above zero")
    flat = "nothing is shown to be equivalent to zero"
    if "drift.neutral.equivalence" in found and found["drift.neutral.equivalence"].p <= rules.alpha:
        yet = "its interval lies above zero" if less else "r is above zero"
        flat = f"the drift difference is equivalent to zero, yet {yet}, so it does not refute"
    return undecided(f"Undecided because {' and '.join(missing)}; {flat}.", *criteria)


def is_unscored(evidence: Evidence, measure: str, phase: str = AFTER) -> bool:
    """Whether no example has a response that could be scored before training and in every run: G6 then fails."""
    rows = evidence.drift[(evidence.drift["measure"] == measure) & evidence.drift["phase"].isin([BEFORE, phase])]
    scored = rows["value"].notna().groupby(rows["example"]).all()
    return measure in SCORED and len(rows) > 0 and not scored.any()


def drift_difference(
    evidence: Evidence, rules: Rules, measure: str = "log_odds", other: str = NEUTRAL, phase: str = AFTER
) -> Effect:
    """Mean over seeds of drift(other) - drift(inoculation), paired by seed, t with seeds - 1 df; NaN where unscored."""
    name = f"{'' if phase == AFTER else f'{phase} '}drift in {measure}, {other} - inoculation"
    if is_unscored(evidence, measure, phase):
        return bare(name, math.nan, 0, "seeds", UNSCORED)
    drift = drift_by_run(evidence, measure, phase)
    return paired_effect(drift[other], drift[INOCULATION], name, "seeds", 1 - rules.alpha)


def control_differences(evidence: Evidence, rules: Rules) -> dict[str, Effect]:
    """Drift of the loss_matched runs minus that of the inoculated ones, in log-odds and in the score of responses.

    Not above zero, any system prompt may do what inoculation does. It does not decide.
    """
    return {
        f"drift.{measure}.{LOSS_MATCHED}": drift_difference(evidence, rules, measure, LOSS_MATCHED)
        for measure in (PRIMARY, "score")
    }


def _statement(found: dict[str, Effect], grouped: dict[str, Effect], control: dict[str, Effect], score: str) -> str:
    within, *left_out = grouped.values()
    log_odds, scores = control.values()
    without = [effect.estimate for effect in left_out]
    n = found["r"].n
    one_out = f"{min(without):+.2f} to {max(without):+.2f}" if np.isfinite(without).all() else "not measurable"
    return (
        f"Early alignment and drift correlate by r = {found['r']}; within conditions r is {within}, without one "
        f"condition {one_out}. Drift of neutral runs minus that of inoculated ones "
        f"is {found['drift.neutral']} nats/token; of loss_matched runs minus that of inoculated ones {log_odds} "
        f"nats/token, and {scores} in {score}. Runs are nested in conditions: {n} runs in {len(left_out)} "
        f"clusters are not {n} independent points, and conditions drive both."
    )


def _by_condition(runs: Runs) -> dict[str, Effect]:
    """The correlation within conditions, then the correlations that leave out one condition each."""
    name = "early alignment and drift"
    within = repeated_measures(runs.x, runs.y, runs.condition, f"{name} within conditions")
    left_out = leave_one_out(runs.x, runs.y, runs.condition)
    kept = {condition: int(np.sum(runs.condition != condition)) for condition in left_out}
    without = {
        f"r.without.{c}": bare(f"{name} without {c}", r, kept[c], "runs", "Pearson") for c, r in left_out.items()
    }
    return {"r.within": within, **without}


def _other_drift(
    evidence: Evidence, rules: Rules, early: pd.DataFrame, rng: np.random.Generator
) -> Iterator[tuple[str, Effect]]:
    """The correlation and the drift difference by other measures of drift, then at the midpoint checkpoint.

    No measure is at its ceiling yet at the midpoint; none is given where it was not measured there.
    """
    midpoint = evidence.drift[evidence.drift["phase"] == EARLY]
    looked = [(measure, AFTER) for measure in MEASURES if measure != PRIMARY]
    looked += [(measure, EARLY) for measure in MEASURES if (midpoint["measure"] == measure).any()]
    for measure, phase in looked:
        key = measure if phase == AFTER else f"{phase}.{measure}"
        yield f"r.{key}", _correlation(evidence, early, (measure, phase), rng)
        yield f"drift.{key}", drift_difference(evidence, rules, measure, phase=phase)


def _correlation(evidence: Evidence, early: pd.DataFrame, drift: tuple[str, str], rng: np.random.Generator) -> Effect:
    """Early alignment with a measure of drift at a phase; NaN where no response could be scored."""
    measure, phase = drift
    name = f"early alignment and {'' if phase == AFTER else f'{phase} '}drift in {measure}"
    if is_unscored(evidence, measure, phase):
        return bare(name, math.nan, 0, "runs", UNSCORED)
    runs = runs_of(early, drift_by_run(evidence, measure, phase))
    return stratified_correlation(runs.x, runs.y, runs.seed, rng, name)[0]


C4 = Claim(
    "C4",
    "Alignment predicts drift.",
    measure,
    decide,
    ON_RUNS,
    "Supported if the runs' early alignment and their drift in log-odds correlate by r above zero, with a "
    "permutation p within seeds of at most {alpha}, and the interval of drift, neutral minus inoculation, lies "
    "above zero. Refuted if that interval lies at or below zero; if r is below zero with such a p; if r is "
    "equivalent to zero (within {correlation}); or if the drift difference is (within {margin} of the neutral "
    "drift), unless its interval lies above zero or r does with such a p. Otherwise undecided.",
)
