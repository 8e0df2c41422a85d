"""Run a study without pytest, or rewrite its report from what the store holds: `python -m gradinoc STUDY`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gradinoc.pipeline import Pipeline, Progress
from gradinoc.report import environment, write_report
from gradinoc.store import Store
from gradinoc.study import StudyError, load_study
from gradinoc.verdict import judge


def main(arguments: list[str] | None = None) -> int:
    """Compute what is missing of a study, write its report, print its summary; 0 whatever the verdict."""
    parser = argparse.ArgumentParser(prog="gradinoc", description=__doc__)
    parser.add_argument("study", help="a ready study's name, or a TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"))
    options = parser.parse_args(arguments)
    try:
        study = load_study(options.study, options.settings)
    except StudyError as error:
        parser.error(str(error))
    evidence = Pipeline(study, Store(options.store), _show).evidence()
    folder = options.artifacts / study.name
    command = " ".join(["python -m gradinoc", options.study, *(f"--set {setting}" for setting in options.settings)])
    write_report(judge(evidence, study.rules), evidence, study, folder, environment(), command)
    sys.stdout.write((folder / "summary.txt").read_text(encoding="utf-8"))
    return 0


def _show(progress: Progress) -> None:
    sys.stderr.write(f"[{progress.steps_done}/{progress.steps}] {progress.step}: {progress.detail}\n")


if __name__ == "__main__":
    sys.exit(main())
