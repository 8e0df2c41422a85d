"""Measure this project against other libraries, side by side: `python -m benchmarks [JOB ...]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path

from benchmarks import summary
from benchmarks.figure import plot_benchmarks
from benchmarks.inputs import Setting
from benchmarks.jobs import JOBS, Run, find
from benchmarks.outcome import Outcome
from benchmarks.workers import CheckError, SideError, stopwatch
from gradinoc.disk import write_atomically
from gradinoc.report.figures.style import save_figure

FIGURES, TABLE, REMARKS = "measurements.csv", "summary.csv", "remarks.csv"


def main(arguments: list[str] | None = None) -> int:
    """Run the jobs, print the table, write the files; 1 if a check failed or a goal was missed."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(JOBS)} (default: all)")
    parser.add_argument("--repetitions", type=int, default=0, help="of every side (default: 5 or more, by job)")
    parser.add_argument("--data", default="", help="a GSM8K JSONL file (default: the bundled word problems)")
    parser.add_argument("--study", default="smollm2", help="of the job `study` (default: smollm2)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of that study")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"), help="where tables and figure go")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.jobs) - set(JOBS))
    if unknown:
        parser.error(f"no job {', '.join(unknown)}; there are {', '.join(JOBS)}")
    data = str(Path(options.data).resolve()) if options.data else ""
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        setting = Setting(Path(scratch), options.repetitions, data, _log, options.study, tuple(options.set))
        outcomes = run_jobs({name: find(name) for name in options.jobs or JOBS}, setting, options.out)
    table = summary.summarised(outcomes)
    sys.stdout.write(summary.text(table, summary.remarks(outcomes)))
    return int(summary.failed(table, outcomes))


def _log(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def run_jobs(runs: Mapping[str, Run], setting: Setting, out: Path) -> list[Outcome]:
    """Each job's outcome, published as soon as it is there; what stops one is kept in it and stops no other."""
    outcomes = []
    for name, run in runs.items():
        took, outcome = stopwatch(), Outcome(name)
        setting.log(name)
        try:
            run(setting, outcome)
            summary.summarised([outcome])  # a comparison without figures is the job's failure
        except Exception as error:
            outcome.failure = f"{type(error).__name__}: {error}"
            outcome.comparisons.clear()
            outcome.samples.clear()
            if not isinstance(error, CheckError | SideError):
                setting.log(traceback.format_exc())
        setting.log(f"{name}: {took():.0f} s{f', stopped: {outcome.failure}' if outcome.failure else ''}")
        publish(outcome, out)
        outcomes.append(outcome)
    return outcomes


def publish(outcome: Outcome, out: Path) -> None:
    """Put a job's rows in the place of its earlier ones, and write the table and the figure of all jobs' rows."""
    jobs = [outcome.job]
    figures, table, remarks = (
        summary.merged(new, out / name, jobs)
        for new, name in (
            (summary.measurements([outcome]), FIGURES),
            (summary.summarised([outcome]), TABLE),
            (summary.remarks([outcome]), REMARKS),
        )
    )
    for frame, name in ((figures, FIGURES), (table, TABLE), (remarks, REMARKS)):
        summary.write(frame, out / name)
    write_atomically(out / "table.txt", summary.text(table, remarks).encode())
    save_figure(plot_benchmarks(figures, table), out, "benchmarks")


if __name__ == "__main__":
    sys.exit(main())
