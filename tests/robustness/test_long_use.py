"""Long use: many studies in one process leave it as it was, and the machine too."""

from __future__ import annotations

import gc
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from matplotlib import pyplot

from fixtures.smallest import quick_collection, smallest
from gradinoc.claims.verdict import judge
from gradinoc.pipeline.provenance import environment
from gradinoc.pipeline.steps.step import StepKey
from gradinoc.pipeline.steps.training import run_key
from gradinoc.report import write_report

GROWTH = 1.05  # of resident memory, at most


@dataclass(frozen=True)
class Held:
    """What a process holds: bytes of memory, open files, threads, figures, objects that refer to each other."""

    memory: int
    files: int
    threads: int
    figures: int
    objects: int


def held() -> Held:
    """What this process holds now, rubbish aside."""
    gc.collect()
    process = psutil.Process()
    return Held(
        process.memory_info().rss,
        process.num_fds(),
        process.num_threads(),
        len(pyplot.get_fignums()),
        len(gc.get_objects()),
    )


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder for temporary files, this test's own: what is in it afterwards was left behind."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(folder))
    return folder


def repeated(work: Callable[[int], None], times: int, warm_up: int) -> tuple[Held, Held]:
    """What is held after `warm_up` times and after all of them."""
    with quick_collection(), warnings.catch_warnings():
        for number in range(warm_up):
            work(number)
        before = held()
        for number in range(warm_up, times):
            work(number)
        return before, held()


def assert_flat(before: Held, after: Held, studies: int) -> None:
    """Memory within its bounds, everything else not one more."""
    assert after.memory <= GROWTH * before.memory, f"{before.memory / 1e6:.0f} MB became {after.memory / 1e6:.0f} MB"
    assert after.files <= before.files, f"{after.files - before.files} files are open"
    assert after.threads <= before.threads, f"{after.threads - before.threads} threads run"
    assert after.figures == 0, f"{after.figures} figures are open"
    # Memory is coarse: of what Python holds, no study may leave more than a few dozen objects.
    each = (after.objects - before.objects) / studies
    assert each < 100, f"{each:.0f} objects remain of each study"


def left_in(store: Path) -> list[str]:
    """What is in a store but results and their locks."""
    return [str(path) for path in store.glob("*/.*")]


def begun(store: Path, number: int) -> None:
    """A study of its own data, as far as its directions, the base model's drift and a run."""
    smallest(store, f"data.seed={number}").complete([StepKey("drift", phase="pre"), run_key("neutral", 0)])
    assert left_in(store) == []


def finished(store: Path, number: int, artifacts: Path) -> None:
    """A whole study, judged, with its report and all its figures."""
    pipeline = smallest(store, f"data.seed={number}")
    evidence = pipeline.evidence()
    judgement = judge(evidence, pipeline.study.rules)
    made = environment(pipeline.study, [entry.manifest() for entry in pipeline.entries.values()])
    write_report(judgement, evidence, pipeline.study, artifacts, made, "again")
    assert left_in(store) == []


@pytest.mark.fault("Long use", "a study after another in one process")
def test_a_few_studies_leave_nothing_behind(tmp_path, scratch, faults_tried):
    """Each with a store of its own."""
    studies, warm_up = 6, 3

    def work(number: int) -> None:
        begun(tmp_path / str(number), number)

    before, after = repeated(work, studies, warm_up)
    assert_flat(before, after, studies - warm_up)
    assert list(scratch.iterdir()) == []
    faults_tried(studies)


@pytest.mark.exhaustive
@pytest.mark.fault("Long use", "a study after another in one process")
def test_fifty_studies_leave_nothing_behind(tmp_path, scratch, faults_tried):
    """Each with a store of its own; every tenth whole, with its report."""
    studies, warm_up = 50, 15

    def work(number: int) -> None:
        store = tmp_path / str(number)
        if number % 10 == 4:
            finished(store, number, tmp_path / "artifacts")
        else:
            begun(store, number)

    before, after = repeated(work, studies, warm_up)
    assert_flat(before, after, studies - warm_up)
    assert list(scratch.iterdir()) == []
    faults_tried(studies)
