"""`gradinoc dose`: find the learning rate of a study on runs that are not among its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gradinoc.api import check_study
from gradinoc.cli import Session
from gradinoc.cli.output import print_notes, print_table
from gradinoc.cli.run import libraries_apart
from gradinoc.errors import printable
from gradinoc.pipeline.display import show_progress
from gradinoc.report.tables import write_table
from gradinoc.report.wording import shown, signs
from gradinoc.stats.effect import Effect
from gradinoc.study.loading import load_study


def find_dose(
    session: Session, name: str, settings: Sequence[str], rates: Sequence[float], prompts: Sequence[str], seed: int,
    store: Path, artifacts: Path,
) -> None:  # fmt: skip
    """Try learning rates from the smallest up, print what each came to and which to take, and write the table."""
    session.store = store
    study = load_study(name, list(settings))
    with libraries_apart(), show_progress() as show:
        from gradinoc.pipeline.dose import advice, as_table, climb, harmless_prompts, ladder

        print_notes(check_study(study))
        harmless = [*prompts] or harmless_prompts(study)
        rungs = [*climb(study, rates or ladder(study), harmless, seed, store, session.noting(show))]
    keys = [*rungs[0].drift]
    rows = [
        [f"{rung.lr:g}", *(_cell(rung.drift[key]) for key in keys), signs(f"{rung.harmless:.2f}")] for rung in rungs
    ]
    sys.stdout.write(f"Drift of the trait's score, a fraction of the scale [95 % over questions], seed {seed}\n\n")
    print_table(("learning rate", *map(shown, keys), "harmless runs"), rows, right=[0, len(keys) + 1])
    path = write_table(as_table(rungs), artifacts / "doses" / f"{study.name}.csv")
    sys.stdout.write(f"\nDose: {advice(rungs)}.\nTable: {printable(path)}\n")


def _cell(effect: Effect) -> str:
    return signs(f"{effect.estimate:.2f} [{effect.low:.2f}, {effect.high:.2f}]")
