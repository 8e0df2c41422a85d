"""Try the judge on simulated studies whose truth is known: `python -m gradinoc.power.calibration`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from gradinoc.disk import write_atomically
from gradinoc.power.calibration.cases import cases
from gradinoc.power.calibration.studies import run_studies
from gradinoc.power.calibration.tables import confusion, coverage, failures, rates, text
from gradinoc.report.figures.calibration import plot_calibration
from gradinoc.report.figures.style import save_figure


def main(arguments: list[str] | None = None) -> int:
    """Simulate, judge, write the tables and the figure, print them; 1 if a bar does not hold."""
    parser = argparse.ArgumentParser(prog="gradinoc.power.calibration", description=__doc__)
    parser.add_argument("--studies", type=int, default=1000, help="simulated studies of each scenario (default: 1000)")
    parser.add_argument("--out", type=Path, default=Path("docs/calibration"), help="where tables and figure go")
    parser.add_argument("--jobs", type=int, default=0, help="processes (default: one a core)")
    options = parser.parse_args(arguments)
    start, scenarios = time.monotonic(), cases()

    def show(done: int, total: int) -> None:
        sys.stderr.write(f"\r{done} of {total} studies, {time.monotonic() - start:.0f} s")

    studies = run_studies(options.studies, scenarios, options.jobs, show)
    sys.stderr.write("\n")
    rate, cover, verdicts = rates(studies, scenarios), coverage(studies, scenarios), confusion(studies, scenarios)
    printed = text(rate, cover, verdicts)
    tables = {"rates": rate, "coverage": cover, "verdicts": verdicts.reset_index(names="case")}
    for name, table in tables.items():
        content = table.to_csv(index=False, float_format="%.4g")
        write_atomically(options.out / f"{name}.csv", content.encode())
    write_atomically(options.out / "tables.txt", printed.encode())
    save_figure(plot_calibration(rate, cover), options.out, "calibration")
    sys.stdout.write(printed)
    return 1 if failures(rate, cover) else 0


if __name__ == "__main__":
    sys.exit(main())
