"""Measure this project against other libraries, side by side: `python -m benchmarks [JOB ...]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import summary
from benchmarks.figure import plot_benchmarks
from benchmarks.inputs import Setting
from benchmarks.jobs import Run, find, present
from benchmarks.outcome import Outcome
from benchmarks.workers import CheckError, SideError, stopwatch
from gradinoc.analysis.style import save_figure, write_atomically


def main(arguments: list[str] | None = None) -> int:
    """Run the jobs, print the table, write the files; 1 if a check failed or a goal was missed."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"of {', '.join(present())} (default: all)")
    parser.add_argument("--repetitions", type=int, default=0, help="of every side (default: 5 or more, by job)")
    parser.add_argument("--data", default="", help="a GSM8K JSONL file (default: the bundled word problems)")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"), help="where tables and figure go")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.jobs) - set(present()))
    if unknown:
        parser.error(f"no job {', '.join(unknown)}; there are {', '.join(present())}")
    data = str(Path(options.data).resolve()) if options.data else ""
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as scratch:
        setting = Setting(Path(scratch), options.repetitions, data, _say)
        outcomes = run_jobs({name: find(name) for name in options.jobs or present()}, setting)
    return publish(outcomes, options.out)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def run_jobs(runs: dict[str, Run], setting: Setting) -> list[Outcome]:
    """Each job's outcome; what stops one is kept in it and stops no other."""
    outcomes = []
    for name, run in runs.items():
        took, outcome = stopwatch(), Outcome(name)
        setting.say(name)
        try:
            run(setting, outcome)
        except (CheckError, SideError) as error:
            outcome.failure = f"{name}: {error}"
            outcome.comparisons.clear()
        setting.say(f"{name}: {took():.0f} s{f', stopped: {outcome.failure}' if outcome.failure else ''}")
        outcomes.append(outcome)
    return outcomes


def publish(outcomes: Sequence[Outcome], out: Path) -> int:
    """Print the table and write it, the figures and the plot; rows of jobs that did not run are kept in the files."""
    table, jobs = summary.summarised(outcomes), [outcome.job for outcome in outcomes]
    printed = summary.text(table, outcomes)
    sys.stdout.write(printed)
    every = summary.merged(summary.measurements(outcomes), out / "measurements.csv", jobs)
    summary.write(every, out / "measurements.csv")
    summary.write(summary.merged(table, out / "summary.csv", jobs), out / "summary.csv")
    write_atomically(out / ("table.txt" if len(jobs) > 1 else f"table-{jobs[0]}.txt"), printed.encode())
    save_figure(plot_benchmarks(every), out, "benchmarks")
    return int(summary.failed(table, outcomes))


if __name__ == "__main__":
    sys.exit(main())
