"""The command that finds a study's dose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gradinoc.cli.commands.arguments import DEFAULT_ARTIFACTS, DEFAULT_STORE, Artifacts, Settings, Store, StudyName

if TYPE_CHECKING:
    from gradinoc.cli import Session


def dose(
    context: typer.Context,
    study: StudyName,
    settings: Settings = None,
    rates: Annotated[
        list[float] | None,
        typer.Option("--lr", metavar="RATE", help="A learning rate to try; again for more (default: five around it)."),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", metavar="KEY", help="A harmless prompt to train under; again for more (default: two)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the runs; none of the study's.")] = 90,
    store: Store = DEFAULT_STORE,
    artifacts: Artifacts = DEFAULT_ARTIFACTS,
) -> None:
    """Find a study's learning rate on runs that are not among its own: the smallest at which harmless runs drift.

    At each rate, from the smallest up, a neutral run and one under each harmless prompt are trained, and sampled
    responses to the calibration questions are scored. It ends where harmless runs drift by 0.3 to 0.6 of the scale.
    Nothing is trained under a prompt that asks for the trait: the choice cannot favour an answer.
    """
    from gradinoc.cli.run import find_dose

    session: Session = context.obj
    find_dose(session, study, settings or [], rates or [], prompts or [], seed, store, artifacts)
