"""A JUnit file says of every gate and claim what was found, in numbers that other tools can read."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from fixtures.finished import SETTINGS
from fixtures.small_study import as_options
from gradinoc.api import report_study

PROJECT = Path(__file__).parents[1]
NUMBERS = ("estimate", "low", "high", "level", "p", "against", "n")


def claims_session(finished, folder, *arguments):
    """A session of the claims on the finished study."""
    options = [
        "-q", "-p", "no:cacheprovider", "--study", "tiny", *as_options(SETTINGS),
        f"--store={finished.store}", f"--artifacts={folder}",
    ]  # fmt: skip
    command = [sys.executable, "-m", "pytest", *arguments, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def session(finished, tmp_path_factory):
    """A session of some claims and the verdict: its properties by test, and its artifacts."""
    folder = tmp_path_factory.mktemp("junit")
    claims_session(
        finished, folder, "claims", f"--junit-xml={folder / 'out.xml'}",
        "-k", "g2_direction or g4_training or exceeds or rotating_gradients",
    )  # fmt: skip
    cases = ElementTree.parse(folder / "out.xml").getroot().iter("testcase")  # noqa: S314 - our own
    said = {str(case.get("name")): {p.get("name"): p.get("value") for p in case.iter("property")} for case in cases}
    return said, folder / "small"


def test_pytest_and_command_line_leave_the_same_files(session, finished, tmp_path):
    """Whichever reports a study writes all that belongs to it, with the same content but for the command and times."""
    report_study(finished.study, finished.store, tmp_path, "gradinoc report")
    by_pytest, by_command = (contents(folder) for folder in (session[1], tmp_path / "small"))
    ours = {"progress.jsonl", ".findings.lock"}  # of a session
    made = {name for name in by_pytest if not name.startswith(("datasets/", "findings/"))}
    assert made - ours == set(by_command)
    differ = {name for name, content in by_command.items() if content != by_pytest[name]}
    timed = {"environment.json", "report.html", "report.md", "summary.txt"}  # they say when, where and by what command
    # safetensors writes a header's metadata in another order each time.
    assert {name for name in differ if not name.endswith(".safetensors")} <= timed, differ


def contents(folder):
    """Name -> bytes of each file below `folder`."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_file_says_of_each_finding_what_the_table_of_claims_says(session):
    """Status, statement and every number of every effect are there, those that are missing left out."""
    said, artifacts = session
    table = pd.read_csv(artifacts / "claims.csv")
    claims = {each["claim"]: each for each in said.values() if "claim" in each}
    assert set(claims) >= {"G2", "G4", "C2"}
    for key, properties in claims.items():
        rows = table[table["claim"] == key]
        assert properties["finding"] == rows["status"].iloc[0]
        assert properties["statement"]
        names = [properties[f"effect.{place}.name"] for place in range(1, len(rows) + 1)]
        assert names == rows["effect"].tolist()
        for place, row in enumerate(rows.to_dict("records"), start=1):
            for number in NUMBERS:
                value = properties.get(f"effect.{place}.{number}")
                assert (value is None) == math.isnan(row[number])
                assert value is None or float(value) == row[number]
            assert properties[f"effect.{place}.unit"] == row["unit"]
            assert properties[f"effect.{place}.method"] == row["method"]
