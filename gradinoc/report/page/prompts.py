"""What a report says of prompts: a table, the train x evaluation matrix, and how far harmless ones lie apart."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.measures import alignment_families, matrix
from gradinoc.claims.evidence.tables import REPHRASED, Evidence
from gradinoc.report.figures.alignment.trait_against_others import draws_along
from gradinoc.report.numbers import if_measured
from gradinoc.report.page.grid import Column, Grid, grid
from gradinoc.report.prompts import prompts_table
from gradinoc.report.wording import number, shown
from gradinoc.study.settings import NULLS

PROMPT_COLUMNS = (
    Column("prompt", "prompt", numeric=False), Column("family", "family", numeric=False),
    Column("text", "system message", numeric=False), Column("tokens", "tokens"),
    Column("seeds", "runs"), Column("elicitation", "elicitation", "nats"), Column("loss", "loss", "nats/token"),
    Column("alignment", "alignment", "cosine"), Column("drift", "drift", "fraction"),
    Column("drift_log_odds", "drift, log-odds", "nats"),
)  # fmt: skip
SPREAD_COLUMNS = (
    Column("of", "what varies", numeric=False), Column("n", "n"), Column("unit", "n counts", numeric=False),
    Column("mean", "mean", "cosine"), Column("sd", "sd", "cosine"), Column("low", "2.5 %", "cosine"),
    Column("high", "97.5 %", "cosine"),
)  # fmt: skip


def prompt_grid(evidence: Evidence) -> Grid:
    """One row a prompt that is measured, trained under or evaluated under."""
    table = prompts_table(evidence)
    rows = [{**row, "prompt": shown(str(row["condition"])), "text": _message(row)} for row in table.to_dict("records")]
    about = (
        "Elicitation (decision log-odds above neutral's), loss and alignment are of the frozen model; drift, of the "
        "expected score and of the decision log-odds, is under the neutral prompt, mean over a prompt's runs. A dash "
        "where a prompt was not measured, or not trained under."
    )
    return grid("Prompts", PROMPT_COLUMNS, rows, about)


def _message(row: dict[str, object]) -> str:
    """The system message of a prompt in words."""
    text = str(row["text"])
    if row["kind"] == REPHRASED:
        return f"drawn anew for every example, such as: {text}"
    return text or ("an empty system message" if row["kind"] == "empty" else "none; the chat template may put its own")


def matrix_grid(evidence: Evidence) -> Grid:
    """Rows: prompts trained under; columns: prompts evaluated under; cells: drift of the decision log-odds, nats."""
    wide = if_measured(matrix, evidence)
    wide = pd.DataFrame() if wide is None else wide.dropna(how="all")
    columns = [
        Column("prompt", "trained under", numeric=False),
        *(Column(str(name), shown(str(name))) for name in wide),
    ]
    rows = [{"prompt": shown(str(name)), **cells} for name, cells in wide.to_dict("index").items()]
    about = (
        "Drift of the decision log-odds (nats) of models trained under the prompt of a row, evaluated under that of a "
        "column; intervals over questions are in matrix.csv. Where a prompt's own column is high and its row elsewhere "
        "low, what was learned holds under that prompt alone (conditionalization)."
    )
    return grid("Trained under, evaluated under", columns, rows, about)


def spread_grid(evidence: Evidence) -> Grid:
    """How far alignments of harmless prompts, and contrasts along other directions, lie apart."""
    about = (
        "What a difference in cosine has to be read beside. T is alignment, harmless minus inoculating prompts, mean "
        "over prompts."
    )
    return grid(
        "Beside it: how far prompts and other directions lie apart",
        SPREAD_COLUMNS,
        [*_spreads(evidence)],
        about,
    )


def _spreads(evidence: Evidence) -> Iterator[dict[str, object]]:
    families = if_measured(alignment_families, evidence)
    for family, means in families.means.items() if families is not None else ():
        yield _row(f"alignment along v, {family} prompts", means, "prompts")
    for null, kind in NULLS.items():
        drawn = if_measured(draws_along, evidence, null)
        if drawn is not None:
            yield _row(f"T along {kind.label}", drawn, "directions")


def _row(of: str, values: np.ndarray, unit: str) -> dict[str, object]:
    low, high = np.quantile(values, [0.025, 0.975])
    sd = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return {"of": of, "n": len(values), "unit": unit, "mean": float(values.mean()), "sd": sd, "low": low, "high": high}


def spread_sentence(evidence: Evidence) -> str:
    """The spreads in a sentence, for a terminal; empty where nothing was measured."""
    parts = [f"{row['of']}: sd {number(row['sd'])}, n {row['n']}" for row in _spreads(evidence)]
    return f"Cosines are to be read beside these spreads: {'; '.join(parts)}." if parts else ""
