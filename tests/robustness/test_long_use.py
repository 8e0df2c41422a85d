"""Long use: many studies in one process leave it as it was, and the machine too."""

from __future__ import annotations

import gc
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from matplotlib import pyplot

from fixtures.smallest import quick_collection, smallest
from gradinoc.claims.rules.verdict import judge
from gradinoc.pipeline.steps.step import StepKey
from gradinoc.pipeline.steps.training import run_key
from gradinoc.pipeline.storage.provenance import environment
from gradinoc.report import write_report

GROWTH = 1.05  # of resident memory, at most


class Held(NamedTuple):
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


def assert_flat(before: Held, after: Held, studies: int) -> None:
    """Memory within its bounds, everything else not one more."""
    assert after.memory <= GROWTH * before.memory, f"{before.memory / 1e6:.0f} MB became {after.memory / 1e6:.0f} MB"
    assert after.files <= before.files, f"{after.files - before.files} files are open"
    assert after.threads <= before.threads, f"{after.threads - before.threads} threads run"
    assert after.figures == 0, f"{after.figures} figures are open"
    # Memory is coarse: of what Python holds, no study may leave more than a few dozen objects.
    each = (after.objects - before.objects) / studies
    assert each < 100, f"{each:.0f} objects remain of each study"


def begun(store: Path, number: int) -> None:
    """A study of its own data, as far as its directions, the base model's drift and a run."""
    smallest(store, f"data.seed={number}").complete([StepKey("drift", phase="pre"), run_key("neutral", 0)])


def finished(store: Path, number: int, artifacts: Path) -> None:
    """A whole study, judged, with its report and all its figures."""
    pipeline = smallest(store, f"data.seed={number}")
    evidence = pipeline.evidence()
    judgement = judge(evidence, pipeline.study.rules)
    made = environment(pipeline.study, [entry.manifest() for entry in pipeline.entries.values()])
    write_report(judgement, evidence, pipeline.study, artifacts, made, "again")


@pytest.mark.fault("Long use", "a study after another in one process")
@pytest.mark.parametrize(("studies", "warm_up"), [(6, 3), pytest.param(50, 15, marks=pytest.mark.exhaustive)])
def test_studies_leave_nothing_behind(tmp_path, scratch, faults_tried, studies, warm_up):
    """Each with a store of its own; every tenth whole, with its report."""
    with quick_collection(), warnings.catch_warnings():
        for number in range(studies):
            if number == warm_up:
                before = held()
            store = tmp_path / str(number)
            if number % 10 == 4 and studies > 10:
                finished(store, number, tmp_path / "artifacts")
            else:
                begun(store, number)
            assert list(store.glob("*/.*")) == [], "scratch folders were left behind"
        after = held()
    assert_flat(before, after, studies - warm_up)
    assert list(scratch.iterdir()) == []
    faults_tried(studies)
