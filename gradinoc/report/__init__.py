"""What a study leaves for readers: tables, figures, a write-up, and a summary for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from gradinoc.analysis import FIGURES, save_figure
from gradinoc.analysis.style import write_atomically
from gradinoc.evidence import Evidence
from gradinoc.gates import Finding, Status
from gradinoc.report.machine import environment
from gradinoc.report.page import WriteUp, status_word
from gradinoc.report.tables import claims_table, metrics_table, plain, runs_table, write_json, write_table
from gradinoc.study import Study
from gradinoc.verdict import Judgement

__all__ = ["closing_summary", "environment", "write_finding", "write_report"]


def write_report(
    judgement: Judgement,
    evidence: Evidence,
    study: Study,
    directory: Path,
    environment: Mapping[str, Any],
    reproduce: str,
) -> None:
    """Fill `directory` with everything a study leaves behind; each file is complete whenever it is there.

    Args:
        judgement: gates, claims and verdict.
        evidence: the tables that they rest on.
        study: what was done.
        directory: made if it is not there.
        environment: where it was done, as `environment()` says.
        reproduce: the commands that do it again, one a line.
    """
    directory = Path(directory)
    for name, plot in FIGURES.items():
        save_figure(plot(evidence), directory / "figures", name)
    findings = (*judgement.gates, *judgement.claims)
    write_json({"study": study.name, **plain(judgement)}, directory / "verdict.json")
    write_table(claims_table(findings), directory / "claims.csv")
    write_table(metrics_table(evidence), directory / "metrics.csv")
    write_table(runs_table(evidence, study.rules.early_fraction), directory / "runs.csv")
    write_json(environment, directory / "environment.json")
    write_up = WriteUp(judgement, evidence, study, directory, environment, reproduce)
    for template in ("report.html.j2", "report.md.j2"):
        write_atomically(directory / template.removesuffix(".j2"), write_up.render(template).encode())


def write_finding(finding: Finding, directory: Path) -> None:
    """Leave one gate or claim in `directory`: its statement in findings/, its rows in claims.csv, replacing older ones.

    Writers of one directory must take turns, since the table is read and written again.
    """
    directory = Path(directory)
    write_json(finding, directory / "findings" / f"{finding.key}.json")
    path, rows = directory / "claims.csv", claims_table([finding])
    if path.is_file():
        before = pd.read_csv(path, float_precision="round_trip").astype({"n": "Int64"})
        others = before[before["claim"] != finding.key]
        rows = pd.concat([others, rows], ignore_index=True) if len(others) else rows
        gates_first = rows["claim"].map({key: (key[0] != "G", key) for key in rows["claim"]})
        rows = rows.iloc[sorted(range(len(rows)), key=lambda row: gates_first.iloc[row])]
    write_table(rows, path)


def closing_summary(judgement: Judgement) -> list[str]:
    """Lines for the terminal: each gate and claim with its first effect, then the verdict, then any warnings."""
    lines = []
    for finding in (*judgement.gates, *judgement.claims):
        effect = finding.effects[0] if finding.effects else None
        numbers = f"{effect.name}: {effect}" if effect else finding.statement
        lines.append(f"{finding.key}  {status_word(finding):<9}  {numbers}")
    lines += ["", judgement.sentence, *(f"Warning: {warning}" for warning in judgement.warnings)]
    if any(claim.status is Status.REFUTED for claim in judgement.claims):
        lines.append("A refuted claim is a finding, not a fault: the apparatus worked, and this is what the data say.")
    if any(gate.status is not Status.SUPPORTED for gate in judgement.gates):
        lines.append("A failed gate leaves the claims that rest on it undecided: mend the apparatus before concluding.")
    return lines
