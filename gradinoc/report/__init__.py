"""What a study leaves for readers: tables, figures, a write-up, and a summary for the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from gradinoc.claims.evidence.arms import whole
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.finding import Finding
from gradinoc.claims.rules.verdict import Judgement
from gradinoc.disk import write_atomically
from gradinoc.models.chat.rendered import Rendered
from gradinoc.report.figures import figures_of
from gradinoc.report.figures.style import save_figure
from gradinoc.report.page import WriteUp
from gradinoc.report.page.prompts import spread_sentence
from gradinoc.report.page.versions import versions_sentence
from gradinoc.report.prompts import matrix_table, prompts_table
from gradinoc.report.summary import Tinted, closing_summary
from gradinoc.report.tables import (
    CLAIM_COLUMNS,
    claims_table,
    metrics_table,
    plain,
    runs_table,
    write_json,
    write_table,
)
from gradinoc.study.description import Study
from gradinoc.study.rules import VERSION

__all__ = [
    "Tinted",
    "closing_summary",
    "write_finding",
    "write_report",
]


def write_report(
    judgement: Judgement,
    evidence: Evidence,
    study: Study,
    directory: Path,
    environment: Mapping[str, Any],
    reproduce: str,
    rendered: Rendered | None = None,
) -> None:
    """Fill `directory` with everything a study leaves behind; each file is complete whenever it is there.

    Args:
        judgement: gates, claims and verdict.
        evidence: the tables that they rest on.
        study: what was done.
        directory: made if it is not there.
        environment: where it was done, as `environment()` says.
        reproduce: the commands that do it again, one a line.
        rendered: the prompts as the model read them, and an example; None leaves them out.
    """
    directory = Path(directory)
    drawn = {name: figure.draw(evidence, study.rules) for name, figure in figures_of(evidence).items()}
    for name, each in drawn.items():
        save_figure(each.figure, directory / "figures", name)
        if len(table := getattr(each, "table", ())):
            write_table(table, directory / "figures" / f"{name}.csv")
    words = {name: {"finding": each.finding, "caption": each.caption} for name, each in drawn.items()}
    write_json(words, directory / "figures" / "figures.json")
    findings = (*judgement.gates, *judgement.claims)
    verdict = {"study": study.name, "rules": VERSION, "published": study.published.model_dump(), **plain(judgement)}
    write_json(verdict, directory / "verdict.json")
    write_table(claims_table(findings), directory / "claims.csv")
    write_table(metrics_table(whole(evidence)), directory / "metrics.csv")
    write_table(runs_table(whole(evidence)), directory / "runs.csv")
    # Without their texts, which are a study file's: CSV holds nothing that a spreadsheet would take for a formula.
    write_table(prompts_table(evidence).drop(columns="text"), directory / "prompts.csv")
    write_table(matrix_table(evidence), directory / "matrix.csv")
    write_json(environment, directory / "environment.json")
    beside = (versions_sentence(study.published, judgement), spread_sentence(evidence))
    summary = "\n".join(closing_summary(judgement, directory, beside))
    write_atomically(directory / "summary.txt", f"{summary}\n".encode())
    write_up = WriteUp(judgement, evidence, study, directory, drawn, environment, reproduce, rendered)
    for template in ("report.html.j2", "report.md.j2", "what-would-change-our-mind.md.j2"):
        write_atomically(directory / template.removesuffix(".j2"), write_up.render(template).encode())


def write_finding(finding: Finding, directory: Path) -> None:
    """Leave one gate or claim in `directory`: its statement in findings/, its rows in claims.csv, replacing older ones.

    Writers of one directory must take turns, since the table is read and written again.
    """
    directory = Path(directory)
    write_json(finding, directory / "findings" / f"{finding.key}.json")
    path = write_table(claims_table([finding]), directory / "findings" / f"{finding.key}.csv")
    whole = directory / "claims.csv"
    rows = pd.concat([_others(whole, finding.key), pd.read_csv(path, dtype=str, keep_default_na=False)])
    # As text, so that no number changes on its way through; gates come before claims, G10 after G9.
    write_table(rows.sort_values("claim", key=lambda key: key.map(_place), kind="stable"), whole)


def _place(key: str) -> str:
    """A finding's key, to sort by."""
    return re.sub(r"\d+", lambda digits: digits[0].zfill(3), key.replace("C", "c"))


def _others(path: Path, key: str) -> pd.DataFrame:
    """The rows of other findings in a table of claims; none where there is no such table, or something else."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError):  # no table, another encoding, another form
        return pd.DataFrame()
    return table[table["claim"] != key] if list(table.columns) == list(CLAIM_COLUMNS) else pd.DataFrame()
