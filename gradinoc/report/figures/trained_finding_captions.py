"""What each figure of the fine-tuned runs found, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradinoc.claims.tables import AFTER, BEFORE, Evidence
from gradinoc.report.figures.style import sentence, shown
from gradinoc.report.figures.summaries import (
    Mean,
    correlation,
    drift_course,
    early_and_drift,
    mean_interval,
    scored_responses,
    shifts,
    training_course,
    training_differences,
)
from gradinoc.report.figures.wording import NOT_MEASURED, between, by_condition, rounded, side
from gradinoc.stats.correlation import fisher_interval
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules


def _moved(evidence: Evidence, measure: str) -> str:
    runs = shifts(evidence, measure)
    means = runs.groupby("condition")["shift"].mean()
    return by_condition((name, means[name]) for name in evidence.trained if name in means)


def projection_shift(evidence: Evidence, rules: Rules) -> str:  # noqa: ARG001 - called alike
    """Plot 5."""
    moved = _moved(evidence, "projection")
    return f"Training moved the projection on the trait direction by {moved}." if moved else NOT_MEASURED


def score_shift(evidence: Evidence, rules: Rules) -> str:  # noqa: ARG001 - called alike
    """Plot 6."""
    places = {"held-out questions": _moved(evidence, "score"), "everyday requests": _moved(evidence, "score_ood")}
    parts = [f"on {place} by {moved}" for place, moved in places.items() if moved]
    return f"Training moved the {evidence.trait.score_name} {'; '.join(parts)}." if parts else NOT_MEASURED


def _together(r: float, n: int, ways: Sequence[str], unit: str) -> str:
    """A correlation by its sign, if its interval has one: more, less, or neither shown."""
    if not math.isfinite(r):
        return "One side does not vary, so nothing can be said of how they go together."
    mean = Mean(r, *fisher_interval(r, n), n)
    return f"{side(mean, *ways)}: r = {r:.2f}, n = {n} {unit}.".replace("-", "−")


def alignment_against_drift(evidence: Evidence, rules: Rules) -> str:
    """Plot 7."""
    runs = early_and_drift(evidence, "log_odds", rules.early_fraction)
    if runs.empty:
        return NOT_MEASURED
    who = "Runs with more early alignment"
    ways = (f"{who} drift more", f"{who} drift less", f"{who} are not shown to drift more or less")
    return _together(*correlation(runs["early"], runs["shift"]), ways, "runs")


def projection_against_score(evidence: Evidence, rules: Rules) -> str:  # noqa: ARG001 - called alike
    """Plot 8."""
    frame = scored_responses(evidence)
    if frame.empty:
        return NOT_MEASURED
    who, score = "Responses to prompts with a larger projection", evidence.trait.score_name
    ways = (
        f"{who} have a higher {score}",
        f"{who} have a lower {score}",
        f"{who} are not shown to have another {score}",
    )
    return _together(*correlation(frame["projection"], frame["score"]), ways, "responses")


def alignment_over_training(evidence: Evidence, rules: Rules) -> str:  # noqa: ARG001 - called alike
    """Plot 9."""
    course = training_course(evidence).dropna(subset=["alignment"])
    if course.empty:
        return NOT_MEASURED
    means = course.groupby("condition")["alignment"].mean()
    found = by_condition((name, means[name]) for name in evidence.trained if name in means)
    return f"Mean alignment of the training batches over all steps: {found}."


def training_difference(evidence: Evidence, rules: Rules) -> str:  # noqa: ARG001 - called alike
    """Plot 13."""
    steps = training_differences(evidence, points=len(evidence.training) + 1)
    if steps.empty or NEUTRAL not in steps:
        return NOT_MEASURED
    mean = mean_interval(steps.groupby("seed")[NEUTRAL].mean())
    how = side(mean, "lower", "higher", "not shown to be other")
    return (
        f"In training, alignment is {how} under inoculation than under neutral: neutral minus inoculation "
        f"{rounded(mean.estimate)} ({between(mean)}, n = {mean.n} seeds)."
    )


def drift_over_training(evidence: Evidence, rules: Rules) -> str:  # noqa: ARG001 - called alike
    """Plot 14."""
    parts = []
    for measure, name in (
        ("score", f"the {evidence.trait.score_name}"),
        ("log_odds", "the mean trait log-odds"),
    ):
        means = drift_course(evidence, measure).dropna(subset=["value"]).groupby(["condition", "phase"])["value"].mean()
        ends = [
            f"{rounded(means[condition, BEFORE])} to {rounded(means[condition, AFTER])} under {shown(condition)}"
            for condition in evidence.trained
            if (condition, AFTER) in means
        ]
        parts += [f"{name} goes from {', '.join(ends)}"] if ends else []
    return f"{sentence('; '.join(parts))}." if parts else NOT_MEASURED
