"""What the figures of the fine-tuned runs show, in words."""

from __future__ import annotations

import math

import pandas as pd

from gradinoc.claims.tables import EARLY, Evidence
from gradinoc.report.figures.style import sentence
from gradinoc.report.figures.summaries import (
    PHASES,
    correlation,
    drift_course,
    early_and_drift,
    mean_interval,
    scored_responses,
    shifts,
    training_course,
    training_differences,
)  # fmt: skip
from gradinoc.report.figures.wording import NOT_MEASURED, listed, words
from gradinoc.study.rules import Rules

LEVELS = {"score": "{score}, held-out questions (fraction)", "log_odds": "Trait log-odds (nats/token)"}


def _shift_by_condition(evidence: Evidence, measure: str) -> str:
    runs = shifts(evidence, measure)
    if runs.empty:
        return "not measured"
    return listed(
        (name, words(mean_interval(runs.loc[runs["condition"] == name, "shift"]), "seeds")) for name in evidence.trained
    )


def projection_shift(evidence: Evidence) -> str:
    """Plot 5."""
    return (
        f"How far training moved the projection on the trait direction under the neutral prompt, in hidden-state "
        f"units, a point a seed, bars 95 % t intervals over seeds: {_shift_by_condition(evidence, 'projection')}."
    )


def score_shift(evidence: Evidence) -> str:
    """Plot 6."""
    return (
        f"How far training moved the {evidence.trait.score_name} of responses under the neutral prompt, a fraction, a "
        f"point a seed, bars 95 % t intervals over seeds. Held-out questions: "
        f"{_shift_by_condition(evidence, 'score')}. "
        f"Everyday requests: {_shift_by_condition(evidence, 'score_ood')}."
    )


def alignment_against_drift(evidence: Evidence, rules: Rules) -> str:
    """Plot 7."""
    runs = early_and_drift(evidence, "log_odds", rules.early_fraction)
    if runs.empty:
        return NOT_MEASURED
    r, n = correlation(runs["early"], runs["shift"])
    strength = f"r = {r:.2f}" if math.isfinite(r) else "r is undefined, since one side does not vary"
    groups = runs["condition"].nunique()
    return (
        f"A run's band alignment over its first {100 * rules.early_fraction:g} % of steps (cosine) against its shift "
        f"in trait log-odds (nats/token): {strength}, n = {n} runs; line and band are the regression over all runs "
        f"and its 95 % t interval. Runs are nested in conditions: {n} runs in {groups} clusters are not {n} "
        f"independent points."
    )


def projection_against_score(evidence: Evidence) -> str:
    """Plot 8."""
    frame = scored_responses(evidence)
    if frame.empty:
        return NOT_MEASURED
    r, n = correlation(frame["projection"], frame["score"])
    strength = f"r = {r:.2f}" if math.isfinite(r) else "r is undefined, since one side does not vary"
    return (
        f"Does the projection mean the trait? Band projection at the last prompt token (hidden-state units) against "
        f"the {evidence.trait.score_name} of the response that followed (fraction), before training and after every "
        f"run: {strength}, n = {n} responses, which share questions and models."
    )


def alignment_over_training(evidence: Evidence) -> str:
    """Plot 9."""
    course = training_course(evidence).dropna(subset=["alignment"])
    if course.empty:
        return NOT_MEASURED
    ends = []
    for name in evidence.trained:
        group = course[course["condition"] == name]
        first, last = (
            group.loc[group["step"] == at, "alignment"].mean() for at in (group["step"].min(), group["step"].max())
        )
        ends.append((name, f"from {first:.3f} to {last:.3f}"))
    return (
        f"Band alignment (cosine) of the training batches by optimiser step: thin a run, thick the mean over "
        f"seeds (n = {course['seed'].nunique()}), shaded from three seeds on its 95 % t interval. {listed(ends)}."
    )


def training_difference(evidence: Evidence) -> str:
    """Plot 13."""
    by_step = training_differences(evidence, points=len(evidence.training) + 1)  # a stretch a step
    if by_step.empty:
        return NOT_MEASURED
    by_seed = by_step.groupby("seed").mean()
    parts = [(f"{name}:", words(mean_interval(by_seed[name]), "seeds")) for name in by_seed]
    return (
        f"Band alignment minus inoculation's (cosine) of the training batches, paired by seed and optimiser step, so "
        f"that both sides saw the same examples: thin a seed, thick the mean over seeds, shaded from three seeds on "
        f"its 95 % t interval (df = seeds − 1). Mean over all steps: {listed(parts)}."
    )


def drift_over_training(evidence: Evidence) -> str:
    """Plot 14."""
    parts = []
    for measure, title in LEVELS.items():
        course = drift_course(evidence, measure).dropna(subset=["value"])
        means = course.groupby(["condition", "phase"])["value"].mean()
        found = set(course["condition"])
        runs = [(name, _phases(means[name])) for name in evidence.trained if name in found]
        named = title.format(score=sentence(evidence.trait.score_name))
        parts += [f"{named}: {listed(runs)}."] if runs else []
    if not parts:
        return NOT_MEASURED
    early = "" if EARLY in set(evidence.drift["phase"]) else " Nothing was measured early in training."
    return (
        f"What a model shows of the trait under the neutral prompt before, early in and after training, a point a run, "
        f"lines the means over seeds (n = {len(evidence.seeds)}).{early} {' '.join(parts)}"
    )


def _phases(means: pd.Series) -> str:
    return ", ".join(f"{word} {means[phase]:.3f}" for phase, word in PHASES.items() if phase in means)
