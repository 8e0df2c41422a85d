"""The report of a simulated study, and a browser that opens it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from fixtures.browser import chromium
from fixtures.written import COMMAND, MACHINE, RENDERED
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.verdict import Judgement, judge
from gradinoc.power.simulate import simulate
from gradinoc.report import write_report
from gradinoc.study.description import Study
from gradinoc.study.rules import Published, Rules


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    """A small study; none of one run's responses could be scored."""
    made = simulate("effect", np.random.default_rng(5), layers=3, steps=6, directions=100)
    drift = made.drift.copy()
    run = (drift["condition"] == "neutral") & (drift["seed"] == 1) & (drift["measure"] == "score_ood")
    drift.loc[run, "value"] = np.nan
    return replace(made, drift=drift)


@pytest.fixture(scope="module")
def judgement(evidence: Evidence) -> Judgement:
    """What the judge makes of it."""
    return judge(evidence, Rules())


@pytest.fixture(scope="module")
def folder(evidence: Evidence, judgement: Judgement, tmp_path_factory) -> Path:
    """The folder of its report."""
    place = tmp_path_factory.mktemp("artifacts") / "simulated"
    study = Study(name="simulated", published=Published(first_verdict="refuted"))
    write_report(judgement, evidence, study, place, MACHINE, COMMAND, RENDERED)
    return place


@pytest.fixture(scope="module")
def browser():
    """Chromium, one for all tests here."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def opened(browser: Browser, folder: Path):
    """A function that opens the report; every page of a test is closed after it, and must not have complained."""
    pages, complaints = [], []

    def open_page(width: int = 1440, **how) -> Page:
        page = browser.new_page(viewport={"width": width, "height": 900}, **how)
        pages.append(page)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((folder / "report.html").as_uri(), wait_until="load")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []
