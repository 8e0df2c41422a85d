"""`gradinoc calibrate`: measure how often the decision rules err on simulated studies of known truth."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from gradinoc.cli import BROKEN
from gradinoc.disk import write_atomically
from gradinoc.power.calibration.cases import cases
from gradinoc.power.calibration.studies import run_studies
from gradinoc.power.calibration.tables import confusion, coverage, failures, rates, text
from gradinoc.report.figures.calibration import plot_calibration
from gradinoc.report.figures.style import save_figure


def calibrate_rules(count: int, out: Path, jobs: int) -> int:
    """Simulate `count` studies of each case, write and print the tables, write the figure; 1 if a bar does not hold."""
    start, scenarios = time.monotonic(), cases()

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{done} of {total} studies, {time.monotonic() - start:.0f} s")

    studies = run_studies(count, scenarios, jobs, show)
    sys.stderr.write("\n")
    rate, cover, verdicts = rates(studies, scenarios), coverage(studies, scenarios), confusion(studies, scenarios)
    printed = text(rate, cover, verdicts)
    tables = {"rates": rate, "coverage": cover, "verdicts": verdicts.reset_index(names="case")}
    for name, table in tables.items():
        content = table.to_csv(index=False, float_format="%.4g")
        write_atomically(out / f"{name}.csv", content.encode())
    write_atomically(out / "tables.txt", printed.encode())
    save_figure(plot_calibration(rate, cover), out, "calibration")
    sys.stdout.write(printed)
    return BROKEN if failures(rate, cover) else 0
