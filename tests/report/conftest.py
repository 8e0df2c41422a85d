"""A simulated study, judged and reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fixtures.hostile import HOSTILE
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.verdict import Judgement, judge
from gradinoc.pipeline.storage.provenance import environment
from gradinoc.power.simulate import simulate
from gradinoc.report import write_report
from gradinoc.study.description import Study
from gradinoc.study.rules import Published


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """A small study in which inoculation works; one response, and one prompt, try to be markup."""
    made = simulate("effect", np.random.default_rng(5), layers=4, steps=10, directions=100)
    responses, prompts = made.responses.copy(), made.prompts.copy()
    first = responses.index[(responses["condition"] == "inoculation") & (responses["phase"] == "post")]
    responses.loc[first[responses.loc[first, "example"] == responses.loc[first, "example"].min()], "response"] = HOSTILE
    prompts.loc[prompts["condition"] == "harmless_02", "text"] = HOSTILE
    return replace(made, responses=responses, prompts=prompts)


@pytest.fixture(scope="module")
def study() -> Study:
    """The study's description; version 1 of the rules has judged it."""
    return Study(name="simulated", published=Published(first_verdict="refuted"))


@pytest.fixture(scope="module")
def judgement(evidence: Evidence, study: Study) -> Judgement:
    """What the judge makes of the study."""
    return judge(evidence, study.rules)


@pytest.fixture(scope="module")
def written(evidence: Evidence, study: Study, judgement: Judgement, tmp_path_factory) -> Path:
    """The folder of one written report."""
    folder = tmp_path_factory.mktemp("artifacts") / "simulated"
    write_report(judgement, evidence, study, folder, environment(), "make claims\npytest claims --study simulated")
    return folder
