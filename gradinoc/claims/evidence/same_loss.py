"""Drift of two kinds of runs where both have the same training loss: less drift may be nothing but less learning."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import optimize

from gradinoc.claims.evidence.measures import drift_by_question, question_groups
from gradinoc.claims.evidence.tables import BASE, BEFORE, DECISION, Evidence
from gradinoc.claims.evidence.wide import by_run, less_base, once
from gradinoc.stats.effect import Array
from gradinoc.stats.families import Families

Run = tuple[str, int]


def at_same_loss(evidence: Evidence, pairs: dict[str, str], beside: dict[str, str]) -> Families:
    """Drift of the decision log-odds by question of two conditions, each pair of runs of a seed at the same loss.

    Runs of a seed meet the same batches. Each one's loss by step is made a falling curve (isotonic regression); of a
    pair the one that went further is read at the step where it reached the loss at which the other ended, its drift on
    a straight line between kept adapters. Rows are runs.

    Args:
        evidence: of all runs.
        pairs: family -> condition, two of them, compared where both have a seed.
        beside: family -> condition, read at their ends.
    """
    losses, courses = falling_losses(evidence), drift_courses(evidence)
    first, second = pairs.values()
    seeds = sorted(
        {seed for name, seed in courses if name == first} & {seed for name, seed in courses if name == second}
    )
    tables: dict[str, list[Array]] = {family: [] for family in pairs}
    for seed in seeds:
        level = max(float(losses[name, seed][-1]) for name in pairs.values())  # what both have reached
        for family, name in pairs.items():
            reached = _steps_to(losses[name, seed], level)
            tables[family].append(_at(courses[name, seed], reached))
    questions = next(iter(courses.values())).index
    for family, name in beside.items():
        tables[family] = [each.iloc[:, -1].to_numpy() for (one, _), each in courses.items() if one == name]
    groups = question_groups(evidence, "drift", questions, DECISION)
    return Families({family: np.stack(rows) for family, rows in tables.items()}, groups)


@once
def falling_losses(evidence: Evidence) -> dict[Run, Array]:
    """Training loss of each run by step, made to fall, nats/token."""
    table = evidence.training
    one = table[(table["layer"] == table["layer"].min()) & (table["position"] == evidence.primary_position)]
    means = one.groupby(["condition", "seed", "step"], observed=True)["loss"].mean()
    return {
        (str(condition), int(seed)): optimize.isotonic_regression(rows.to_numpy(dtype=np.float64), increasing=False).x
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
    found = {}
    for run in ends.columns:
        columns = {0: 0.0 * ends[run], **{step: wide[run].reindex(ends.index) for step, wide in kept.items()}}
        columns[int(steps[run])] = ends[run]
        found[str(run[0]), int(run[1])] = pd.DataFrame(columns).sort_index(axis=1)
    asked = [table.notna().all(axis=1) for table in found.values()]
    everywhere = np.logical_and.reduce([each.to_numpy() for each in asked])
    return {run: table[everywhere] for run, table in found.items()}


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
