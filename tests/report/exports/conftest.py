"""A finished study, and what it leaves for other tools."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gradinoc.api import report_study
from gradinoc.claims.rules.verdict import judge
from gradinoc.measure.loading.load import load_model
from gradinoc.power.simulate import simulate
from gradinoc.report.exports import write_exports


@pytest.fixture(scope="module")
def evidence(finished):
    """Every table of the finished study."""
    return finished.pipeline.evidence()


@pytest.fixture(scope="module")
def findings(finished, evidence):
    """Its gates and claims."""
    judgement = judge(evidence, finished.study.rules)
    return (*judgement.gates, *judgement.claims)


@pytest.fixture(scope="module")
def left(finished, evidence, findings, tmp_path_factory) -> Path:
    """A folder with all that the finished study leaves for other tools."""
    folder = tmp_path_factory.mktemp("exports")
    write_exports(finished.study, evidence, finished.pipeline, folder, findings)
    return folder


@pytest.fixture(scope="module")
def obedient():
    """The base model of the study."""
    return load_model("obedient", device="cpu", kernels="plain")


@pytest.fixture(scope="module")
def simulated():
    """Evidence of three seeds, with responses that have no score: single ones, and all of one run's."""
    made = simulate("effect", np.random.default_rng(1), layers=3, steps=6, directions=100)
    responses = made.responses.copy()
    lost = (responses["condition"] == "inoculation") & (responses["seed"] == 1) & (responses["phase"] == "post")
    responses.loc[lost | (responses["example"] == 2), "score"] = np.nan
    return replace(made, responses=responses)


@pytest.fixture(scope="session")
def reported(finished, tmp_path_factory) -> Path:
    """The artifacts folder of the finished study, with its report."""
    return report_study(finished.study, finished.store, tmp_path_factory.mktemp("reported"), "gradinoc report").folder
