"""The record of a study: what is published of it, and read again."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fixtures.scripts import script
from gradinoc.claims.rules.verdict import judge
from gradinoc.cli import main
from gradinoc.disk import checksum, files_below
from gradinoc.errors import StudyError
from gradinoc.report.exports.record import NEEDED, Record, publish
from gradinoc.report.exports.release import write_release
from gradinoc.report.figures import figures_of
from gradinoc.report.reproduction import agrees, read_banked, reproduction
from gradinoc.report.tables import plain
from gradinoc.report.wording import status_word

DOCS = Path(__file__).parents[3] / "docs"
FIGURES = ("plot15_matrix", "plot16_prompts", "plot18_steering")


@pytest.fixture
def record(reported, tmp_path) -> Record:
    """The finished study's, with two figures."""
    return publish(reported, tmp_path / "record", FIGURES)


def test_record_holds_what_pages_rest_on_and_the_figures_named(record, reported):
    """Every file is the artifacts' own; figures with what they show; `reproduce` takes it."""
    files = {path.relative_to(record.folder).as_posix() for path in record.folder.rglob("*") if path.is_file()}
    assert files == {*NEEDED, *(f"figures/{name}.png" for name in FIGURES)}
    for name in {*NEEDED} - {"figures/figures.json"}:
        assert (record.folder / name).read_bytes() == (reported / name).read_bytes()
    assert set(record.figures) == {*FIGURES}
    assert all(words["finding"] and words["caption"] for words in record.figures.values())
    assert agrees(reproduction(read_banked(record.folder), reported))


def test_findings_come_back_as_they_were_judged(record, evidence, finished):
    """Every gate and claim with its effects, missing numbers as NaN; criteria alone are left out."""
    judgement = judge(evidence, finished.study.rules)
    judged = {each.key: replace(each, criteria=()) for each in (*judgement.gates, *judgement.claims)}
    assert plain(record.findings) == plain(judged)
    assert record.effect("G5", "drift").estimate == judgement["G5"]["drift"].estimate
    missing = [effect for each in record.findings.values() for effect in each.effects if math.isnan(effect.low)]
    assert missing, "expected effects without an interval"
    assert record.effect("G5", "no such effect") is record.effect("C99", "drift") is None


def test_pictures_are_smaller_and_the_same(record, reported):
    """A palette of 256 colours: as many points, none far from what it was."""
    for name in FIGURES:
        paths = reported / "figures" / f"{name}.png", record.picture(name)
        before, after = (np.asarray(Image.open(path).convert("RGB"), dtype=int) for path in paths)
        assert before.shape == after.shape
        assert np.abs(before - after).max() < 32, "a colour bar, a few hundred points of which no two are alike"
        assert paths[1].stat().st_size < 0.6 * paths[0].stat().st_size


def test_publishing_again_removes_other_figures_and_nothing_else(record, reported):
    """A figure that is not named any more goes; a file of somebody's stays."""
    (record.folder / "figures" / "mine.png").write_bytes(b"mine")
    again = publish(reported, record.folder, FIGURES[:1])
    assert set(again.figures) == {FIGURES[0]}
    assert {path.name for path in (record.folder / "figures").iterdir()} == {
        "figures.json", "mine.png", f"{FIGURES[0]}.png",
    }  # fmt: skip


def test_no_folder_of_something_else_is_written_over(reported, tmp_path):
    """Artifacts, the study's own or another's, and the record of another study stay as they are."""
    artifacts = tmp_path / "artifacts"
    shutil.copytree(reported, artifacts)
    before = {name: checksum(path) for name, path in files_below(artifacts).items()}
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "claims.csv").write_text("mine")
    with pytest.raises(StudyError, match="expected a new folder, or an earlier record of study small"):
        publish(reported, mine, FIGURES)
    assert [path.name for path in mine.iterdir()] == ["claims.csv"]
    for source in (artifacts, reported):
        with pytest.raises(StudyError, match="expected a new folder, or an earlier record of study small"):
            publish(source, artifacts, FIGURES)
    assert {name: checksum(path) for name, path in files_below(artifacts).items()} == before
    other = publish(reported, tmp_path / "other", FIGURES)
    described = {**other.study, "name": "other"}
    (other.folder / "study.json").write_text(json.dumps(described))
    with pytest.raises(StudyError, match="an earlier record of study small; name another"):
        publish(reported, other.folder, ())
    assert set(other.figures) == {*FIGURES}


@pytest.mark.parametrize("name", ["../x", "/x", "..", ""])
def test_a_study_s_name_is_that_of_a_folder(record, name):
    """A description of others that says otherwise is refused, so that nothing is written elsewhere."""
    (record.folder / "study.json").write_text(json.dumps({**record.study, "name": name}))
    with pytest.raises(StudyError, match="expected the name of a folder"):
        _ = Record(record.folder).name


@pytest.mark.parametrize(("key", "value"), [("data.source", "/home/me/mine.jsonl"), ("model.id", "~/models/mine")])
def test_paths_of_a_machine_are_not_published(reported, tmp_path, key, value):
    """They are named, with what to do: of the study, and of the plan that was frozen."""
    part, _, name = key.partition(".")
    for file in ("study.json", "frozen-plan.json"):
        artifacts = tmp_path / file / "artifacts"
        shutil.copytree(reported, artifacts)
        described = json.loads((artifacts / "study.json").read_text(encoding="utf-8"))
        described[part][name] = value
        content = {"study": described} if file == "frozen-plan.json" else described
        (artifacts / file).write_text(json.dumps(content))
        with pytest.raises(
            StudyError, match=rf"{key} is '{value}', a path of this machine.*--set {key}={Path(value).name}"
        ):
            publish(artifacts, tmp_path / "record", FIGURES)
        assert not (tmp_path / "record").exists()


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("report.html", "release"),
        ("environment.json", "record"),
        ("adapters", "release"),
        ("frozen-plan.json", "release"),
    ],
)
def test_folders_of_a_machine_are_not_published_in_any_text(reported, tmp_path, monkeypatch, file, kind):
    """A command of the report, a plan's differences, a card; the same words behind another folder are no such path."""
    monkeypatch.setenv("HOME", "/home/ada")
    artifacts = tmp_path / "artifacts"
    shutil.copytree(reported, artifacts)
    plan = {"study": json.loads((artifacts / "study.json").read_text(encoding="utf-8"))}
    (artifacts / "frozen-plan.json").write_text(json.dumps(plan))
    write = publish if kind == "record" else lambda source, folder, _: write_release([source], folder)
    path = next((artifacts / file).rglob("README.md")) if (artifacts / file).is_dir() else artifacts / file
    before = path.read_text(encoding="utf-8")

    def note(words):
        as_json = path.suffix == ".json"
        path.write_text(json.dumps({**json.loads(before), "note": words}) if as_json else f"{before} {words}")

    for harmless in ("/home/adam/x", "/srv/home/ada/x"):
        note(harmless)
        write(artifacts, tmp_path / harmless.replace("/", "_"), ())
    note("/home/ada/studies/x.toml")
    with pytest.raises(StudyError, match=rf"{path.name}: names /home/ada, a folder of this machine"):
        write(artifacts, tmp_path / "made", ())
    assert not (tmp_path / "made").exists()


def test_what_interventions_were_is_published_with_them(reported, tmp_path):
    """The tables of arms, where a study has any; they go with a study that has none."""
    artifacts = tmp_path / "artifacts"
    shutil.copytree(reported, artifacts)
    assert not (publish(artifacts, tmp_path / "record", ()).folder / "arms.csv").exists()
    arms = pd.DataFrame({"condition": ["removed"], "kind": ["project"]})
    arms.to_parquet(artifacts / "tables" / "arms.parquet")
    made = publish(artifacts, tmp_path / "record", ())
    pd.testing.assert_frame_equal(pd.read_csv(made.folder / "arms.csv"), arms, check_dtype=False)
    assert not (made.folder / "energies.csv").exists()
    arms[:0].to_parquet(artifacts / "tables" / "arms.parquet")
    assert not (publish(artifacts, made.folder, ()).folder / "arms.csv").exists()
    (artifacts / "tables" / "arms.parquet").write_bytes(b"no table")
    before = {name: checksum(path) for name, path in files_below(made.folder).items()}
    with pytest.raises(StudyError, match=r"arms\.parquet: cannot be read .*; report the study again"):
        publish(artifacts, made.folder, FIGURES)
    assert {name: checksum(path) for name, path in files_below(made.folder).items()} == before


def test_facts_say_what_was_done_and_whether_it_was_planned(record, finished):
    """Model, questions, runs, dose, machine, code, plan; a plan's differences are named."""
    facts = dict(record.facts())
    assert facts["model"] == f"{finished.study.model.id}, float32 on cpu"
    assert facts["runs"].startswith(f"{len(pd.read_csv(record.folder / 'runs.csv'))}, of ")
    assert facts["plan"] == "none was frozen before"
    path = record.folder / "environment.json"
    plan = {"date": "2026-11-28T22:56:22+00:00", "digest": "d" * 64, "note": "Nothing of it was in the store.",
            "differences": []}  # fmt: skip
    path.write_text(json.dumps({**record.environment, "frozen_plan": plan}))
    said = "Nothing of it was in the store. The study is the one that was planned."
    assert dict(Record(record.folder).facts())["plan"] == f"frozen on 2026-11-28 (SHA-256 dddddddddddd). {said}"
    plan["differences"] = ["rules.share: 0.25 in the frozen plan, 0.2 now"]
    path.write_text(json.dumps({**record.environment, "frozen_plan": plan}))
    assert "rules.share: 0.25 in the frozen plan, 0.2 now" in dict(Record(record.folder).facts())["plan"]


def test_artifacts_without_a_report_are_refused(tmp_path, reported):
    """With the file that is missing; a figure of no study is named with those that there are."""
    with pytest.raises(StudyError, match=r"verdict\.json: no such file; expected a study's artifacts, with a report"):
        publish(tmp_path, tmp_path / "record", FIGURES)
    with pytest.raises(StudyError, match=r"no plot99; expected some of .*plot16_prompts"):
        publish(reported, tmp_path / "record", ["plot99"])
    with pytest.raises(StudyError, match=r"runs\.csv: cannot be read"):
        Record(tmp_path).table("runs")


def test_command_publishes(reported, evidence, tmp_path, capsys):
    """`gradinoc export record` says what it wrote; a figure that this study has not is left out."""
    absent = "plot23_removing_the_component"
    assert absent not in figures_of(evidence)
    words = [word for name in (FIGURES[0], absent) for word in ("--figure", name)]
    assert main(["export", "record", str(reported), "--out", str(tmp_path / "record"), *words]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'record'}: study small, {FIGURES[0]}\n"


@pytest.fixture(scope="module")
def make_results():
    """What writes the pages of docs/results."""
    return script(DOCS / "make_results.py")


def test_page_of_a_study_computed_again_has_every_number_twice(record, reported, make_results, tmp_path):
    """What is different is named, with what was published and what is now; the rest is counted."""
    again = tmp_path / "record" / "again"
    again.mkdir()
    claims = pd.read_csv(reported / "claims.csv")
    claims.loc[claims["claim"] == "C1", "status"] = "supported"
    (tmp_path / "fresh").mkdir()
    for name in ("runs.csv", "matrix.csv"):
        shutil.copy(reported / name, tmp_path / "fresh")
    claims.to_csv(tmp_path / "fresh" / "claims.csv", index=False)
    table = reproduction(read_banked(record.folder), tmp_path / "fresh")
    table.to_csv(again / "reproduction.csv", index=False)
    shutil.copy(reported / "environment.json", again)
    template = tmp_path / "page.md.j2"
    template.write_text('{% set name = "record" %}{% include "_reproduce.md.j2" %}')
    page = make_results.rendered(template, tmp_path)
    assert "The study **does not agree** with what was published." in page
    assert page.count("| claims.csv | C1 | status | undecided | supported |") == 1
    rows = table[table["table"] == "claims.csv"]
    assert page.count("\n| G") + page.count("\n| C") == len(rows)


def test_gate_without_effects_fails_on_pages_too(record, make_results):
    """One that found nothing to measure has a row with its status alone; counts of the others stay whole numbers."""
    claims = pd.read_csv(record.folder / "claims.csv")
    claims.loc[len(claims)] = {"claim": "G11", "status": "refuted"}
    claims.to_csv(record.folder / "claims.csv", index=False)
    changed = Record(record.folder)
    assert make_results.failing(changed).split(", ")[-1] == "G11"
    assert not [effect for effect in changed.effects.values() if re.search(r"n \d+\.", make_results.estimate(effect))]


def test_page_of_a_study_is_made_of_its_record(record, make_results, tmp_path):
    """Every gate and claim with its words, every effect with its estimate; what could not be measured is no number."""
    template = tmp_path / "small.md.j2"
    template.write_text('{% extends "_study.md.j2" %}{% set record = study("record") %}')
    page = make_results.rendered(template, tmp_path)
    for key, finding in record.findings.items():
        assert f"| **{key}** | {status_word(finding)} | {finding.claim}" in page
        for effect in finding.effects:
            assert f"| {key} | {make_results.cell(effect.name)} | {make_results.estimate(effect)} |" in page
    assert not re.search(r"\bnan\b", page)
    assert {name for name in FIGURES if f"figures/{name}.png" in page} == {*FIGURES}
