"""Tidy tables as Parquet, written and read, and responses as JSON lines: CSV holds no text of models."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from gradinoc.claims.evidence.arms import whole
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.finding import Finding
from gradinoc.disk import write_atomically
from gradinoc.errors import StudyError, reason
from gradinoc.report.prompts import matrix_table, prompts_table
from gradinoc.report.tables import claims_table, metrics_table, plain, runs_table


def write_tables(evidence: Evidence, findings: Iterable[Finding], folder: Path) -> list[Path]:
    """Paths of every table of the evidence as Parquet, and of what is made of them.

    That is claims, metrics, runs with their drift, prompts with what each elicits and leaves, and the train x
    evaluation matrix by prompt (`matrix_means`).

    Runs with an intervention are among them; the table `arms` says which these are. A missing number is NaN, never 0.
    Responses are there as JSON lines too, a missing score as null.
    """
    everything = whole(evidence)
    tables = {**everything.tables, "runs": runs_table(everything), "prompts": prompts_table(evidence)}
    tables |= {"metrics": metrics_table(everything), "claims": claims_table(findings)}
    tables |= {"matrix_means": matrix_table(evidence)}
    written = [write_parquet(table, folder / f"{name}.parquet") for name, table in tables.items()]
    rows = (json.dumps(plain(row), ensure_ascii=False) for row in everything.responses.to_dict("records"))
    lines = "".join(f"{row}\n" for row in rows)
    return [*written, write_atomically(folder / "responses.jsonl", lines.encode())]


def write_parquet(table: pd.DataFrame, path: Path) -> Path:
    """`path`, holding `table` without its index."""
    content = io.BytesIO()
    table.to_parquet(content, engine="pyarrow", compression="zstd", index=False)
    return write_atomically(path, content.getvalue())


def read_table(path: Path) -> pd.DataFrame:
    """A table of artifacts.

    Raises:
        StudyError: it is not to be read.
    """
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: cannot be read ({reason(error)}); report the study again") from error
