"""The pytest plugin: options, fixtures, header, progress and closing summary of a session on a study.

pip registers it (entry point `pytest11`) for every session of an environment: unless a study is asked for, it adds
options and fixtures and imports nothing else.
"""

from __future__ import annotations

import io
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from gradinoc.errors import GradinocError, printable
from gradinoc.pytest_plugin.session import FINDING, SESSION, StudySession, option

pytest_plugins = ["gradinoc.pytest_plugin.fixtures"]
OPTIONS = {
    "study": ("", "NAME|FILE.toml", "the study to compute and judge"),
    "store": ("store", "DIR", "where results are kept and found again"),
    "artifacts": ("artifacts", "DIR", "where figures, tables and the report go, in a folder named after the study"),
    "datasets": ("", "DIR", "where the study's questions are written as chat JSONL; its artifacts if not given"),
    "undecided": ("skip", "skip|fail", "what becomes of the test of an undecided claim"),
    "refuted": ("fail", "fail|report", "report: refuted claims still fail their tests, but the exit code is 0"),
    "device": ("auto", "DEVICE", "cpu, cuda, mps; auto takes the best there is"),
    "engine": ("local", "ENGINE", "what computes: local, ray, or a cluster, ray://HOST:PORT or ray:HOST:PORT"),
    "report-to": ("none", "NAME", "what shows runs while they train: tensorboard, trackio, wandb, ... of transformers"),
}
CHOICES = {"undecided": ("skip", "fail"), "refuted": ("fail", "report")}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add every option, each also to the configuration file."""
    group = parser.getgroup("gradinoc", "the study under test")
    for name, (default, metavar, text) in OPTIONS.items():
        choices = CHOICES.get(name)
        shown = None if choices else metavar
        group.addoption(f"--{name}", metavar=shown, choices=choices, help=f"{text} (default: {default or 'none'})")
        parser.addini(name, f"{text}; see --{name}", default=default)
    group.addoption(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="change a key of the study, for instance data.source=my.jsonl; may be repeated",
    )  # fmt: skip
    parser.addini("set", "changes to the study, one KEY=VALUE a line; see --set", type="linelist", default=[])


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Load the study that is asked for; check one named on the command line, and show its progress."""
    text = "the test is of this gate or claim, such as C1, which the fixture `finding` judges by the tables of `stages`"
    config.addinivalue_line("markers", f"claim(key, stages): {text}")
    if not option(config, "study"):
        return
    try:
        session = config.stash[SESSION] = StudySession(config)
        if config.getoption("--study") and not config.option.collectonly:
            session.begin()
    except (GradinocError, OSError) as error:
        raise pytest.UsageError(printable(error)) from error


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Return what is under test, and what its design can decide: before any model is loaded."""
    session = config.stash.get(SESSION, None)
    if session is None or not config.getoption("--study"):
        return []
    from gradinoc.power.design import opening

    study = session.study
    return [
        f"study: {study.name} ({printable(study.model.id)}, trait {study.trait}, data {printable(study.data.source)}, "
        f"{len(study.conditions)} conditions x {len(study.seeds)} seeds, {len(study.prompts_trained)} further prompts)",
        f"artifacts: {printable(session.artifacts)}",
        *session.notes,
        *opening(study),
    ]


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Write what cannot be decided even where the header is left out (`-q`, `--no-header`)."""
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")  # xdist's workers have none
    if SESSION not in config.stash or not config.getoption("--study") or reporter is None:
        return
    if reporter.no_header or not reporter.showheader:
        from gradinoc.power.design import dead_ends, design_of

        for end in dead_ends(design_of(config.stash[SESSION].study)):
            reporter.write_line(f"design: {end}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of the study over its conditions: `condition`, `other` (than inoculation); over runs with `seed`.

    With a seed a condition is any prompt that is trained under, and both are those of a run; without one the conditions
    are those of the study file, which have every seed.
    """
    session = metafunc.config.stash.get(SESSION, None)
    if session is None or "study" not in metafunc.fixturenames:
        return
    from gradinoc.study.prompts import INOCULATION

    study = session.study
    own = {name for mark in metafunc.definition.iter_markers("parametrize") for name in str(mark.args[0]).split(",")}
    conditions = list(study.conditions)
    asked = {"condition", "seed"} & {*metafunc.fixturenames} - own
    if asked == {"condition", "seed"}:
        metafunc.parametrize(("condition", "seed"), sorted(study.runs))
    elif asked:
        (name,) = asked
        metafunc.parametrize(name, conditions if name == "condition" else list(study.seeds))
    if "other" in metafunc.fixturenames and "other" not in own:
        metafunc.parametrize("other", [condition for condition in conditions if condition != INOCULATION])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show an error that the user can mend as its one line, not as a traceback."""
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, GradinocError) and "study" in getattr(item, "fixturenames", ()):
        report.longrepr = str(error)
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Exit with 128 and the signal that ended the session; with `--refuted report` 0 if only claims were refuted."""
    ended = getattr(session.config.stash.get(SESSION, None), "signal", 0)
    if ended:
        session.exitstatus = 128 + ended
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or exitstatus != pytest.ExitCode.TESTS_FAILED or option(session.config, "refuted") == "fail":
        return
    failed = [
        report for report in reporter.stats.get("failed", []) if (FINDING, "refuted") not in report.user_properties
    ]
    if not failed and not reporter.stats.get("error"):
        session.exitstatus = pytest.ExitCode.OK


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the verdict in words, if this session reached one."""
    session = config.stash.get(SESSION, None)
    summary = session.artifacts / "summary.txt" if session else Path()
    if session is None or not summary.is_file() or summary.stat().st_mtime < session.began:
        return
    from rich.console import Console

    from gradinoc.report import Tinted

    writer, page = config.get_terminal_writer(), io.StringIO()
    console = Console(
        file=page, width=writer.fullwidth, force_terminal=writer.hasmarkup, force_jupyter=False, legacy_windows=False
    )
    console.print(Tinted(summary.read_text(encoding="utf-8")), soft_wrap=True)
    terminalreporter.section(f"study {session.study.name}")
    terminalreporter.write(page.getvalue())
