"""What a study file calls things leads nowhere but where they belong, and sends a terminal no commands."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest

from fixtures.smallest import smallest
from gradinoc.cli import main
from gradinoc.data.export import write_datasets
from gradinoc.errors import ModelError, StudyError
from gradinoc.models.sources.accepted import ensure_revision
from gradinoc.pytest_plugin import pytest_report_header
from gradinoc.pytest_plugin.session import SESSION
from gradinoc.study.description import Study
from gradinoc.study.loading import load_study
from gradinoc.study.prompts import CONDITIONS
from gradinoc.study.traits import find_trait

HOSTILE_NAMES = ("..", "../x", "/x", "a/b", "a\\b", "", "-x", ".x", "a\nb", "a\0b", "~", "\u202ex", "C:x", "x" * 300)


@pytest.mark.fault("Names from study files", "a study's name that would lead elsewhere")
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_study_s_name_is_a_plain_folder_s(name, tmp_path):
    """It names a folder in the artifacts, and a folder of that name may be cleared."""
    file = tmp_path / "study.toml"
    file.write_text(f"name = {json.dumps(name)}\n")
    with pytest.raises(StudyError, match="name"):
        load_study(str(file))


@pytest.mark.fault("Names from study files", "a setting whose key or value would lead elsewhere")
@pytest.mark.parametrize("key", ["data.source", "model.id", "conditions.loss_matched"])
@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_setting_adds_only_plain_characters_to_the_name(key, name):
    """Settings are added to a study's name: what they hold, an artifacts folder must not."""
    try:
        study = load_study("tiny", [f"{key}={json.dumps(name)}"])
    except StudyError:
        return
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", study.name)
    assert len(study.name) < 255


@pytest.mark.fault("Names from study files", "a condition's name that would lead elsewhere, or be a formula in a table")
@pytest.mark.parametrize("name", [*HOSTILE_NAMES, "=1+1", "@SUM(A1)", "\t=1", "x,y", 'x"y', "<b>"])
def test_condition_s_name_is_plain(name):
    """In a study file and as the key of a setting."""
    conditions = {**CONDITIONS, name: "Be brief."}
    with pytest.raises(ValueError, match="conditions"):
        Study(name="any", conditions=conditions)
    with pytest.raises(StudyError):
        load_study("tiny", [f"conditions.{name}=Be brief."])


@pytest.mark.fault("Names from study files", "a data source whose name would lead elsewhere")
def test_data_sets_are_written_to_their_folder_alone(tmp_path, faults_tried):
    """Files are named after the source: they stay where they belong, whatever its name."""
    splits = smallest(tmp_path / "store").context.splits
    sources = [*(name for name in HOSTILE_NAMES if len(name) < 200), "../../x.jsonl", "..jsonl"]
    for number, source in enumerate(sources):
        outer = tmp_path / str(number)
        write_datasets(splits, find_trait("all_caps"), source, outer / "datasets")
        assert {path.parent for path in outer.rglob("*") if path.is_file()} == {outer / "datasets"}, source
    faults_tried(len(sources))


@pytest.mark.fault("Names from study files", "a model's revision that would lead elsewhere")
@pytest.mark.parametrize("revision", sorted({*HOSTILE_NAMES, "refs/../../x", "x\n"} - {"a/b"}))
def test_revision_is_the_name_of_one(revision):
    """The hub's library keeps a file of that name in its cache."""
    with pytest.raises(ModelError, match=r"model\.revision: expected the name of a branch or tag") as error:
        ensure_revision(revision)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("revision", [None, "v1.0", "refs/pr/1", "feature/x_y-z+1"])
def test_ordinary_revision_is_taken(revision):
    """Branches, tags, pull requests, commits."""
    ensure_revision(revision)


# --- what a terminal is shown

STEERING = "\x1b]0;title\x07\x1b[2J\x1b]8;;http://example.org\x07press\x9b31m\u202edcba\u2066"
STUDY_FILES = {
    "name": "name = {0}",
    "model": "[model]\nid = {0}",
    "device": "[model]\ndevice = {0}",
    "trait": "trait = {0}",
    "source": "[data]\nsource = {0}",
    "key": "{0} = 1",
    "condition": "[conditions]\n{0} = 'Be brief.'",
    "number": "seeds = [{0}]",
    "no TOML": "{0} {0}",
}


@pytest.mark.fault("Hostile text", "escape sequences in a study file: what the terminal is sent")
@pytest.mark.parametrize("place", STUDY_FILES)
def test_terminal_is_sent_no_escape_sequences(place, tmp_path, capfd):
    """An error about a study file shows them spelled out, whichever value they are in."""
    file = tmp_path / "hostile.toml"
    file.write_text(STUDY_FILES[place].format(json.dumps(STEERING)) + "\n", encoding="utf-8")
    places = ["--store", str(tmp_path / "store"), "--artifacts", str(tmp_path / "artifacts")]
    assert main(["run", str(file), *places]) == 2
    shown = "".join(capfd.readouterr())
    assert shown
    assert shown.replace("\n", "").isprintable(), repr(shown)


@pytest.mark.fault("Hostile text", "escape sequences in a study file: the header of pytest")
def test_header_is_made_of_lines_that_can_be_printed():
    """It names model and data as the study file does, escaped."""
    hostile = json.dumps(STEERING)
    study = load_study("tiny", [f"model.id={hostile}", f"data.source={hostile}", "name=hostile"])
    session = SimpleNamespace(study=study, artifacts=STEERING, notes=[])
    config = SimpleNamespace(stash={SESSION: session}, getoption=lambda _name: "hostile.toml")
    lines = pytest_report_header(config)
    assert "title" in lines[0]
    assert all(line.isprintable() for line in lines), lines
