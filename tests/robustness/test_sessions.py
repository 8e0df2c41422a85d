"""What a session does before it runs: it looks first, and takes nothing away for a study that cannot run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.small_study import SMALLEST, as_options

ROOT = Path(__file__).parents[2]


def session(tmp_path, *options):
    """Exit code and output of a session on the smallest study that collects one test."""
    places = [f"--{place}={tmp_path / place}" for place in ("store", "artifacts", "datasets")]
    test = str(ROOT / "claims" / "test_verdict.py")
    command = [sys.executable, "-m", "pytest", test, "--study", "tiny", *as_options(SMALLEST), *places, *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def is_folder_of_old(tmp_path):
    """An earlier study of the same name has left its report."""
    folder = tmp_path / "artifacts" / "small"
    folder.mkdir(parents=True)
    (folder / "study.json").write_text("{}")
    (folder / "report.html").write_text("the old report")


def is_file(tmp_path):
    """The artifacts' place is taken."""
    (tmp_path / "artifacts").write_text("")


def is_no_text(tmp_path):
    """The note of the earlier study is no UTF-8."""
    is_folder_of_old(tmp_path)
    (tmp_path / "artifacts" / "small" / "study.json").write_bytes(b"\xff\xfe")


def is_folder_for_messages(tmp_path):
    """Workers could not post their progress."""
    (tmp_path / "artifacts" / "small" / "progress.jsonl").mkdir(parents=True)


@pytest.mark.exhaustive
@pytest.mark.fault("Bad studies", "a study that cannot run where a report of that name lies")
@pytest.mark.parametrize(
    "options", [["--set", "model.id=/nowhere"], ["--collect-only", "-q"]], ids=["refused", "asked"]
)
def test_old_report_stays_until_the_new_study_can_run(tmp_path, options):
    """A typing error costs no results."""
    is_folder_of_old(tmp_path)
    code, said = session(tmp_path, *options)
    assert code == (4 if "model.id=/nowhere" in options else 0), said
    assert (tmp_path / "artifacts" / "small" / "report.html").read_text() == "the old report"
    assert "Traceback" not in said


@pytest.mark.exhaustive
@pytest.mark.fault("Storage", "artifacts where none can be, or messages of workers")
@pytest.mark.parametrize("place", [is_file, is_folder_for_messages])
def test_artifacts_that_cannot_be_are_one_line(tmp_path, place):
    """Before anything is computed."""
    place(tmp_path)
    code, said = session(tmp_path, "-n", "2")
    assert code == 4, said
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said
    assert [line for line in said.splitlines() if line.startswith("ERROR: ") and str(tmp_path) in line], said


@pytest.mark.exhaustive
@pytest.mark.fault("Storage", "a note of an earlier study that is no text")
def test_note_that_is_no_text_is_another_study_s(tmp_path):
    """What is there is not this study's, and goes; the session runs."""
    is_no_text(tmp_path)
    code, said = session(tmp_path, "--undecided", "skip")
    assert code in (0, 5), said
    assert not (tmp_path / "artifacts" / "small" / "study.json").read_bytes().startswith(b"\xff")
