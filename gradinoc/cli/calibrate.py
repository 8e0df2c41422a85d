"""`gradinoc calibrate`: measure how often the decision rules err on simulated studies of known truth."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from gradinoc.cli import BROKEN
from gradinoc.disk import write_atomically
from gradinoc.pipeline.calibration import kept_studies
from gradinoc.power.calibration.printed import text
from gradinoc.power.calibration.tables import confusion, coverage, failures, gates, rates
from gradinoc.power.calibration.worlds import cases
from gradinoc.report.figures.calibration import plot_calibration
from gradinoc.report.figures.style import save_figure


def calibrate_rules(count: int, out: Path, store: Path, jobs: int) -> int:
    """Simulate what `store` lacks of `count` studies of each world, write tables and figure, print the tables.

    Returns 1 if a bar does not hold.
    """
    start, worlds = time.monotonic(), cases()

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{done} of {total} studies, {time.monotonic() - start:.0f} s")

    studies = kept_studies(count, worlds, store, jobs, show)
    sys.stderr.write("\n")
    rate, cover, printed = rates(studies, worlds), coverage(studies), text(studies, worlds)
    tables = {
        "rates": rate,
        "coverage": cover,
        "verdicts": confusion(studies, worlds).reset_index(names="case"),
        "gates": gates(studies).reset_index(names="case"),
    }
    for name, table in tables.items():
        write_atomically(out / f"{name}.csv", table.to_csv(index=False, float_format="%.4g").encode())
    write_atomically(out / "tables.txt", printed.encode())
    save_figure(plot_calibration(rate, cover), out, "calibration")
    sys.stdout.write(printed)
    return BROKEN if failures(rate, cover) else 0
