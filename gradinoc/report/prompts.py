"""Tables with the prompt as the unit: what each prompt says, elicits and leaves; and the train x evaluation matrix."""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradinoc.claims.c4 import elicitation
from gradinoc.claims.evidence.measures import drift_by_question, in_window, matrix_by_question, per_example
from gradinoc.claims.evidence.tables import DECISION, EXPECTED, Evidence
from gradinoc.report.numbers import groups_of, if_measured, mean_interval

PROMPT_COLUMNS = (
    "condition", "family", "kind", "text", "tokens", "measured", "trained", "seeds", "elicitation", "loss",
    "alignment", "push", "early_alignment", "drift", "drift_log_odds",
)  # fmt: skip
MATRIX_COLUMNS = ("condition", "evaluation", "drift", "low", "high", "n", "unit", "seeds")


def prompts_table(evidence: Evidence) -> pd.DataFrame:
    """One row a prompt: `PROMPT_COLUMNS`, what was not measured is NaN.

    Elicitation in nats (frozen model, above neutral), loss in nats/token, alignment a cosine and push in nats/token per
    hidden-state unit (frozen model, band mean), early alignment in the first third of training, drift of the expected
    score as a fraction and of the decision log-odds in nats, means over the prompt's seeds.
    """
    table = evidence.prompts.copy().set_index("condition")
    runs = pd.Series([condition for condition, _ in evidence.planned_runs]).value_counts()
    table["seeds"] = runs.reindex(table.index).fillna(0).astype(int)
    for name, values in _by_prompt(evidence).items():
        table[name] = np.nan if values is None else values.reindex(table.index)
    return table.reset_index()[list(PROMPT_COLUMNS)]


def _by_prompt(evidence: Evidence) -> dict[str, pd.Series | None]:
    """Column -> a number a prompt; None where it was not measured."""
    found = if_measured(elicitation, evidence)
    elicited = None if found is None else pd.Series({name: effect.estimate for name, effect in found.items()})
    columns: dict[str, pd.Series | None] = {"elicitation": elicited}
    for name, column in (("loss", "loss"), ("alignment", "alignment"), ("push", "projection")):
        wide = if_measured(per_example, evidence, column)
        columns[name] = None if wide is None else wide.mean()
    early = if_measured(in_window, evidence)
    columns["early_alignment"] = None if early is None else early.groupby(level="condition", observed=True).mean()
    for name, measure in (("drift", EXPECTED), ("drift_log_odds", DECISION)):
        wide = if_measured(drift_by_question, evidence, measure)
        columns[name] = None if wide is None else wide.mean().groupby(level="condition", observed=True).mean()
    return columns


def matrix_table(evidence: Evidence) -> pd.DataFrame:
    """One row a trained x evaluation prompt: drift of the decision log-odds, nats, its interval over questions.

    The interval is of the mean over seeds, with questions (by template) as its only error: n counts them.
    """
    rows = []
    for evaluation in pd.unique(evidence.matrix["evaluation"]):
        wide = if_measured(matrix_by_question, evidence, str(evaluation))
        if wide is None:
            continue
        groups = groups_of(evidence, wide.index, "matrix")
        prompts = wide.T.groupby(level="condition", observed=True)
        seeds, means = prompts.size(), prompts.mean().T
        for condition in (name for name in evidence.trained if name in means):
            mean = mean_interval(means[condition], groups, "questions")
            ends = (mean.estimate, mean.low, mean.high, mean.n, mean.unit)
            rows.append((condition, str(evaluation), *ends, int(seeds[condition])))
    return pd.DataFrame(rows, columns=list(MATRIX_COLUMNS))
