"""What a report shows of the runs: a table of them, drift before, early in and after training, and responses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gradinoc.claims.measures import drift_by_run
from gradinoc.claims.tables import AFTER, BASE, Evidence
from gradinoc.report.numbers import PHASES, drift_course, mean_interval
from gradinoc.report.tables import runs_table
from gradinoc.report.wording import number, sentence, shown
from gradinoc.stats.effect import Effect

SHOWN_PER_DOMAIN = 4
DOMAINS = {"in_distribution": "held-out questions", "everyday": "everyday requests"}


def measures(evidence: Evidence) -> dict[str, str]:
    """Each measure of drift, in words with its unit."""
    score = sentence(evidence.trait.score_name)
    return {
        "score": f"{score}, held-out questions (fraction)",
        "score_ood": f"{score}, everyday requests (fraction)",
        "log_odds": "Trait log-odds (nats/token)",
        "projection": "Projection (hidden-state units)",
    }


@dataclass(frozen=True)
class Column:
    """A column of the table of runs: its title, its unit, and whether it holds numbers."""

    name: str
    title: str
    unit: str = ""
    numeric: bool = True

    def text(self, row: Mapping[str, Any]) -> str:
        """The text of this column in the row of a run."""
        value = row[self.name]
        return str(value) if isinstance(value, int) else number(value) if self.numeric else shown(value)


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
        Column("score_post", f"{score} after", "fraction"),
        Column("score_drift", f"{score} drift", "fraction"),
        Column("score_ood_drift", f"{score} drift, everyday", "fraction"),
        Column("log_odds_drift", "log-odds drift", "nats/token"),
        Column("projection_drift", "projection drift", "hidden-state units"),
    ]


def run_rows(evidence: Evidence, early_fraction: float) -> list[dict[str, Any]]:
    """One row a run, in the conditions' order; a number that is missing is NaN."""
    table = runs_table(evidence, early_fraction)
    order = {name: place for place, name in enumerate(evidence.conditions)}
    table = table.sort_values(["condition", "seed"], key=lambda keys: keys.map(order).fillna(keys), kind="stable")
    rows: list[dict[str, Any]] = table.to_dict("records")
    return rows


@dataclass(frozen=True)
class Course:
    """A condition's mean of a measure by phase (missing: NaN), and its mean change with its interval over seeds."""

    condition: str
    phases: dict[str, float]
    change: Effect


def courses(evidence: Evidence) -> dict[str, list[Course]]:
    """Measure in words -> the course of each trained condition; a measure that was not taken is left out."""
    found = {}
    for measure, title in measures(evidence).items():
        course, changes = drift_course(evidence, measure), drift_by_run(evidence, measure, strict=False)
        means = course.groupby(["condition", "phase"])["value"].mean() if len(course) else {}
        rows = [
            Course(
                condition,
                {word: float(means.get((condition, phase), math.nan)) for phase, word in PHASES.items()},
                mean_interval(changes[condition]),
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
    """The first questions of each domain with every condition's answer: none is picked for what it shows."""
    frame = evidence.responses
    before = frame[frame["condition"] == BASE]
    after = frame[frame["condition"].isin(evidence.trained) & (frame["phase"] == AFTER)]
    after = after[after["seed"] == after.groupby("condition")["seed"].transform("min")]
    asked = after.drop_duplicates(["domain", "example"]).sort_values(["domain", "example"], ascending=[False, True])
    asked = asked.groupby("domain", sort=False).head(SHOWN_PER_DOMAIN)
    found = []
    for row in asked.to_dict("records"):
        same = [
            part[(part["domain"] == row["domain"]) & (part["example"] == row["example"])] for part in (before, after)
        ]
        answers = (*_answers(same[0], [BASE]), *_answers(same[1], evidence.trained))
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
