"""Options, the report header, what is shown while a study runs, and the closing summary."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from fixtures.progress import Mailbox, attend
from fixtures.session import FINDING, NOTES, RUN, STUDY, Run
from gradinoc.api import LOGS, prepare_folder
from gradinoc.errors import GradinocError, printable
from gradinoc.measure.training.tracking import tracking
from gradinoc.pipeline.check import check
from gradinoc.report import tinted
from gradinoc.study.description import Study
from gradinoc.study.design import dead_ends, design_of, opening
from gradinoc.study.loading import load_study
from gradinoc.study.prompts import INOCULATION

pytest_plugins = [
    "fixtures.study", "fixtures.artifacts", "fixtures.faults", "fixtures.errors", "fixtures.interruption",
    "fixtures.finished",
]  # fmt: skip

ROOT = Path(__file__).parent
TESTS = ROOT / "tests"
OPTIONS = {
    "study": ("tiny", "NAME|FILE.toml", "the study; naming one leaves the unit tests out"),
    "store": ("store", "DIR", "where results are kept and found again"),
    "artifacts": ("artifacts", "DIR", "where figures, tables and the report go, in a folder named after the study"),
    "datasets": ("", "DIR", "where the study's questions are written as chat JSONL; its artifacts if not given"),
    "undecided": ("skip", "skip|fail", "what becomes of the test of an undecided claim"),
    "refuted": ("fail", "fail|report", "report: refuted claims still fail their tests, but the exit code is 0"),
    "device": ("auto", "DEVICE", "cpu, cuda, mps; auto takes the best there is"),
    "report-to": ("none", "NAME", "what shows runs while they train: tensorboard, trackio, wandb, ... of transformers"),
}
CHOICES = {"undecided": ("skip", "fail"), "refuted": ("fail", "report")}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Each option has a twin in the configuration file."""
    group = parser.getgroup("gradinoc", "the study under test")
    for name, (default, metavar, text) in OPTIONS.items():
        choices = CHOICES.get(name)
        shown = None if choices else metavar
        group.addoption(f"--{name}", metavar=shown, choices=choices, help=f"{text} (default: {default})")
        parser.addini(name, f"{text}; see --{name}", default=default)
    group.addoption(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="change a key of the study, for instance data.source=my.jsonl; may be repeated",
    )
    parser.addini("set", "changes to the study, one KEY=VALUE a line; see --set", type="linelist", default=[])


def option(config: pytest.Config, name: str) -> str:
    """An option as given on the command line, else in the configuration file, else its default."""
    return str(config.getoption(f"--{name}") or config.getini(name))


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Read the study, and set up who hears of its progress."""
    settings = [*config.getini("set"), *config.getoption("settings")]
    given = getattr(config, "workerinput", {})  # by xdist, to its workers: what they start inherits their environment
    worker = str(given.get("workerid", ""))
    try:
        study = _study(config, settings)
        artifacts = Path(option(config, "artifacts")) / study.name
        mailbox = Mailbox(artifacts / "progress.jsonl")
        shown = tracking(option(config, "report-to"), artifacts / LOGS, study.name)
        if not worker and not config.option.collectonly:
            config.stash[NOTES] = check(study) if is_named(config) else []
            prepare_folder(study, artifacts)
            mailbox.empty()
    except (GradinocError, OSError) as error:
        raise pytest.UsageError(printable(error)) from error
    config.stash[STUDY] = study
    tell = attend(config, mailbox, worker, warn=is_named(config))
    workers = int(given.get("workercount", 1))
    changes = [word for setting in settings for word in ("--set", setting)]
    command = shlex.join(["pytest", "claims", "--study", option(config, "study"), *changes])
    config.stash[RUN] = Run(
        Path(option(config, "store")),
        artifacts,
        Path(option(config, "datasets") or artifacts / "datasets"),
        tell,
        workers,
        command,
        shown,
    )


def is_named(config: pytest.Config) -> bool:
    """Whether a study is asked for by name, on the command line or in the configuration: then it is to be run."""
    return bool(config.getoption("--study")) or config.getini("study") != OPTIONS["study"][0]


def _study(config: pytest.Config, settings: list[str]) -> Study:
    """The study that is asked for, on the device that is asked for."""
    study, device = load_study(option(config, "study"), settings), option(config, "device")
    if device == "auto":
        return study
    return study.model_copy(update={"model": study.model.model_copy(update={"device": device})})


def pytest_report_header(config: pytest.Config) -> list[str]:
    """What is under test, and what its design can decide: of the controller alone, before any model is loaded."""
    study = config.stash[STUDY]
    return [
        f"study: {study.name} ({printable(study.model.id)}, trait {study.trait}, data {printable(study.data.source)}, "
        f"{len(study.conditions)} conditions x {len(study.seeds)} seeds)",
        f"artifacts: {printable(config.stash[RUN].artifacts)}",
        *config.stash.get(NOTES, []),
        *opening(study),
    ]


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Say what cannot be decided even where the header is left out (`-q`, `--no-header`)."""
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")  # xdist's workers have none
    if reporter is not None and (reporter.no_header or not reporter.showheader):
        for end in dead_ends(design_of(config.stash[STUDY])):
            reporter.write_line(f"design: CANNOT DECIDE {end}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A study named on the command line is run without the unit tests, unless these are named too."""
    if not config.getoption("--study") or any("tests" in Path(argument).parts for argument in config.args):
        return
    left_out = [item for item in items if TESTS in item.path.parents]
    items[:] = [item for item in items if TESTS not in item.path.parents]
    config.hook.pytest_deselected(items=left_out)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Cells: `condition`, `seed` and `other` (a condition compared with inoculation) run over the study's.

    With a seed, the conditions are those under which runs are trained.
    """
    study: Study = metafunc.config.stash[STUDY]
    if TESTS in metafunc.definition.path.parents:
        return
    untrained = study.untrained if "seed" in metafunc.fixturenames else ()
    conditions = [condition for condition in study.conditions if condition not in untrained]
    others = [condition for condition in conditions if condition != INOCULATION]
    for name, values in (("condition", conditions), ("seed", study.seeds), ("other", others)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, list(values))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """With `--refuted report`, a session whose only failures are refuted claims ends with 0."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or exitstatus != pytest.ExitCode.TESTS_FAILED or option(session.config, "refuted") == "fail":
        return
    broken = [*reporter.stats.get("error", []), *(r for r in reporter.stats.get("failed", []) if not _refuted(r))]
    if not broken:
        session.exitstatus = pytest.ExitCode.OK


def _refuted(report: pytest.TestReport) -> bool:
    return (FINDING, "refuted") in report.user_properties


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The verdict in words, if this session reached one."""
    summary = config.stash[RUN].artifacts / "summary.txt"
    if summary.is_file() and summary.stat().st_mtime >= terminalreporter._session_start.time:
        terminalreporter.section(f"study {config.stash[STUDY].name}")
        page = io.StringIO()
        is_coloured = config.get_terminal_writer().hasmarkup
        width = config.get_terminal_writer().fullwidth
        console = Console(file=page, width=width, force_terminal=is_coloured, force_jupyter=False, legacy_windows=False)
        console.print(tinted(summary.read_text(encoding="utf-8")), soft_wrap=True)
        terminalreporter.write(page.getvalue())
