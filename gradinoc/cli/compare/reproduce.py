"""`gradinoc reproduce`: compute the study of a plan again, and compare it with what was banked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from gradinoc.cli import Session
from gradinoc.cli.output import print_table
from gradinoc.cli.run import Places, run_steps, write_up
from gradinoc.errors import StudyError, printable
from gradinoc.report.reproduction import CLAIMS, Agreement, agrees, read_banked, reproduction
from gradinoc.report.tables import write_table
from gradinoc.report.wording import number
from gradinoc.study.loading import load_study

MOST = 20  # lines of what differs


def reproduce_study(
    session: Session, plan: str, banked: Path, settings: Sequence[str], places: Places, engine: str
) -> int:
    """Compute and judge the study of a plan, and compare its tables with the banked ones; 1 if they do not agree."""
    folder = places.artifacts / load_study(plan, list(settings)).name
    if banked.resolve() == folder.resolve():
        raise StudyError(f"{banked}: would be written over; copy it, or name another place with --artifacts")
    published = read_banked(banked)  # before hours are spent
    run_steps(session, plan, settings, places, "none", engine)
    write_up(session, plan, settings, places)
    table = reproduction(published, folder)
    path = write_table(table, folder / "reproduction.csv")
    print_reproduction(table)
    sys.stdout.write(f"\nTable: {printable(path)}\n")
    return int(not agrees(table))


def print_reproduction(table: pd.DataFrame) -> None:
    """Print how many numbers of each table are equal, within noise and different, and which differ."""
    kinds = [str(each) for each in Agreement]
    counts = pd.crosstab(table["table"], table["agreement"]).reindex(table["table"].unique(), columns=kinds).fillna(0)
    rows = [[str(name), *(f"{count:.0f}" for count in counts.loc[name])] for name in counts.index]
    sys.stdout.write("\nNumbers beside the banked ones\n\n")
    print_table(("", *kinds), rows, right=range(1, len(kinds) + 1))
    apart = table[table["agreement"] == Agreement.DIFFERENT]
    if len(apart):
        sys.stdout.write("\nDifferent\n\n")
        shown = apart.drop(columns="agreement").head(MOST)
        print_table([*shown], [[_shortly(value) for value in row] for row in shown.itertuples(index=False)])
    if len(apart) > MOST:
        sys.stdout.write(f"and {len(apart) - MOST} more\n")
    untold = int(((table["table"] == CLAIMS) & (table["agreement"] == Agreement.UNTOLD)).sum())
    says = "agrees" if agrees(table) else "does not agree"
    sys.stdout.write(f"\nThe study {says} with what was banked, in the status and the effects of gates and claims.\n")
    if untold:
        sys.stdout.write(f"{untold} effects that have no interval changed; whether by much is not judged.\n")


def _shortly(value: object) -> str:
    return value if isinstance(value, str) else number(value)
