"""Commands that set a study beside another: one of the user's, or one that was published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradinoc.cli.commands.arguments import DEFAULT_ARTIFACTS, DEFAULT_STORE, Artifacts, Engine, Settings, Store

if TYPE_CHECKING:
    from gradinoc.cli import Session


def compare(
    first: Annotated[Path, typer.Argument(metavar="DIR", help="A study's artifacts folder, with a report.")],
    second: Annotated[Path, typer.Argument(metavar="DIR", help="Another.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where compare.csv, .png and .svg go (default: SECOND/compared-with-FIRST)."),
    ] = None,
) -> None:
    """Two studies side by side: verdicts, claims with their difference, drift by condition, settings that differ."""
    from gradinoc.cli.compare import compare_studies

    compare_studies(first, second, out)


def reproduce(
    context: typer.Context,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="The frozen plan's file.")],
    banked: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder with its claims.csv; runs.csv and matrix.csv if there.")
    ],
    settings: Settings = None,
    store: Store = DEFAULT_STORE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
    engine: Engine = "local",
) -> None:
    """Compute the study of a frozen plan, report it, and compare its numbers with those that were published.

    Equal is what differs by less than a millionth; within noise an effect or cell of the matrix that lies in the
    published interval, a run that is no farther off than two standard deviations between seeds. Of numbers that have
    neither, or were not published, nothing is said. Exit code 1: a status or an effect of a claim is different.
    """
    from gradinoc.cli.compare.reproduce import reproduce_study
    from gradinoc.cli.run import Places

    session: Session = context.obj
    code = reproduce_study(session, plan, banked, settings or [], Places(store, artifacts), engine)
    raise typer.Exit(code)
