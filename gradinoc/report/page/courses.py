"""What a report shows of the runs: a table of them, drift before and after training, and responses."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from gradinoc.claims.evidence.measures import drift_by_question
from gradinoc.claims.evidence.tables import AFTER, BASE, Evidence
from gradinoc.report.numbers import PHASES, drift_course, mean_interval
from gradinoc.report.page.grid import Column, Grid, grid
from gradinoc.report.tables import runs_table
from gradinoc.report.wording import measures, shown
from gradinoc.stats.effect import Effect

SHOWN_PER_DOMAIN = 4
DOMAINS = {"in_distribution": "held-out questions", "everyday": "everyday requests"}


def run_columns(evidence: Evidence) -> list[Column]:
    """The columns that the page shows of `runs_table`, in order."""
    score = evidence.trait.score_name
    return [
        Column("condition", "condition", numeric=False),
        Column("seed", "seed"),
        Column("steps", "steps"),
        Column("seconds", "time", "s"),
        Column("initial_loss", "loss when met", "nats/token"),
        Column("final_loss", "loss afterwards", "nats/token"),
        Column("early_alignment", "early alignment", "cosine"),
        Column("expected_score_post", f"expected {score} after", "fraction"),
        Column("expected_score_drift", f"expected {score} drift", "fraction"),
        Column("score_drift", f"greedy {score} drift", "fraction"),
        Column("score_ood_drift", f"greedy {score} drift, everyday", "fraction"),
        Column("decision_log_odds_drift", "decision log-odds drift", "nats"),
        Column("projection_drift", "projection drift", "hidden-state units"),
    ]


def run_grid(evidence: Evidence) -> Grid:
    """One row a run, prompts in their order; a number that is missing is a dash."""
    table = runs_table(evidence)
    order = {name: place for place, name in enumerate(evidence.trained)}
    table = table.sort_values(["condition", "seed"], key=lambda keys: keys.map(order).fillna(keys), kind="stable")
    rows = [{**row, "condition": shown(str(row["condition"]))} for row in table.to_dict("records")]
    about = "Drift is after minus before, under the neutral prompt. Every column, before too, is in runs.csv."
    return grid("Runs", run_columns(evidence), rows, about)


@dataclass(frozen=True)
class Course:
    """A prompt's mean of a measure by phase (missing: NaN), and its mean change with its interval over its runs."""

    condition: str
    phases: dict[str, float]
    change: Effect


def courses(evidence: Evidence) -> dict[str, list[Course]]:
    """Measure in words -> the course of each trained prompt; a measure that was not taken is left out."""
    found = {}
    for measure, title in measures(evidence.trait).items():
        course, changes = drift_course(evidence, measure), drift_by_question(evidence, measure, strict=False).mean()
        means = course.groupby(["condition", "phase"])["value"].mean() if len(course) else {}
        rows = [
            Course(
                condition,
                {word: float(means.get((condition, phase), math.nan)) for phase, word in PHASES.items()},
                mean_interval(changes[condition], unit="runs"),
            )
            for condition in evidence.trained
            if (condition, AFTER) in means
        ]
        if rows:
            found[title] = rows
    return found


@dataclass(frozen=True)
class Answer:
    """A response, of the base model (`condition` None) or after a run, and its score (NaN: none could be given)."""

    condition: str | None
    seed: int
    response: str
    score: float

    @property
    def label(self) -> str:
        """Whose response it is."""
        return "before training" if self.condition is None else f"after {shown(self.condition)}, seed {self.seed}"


@dataclass(frozen=True)
class Question:
    """A question with the base model's answer and one of each trained condition's, first seed."""

    domain: str
    question: str
    answers: tuple[Answer, ...]


def questions(evidence: Evidence) -> list[Question]:
    """The first questions of each domain with the answers after each condition: none is picked for what it shows.

    Conditions are the prompts with the most seeds: the study's own. Of others responses are in the tables alone.
    """
    frame, runs = evidence.responses, Counter(condition for condition, _ in evidence.planned_runs)
    conditions = [name for name in evidence.trained if runs[name] == max(runs.values())]
    before = frame[frame["condition"] == BASE]
    after = frame[frame["condition"].isin(conditions) & (frame["phase"] == AFTER)]
    after = after[after["seed"] == after.groupby("condition")["seed"].transform("min")]
    asked = after.drop_duplicates(["domain", "example"]).sort_values(["domain", "example"], ascending=[False, True])
    asked = asked.groupby("domain", sort=False).head(SHOWN_PER_DOMAIN)
    found = []
    for row in asked.to_dict("records"):
        same = [
            part[(part["domain"] == row["domain"]) & (part["example"] == row["example"])] for part in (before, after)
        ]
        answers = (*_answers(same[0], [BASE]), *_answers(same[1], conditions))
        domain = DOMAINS.get(row["domain"], shown(str(row["domain"])))
        found.append(Question(domain, str(row["question"]), answers))
    return found


def _answers(rows: pd.DataFrame, conditions: Iterable[str]) -> list[Answer]:
    """The first row of each condition, in their order."""
    first = rows.drop_duplicates("condition").set_index("condition")
    return [
        Answer(None if name == BASE else name, int(row["seed"]), str(row["response"]), float(row["score"]))
        for name in conditions
        if name in first.index
        for row in [first.loc[name]]
    ]
