"""A session looks before it runs: a study that cannot run takes nothing away, and what it warns of is shown."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.small_study import SMALLEST, as_options

ROOT = Path(__file__).parents[2]


def session(tmp_path, *options, test="test_verdict.py"):
    """Exit code and output of a session of one file of claims on the smallest study."""
    places = [f"--{place}={tmp_path / place}" for place in ("store", "artifacts", "datasets")]
    command = [sys.executable, "-m", "pytest", str(ROOT / "claims" / test), "--study", "tiny", *as_options(SMALLEST)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, *places, *options, "-p", "no:cacheprovider"],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.exhaustive
@pytest.mark.fault("Bad studies", "a study that cannot run where a report of that name lies")
@pytest.mark.parametrize(
    ("options", "code"),
    [(["--set", "model.id=/nowhere"], 4), (["--collect-only", "-q"], 0)],
    ids=["refused", "collected"],
)
def test_old_report_stays_until_the_new_study_can_run(tmp_path, options, code):
    """A typing error costs no results."""
    folder = tmp_path / "artifacts" / "small"
    folder.mkdir(parents=True)
    (folder / "study.json").write_text("{}")
    (folder / "report.html").write_text("the old report")
    found, said = session(tmp_path, *options)
    assert found == code, said
    assert (folder / "report.html").read_text() == "the old report"
    assert "Traceback" not in said


@pytest.mark.exhaustive
@pytest.mark.fault("Storage", "artifacts where none can be")
def test_artifacts_that_cannot_be_are_one_line(tmp_path):
    """Before anything is computed."""
    (tmp_path / "artifacts").write_text("")
    code, said = session(tmp_path, "-n", "2")
    assert code == 4, said
    assert "Traceback" not in said
    assert "INTERNALERROR" not in said
    assert [line for line in said.splitlines() if line.startswith("ERROR: ") and str(tmp_path) in line], said


@pytest.mark.exhaustive
@pytest.mark.fault("Storage", "a damaged file in a pytest session, with and without workers")
@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["no xdist", "one worker"])
def test_session_says_what_was_damaged(finished, tmp_path, workers):
    """By name, once; the step is computed anew, and the session goes on to the claims."""
    shutil.copytree(finished.store, tmp_path / "store")
    damaged = next((tmp_path / "store").glob("gradients/*/alignments.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    _, said = session(tmp_path, *workers, test="test_c1_inoculation_lowers_alignment.py")
    assert said.count("Warning: Stored result") == 1, said
    assert f"gradients/{damaged.parent.name} is corrupt ('alignments.parquet': " in said
    assert "error" not in said.splitlines()[-1]
