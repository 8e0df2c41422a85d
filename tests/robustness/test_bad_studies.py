"""A study that cannot be run is refused before a model is loaded: in one line with the file and the key."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.complaints import complaint, message_or_nothing
from gradinoc.errors import StudyError
from gradinoc.pipeline.check import check
from gradinoc.power.design import opening
from gradinoc.pytest_plugin import pytest_runtest_makereport
from gradinoc.study.description import LONGEST_NAME, Study
from gradinoc.study.loading import STUDIES, load_study

ROOT = Path(__file__).parents[2]

SETTINGS = {
    "unknown key": [("seed=3", "'seeds'"), ("data.trian=3", "'data.train'")],
    "key that no table has": [("training.=3", "'training.'"), ("\x1b[2J\n=3", "x1b[2J"), ("x" * 99_999 + "=3", "xxx")],
    "no assignment": [("training.steps", "'training.steps'"), ("training.steps.a=3", "'steps'")],
    "several settings in one": [("training.steps=3\nseeds = [7]", "training.steps: ")],
    "value for a table": [("training=3", "training: ")],
    "another type": [("training.steps=many", "training.steps: "), ("training.steps=true", "training.steps: ")],
    "number out of its range": [
        ("training.lr=0.0", "training.lr: "), ("training.lr=nan", "lr: "), ("seeds=[4294967296]", "seeds.0: "),
        ("rules.lead=0.5", "lead: "), ("nulls.isotropic=99", "nulls.isotropic: "),
    ],
    "number too long to show": [(f"training.steps={'9' * 5000}", "steps: ")],
    "none of a few words": [("trait=shouting", "trait: "), ("model.kernels=fast", "model.kernels: ")],
    "name that no folder should have": [
        ('name="con\\n"', "name: "), ("model.id=", "id: "), ("data.source=\udcff.jsonl", "data.source: "),
        ("data.revision=../../x", "data.revision: "),
    ],
    "condition that no table or file should have": [
        ("conditions.\x1b[2J=Be kind.", r"conditions.\x1b[2J"), ("conditions.base=Be kind.", "conditions: 'base'"),
    ],
    "prompt that no tokenizer or reader could take": [
        ('conditions.sham="a\\u0000"', r"'a\x00'"), ("conditions.sham=a\ud800", r"'a\ud800'"),
        ("conditions.sham=Trait", "conditions.sham: "),
    ],
    "settings that do not go together": [
        ("drift.generations=49", "drift.generations: "), ("seeds=[1, 1]", "seeds: [1, 1]"),
        ('conditions={neutral=""}', "['inoculation', 'loss_matched']"),
        ('prompts.trained=["neutral"]', "'neutral'"), ('prompts.trained=["anti_1", "anti_1"]', "prompts.trained: "),
        ("drift.matrix=1000", "drift.matrix: "), ("prompts.behaviour=1000", "prompts.behaviour: "),
    ],
}  # fmt: skip
FILES = {
    "no TOML": (b"steps = = 3", "line 1, column 9"),
    "not UTF-8": (b'trait = "caf\xe9"', "position 12"),
    "nested without end": (b"a = " + b"[" * 20_000, "RecursionError"),
    "unknown key with a line end": (b'"a\\nb" = 3', "unknown key"),
    "many faults": (b"[training]\n" + b"\n".join(b"a%d = 1" % number for number in range(1000)), "and 992 more"),
}


@pytest.fixture
def no_weights(monkeypatch):
    """Nothing may load weights."""
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("loaded"))


@pytest.mark.fault("Bad studies", "a setting that does not fit")
@pytest.mark.parametrize("kind", SETTINGS)
def test_setting_that_does_not_fit_is_named(kind, faults_tried):
    """Its key, after the file or the setting as a whole."""
    for setting, key in SETTINGS[kind]:
        message = complaint(StudyError, lambda setting=setting: load_study("tiny", [setting]))
        assert message.startswith(("Setting ", f"{STUDIES / 'tiny.toml'}: ")), message
        assert key in message, message
    faults_tried(len(SETTINGS[kind]))


@pytest.mark.fault("Bad studies", "a file that is no study")
@pytest.mark.parametrize("case", FILES)
def test_file_that_is_no_study_is_named(tmp_path, case):
    """With line and column where the syntax is at fault, with the key where a value is."""
    content, part = FILES[case]
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    message = complaint(StudyError, lambda: load_study(str(path)))
    assert message.startswith(f"{path}: ")
    assert part in message, message


@pytest.mark.fault("Bad studies", "a name or path that leads to no study")
@pytest.mark.parametrize("source", ["tinny", "", "x" * 5000, "a\0b", "a\n\x1b[2J", "x.toml"])
def test_study_that_is_not_there_is_named(source):
    """With those that are."""
    message = complaint(StudyError, lambda: load_study(source))
    assert message.startswith("No study ")
    assert "'smollm2'" in message


@pytest.mark.fault("Bad studies", "odd bytes that are a study all the same")
@pytest.mark.parametrize(
    "change", [lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\n", b"\r\n")], ids=["mark", "ends"]
)
def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path, change):
    """As some editors write them."""
    path = tmp_path / "tiny.toml"
    path.write_bytes(change((STUDIES / "tiny.toml").read_bytes()))
    assert load_study(str(path)) == load_study("tiny")


@pytest.mark.fault("Bad studies", "settings that would make a name no folder can have")
@pytest.mark.parametrize(
    "extra",
    [[f"rules.{rule}=0.123456789" for rule in ("auc", "split_half", "ceiling", "share", "room", "agreement")],
     ["conditions.my own=Be kind."], ["data.source=../../x/..", "model.id=../.."]],
)  # fmt: skip
def test_name_stays_in_its_folder_whatever_is_set(extra):
    """It is no path, not too long, and another for other settings."""
    name = load_study("tiny", extra).name
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)
    assert len(name) <= LONGEST_NAME
    assert name != load_study("tiny", [*extra, "training.steps=31"]).name


# --- known before anything is loaded


@pytest.mark.fault("Bad studies", "two conditions with the same prompt")
@pytest.mark.parametrize(
    ("setting", "one", "other"),
    [
        ("conditions.sham=You always respond in ALL CAPS.", "inoculation", "sham"),
        ('conditions.inoculation=""', "neutral", "inoculation"),
    ],
)
def test_conditions_with_the_same_prompt_are_refused(no_weights, setting, one, other):
    """What differs between them would be chance, and be called an effect."""
    message = complaint(StudyError, lambda: check(load_study("tiny", [setting])))
    assert re.search(rf"(conditions|prompts): {one!r} and {other!r} ", message), message


@pytest.mark.fault("Bad studies", "one seed")
def test_one_seed_is_said_to_decide_nothing_before_anything_runs(no_weights):
    """The study is allowed; one neutral run has no interval, and gates fail without one."""
    study = load_study("tiny", ["seeds=[0]"])
    assert check(study) == []
    assert any("with one seed" in line for line in opening(study))


# --- the command line


@pytest.mark.fault("Bad studies", "a command line with bad input, from beginning to end")
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("command", "setting", "said"),
    [
        ("pytest -n 2", "data.source=/nowhere.jsonl", "/nowhere.jsonl: no such file"),
        ("gradinoc", "model.id=/nowhere/\x1b[2J", "'/nowhere/\\x1b[2J' is no folder with a model"),
    ],
)
def test_command_ends_with_one_line(tmp_path, command, setting, said):
    """No traceback, no model loaded, an exit code that says so, nothing left in the store."""
    words = ["-m", "gradinoc", "run", "tiny"]
    if command != "gradinoc":
        options = [f"--datasets={tmp_path}", "-p", "no:cacheprovider"]
        words = ["-m", *command.split(), "claims", "--study", "tiny", *options]
    kept = [f"--store={tmp_path / 'store'}", f"--artifacts={tmp_path / 'artifacts'}"]
    done = subprocess.run(
        [sys.executable, *words, "--set", setting, *kept],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    whole = done.stdout + done.stderr
    assert done.returncode == (2 if command == "gradinoc" else 4), whole
    assert "Traceback" not in whole
    assert "\x1b[2J" not in whole
    assert sum(said in line for line in whole.splitlines()) == 1, whole
    assert not list((tmp_path / "store").rglob("manifest.json"))


@pytest.mark.fault("Bad studies", "an error that shows only while a study runs")
def test_error_in_a_fixture_or_test_is_shown_as_one_line(tmp_path, capsys):
    """The tests of a study show what to mend, not where it was raised; other errors show that."""
    (tmp_path / "test_x.py").write_text("""
import pytest
from gradinoc.errors import StoreError
@pytest.fixture
def study():
    return None
@pytest.fixture
def store(study):
    raise StoreError('the disk is full\\x1b; make room')
def test_in_fixture(store):
    pass
def test_other(study):
    raise OSError('no fault of yours')
""")
    plugin = SimpleNamespace(pytest_runtest_makereport=pytest_runtest_makereport)
    words = ["-c", os.devnull, "--rootdir", str(tmp_path), "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path)]
    assert pytest.main(words, plugins=[plugin]) == pytest.ExitCode.TESTS_FAILED
    said = capsys.readouterr().out
    assert "the disk is full\\x1b; make room" in said.splitlines()
    assert "raise StoreError" not in said
    assert "raise OSError" in said


# --- anything

FIELDS = {name: getattr(field.annotation, "model_fields", [""]) for name, field in Study.model_fields.items()}
KEYS = [f"{name}.{key}".rstrip(".") for name, inner in FIELDS.items() for key in inner] + ["conditions.sham"]
VALUE = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.just("standard"),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
)


SETTING = st.text() | st.builds("{}={}".format, st.sampled_from(KEYS), st.text() | VALUE.map(json.dumps))
CONTENT = st.binary() | st.lists(SETTING, max_size=3).map(lambda lines: "\n".join(lines).encode(errors="replace"))


@pytest.mark.fault("Bad studies", "arbitrary settings, tables and bytes")
@pytest.mark.parametrize("examples", [100, pytest.param(5000, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("what", ["settings", "files"])
def test_arbitrary_study_is_loaded_or_refused(tmp_path, faults_tried, what, examples):
    """One line refuses it; or it can be written down, has a design, and a folder's name. Both happen."""
    refused = []

    def attempt(source, changes=()):
        study = load_study(source, changes)
        assert opening(study)
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", study.name), study.name
        assert Study.model_validate_json(study.model_dump_json()) == study

    @settings(max_examples=examples)
    @given(st.lists(SETTING, max_size=3) if what == "settings" else CONTENT)
    def try_one(given):
        if what == "settings":
            refused.append(message_or_nothing(StudyError, lambda: attempt("tiny", given)))
            return
        (tmp_path / "any.toml").write_bytes(given)
        refused.append(message_or_nothing(StudyError, lambda: attempt(str(tmp_path / "any.toml"))))

    try_one()
    assert any(refused)
    assert not all(refused)
    faults_tried(len(refused))
