"""Results in the CSV form of the inoculation-prompting repository, on which its `make_ci_plot` works.

There a domain's evaluations are rows of `<domain>.csv`, one a response, and `<domain>_ci.csv` has a mean and an
interval for each group of models. Here the domain is the trait, and its evaluations are the two domains of questions.
Means weigh models alike, as there; intervals are this project's: t over models' means, so that responses of one model
count as the cluster that they are. Texts are left out: CSV holds none of models.

Source: https://github.com/inoculation-prompting/inoculation-prompting, `mi/experiments/evaluation.py`, `plotting.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from gradinoc.claims.evidence.tables import AFTER, BASE, BEFORE, Evidence
from gradinoc.report.tables import write_table
from gradinoc.stats.effect import clustered_mean
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL

# What that repository calls them. Its "control" was trained on other data; a prompt without the trait is a "placebo".
GROUPS = {BASE: "baseline", NEUTRAL: "finetuning", INOCULATION: "inoculated", LOSS_MATCHED: "placebo"}
IN_DISTRIBUTION = "in_distribution"  # comes before other domains
COLUMNS = ["score", "question_id", "model", "group", "evaluation_id"]
CI_COLUMNS = ["mean", "lower_bound", "upper_bound", "count", "confidence", "group", "evaluation_id", "method"]
METHOD = "mean and t interval over models' means, df = models - 1"


def write_results(evidence: Evidence, folder: Path) -> list[Path]:
    """Paths of `<trait>.csv` and `<trait>_ci.csv`."""
    rows, name = results(evidence), evidence.trait.name
    paths = folder / f"{name}.csv", folder / f"{name}_ci.csv"
    return [write_table(table, path) for table, path in zip((rows, intervals(rows)), paths, strict=True)]


def results(evidence: Evidence) -> pd.DataFrame:
    """One row a response, before training and after: its score, missing where it has none, and where it comes from."""
    frame = evidence.responses
    frame = frame[frame["phase"].isin([BEFORE, AFTER])]
    conditions = frame["condition"].astype(str)
    called = groups_of((BASE, *evidence.trained))
    domains = sorted(frame["domain"].unique(), key=lambda domain: domain != IN_DISTRIBUTION)
    table = pd.DataFrame(
        {
            "score": frame["score"].astype(float),
            "question_id": frame["example"],
            "model": conditions.where(conditions == BASE, conditions + "-" + frame["seed"].astype(str)),
            "group": pd.Categorical(conditions.map(called), [*called.values()]),
            "evaluation_id": pd.Categorical(frame["domain"], domains),
        },
        columns=COLUMNS,
    )
    return table.sort_values(["evaluation_id", "group", "model", "question_id"], ignore_index=True)


def groups_of(names: Iterable[str]) -> dict[str, str]:
    """What that repository calls each of a study's prompts and its base model: its own name, unless that is taken."""
    own = [*names]
    return {name: GROUPS.get(name, name) if GROUPS.get(name) not in own else name for name in own}


def intervals(rows: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Mean and interval of every group in every evaluation: `count` is of models, of which one gives no interval.

    A response without a score has no part in its model's mean, nor a model without any in its group's.
    """
    found: list[dict[str, Any]] = []
    for (evaluation, group), part in rows.dropna(subset="score").groupby(["evaluation_id", "group"], observed=True):
        effect = clustered_mean(part["score"], part["model"], f"{group} {evaluation}", "models", confidence)
        numbers = {"mean": effect.estimate, "lower_bound": effect.low, "upper_bound": effect.high, "count": effect.n}
        labels = {"group": group, "evaluation_id": evaluation, "method": METHOD}
        found.append({**numbers, "confidence": confidence, **labels})
    return pd.DataFrame(found, columns=CI_COLUMNS)
