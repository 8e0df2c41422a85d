"""A trait that names a related contrast, from its study file to the tests of the claims."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pytest

from fixtures.jsonl import chat, written
from fixtures.small_study import SMALLEST
from fixtures.smallest import smallest
from gradinoc.study.prompts import UNRELATED

ROOT = Path(__file__).parents[2]


def test_contrast_that_a_trait_names_as_related_is_left_out(tmp_path):
    """Of a study of bullet lists five contrasts are left."""
    evidence = smallest(tmp_path, "trait=bullets").evidence("directions", "unrelated", "gradients")
    assert {*evidence.unrelated["trait"]} == {*UNRELATED} - {"lists"}


@pytest.mark.exhaustive
def test_claims_of_a_trait_with_a_related_contrast_are_tested_from_end_to_end(tmp_path):
    """`pytest claims` of bullet lists: five contrasts are left, and whatever is refused, a gate refuses it.

    On answers in chat form with GSM8K's marks: that they were cleaned is kept with the study.
    """
    asked = [chat(f"What is {n} + 2?", f"It is {n}+2=<<{n}+2={n + 2}>>{n + 2}. So.\n#### {n + 2}") for n in range(48)]
    source = written(tmp_path / "marked.jsonl", *asked)
    settings = [*SMALLEST, "trait=bullets", "drift.max_new_tokens=4", f"data.source={source}", "name=listed"]
    words = ["--study=tiny", *(f"--set={setting}" for setting in settings)]
    words += [f"--{kind}={tmp_path / kind}" for kind in ("store", "artifacts", "junit-xml")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "claims", "-n", "0", "-p", "no:cacheprovider", *words],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    cases = {
        f"{case.get('classname')}.{case.get('name')}": {part.tag for part in case}
        for case in ET.parse(tmp_path / "junit-xml").iter("testcase")  # noqa: S314 - our own
    }
    failed = [name for name, parts in cases.items() if parts & {"failure", "error"}]
    assert all("test_gates.test_g" in name for name in failed), done.stdout
    assert any("test_c2" in name for name in cases), done.stdout
    left = tmp_path / "artifacts" / "listed"
    unrelated = pd.read_parquet(left / "tables" / "unrelated.parquet")
    assert {*unrelated["trait"]} == {*UNRELATED} - {"lists"}
    claims = pd.read_csv(left / "claims.csv")
    assert set(claims["claim"]) >= {"C1", "C2", "C6"}
    report = (left / "report.html").read_text(encoding="utf-8")
    assert "bullet rate" in report
    assert "data: 32 of 32 answers of" in report
