"""The study of a pytest session: its options, its pipeline, its progress display, and how it ends at a signal."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import FrameType

    from gradinoc.pipeline.display import Display
    from gradinoc.pipeline.progress import OnProgress, Progress
    from gradinoc.pipeline.run import Pipeline
    from gradinoc.study.description import Study

FINDING = "finding"  # the property of a test's report with the status of its gate or claim


def option(config: pytest.Config, name: str) -> str:
    """Return an option from the command line, else from the configuration file, else its default."""
    return str(config.getoption(f"--{name}") or config.getini(name))


class StudySession:
    """The study of a pytest session, in one of its processes."""

    def __init__(self, config: pytest.Config) -> None:
        from gradinoc.study.loading import load_study

        self.config, self.began, self.signal = config, time.time(), 0
        self.settings = [*config.getini("set"), *config.getoption("settings")]
        study, device = load_study(option(config, "study"), self.settings), option(config, "device")
        if device != "auto":
            study = study.model_copy(update={"model": study.model.model_copy(update={"device": device})})
        self.study: Study = study
        self.store = Path(option(config, "store"))
        self.artifacts = Path(option(config, "artifacts")) / study.name
        given = getattr(config, "workerinput", {})  # from xdist's controller
        self.worker, self.workers = str(given.get("workerid", "")), int(given.get("workercount", 1))
        self.notes: list[str] = []
        self.on_progress: OnProgress | None = None
        self.display: Display | None = None
        self.closing = ExitStack()  # at the end of the session
        config.add_cleanup(self.closing.close)
        self._stop = threading.Event()  # of the thread that follows what workers write
        self._follower: threading.Thread | None = None

    @property
    def command(self) -> str:
        """The command that runs the study again."""
        changes = [word for setting in self.settings for word in ("--set", setting)]
        return shlex.join(["pytest", "claims", "--study", option(self.config, "study"), *changes])

    @cached_property
    def pipeline(self) -> Pipeline:
        """The study's pipeline; its artifacts folder is made, and the questions are written there."""
        from gradinoc.api import open_study

        places, shown = (self.store, self.artifacts.parent), option(self.config, "report-to")
        made = open_study(self.study, *places, self.on_progress, shown, self.workers, option(self.config, "engine"))
        self.closing.callback(made.close)
        made.write_datasets(Path(option(self.config, "datasets") or self.artifacts / "datasets"))
        return made

    def begin(self) -> None:
        """Check the study, prepare its folder, and show its progress; a worker writes its own for the controller."""
        from gradinoc.api import LOGS, check_study
        from gradinoc.measure.training.tracking import tracking
        from gradinoc.pipeline.progress import ProgressFile, warnings_to
        from gradinoc.pipeline.storage.locks import notes
        from gradinoc.report.folder import prepare_folder

        progress = ProgressFile(self.artifacts, self.worker)
        if self.worker:
            self.on_progress = progress.post
            self.closing.enter_context(warnings_to(progress.warn))
            return
        tracking(option(self.config, "report-to"), self.artifacts / LOGS, self.study.name)
        if option(self.config, "engine") != "local" and self.config.getoption("numprocesses", None):
            raise pytest.UsageError("--engine: the cluster has the workers; leave -n out")
        self.notes = [*check_study(self.study), *notes(self.store)]
        prepare_folder(self.study, self.artifacts)
        progress.clear()
        display = self.display = _display(self.config)
        self.closing.enter_context(display.open())
        self.closing.enter_context(warnings_to(display.log))
        self.config.pluginmanager.register(BesideTheDisplay(self, display), "gradinoc display")
        _end_at_signals(self)
        if self.config.getoption("numprocesses", None):
            self._follow(display)
            return

        def show(event: Progress) -> None:
            progress.post(event)
            display.update(event)

        self.on_progress = show

    def end(self) -> None:
        """Show the last events of workers, and take the panel away."""
        self._stop.set()
        if self._follower is not None:
            self._follower.join()
        if self.display is not None:
            self.display.close()

    def _follow(self, display: Display) -> None:
        from gradinoc.pipeline.progress import PROGRESS, follow

        def show() -> None:
            for event, worker in follow(self.artifacts / PROGRESS, self._stop):
                display.update(event, worker)

        self._follower = threading.Thread(target=show, name="progress", daemon=True)
        self._follower.start()


SESSION = pytest.StashKey[StudySession]()  # of sessions in which a study is asked for


def _display(config: pytest.Config) -> Display:
    """Return a display on the terminal, or file, that pytest writes to."""
    from rich.console import Console

    from gradinoc.pipeline.display import Display

    if not config.pluginmanager.has_plugin("terminalreporter"):
        return Display(Console(file=io.StringIO()))
    writer, is_live = config.get_terminal_writer(), config.option.capture != "no" and sys.stdout.isatty()
    with suppress(OSError, ValueError):  # a copy, since pytest captures what is written to stdout
        file = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding, errors="backslashreplace")
        config.add_cleanup(file.close)
        size = shutil.get_terminal_size()
        console = Console(
            file=file, width=size.columns, height=size.lines, force_interactive=is_live, force_terminal=is_live,
            force_jupyter=False,
        )  # fmt: skip
        return Display(console, lambda: writer.width_of_current_line)
    return Display(Console(file=sys.stdout, width=writer.fullwidth, force_interactive=False))


class BesideTheDisplay:
    """Hooks that take the panel away whenever pytest writes."""

    def __init__(self, session: StudySession, display: Display) -> None:
        self._session, self._display = session, display

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logstart(self) -> Iterator[None]:
        """Hide the panel while pytest writes a test's name, its outcome, or how far the session is."""
        with self._display.paused():
            return (yield)

    pytest_runtest_logreport = pytest_runtest_logfinish = pytest_runtest_logstart

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Take the panel away before pytest's summary."""
        try:
            return (yield)
        finally:
            self._session.end()

    @pytest.hookimpl(tryfirst=True)
    def pytest_enter_pdb(self) -> None:
        """Take the panel away where the user types."""
        self._display.close()

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        """Write how to resume after a signal."""
        session = self._session
        if session.signal:
            from gradinoc.pipeline.progress import how_to_resume

            command = shlex.join(["pytest", *config.invocation_params.args])
            sys.stdout.write(f"{how_to_resume(command, session.store, self._display.board.furthest)}\n")


def _end_at_signals(session: StudySession) -> None:
    """End the session and its workers at SIGINT or SIGTERM: finished steps are whole in the store."""
    if threading.current_thread() is not threading.main_thread():
        return

    def end(number: int, _frame: FrameType | None) -> None:
        import psutil

        session.signal = number
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        raise KeyboardInterrupt(signal.Signals(number).name)  # not pytest.exit, which error handlers would catch

    for number in (signal.SIGINT, signal.SIGTERM):
        session.closing.callback(signal.signal, number, signal.signal(number, end))
