"""A study from Python: `run_study("tiny").verdict`; what the command line and notebooks have in common."""

from __future__ import annotations

import itertools
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from gradinoc.claims.finding import Finding
from gradinoc.claims.tables import Evidence
from gradinoc.claims.verdict import Judgement, Verdict, judge
from gradinoc.disk import disk_errors, encodable, write_atomically
from gradinoc.errors import StudyError, printable
from gradinoc.pipeline.environment import environment, loading_notes, self_tests
from gradinoc.pipeline.watching import ProgressFile
from gradinoc.power.variances import estimate
from gradinoc.report import write_report
from gradinoc.report.figures.lettering import lettering_notes
from gradinoc.report.tables import claims_table
from gradinoc.report.wording import status_word
from gradinoc.study.description import Study
from gradinoc.study.loading import load_study
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.traits.registry import find_trait

if TYPE_CHECKING:
    from gradinoc.pipeline.progress import OnProgress, Progress
    from gradinoc.pipeline.run import Pipeline

DESCRIPTION = "study.json"  # in a study's artifacts: what left them
VARIANCES = "variances.json"
LOGS = "logs"  # of runs, in a study's artifacts
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyResult:
    """What a study came to, and where everything else about it is.

    Attributes:
        study: what was done.
        evidence: the tables that everything rests on.
        judgement: gates, claims, verdict and warnings.
        folder: the study's artifacts.
    """

    study: Study
    evidence: Evidence
    judgement: Judgement
    folder: Path

    @property
    def verdict(self) -> Verdict:
        """The answer to the research question."""
        return self.judgement.verdict

    @property
    def claims(self) -> pd.DataFrame:
        """One row per effect of every gate and claim, as in `claims.csv`."""
        return claims_table((*self.judgement.gates, *self.judgement.claims))

    @property
    def report(self) -> Path:
        """The report's page."""
        return self.folder / "report.html"

    def __repr__(self) -> str:
        """Study, verdict and folder: tables are asked for, not printed."""
        return f"<StudyResult {self.study.name}: {self.verdict.name}; report {printable(self.report)}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, each gate and claim with its main effect, the warnings, the report."""
        findings = (*self.judgement.gates, *self.judgement.claims)
        table = pd.DataFrame(
            [_row(finding) for finding in findings], columns=["", "claim", "status", "effect", "estimate"]
        )
        with pd.option_context("display.max_colwidth", None):
            shown = table.to_html(index=False, border=0, justify="left")
        warnings = "".join(f"<li>{escape(warning)}</li>" for warning in self.judgement.warnings)
        return (
            f"<div><p>Study <b>{escape(self.study.name)}</b> – {escape(self.judgement.sentence)}</p>"
            f"{shown}"
            + (f"<details><summary>Warnings</summary><ul>{warnings}</ul></details>" if warnings else "")
            + f"<p>Report: <code>{escape(printable(self.report))}</code></p></div>"
        )


def _row(finding: Finding) -> tuple[str, ...]:
    """Key, claim, status and main effect of a gate or claim."""
    effect = finding.main
    found = ("", finding.reason) if effect is None else (effect.name, str(effect))
    return finding.key, finding.claim, status_word(finding), *found


@contextmanager
def _undisturbed() -> Iterator[None]:
    from gradinoc.models.isolation import undisturbed  # here: with it comes torch

    with undisturbed():
        yield


@_undisturbed()
def run_study(
    study: str | Path | Study = "tiny",
    *,
    settings: Sequence[str] = (),
    store: str | Path = "store",
    artifacts: str | Path = "artifacts",
    on_progress: OnProgress | None = None,
    report_to: str = "none",
) -> StudyResult:
    """What a study comes to, after computing what the store does not hold yet and writing its report.

    Args:
        study: a ready study's name, a TOML file, or a description.
        settings: changes such as `"training.steps=10"`, for a name or file.
        store: where results are kept and found again.
        artifacts: where the report goes, in a folder named after the study.
        on_progress: told where things stand.
        report_to: what shows runs while they train: "tensorboard", "trackio", "wandb" or whatever else transformers
            has an integration for. It decides no result, and runs that the store holds already are not shown again.

    Raises:
        GradinocError: something to mend: the study, its data or model, the machine, or the disk.
    """
    if isinstance(study, Study) and settings:
        raise StudyError("settings: belong to a study's name or file; change a description with model_copy(update=...)")
    described = study if isinstance(study, Study) else load_study(str(study), list(settings))
    for note in check_study(described):
        logger.warning(note)
    compute_study(described, Path(store), Path(artifacts), on_progress, report_to)
    command = _again(study, settings, Path(artifacts))
    return report_study(described, Path(store), Path(artifacts), command, on_progress)


@_undisturbed()
def compute_study(
    study: Study, store: Path, artifacts: Path, on_progress: OnProgress | None = None, report_to: str = "none"
) -> Pipeline:
    """The study's steps, every one of them in the store; its folder in `artifacts` describes it and is kept for it.

    Raises:
        GradinocError: of the first step that failed; or the disk refuses, or there is no such integration.
    """
    progress = ProgressFile(artifacts / study.name, str(os.getpid()), alone=True)
    pipeline = open_study(study, store, artifacts, _both(progress.post, on_progress), report_to)
    pipeline.complete()
    return pipeline


def open_study(
    study: Study, store: Path, artifacts: Path, on_progress: OnProgress | None, report_to: str, workers: int = 1
) -> Pipeline:
    """The study's steps, none of them computed yet; its folder in `artifacts` is made.

    Raises:
        GradinocError: the disk refuses, or there is no such integration.
    """
    from gradinoc.measure.training.tracking import tracking
    from gradinoc.pipeline.run import Pipeline  # here: what only plans or reads does without torch
    from gradinoc.pipeline.store import Store

    folder = artifacts / study.name
    shown = tracking(report_to, folder / LOGS, study.name)
    prepare_folder(study, folder)
    return Pipeline(study, Store(store), on_progress, workers, shown)


def check_study(study: Study) -> list[str]:
    """What there is to note before anything is computed.

    Raises:
        GradinocError: the study cannot be run.
    """
    from gradinoc.pipeline.check import check

    return [*check(study), *lettering_notes(find_trait(study.trait))]


@_undisturbed()
def report_study(
    study: Study, store: Path, artifacts: Path, command: str, on_progress: OnProgress | None = None
) -> StudyResult:
    """What the study comes to, its report written and all that it leaves for other tools; what is missing is computed.

    Args:
        study: what was done.
        store: where its results are.
        artifacts: where the report goes, in a folder named after the study.
        command: what does it all again, for the report.
        on_progress: told where things stand.

    Raises:
        GradinocError: as `compute_study`.
    """
    folder = artifacts / study.name
    pipeline = compute_study(study, store, artifacts, on_progress)
    evidence = pipeline.evidence()
    judgement = judge(evidence, study.rules)
    write_artifacts(pipeline, evidence, judgement, folder, command)
    return StudyResult(study, evidence, judgement, folder)


def write_artifacts(pipeline: Pipeline, evidence: Evidence, judgement: Judgement, folder: Path, command: str) -> None:
    """Write all that a study leaves for readers and other tools: report, tables, figures, exports, variances.

    `command` runs the study again; the report says it.
    """
    from gradinoc.report.exports import write_exports

    study, findings = pipeline.study, (*judgement.gates, *judgement.claims)
    rendered = pipeline.context.rendered(matched=evidence.chosen_prompt)
    write_report(judgement, evidence, study, folder, environment_of(pipeline, evidence), command, rendered)
    write_exports(study, evidence, pipeline, folder, findings)
    _write_variances(evidence, study, folder)


def _both(one: OnProgress, other: OnProgress | None) -> OnProgress:
    """A callback that calls both."""

    def hear(progress: Progress) -> None:
        one(progress)
        if other is not None:
            other(progress)

    return hear


def environment_of(pipeline: Pipeline, evidence: Evidence) -> dict[str, Any]:
    """Where and with what the steps of a study were computed, what was noted of its data and model, and tried on it."""
    loaded = [pipeline.entry("directions").path, pipeline.entry("gradients", NEUTRAL).path]
    notes = [*pipeline.context.splits.notes, *lettering_notes(evidence.trait), *loading_notes(*loaded)]
    made = [entry.manifest() for entry in pipeline.entries.values()]
    return environment(pipeline.study, made, notes, self_tests(*loaded))


def prepare_folder(study: Study, folder: Path) -> None:
    """Make a study's artifacts folder; one that a study of another description left is moved aside, to `NAME.1`.

    Raises:
        StoreError: the folder cannot be made or written to, or its path is no text that libraries could use.
    """
    note, description = folder / DESCRIPTION, study.model_dump_json(indent=2).encode()
    with disk_errors(folder, "artifacts"):
        encodable(folder, "artifacts")
        if note.is_file() and note.read_bytes() != description:
            kept = next(place for place in _beside(folder) if not place.exists())
            with suppress(FileNotFoundError):  # another worker, started at the same time, was quicker
                folder.rename(kept)
                logger.warning("%s: of another description of the study; moved to %s", folder, kept)
    write_atomically(note, description)


def _beside(folder: Path) -> Iterator[Path]:
    """`NAME.1`, `NAME.2`, ... beside `folder`."""
    return (folder.with_name(f"{folder.name}.{number}") for number in itertools.count(1))


def _write_variances(evidence: Evidence, study: Study, folder: Path) -> None:
    """Leave the study's variances for later plans, unless they cannot be estimated."""
    try:
        found = estimate(evidence, study.rules, study.name)
    except ValueError as error:
        logger.warning("no variances for later plans: %s", error)
        return
    write_atomically(folder / VARIANCES, f"{found.model_dump_json(indent=2)}\n".encode())


def _again(study: str | Path | Study, settings: Sequence[str], artifacts: Path) -> str:
    """The command that runs the study again, as a shell takes it."""
    if isinstance(study, Study):
        left = f"pathlib.Path({str(artifacts / study.name / DESCRIPTION)!r}).read_text()"
        code = f"gradinoc.run_study(gradinoc.study.description.Study.model_validate_json({left}))"
        return shlex.join(["python", "-c", f"import pathlib, gradinoc.study.description; {code}"])
    changes = f", settings={list(settings)!r}" if settings else ""
    return shlex.join(["python", "-c", f"import gradinoc; gradinoc.run_study({str(study)!r}{changes})"])
