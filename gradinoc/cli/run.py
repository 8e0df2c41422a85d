"""`gradinoc run`, `watch`, `report`, `dose`: compute a study, show its progress, judge it; find its learning rate."""

from __future__ import annotations

import gc
import os
import shlex
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError
from rich.console import Console

from gradinoc.api import check_study, compute_study, report_study
from gradinoc.cli import Session
from gradinoc.cli.commands.arguments import DEFAULT_STORE
from gradinoc.cli.output import print_notes, print_table
from gradinoc.disk import write_atomically
from gradinoc.errors import StudyError, printable, reason
from gradinoc.pipeline.display import Display, show_progress
from gradinoc.pipeline.progress import PROGRESS, follow
from gradinoc.pipeline.storage.locks import notes
from gradinoc.power.design import opening
from gradinoc.report import Tinted
from gradinoc.report.folder import DESCRIPTION, FROZEN_PLAN, prepare_folder
from gradinoc.report.tables import write_table
from gradinoc.report.wording import shown, signs
from gradinoc.stats.effect import Effect
from gradinoc.study.description import Study
from gradinoc.study.faults import explain
from gradinoc.study.loading import is_frozen_plan, load_study


class Places(NamedTuple):
    """Where a study's results are kept, where its artifacts go, and the plan that was frozen before it, if any."""

    store: Path
    artifacts: Path
    frozen: Path | None = None


def run_steps(
    session: Session, name: str, settings: Sequence[str], places: Places, report_to: str, engine: str
) -> None:
    """Compute every step of the study that is missing, with progress, and print the command that reports it."""
    store, artifacts, _ = places
    session.store = store
    study = load_study(name, list(settings))
    places = _with_plan(places, name)
    with libraries_apart(), show_progress() as show:
        print_notes([*opening(study), *check_study(study), *notes(store), *_planned(study, places)])
        compute_study(study, store, artifacts, session.noting(show), report_to, engine)
    words = ["gradinoc", "report", str(artifacts / study.name)]
    words += ["--store", str(store)] if store != DEFAULT_STORE else []
    sys.stdout.write(f"Every step of study {study.name} is in {printable(store)}. Its report: {shlex.join(words)}\n")


def _with_plan(places: Places, source: str) -> Places:
    """Return the places with the plan that a study was read from, if it was, and no other plan is given."""
    return places._replace(frozen=Path(source)) if places.frozen is None and is_frozen_plan(source) else places


def _planned(study: Study, places: Places) -> list[str]:
    """Return what a frozen plan says of the study, and put a copy of it into the artifacts, where reports find it."""
    if places.frozen is None:
        return []
    from gradinoc.pipeline.steps.frozen_plan import registration  # here: with it comes torch

    found, folder = registration(places.frozen, study), places.artifacts / study.name
    content = places.frozen.read_bytes()
    prepare_folder(study, folder)  # one of another description is moved aside, its plan with it
    write_atomically(folder / FROZEN_PLAN, content)
    return found.lines


@contextmanager
def libraries_apart() -> Iterator[None]:
    """Load what computes, and inside the block leave it out when garbage is looked for.

    torch, transformers and the rest define a million objects, none of them garbage: to look through them again and
    again took a quarter of the time of a `run` of a complete study.
    """
    gc.disable()
    try:
        import_module("gradinoc.pipeline.check")
        import_module("gradinoc.pipeline.run")
        gc.freeze()
    finally:
        gc.enable()
    try:
        yield
    finally:
        gc.unfreeze()


def watch_study(folder: Path) -> None:
    """Show the progress that other processes write to the study's artifacts, until every step is done.

    Raises:
        StudyError: no progress has been written there.
    """
    path = folder / PROGRESS
    if not path.is_file():
        raise StudyError(f"{path}: no such file; expected the artifacts folder of a study that runs, or has run")
    display = Display(Console(stderr=True))
    with display.open():
        for event, worker in follow(path, threading.Event()):
            display.update(event, worker)
            if display.board.is_done:
                break
    print_notes([display.board.line()])


def write_up(session: Session, source: str, settings: Sequence[str], places: Places) -> None:
    """Judge the study, write its report, print the closing summary."""
    store, artifacts, _ = places
    session.store = store
    folder = Path(source)
    if os.path.isfile(folder / DESCRIPTION):  # noqa: PTH113 - Path's own raises where a name is too long
        if settings:
            raise StudyError("--set: belongs to a study's name or TOML file; a folder in artifacts says what was done")
        study, artifacts = described_in(folder), folder.absolute().parent
        command = shlex.join(["gradinoc", "report", source])
    else:
        if os.path.isdir(folder):  # noqa: PTH112 - as above
            raise StudyError(f"{folder}: no {DESCRIPTION} in it; expected a study's folder in artifacts")
        study = load_study(source, list(settings))
        changes = [word for setting in settings for word in ("--set", setting)]
        command = "\n".join(shlex.join(["gradinoc", each, source, *changes]) for each in ("run", "report"))
        places = _with_plan(places, source)
    with show_progress() as show:
        print_notes([*opening(study), *check_study(study), *_planned(study, places._replace(artifacts=artifacts))])
        result = report_study(study, store, artifacts, command, session.noting(show))
    summary = Tinted((result.folder / "summary.txt").read_text(encoding="utf-8"))
    Console(highlight=False).print(summary, soft_wrap=True)


def described_in(folder: Path) -> Study:
    """Return the study whose artifacts are in `folder`, from its description there.

    Raises:
        StudyError: the description cannot be read or used, or is that of another folder.
    """
    note = folder / DESCRIPTION
    try:
        study = Study.model_validate_json(note.read_bytes())
    except OSError as error:
        raise StudyError(f"{note}: cannot be read ({reason(error)}); mend the file or run again") from error
    except ValidationError as error:
        raise StudyError(f"{note}: {explain(error, Study)}; expected a study of this version; run it again") from error
    if folder.resolve().name != study.name:
        raise StudyError(
            f"{note}: describes study {study.name}; expected it in a folder of that name; rename the folder"
        )
    return study


def find_dose(
    session: Session, name: str, settings: Sequence[str], rates: Sequence[float], prompts: Sequence[str], seed: int,
    store: Path, artifacts: Path,
) -> None:  # fmt: skip
    """Try learning rates from the smallest up, print what each came to and which to take, and write the table."""
    session.store = store
    study = load_study(name, list(settings))
    with libraries_apart(), show_progress() as show:
        from gradinoc.pipeline.estimate.dose import advice, as_table, climb, harmless_prompts, ladder

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
