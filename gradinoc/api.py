"""Compute, judge and report a study: for notebooks (`run_study("tiny").verdict`), the command line and pytest."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.finding import Finding
from gradinoc.claims.rules.verdict import Judgement, Verdict, judge
from gradinoc.disk import write_atomically
from gradinoc.errors import EngineError, StudyError, printable
from gradinoc.pipeline.progress import OnProgress, Progress, ProgressFile
from gradinoc.pipeline.storage.provenance import environment, loading_notes, self_tests
from gradinoc.power.variances import estimate
from gradinoc.report import write_report
from gradinoc.report.figures.lettering import lettering_notes
from gradinoc.report.folder import DESCRIPTION, FROZEN_PLAN, prepare_folder
from gradinoc.report.page.versions import versions_sentence
from gradinoc.report.summary import deciding
from gradinoc.report.tables import claims_table
from gradinoc.report.wording import status_word
from gradinoc.study.description import Study
from gradinoc.study.loading import load_study
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.traits.registry import find_trait

if TYPE_CHECKING:
    from gradinoc.models.chat.rendered import Rendered
    from gradinoc.pipeline.context import StudyContext
    from gradinoc.pipeline.run import Pipeline

VARIANCES, LOGS = "variances.json", "logs"  # in a study's artifacts
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyResult:
    """The judgement of a study, its tables and its folder.

    Attributes:
        study: the description.
        evidence: the tables.
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
        """Study, verdict and report in one line."""
        return f"<StudyResult {self.study.name}: {self.verdict.name}; report {printable(self.report)}>"

    def _repr_html_(self) -> str:
        """HTML for a notebook: the verdicts, each gate and claim with its main effect, the warnings, the report."""
        findings = (*self.judgement.gates, *self.judgement.claims)
        table = pd.DataFrame(map(_row, findings), columns=["", "claim", "status", "effect", "estimate"])
        with pd.option_context("display.max_colwidth", None):
            rows = table.to_html(index=False, border=0, justify="left")
        items = "".join(f"<li>{escape(warning)}</li>" for warning in self.judgement.warnings)
        warnings = f"<details><summary>Warnings</summary><ul>{items}</ul></details>" if items else ""
        both = versions_sentence(self.study.published, self.judgement)
        first = f"<p>{escape(both)}</p>" if both else ""
        return (
            f"<div><p>Study <b>{escape(self.study.name)}</b> – {escape(self.judgement.sentence)}</p>{first}"
            f"{rows}{warnings}<p>Report: <code>{escape(printable(self.report))}</code></p></div>"
        )


def _row(finding: Finding) -> tuple[str, ...]:
    """Return key, claim, status and main effect of a gate or claim."""
    effect = deciding(finding)
    found = ("", finding.reason) if effect is None else (effect.name, str(effect))
    return finding.key, finding.claim, status_word(finding), *found


@contextmanager
def _undisturbed() -> Iterator[None]:
    from gradinoc.models.machine.isolation import undisturbed  # here: with it comes torch

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
    """Compute what the store does not hold yet, judge the study, write its report, and return all of it.

    Args:
        study: a ready study's name, a TOML file, or a description.
        settings: changes such as `"training.steps=10"`, for a name or file.
        store: the folder of results.
        artifacts: the report goes to a folder in it that is named after the study.
        on_progress: called with each event.
        report_to: shows runs while they train: "tensorboard", "trackio", "wandb" or another integration of
            transformers. It decides no result, and runs that the store holds already are not shown again.

    Raises:
        GradinocError: the study, its data or model, the machine, or the disk; the message says what to mend.
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
    study: Study, store: Path, artifacts: Path, on_progress: OnProgress | None = None, report_to: str = "none",
    engine: str = "local",
) -> Pipeline:  # fmt: skip
    """Compute what is missing of the study by an `engine`, make its folder in `artifacts`, and return its pipeline.

    Raises:
        GradinocError: of the first step that failed; or the disk refuses, or there is no such integration.
    """
    file = ProgressFile(artifacts / study.name, str(os.getpid()), replaces=True)

    def report(progress: Progress) -> None:
        file.post(progress)
        if on_progress is not None:
            on_progress(progress)

    with closing(open_study(study, store, artifacts, report, report_to, engine=engine)) as pipeline:
        pipeline.complete()
    return pipeline


def open_study(
    study: Study, store: Path, artifacts: Path, on_progress: OnProgress | None, report_to: str, workers: int = 1,
    engine: str = "local",
) -> Pipeline:  # fmt: skip
    """Return the study's pipeline, with nothing computed yet; its folder in `artifacts` is made.

    Raises:
        GradinocError: the disk refuses, or there is no such integration.
    """
    from gradinoc.measure.training.tracking import tracking
    from gradinoc.pipeline.engines.chosen import engine_for
    from gradinoc.pipeline.run import Pipeline  # here: torch is not needed to plan or read
    from gradinoc.pipeline.storage.store import Store

    folder, kept = artifacts / study.name, Store(store)
    tracker = tracking(report_to, folder / LOGS, study.name)
    chosen = engine_for(engine, study, kept)
    if tracker and chosen:
        raise EngineError(f"--report-to {report_to}: workers of a cluster show nothing while they train; leave it out")
    prepare_folder(study, folder)
    return Pipeline(study, kept, on_progress, workers, tracker, engine=chosen)


def check_study(study: Study) -> list[str]:
    """Return notes on the study's data, model, trait and fonts before anything is computed.

    Raises:
        GradinocError: the study cannot be run.
    """
    from gradinoc.pipeline.check import check

    return [*check(study), *lettering_notes(find_trait(study.trait))]


@_undisturbed()
def report_study(
    study: Study, store: Path, artifacts: Path, command: str, on_progress: OnProgress | None = None
) -> StudyResult:
    """Judge the study, write its report and the files for other tools; what is missing is computed first.

    `command` runs the study again, for the report; the rest is as of `run_study`.

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
    """Write report, tables, figures, exports and variances; `command` runs the study again, for the report.

    Where the folder holds a frozen plan, the report says whether the study is the one that was planned.
    """
    from gradinoc.report.exports import write_exports

    study, findings = pipeline.study, (*judgement.gates, *judgement.claims)
    rendered, surroundings = _rendered(pipeline.context), environment_of(pipeline, evidence)
    if (folder / FROZEN_PLAN).is_file():
        from gradinoc.pipeline.steps.frozen_plan import beside_plan

        judgement = beside_plan(folder / FROZEN_PLAN, study, judgement, surroundings)
    write_report(judgement, evidence, study, folder, surroundings, command, rendered)
    write_exports(study, evidence, pipeline, folder, findings)
    _write_variances(evidence, study, folder)


def _rendered(context: StudyContext) -> Rendered:
    """Return every prompt of a study as its model reads it; of a rephrased one the first of its wordings."""
    from gradinoc.models.chat.rendered import rendered_prompts

    found = context.rendered()
    others = {
        key: next(iter(prompt.texts), None)
        for key, prompt in (context.prompts | context.evaluations).items()
        if key not in found.prompts
    }
    further = rendered_prompts(context.tokenizer, others, found.question)
    return replace(found, prompts={**found.prompts, **further})


def environment_of(pipeline: Pipeline, evidence: Evidence) -> dict[str, Any]:
    """Return where the steps were computed and with what, notes on data and model, and the model's self-tests."""
    loaded = [pipeline.entry("directions").path, pipeline.entry("gradients", NEUTRAL).path]
    notes = [*pipeline.context.splits.notes, *lettering_notes(evidence.trait), *loading_notes(*loaded)]
    made = [entry.manifest() for entry in pipeline.entries.values()]
    return environment(pipeline.study, made, notes, self_tests(*loaded))


def _write_variances(evidence: Evidence, study: Study, folder: Path) -> None:
    """Write the study's variances for later plans, unless they cannot be estimated."""
    try:
        found = estimate(evidence, study.rules, study.name)
    except ValueError as error:
        logger.warning("no variances for later plans: %s", error)
        return
    write_atomically(folder / VARIANCES, f"{found.model_dump_json(indent=2)}\n".encode())


def _again(study: str | Path | Study, settings: Sequence[str], artifacts: Path) -> str:
    """Return the shell command that runs the study again."""
    if isinstance(study, Study):
        left = f"pathlib.Path({str(artifacts / study.name / DESCRIPTION)!r}).read_text()"
        code = f"gradinoc.run_study(gradinoc.study.description.Study.model_validate_json({left}))"
        return shlex.join(["python", "-c", f"import pathlib, gradinoc.study.description; {code}"])
    changes = f", settings={list(settings)!r}" if settings else ""
    return shlex.join(["python", "-c", f"import gradinoc; gradinoc.run_study({str(study)!r}{changes})"])
