"""Drift of two kinds of runs where both have the same training loss: less drift may be nothing but less learning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import optimize

from gradinoc.claims.evidence.measures import drift_by_question, question_groups
from gradinoc.claims.evidence.tables import BASE, BEFORE, DECISION, Evidence
from gradinoc.claims.evidence.wide import by_run, less_base, once
from gradinoc.stats.effect import Array
from gradinoc.stats.families import Families

Run = tuple[str, int]
ROUNDING = 1e-9  # of a loss: where a curve is level, it is reached at the same step in each of two runs


def at_same_loss(evidence: Evidence, pairs: dict[str, str], beside: dict[str, str]) -> Families:
    """Drift of the decision log-odds by question of two conditions, each pair of runs of a seed at the same loss.

    Runs of a seed meet the same batches. Each one's loss by step is smoothed (see `falling_losses`); of a pair the one
    that went further is read at the step where it reached the loss at which the other ended, its drift on a straight
    line between kept adapters. Rows are runs.

    Args:
        evidence: of all runs.
        pairs: family -> condition, two of them, compared where both have a seed.
        beside: family -> condition, whose runs of these seeds are read after as many steps as the first of the pair:
            what they are compared with is that one, and under another prompt the same loss is not the same progress.
    """
    courses = drift_courses(evidence)
    first, second = pairs.values()
    seeds = sorted(
        {seed for name, seed in courses if name == first} & {seed for name, seed in courses if name == second}
    )
    tables: dict[str, list[Array]] = {family: [] for family in (*pairs, *beside)}
    for seed in seeds:
        steps = both_reach(evidence, (first, seed), (second, seed))
        for (family, name), step in zip(pairs.items(), steps, strict=True):
            tables[family].append(_at(courses[name, seed], step))
        for family, name in beside.items():
            tables[family].append(_at(courses[name, seed], steps[0]))
    questions = next(iter(courses.values())).index
    groups = question_groups(evidence, "drift", questions, DECISION)
    return Families({family: np.stack(rows) for family, rows in tables.items()}, groups)


def less_twin_at_same_loss(evidence: Evidence, conditions: Sequence[str], twin: str) -> Array:
    """Mean drift of the log-odds of runs less that of the run of `twin` of the same seed, both at one loss [runs]."""
    courses = drift_courses(evidence)
    runs = sorted((run for run in courses if run[0] in conditions), key=lambda run: (conditions.index(run[0]), run[1]))
    differences = []
    for run in runs:
        other = (twin, run[1])
        own, twins = both_reach(evidence, run, other)
        differences.append(_at(courses[run], own).mean() - _at(courses[other], twins).mean())
    return np.array(differences)


def both_reach(evidence: Evidence, *runs: Run) -> tuple[float, ...]:
    """After how many steps each of some runs has come down to the lowest loss that all of them have reached."""
    losses = [falling_losses(evidence)[run] for run in runs]
    level = max(float(each[-1]) for each in losses)
    return tuple(_steps_to(each, level + ROUNDING * abs(level)) for each in losses)


@once
def falling_losses(evidence: Evidence) -> dict[Run, Array]:
    """Training loss of each run by step, smoothed by the nearest curve that falls ever more slowly, nats/token.

    Batches differ by more than runs do. A curve that has only to fall follows them down at its end: of two runs, one of
    which learns 0.85 of what the other does, it takes the other's 0.91 for the same loss (24 steps, batches that differ
    by 0.15 of the fall); this one 0.83.
    """
    table = evidence.training
    one = table[(table["layer"] == table["layer"].min()) & (table["position"] == evidence.primary_position)]
    means = one.groupby(["condition", "seed", "step"], observed=True)["loss"].mean()
    return {
        (str(condition), int(seed)): _slowing(rows.to_numpy(dtype=np.float64))
        for (condition, seed), rows in means.groupby(level=["condition", "seed"], observed=True)
    }


@once
def drift_courses(evidence: Evidence) -> dict[Run, pd.DataFrame]:
    """Drift of the decision log-odds of each run: index example, a column a step at which it is known, from 0."""
    rows = evidence.drift[(evidence.drift["measure"] == DECISION) & (evidence.drift["phase"] == BEFORE)]
    base, ends = rows[rows["condition"] == BASE], drift_by_question(evidence, DECISION)
    steps = evidence.runs.set_index(["condition", "seed"])["steps"]
    kept = {
        int(step): less_base(by_run(part, "log_odds"), base.rename(columns={"value": "log_odds"}), "log_odds")
        for step, part in evidence.checkpoints.groupby("step", observed=True)
    }
    known = {step: wide[ends.columns].reindex(ends.index).to_numpy() for step, wide in sorted(kept.items())}
    everywhere = np.logical_and.reduce([np.isfinite(each).all(axis=1) for each in (ends.to_numpy(), *known.values())])
    index, last, found = ends.index[everywhere], ends.to_numpy()[everywhere], {}
    known = {0: 0.0 * last, **{step: each[everywhere] for step, each in known.items()}}
    for place, run in enumerate(ends.columns):
        columns = {step: each[:, place] for step, each in known.items()} | {int(steps[run]): last[:, place]}
        values = np.column_stack(list(columns.values()))
        found[str(run[0]), int(run[1])] = pd.DataFrame(values, index=index, columns=list(columns))
    return found


def _slowing(losses: Array) -> Array:
    """The nearest curve, by least squares, that falls and is convex: a floor and hinges that end at each step."""
    steps = np.arange(losses.size)
    hinges = np.maximum(steps[1:] - steps[:, None], 0) / steps[1:]
    floor = float(losses.min() - 2 * np.ptp(losses))  # below it no such curve ends
    parts = np.column_stack([np.ones(losses.size), hinges])
    weights, _ = optimize.nnls(parts, losses - floor)
    curve: Array = parts @ weights + floor
    return curve


def _steps_to(losses: Array, level: float) -> float:
    """After how many steps a falling curve has first come down to a level; all of them if it never does."""
    below = np.flatnonzero(losses <= level)
    if not below.size:
        return float(losses.size)
    place = int(below[0])
    if place == 0:
        return 1.0
    before, here = float(losses[place - 1]), float(losses[place])
    return place + (before - level) / (before - here)  # the loss of step s, from 1 on, is met before its update


def _at(course: pd.DataFrame, step: float) -> Array:
    """Drift by question at a step between those at which it is known."""
    steps = course.columns.to_numpy(dtype=np.float64)
    after = int(np.clip(np.searchsorted(steps, step), 1, len(steps) - 1))
    weight = (min(step, steps[-1]) - steps[after - 1]) / (steps[after] - steps[after - 1])
    values: Array = course.iloc[:, after - 1].to_numpy() * (1 - weight) + course.iloc[:, after].to_numpy() * weight
    return values
