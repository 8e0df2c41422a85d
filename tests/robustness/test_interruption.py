"""Killed, told to end or interrupted at any moment, a study goes on where it was and comes to the same."""

from __future__ import annotations

import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from fixtures.small_study import SMALLEST, as_options, assert_same, tables
from fixtures.survivors import ANSWER, LIMIT, Worker, killed_before, write_answer
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.storage.locks import probed
from gradinoc.pipeline.storage.store import Store, load_or_compute
from gradinoc.study.loading import load_study

pytestmark = pytest.mark.usefixtures("nobody_left")
ROOT = Path(__file__).parents[2]
CLAIM = "claims/test_c1_inoculation_lowers_alignment.py"  # all of them would take seconds to collect
SOON = 8.0  # seconds of processor time of all processes after Ctrl-C; on a busy machine these take any time


def how_many(store: Path) -> int:
    """Steps of the study."""
    return len(Pipeline(load_study("tiny", SMALLEST), Store(store)).steps)


def done_in(store: Path) -> dict[str, int]:
    """When each step that is there was written, every file of it as it should be."""
    pipeline = Pipeline(load_study("tiny", SMALLEST), Store(store))
    return {
        pipeline.steps[key].label: (entry.path / "manifest.json").stat().st_mtime_ns
        for key, entry in pipeline.entries.items()
        if entry.complete()
    }


@pytest.mark.fault("Interruption", "killed or told to end at random moments, then restarted")
def test_interrupted_study_comes_to_the_same(finished, tmp_path, faults_tried):
    """Amid four of its steps, with each of the signals: it repeats nothing, and leaves nothing behind."""
    moments = [
        ("directions", signal.SIGKILL, True), ("steering", signal.SIGTERM, True),
        ("run neutral/0", signal.SIGTERM, False), ("drift of seed 0", signal.SIGINT, True),
    ]  # fmt: skip
    for step, number, polite in moments:
        before, worker = done_in(tmp_path), Worker(tmp_path, polite=polite)
        assert worker.listen(lambda word, step=step: word.step == step), worker.error
        code = worker.end(number)
        assert code == (128 + number if polite and number is not signal.SIGKILL else -number)
        assert before.items() <= done_in(tmp_path).items(), "what was finished has changed"
        assert not set(worker.begun) & set(before), "what was finished was begun again"
    before, last = done_in(tmp_path), Worker(tmp_path)
    assert last.end() == 0, last.error
    assert not set(last.begun) & set(before), "what was finished was begun again"
    assert list(tmp_path.rglob(".*")) == [], "scratch folders were left behind"
    assert_same(tables(tmp_path, SMALLEST), tables(finished.store, SMALLEST))
    faults_tried(len(moments))


@pytest.mark.parametrize("old", ["none", pytest.param("corrupt", marks=pytest.mark.exhaustive)])
@pytest.mark.fault("Interruption", "killed before each file operation of the store")
def test_entry_is_whole_or_absent_wherever_its_writer_dies(tmp_path, faults_tried, old):
    """From the making of the scratch folder to the renaming, and amid the replacement of a corrupt result."""
    operation = 0
    while True:
        operation += 1
        store = tmp_path / str(operation)
        entry = Store(store).entry("stage", {"seed": 1})
        if old == "corrupt":
            load_or_compute(entry, write_answer)
            (entry.path / "answer.txt").write_text("fortytwo!")
        if not killed_before(store, operation):
            break
        probed.cache_clear()
        seen = Store(store).entry("stage", {"seed": 1})  # as another process sees it
        assert not seen.complete() or (seen.path / "answer.txt").read_text() == ANSWER
        load_or_compute(seen, write_answer)
        assert seen.complete()
        assert (seen.path / "answer.txt").read_text() == ANSWER
        assert list(store.rglob(".*")) == [], f"left behind by a death before operation {operation}"
        shutil.rmtree(store)
    assert operation > 10, "hardly any file operation was seen"
    faults_tried(operation - 1)


@pytest.mark.fault("Interruption", "the holder of a lock killed while another waits for it")
def test_lock_of_the_dead_is_taken_over_at_once(tmp_path, faults_tried):
    """Twice over, the one who waited takes the step up; the quicker, on a busy machine, within half a second."""
    holder, took = Worker(tmp_path, ["directions"]), []
    assert holder.listen(lambda word: word.detail == "starting")
    for _ in range(2):
        holder.send(signal.SIGSTOP)  # or it might finish
        heir = Worker(tmp_path, ["directions"])
        assert heir.listen(lambda word: word.step == "waiting")
        killed = time.monotonic()
        assert holder.end(signal.SIGKILL) == -signal.SIGKILL
        assert heir.listen(lambda word: word.detail == "starting")
        took.append(heir.words[-1].at - killed)
        holder = heir
    assert holder.end() == 0, holder.error
    assert min(took) < 0.5, took
    faults_tried(2)


# --- the command line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.fault("Interruption", "Ctrl-C or SIGTERM on the command line")
def test_command_line_says_how_to_go_on(tmp_path, number):
    """With the shell's exit code, in one line, without a traceback."""
    places = [f"--store={tmp_path / 'store'}", f"--artifacts={tmp_path / 'a b'}"]
    arguments, output = ["run", "tiny", *as_options(SMALLEST), *places], tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "gradinoc", *arguments], cwd=ROOT, stdout=file, stderr=file)
    wait_for_step("gradients", tmp_path / "store", output, process)
    process.send_signal(number)
    assert process.wait(LIMIT) == 128 + number
    written = output.read_text()
    assert "Traceback" not in written
    again = shlex.join(["python", "-m", "gradinoc", *arguments])
    store = tmp_path / "store"
    expected = f" of {how_many(store)} steps are in {store}/, nothing finished is lost. Go on with: {again}"
    assert re.fullmatch(rf"Interrupted: \d+{re.escape(expected)}", written.splitlines()[-1])


# --- pytest


def wait_for_step(stage: str, store: Path, output: Path, process: subprocess.Popen) -> None:
    """Wait until a session is at a step of `stage`, for which it has a folder to fill."""
    deadline = time.monotonic() + LIMIT
    while not list((store / stage).glob(".*")):
        assert process.poll() is None, f"ended before {stage}:\n{output.read_text()}"
        assert time.monotonic() < deadline, f"no {stage} in {LIMIT} s:\n{output.read_text()}"
        time.sleep(0.02)


@dataclass
class Session:
    """A pytest session on the smallest study: its process, its arguments, what it writes.

    `others` is the processor time of children that ended before it.
    """

    process: subprocess.Popen
    arguments: list[str]
    output: Path
    store: Path
    others: float

    def workers(self) -> list[psutil.Process]:
        """The processes that it has started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def spent(self) -> float:
        """Processor time of all its processes so far, in seconds."""
        if self.process.returncode is not None:
            return of_children() - self.others
        return sum(sum(each.cpu_times()[:4]) for each in (psutil.Process(self.process.pid), *self.workers()))


def of_children() -> float:
    """Processor time of children that have ended, and of theirs, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.fixture
def session(tmp_path):
    """Starts a session that has a process group of its own, as in a terminal."""
    started = []

    def start(*options: str) -> Session:
        arguments = [CLAIM, "--study", "tiny", *as_options(SMALLEST), *options, "-p", "no:cacheprovider"]
        arguments += [f"--{place}={tmp_path / place}" for place in ("store", "artifacts", "datasets")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        output, others = tmp_path / "output", of_children()
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *arguments],
                cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        started.append(process)
        wait_for_step("steering", tmp_path / "store", output, process)
        return Session(process, arguments, output, tmp_path / "store", others)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended may keep its number until somebody asks after it."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_gone(processes: Sequence[psutil.Process]) -> None:
    """All of them end soon; execnet's own, without a controller, after some seconds."""
    deadline = time.monotonic() + 15
    while alive := [each for each in processes if is_alive(each)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.02)


def assert_ended_well(found: Session, number: int, before: float) -> None:
    """The session ended soon, with all its workers, and said how to go on, briefly."""
    assert found.process.wait(LIMIT) == 128 + number
    assert 0 < found.spent() - before < SOON
    written = found.output.read_text()
    assert "Traceback" not in written
    assert f" of {how_many(found.store)} steps are in {found.store}/, nothing finished is lost" in written
    assert f"Go on with: {shlex.join(['pytest', *found.arguments])}\n" in written
    assert len(written.split("Interrupted: ")) == 2


@pytest.mark.parametrize(
    ("options", "number", "everyone"),
    [
        pytest.param(["-n", "2"], signal.SIGINT, True, id="Ctrl-C, two workers"),
        pytest.param(["-n", "2"], signal.SIGTERM, False, id="SIGTERM, two workers", marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.fault("Interruption", "Ctrl-C or SIGTERM in a pytest session")
def test_session_says_how_to_go_on(session, options, number, everyone):
    """Of a terminal's Ctrl-C all processes hear; `kill` and batch systems may tell the first alone."""
    found = session(*options)
    workers = found.workers()
    assert len(workers) >= len(options)
    before = found.spent()
    (os.killpg if everyone else os.kill)(found.process.pid, number)
    assert_ended_well(found, number, before)
    assert_gone(workers)


@pytest.mark.exhaustive
@pytest.mark.fault("Interruption", "the controller of a pytest session killed")
def test_workers_end_with_their_controller(session):
    """Nobody is left to hold a step that no session waits for."""
    found = session("-n", "2")
    workers = found.workers()
    found.process.kill()
    assert_gone(workers)
