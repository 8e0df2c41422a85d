"""A study from Python: one call runs it, and what comes back says what was found."""

from __future__ import annotations

import html
import json
import shlex
import threading
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import gradinoc
from fixtures.finished import SETTINGS
from fixtures.small_study import manifests
from gradinoc.api import StudyResult
from gradinoc.claims.rules.verdict import judge
from gradinoc.errors import StudyError
from gradinoc.pipeline.storage.provenance import loading_notes, self_tests
from gradinoc.power.simulate import simulate
from gradinoc.report.folder import prepare_folder
from gradinoc.report.page.versions import versions_sentence
from gradinoc.study.description import Study
from gradinoc.study.rules import Published

HOSTILE = "<script>alert(1)</script> & \"quoted\" <img src=x onerror='alert(2)'>"


class Tags(HTMLParser):
    """The text of a page and the tags in it, as a browser would find them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.attributes = "", set(), set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        """Note the tag and its attributes."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        """Note the text."""
        self.text += data


@pytest.fixture(scope="module")
def result(finished) -> StudyResult:
    """The finished study, asked for by its name and settings."""
    before = manifests(finished.store)
    found = gradinoc.run_study("tiny", settings=SETTINGS, store=finished.store, artifacts=finished.artifacts)
    assert manifests(finished.store) == before, "a step was computed again"
    return found


@pytest.fixture(scope="module")
def simulated() -> StudyResult:
    """A simulated study with an answer, not run and not written down."""
    evidence = simulate("effect", np.random.default_rng(3), layers=3, steps=8, directions=100)
    study = Study(name="simulated", published=Published(first_verdict="refuted"))
    judgement = replace(judge(evidence, study.rules), warnings=("of a layer",))
    return StudyResult(study, evidence, judgement, Path("artifacts/simulated"))


def test_result_is_what_the_judge_says_of_the_evidence(finished, result):
    """Verdict and claims are those of the study's evidence, and the same that the report's files say."""
    again = judge(finished.pipeline.evidence(), finished.study.rules)
    assert result.verdict is again.verdict
    assert result.judgement == again or repr(result.judgement) == repr(again)  # NaN is not equal to itself
    left = pd.read_csv(finished.artifacts / "small" / "claims.csv")
    assert result.claims["claim"].tolist() == left["claim"].tolist()
    np.testing.assert_array_equal(result.claims["estimate"], left["estimate"])
    assert result.report.read_text(encoding="utf-8").startswith("<!")


def test_self_tests_of_the_measured_model_are_reported(finished, result):
    """Each step that measures gradients keeps what its model was tried on, and the report tells it."""
    tried = finished.pipeline.context.language_model.tried
    assert tried
    for condition in finished.study.conditions:
        kept = finished.pipeline.entry("gradients", condition).path
        assert self_tests(kept).keys() == tried.keys()
        assert loading_notes(kept)
    told = json.loads((result.folder / "environment.json").read_text(encoding="utf-8"))["self_tests"]
    assert self_tests(finished.pipeline.entry("gradients", "neutral").path).items() <= told.items()


def test_reported_command_does_it_again(finished, result, monkeypatch):
    """The command in the report, typed where the study's folders are, ends in the same claims."""
    page = Tags(result.report.read_text(encoding="utf-8")).text
    commands = {line.strip() for line in page.splitlines() if line.strip().startswith("python -c")}
    words = shlex.split(html.unescape(commands.pop()))
    claims = result.folder / "claims.csv"
    before = claims.read_bytes()
    claims.unlink()
    monkeypatch.chdir(finished.place)
    exec(compile(words[2], "the command", "exec"), {})  # noqa: S102 - what a reader would run
    assert claims.read_bytes() == before


def test_notebook_shows_foreign_text_as_text(simulated):
    """Markup in a sentence, claim, reason, warning or path is shown, and makes no tag of its own."""
    judgement, plain = simulated.judgement, Tags(simulated._repr_html_())
    first = replace(
        judgement.claims[0], claim=HOSTILE, effects=(replace(judgement.claims[0].effects[0], name=HOSTILE),)
    )
    bare = replace(judgement.claims[1], reason=HOSTILE, effects=())
    hostile = replace(
        judgement,
        sentence=HOSTILE,
        warnings=(*judgement.warnings, HOSTILE),
        claims=(first, bare, *judgement.claims[2:]),
    )
    page = Tags(replace(simulated, judgement=hostile, folder=Path(f"artifacts/{HOSTILE}"))._repr_html_())
    assert page.text.count(HOSTILE) == 6
    assert versions_sentence(simulated.study.published, judgement) in page.text
    assert page.tags == plain.tags
    assert page.attributes == plain.attributes


def test_description_takes_no_settings(finished):
    """Settings change a name or a file; beside a description they would be lost, and are refused."""
    with pytest.raises(StudyError, match="settings: belong to a study's name or file"):
        gradinoc.run_study(finished.study, settings=["training.steps=1"])


def test_artifacts_of_another_study_of_that_name_are_moved_aside(finished, tmp_path):
    """A study's folder is kept for it; what a user has in it is never deleted."""
    folder = tmp_path / "small"
    prepare_folder(finished.study, folder)
    (folder / "report.html").write_text("of this study")
    prepare_folder(finished.study, folder)
    engine = finished.study.engine.model_copy(update={"workers": 8})
    prepare_folder(finished.study.model_copy(update={"engine": engine}), folder)  # where it is computed is no matter
    assert (folder / "report.html").is_file()
    for number, seed in enumerate((7, 8), start=1):
        prepare_folder(finished.study.model_copy(update={"seeds": (seed,)}), folder)
        assert [path.name for path in folder.iterdir()] == ["study.json"]
        assert (tmp_path / f"small.{number}" / "study.json").is_file()
    assert (tmp_path / "small.1" / "report.html").read_text() == "of this study"


def test_workers_that_start_at_once_move_artifacts_aside_once(finished, tmp_path, monkeypatch):
    """Each looks at the folder and moves it under one lock, or the second would move the first one's away."""
    folder, other = tmp_path / "small", finished.study.model_copy(update={"seeds": (7,)})
    prepare_folder(finished.study, folder)
    rename, moved = Path.rename, []

    def rename_slowly(path, target):
        moved.append(path)
        time.sleep(0.2)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_slowly)
    workers = [threading.Thread(target=prepare_folder, args=(other, folder)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert moved == [folder]
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"small", "small.1"}
