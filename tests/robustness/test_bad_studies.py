"""A study that cannot be run is refused before a model is loaded: file, key, what was expected, what was received."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import errors
from fixtures.complaints import complaint, message_or_nothing
from gradinoc.claims.design import opening
from gradinoc.claims.tables import BASE
from gradinoc.errors import StudyError
from gradinoc.pipeline.check import check
from gradinoc.study import loading as study_module
from gradinoc.study.description import LONGEST_NAME, Study
from gradinoc.study.loading import load_study
from gradinoc.study.prompts import RESERVED

ROOT = Path(__file__).parents[2]
HUGE = "9" * 5000

SETTINGS = {
    "unknown key": ("seed=3", r"unknown key 'seed': did you mean 'seeds'\?"),
    "unknown table": ("traning.steps=3", r"unknown key 'traning': did you mean 'training'\?"),
    "unknown key in a table": ("data.trian=3", r"unknown key 'data\.trian': did you mean 'data\.train'\?"),
    "escape in a key": ("\x1b[2J\n=3", r"unknown key '.*x1b\[2J.*n': known keys"),
    "two values": ("training.steps=3\nseeds = [7]", r"training\.steps: .*\(received '3\\nseeds = \[7\]'\)"),
    "empty key in a table": ("training.=3", r"unknown key 'training\.': known keys"),
    "no assignment": ("training.steps", r"Setting 'training\.steps': expected key=value, for instance"),
    "no key": ("=3", "Setting '=3': expected key=value"),
    "key of a value": ("training.steps.a=3", r"'steps' is a value, not a table; expected key=value"),
    "value for a table": ("training=3", r"training: Input should be .* \(received 3\)"),
    "list for a table": ("training=[3]", r"training: Input should be .* \(received \[3\]\)"),
    "text for a number": ("training.steps=many", r"training\.steps: Input should be a valid integer \(received 'many'"),
    "number in quotes": ('training.steps="3"', r"training\.steps: Input should be a valid integer \(received '3'\)"),
    "truth value for a number": ("training.steps=true", r"training\.steps: .*valid integer \(received True\)"),
    "fraction for a number": ("training.steps=2.0", r"training\.steps: .*valid integer \(received 2\.0\)"),
    "date for a number": ("training.steps=2026-11-23", r"training\.steps: .*valid integer \(received datetime\.date"),
    "truth value for a rate": ("training.lr=true", r"training\.lr: Input should be a valid number \(received True\)"),
    "number for a switch": ("training.gradient_checkpointing=1", r"valid boolean \(received 1\)"),
    "number for text": ("data.source=3", r"data\.source: Input should be a valid string \(received 3\)"),
    "negative steps": ("training.steps=-1", r"training\.steps: .*greater than or equal to 0 \(received -1\)"),
    "no batch": ("training.batch_size=0", r"training\.batch_size: .*or equal to 1 \(received 0\)"),
    "negative generations": ("drift.generations=-4", r"drift\.generations: .*or equal to 1 \(received -4\)"),
    "negative threads": ("model.threads=-1", r"model\.threads: .*or equal to 0 \(received -1\)"),
    "threads without end": ("model.threads=100000", r"model\.threads: .*less than or equal to 1024"),
    "too few questions": ("data.direction=15", r"data\.direction: .*or equal to 16 \(received 15\)"),
    "number beyond use": (f"training.steps={'9' * 30}", r"training\.steps: .*less than or equal to 1000000000"),
    "number of 5,000 digits": (f"training.steps={HUGE}", r"training\.steps: .*\(received '9{30,}\.\.\.9{30,}'\)"),
    "hexadecimal without end": (f"training.steps=0x{'f' * 6000}", r"steps: .*received a value of type int, too long"),
    "rate of zero": ("training.lr=0.0", r"training\.lr: .*greater than 0 \(received 0\.0\)"),
    "rate not finite": ("training.lr=nan", r"training\.lr: .*finite number \(received nan\)"),
    "rate beyond use": ("training.lr=1e3", r"training\.lr: .*less than or equal to 1 \(received 1000\.0\)"),
    "more generations than questions": ("drift.generations=41", r"drift\.generations: more than data\.evaluation, whi"),
    "no seeds": ("seeds=[]", r"seeds: .*at least 1 item .*\(received \[\]\)"),
    "one number for seeds": ("seeds=3", r"seeds: Input should be a valid tuple \(received 3\)"),
    "seed in quotes": ('seeds=["0"]', r"seeds\.0: .*valid integer \(received '0'\)"),
    "negative seed": ("seeds=[-1]", r"seeds\.0: .*or equal to 0 \(received -1\)"),
    "seed too large for a generator": ("seeds=[4294967296]", r"seeds\.0: .*less than or equal to 4294967295"),
    "seed repeated": ("seeds=[1, 1]", r"seeds: \[1, 1\] repeats a seed"),
    "alpha of zero": ("rules.alpha=0.0", r"rules\.alpha: .*greater than 0 \(received 0\.0\)"),
    "alpha of one": ("rules.alpha=1.0", r"rules\.alpha: .*less than 0\.5 \(received 1\.0\)"),
    "margin without width": ("rules.correlation_margin=1e-200", r"rules\.correlation_margin: .*equal to 0\.001"),
    "share above one": ("rules.auc=1.5", r"rules\.auc: .*less than or equal to 1 \(received 1\.5\)"),
    "unknown trait": ("trait=shouting", r"trait: no trait named 'shouting'; there are \['all_caps', 'bullets', .*TOML"),
    "unknown kernels": ("model.kernels=fast", r"model\.kernels: Input should be 'fused' or 'plain' \(received 'fast'"),
    "no model": ("model.id=", r"model\.id: .*at least 1 character \(received ''\)"),
    "name of a folder above": ("name=..", r"name: String should match pattern .*\(received '\.\.'\)"),
    "name in another folder": ("name=a/b", r"name: String should match pattern .*\(received 'a/b'\)"),
    "name with a line end": ('name="con\\n"', r"name: String should match pattern .*\(received 'con\\n'\)"),
    "name too long": (f"name={'x' * 300}", r"name: .*at most 100 characters"),
    "condition of a path": ("conditions.a/b=Be kind.", r"conditions\.a/b\.\[key\]: String should match pattern"),
    "condition with a line end": ("conditions.a\nb=Be kind.", r"conditions\.a\\nb\.\[key\]: String should match patte"),
    "condition with an escape": ("conditions.\x1b[2J=Be kind.", r"conditions\.\\x1b\[2J\.\[key\]: String should match"),
    "condition name too long": (f"conditions.{'x' * 100_000}=Be kind.", r"xxx\.\[key\]: String should match"),
    "unknown key without end": ("x" * 100_000 + "=3", r"unknown key 'xxx.*xxx': known keys"),
    "condition name a letter too long": (f"conditions.{'x' * 41}=Be kind.", r"xxx\.\[key\]: String should match"),
    "condition called base": ("conditions.base=Be kind.", "conditions: 'base' is what tables call the model before tr"),
    "condition in a table": ("conditions.a.b=Be kind.", r"conditions\.a: Input should be a valid string"),
    "prompt a number": ("conditions.sham=3", r"conditions\.sham: Input should be a valid string \(received 3\)"),
    "prompt with NUL": ('conditions.sham="a\\u0000"', r"conditions\.sham: .*without NUL .*\(received 'a\\x00'\)"),
    "prompt with half a pair": ("conditions.sham=a\ud800", r"conditions\.sham: .*surrogate pairs \(received 'a\\ud800"),
    "prompt nearly a word": ("conditions.sham=Trait", r"conditions\.sham: expected a prompt, or 'trait' exactly, rece"),
    "path with half a pair": ("data.source=\udcff.jsonl", r"data\.source: .*unicode string \(received '\\udcff\."),
    "conditions missing": ('conditions={neutral=""}', r"conditions: \['inoculation', 'loss_matched'\] missing"),
    "untrained twice": ('untrained=["loss_measured", "loss_measured"]', r"untrained: \[.*\] repeats a condition; name"),
    "untrained unknown": ('untrained=["\\u001b[2J"]', r"untrained: '\\x1b\[2J' is not one of the further conditions"),
    "neutral untrained": ('untrained=["neutral"]', "untrained: 'neutral' is not one of the further conditions"),
}  # fmt: skip


@pytest.fixture
def no_weights(monkeypatch):
    """Nothing may load weights."""
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("loaded"))


@pytest.mark.fault("Bad studies", "a setting that does not fit")
@pytest.mark.parametrize("case", SETTINGS)
def test_setting_that_does_not_fit_is_named(case):
    """The key, what was expected, what was received."""
    setting, said = SETTINGS[case]
    message = complaint(StudyError, lambda: load_study("tiny", [setting]))
    assert re.search(said, message), message
    assert message.startswith(("Setting ", f"{study_module.STUDIES / 'tiny.toml'}: "))


FILES = {
    "no TOML": (b"steps = = 3", r"not a TOML file: TOMLDecodeError: Invalid value \(at line 1, column 9\); mend it th"),
    "half a table": (b"[training\nsteps = 3", r"not a TOML file: .*\(at line 1, column 10\)"),
    "key twice": (b'trait = "all_caps"\ntrait = "all_caps"', r"not a TOML file: .*Cannot overwrite a value \(at .*\)"),
    "condition twice": (b'[conditions]\na = "x"\na = "y"', "not a TOML file: .*Cannot overwrite a value"),
    "table twice": (b"[data]\n[model]\n[data]", r"not a TOML file: .*Cannot declare \('data',\) twice \(at line 3"),
    "not UTF-8": (b'trait = "caf\xe9"', "not a TOML file: UnicodeDecodeError: .*0xe9 in position 12"),
    "UTF-16": ('trait = "x"'.encode("utf-16"), "not a TOML file: UnicodeDecodeError"),
    "nested without end": (b"a = " + b"[" * 20_000, "not a TOML file: RecursionError"),
    "number of 5,000 digits": (b"a = " + b"9" * 5000, "not a TOML file: ValueError: Exceeds the limit"),
    "JSON": (b'{"trait": "all_caps"}', r"not a TOML file: .*Invalid statement \(at line 1, column 1\)"),
    "bytes": (bytes(range(256)), "not a TOML file: "),
    "unknown key with a line end": (b'"a\\nb" = 3', r"unknown key '.*a.*nb': known keys"),
    "list of tables": (b"[[training]]\nsteps = 3", r"training: Input should be .* \(received \[\{'steps': 3\}\]\)"),
    "name that leads away": (b'name = "../../x"', r"name: String should match pattern .*received '\.\./\.\./x'"),
    "faults without end": (
        b"[training]\n" + b"\n".join(b"a%d = 1" % number for number in range(1000)),
        r"unknown key 'training\.a0': .*; unknown key 'training\.a7': [^;]*; and 992 more$",
    ),
    "several faults": (b"seeds = 3\n[training]\nsteps = -1\nlr = 0", r"seeds: .*; training\.steps: .*; training\.lr: "),
}  # fmt: skip


@pytest.mark.fault("Bad studies", "a file that is no study")
@pytest.mark.parametrize("case", FILES)
def test_file_that_is_no_study_is_named(tmp_path, case):
    """With line and column where the syntax is at fault, with the key where a value is."""
    content, said = FILES[case]
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    message = complaint(StudyError, lambda: load_study(str(path)))
    assert message.startswith(f"{path}: ")
    assert re.search(said, message), message


@pytest.mark.fault("Bad studies", "a name or path that leads to no study")
@pytest.mark.parametrize(
    "source", ["tinny", "", "x" * 5000, "a\0b", "a\n\x1b[2J", "../tiny", "\udcff", "absent.toml", "/"]
)
def test_study_that_is_not_there_is_named(source):
    """With those that are."""
    message = complaint(StudyError, lambda: load_study(source))
    assert re.match(r"No study '.*': expected one of \['deaf', .*\], or the path of a \.toml file", message), message


@pytest.mark.fault("Bad studies", "odd bytes that are a study all the same")
@pytest.mark.parametrize(
    "change", [lambda text: b"\xef\xbb\xbf" + text, lambda text: text.replace(b"\n", b"\r\n")], ids=["mark", "ends"]
)
def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path, change):
    """As some editors write them."""
    path = tmp_path / "tiny.toml"
    path.write_bytes(change((study_module.STUDIES / "tiny.toml").read_bytes()))
    assert load_study(str(path)) == load_study("tiny")


@pytest.mark.fault("Bad studies", "settings that would make a name no folder can have")
@pytest.mark.parametrize(
    "extra",
    [[f"rules.{rule}=0.123456789" for rule in ("auc", "split_half", "ceiling", "overlap", "equivalence", "loss_match")],
     ["conditions.my own=Be kind."], ["data.source=../../x/..", "model.id=../.."], ["data.source=/"]],
)  # fmt: skip
def test_name_stays_in_its_folder_whatever_is_set(extra):
    """It is no path, not too long, and another for other settings."""
    name = load_study("tiny", extra).name
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)
    assert len(name) <= LONGEST_NAME
    assert name != load_study("tiny", [*extra, "training.steps=31"]).name


def test_reserved_name_is_what_tables_call_the_base_model():
    """Or a condition's rows would be taken for it."""
    assert RESERVED == BASE


# --- known before anything is loaded


@pytest.mark.fault("Bad studies", "two conditions with the same prompt")
@pytest.mark.parametrize(
    ("setting", "one", "other"),
    [
        ('conditions.sham=""', "neutral", "sham"),
        ("conditions.sham=trait", "inoculation", "sham"),
        ("conditions.sham=You always respond in ALL CAPS.", "inoculation", "sham"),
        ("conditions.sham=Follow the style guide; answer directly and concisely.", "loss_matched", "sham"),
        ('conditions.inoculation=""', "neutral", "inoculation"),
    ],
)
def test_conditions_with_the_same_prompt_are_refused(no_weights, setting, one, other):
    """What differs between them would be chance, and be called an effect."""
    message = complaint(StudyError, lambda: check(load_study("tiny", [setting])))
    assert message.startswith(f"conditions: {one!r} and {other!r} have the same prompt ")


@pytest.mark.fault("Bad studies", "one seed")
def test_one_seed_is_said_to_decide_nothing_of_drift_before_anything_runs(no_weights):
    """The study is allowed: its other claims can be decided."""
    study = load_study("tiny", ["seeds=[0]"])
    assert check(study) == []
    assert any(line.startswith("design: CANNOT DECIDE C4: the smallest p that this design") for line in opening(study))


# --- the command line


@pytest.mark.fault("Bad studies", "a command line with bad input, from beginning to end")
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("command", "setting", "said"),
    [
        ("pytest", "seeds=3", "seeds: Input should be a valid tuple"),
        ("pytest", "conditions.sham=trait", "conditions: 'inoculation' and 'sham' have the same prompt"),
        ("pytest -n 2", "model.id=/nowhere/\x1b[2J", "'/nowhere/\\x1b[2J' is no folder with a model"),
        ("pytest -n 2", "data.source=/nowhere.jsonl", "/nowhere.jsonl: no such file; give"),
        ("gradinoc", "model.id=/nowhere/\x1b[2J", "'/nowhere/\\x1b[2J' is no folder with a model"),
        ("gradinoc", "data.source=/nowhere.jsonl", "/nowhere.jsonl: no such file; give"),
    ],
)
def test_command_ends_with_one_line(tmp_path, command, setting, said):
    """No traceback, no model loaded, an exit code that says so, nothing left in the store."""
    words = ["-m", "gradinoc", "run", "tiny"]
    if command != "gradinoc":
        words = [
            "-m",
            *command.split(),
            "claims",
            "--study",
            "tiny",
            f"--datasets={tmp_path}",
            "-p",
            "no:cacheprovider",
        ]
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
    """The tests of a study show what to mend; where it was raised is of no use for that. Other errors show it."""
    (tmp_path / "test_x.py").write_text(
        "import pytest\n"
        "from gradinoc.errors import StoreError\n"
        "@pytest.fixture\n"
        "def store():\n"
        "    raise StoreError('the disk is full\\x1b; make room')\n"
        "def test_in_fixture(store):\n"
        "    pass\n"
        "def test_itself():\n"
        "    raise StoreError('the disk is gone; mount it')\n"
        "def test_other():\n"
        "    raise OSError('no fault of yours')\n"
    )
    plugin = SimpleNamespace(pytest_runtest_makereport=errors.pytest_runtest_makereport)
    words = ["-c", os.devnull, "--rootdir", str(tmp_path), "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path)]
    assert pytest.main(words, plugins=[plugin]) == pytest.ExitCode.TESTS_FAILED
    lines = capsys.readouterr().out.splitlines()
    assert "the disk is full\\x1b; make room" in lines
    assert "the disk is gone; mount it" in lines
    assert not [line for line in lines if "raise StoreError" in line]
    assert [line for line in lines if "raise OSError" in line]


# --- anything

SETTABLE = {name: sorted(getattr(field.annotation, "model_fields", [])) for name, field in Study.model_fields.items()}
TOML_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
TOML_KEY = st.sampled_from([*SETTABLE, "neutral", "inoculation", "loss_matched", "base"]) | TOML_TEXT
TOML_SCALAR = (
    st.booleans() | st.integers() | st.floats() | TOML_TEXT | st.sampled_from(["trait", "matched", "all_caps", ""])
)
TOML_VALUE = st.recursive(
    TOML_SCALAR | st.builds(list) | st.builds(dict),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(TOML_KEY, inner, min_size=1, max_size=3),
    max_leaves=8,
)
TABLES = st.fixed_dictionaries(
    {},
    optional={
        name: (st.fixed_dictionaries({}, optional=dict.fromkeys(keys, TOML_SCALAR)) if keys else TOML_VALUE)
        for name, keys in SETTABLE.items()
    },
)


def toml(value):
    """`value` as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(each)}" for key, each in value.items()) + "}"
    return str(value)


def loaded_or_refused(source, settings=()):
    """There is one line about a study; or it can be written down, has a design, and its name is a folder's."""

    def attempt():
        study = load_study(source, settings)
        assert opening(study)
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", study.name), study.name
        assert Study.model_validate_json(study.model_dump_json()) == study

    return message_or_nothing(StudyError, attempt)


@pytest.mark.fault("Bad studies", "arbitrary tables as a study file")
@pytest.mark.parametrize("examples", [100, pytest.param(2000, marks=pytest.mark.exhaustive)])
def test_arbitrary_study_is_loaded_or_refused(tmp_path, faults_tried, examples):
    """Nothing but a study or one line; both happen."""
    said = []

    @settings(max_examples=examples)
    @given(TABLES | st.dictionaries(TOML_KEY, TOML_VALUE))
    def attempt(tables):
        text = "\n".join(f"{toml(key)} = {toml(value)}" for key, value in tables.items())
        assert tomllib.loads(text).keys() == tables.keys()
        path = tmp_path / "any.toml"
        path.write_text(text, encoding="utf-8")
        said.append(loaded_or_refused(str(path)))

    attempt()
    assert any(said)
    assert not all(said)
    faults_tried(len(said))


@pytest.mark.fault("Bad studies", "arbitrary settings on the command line")
@pytest.mark.parametrize("examples", [200, pytest.param(5000, marks=pytest.mark.exhaustive)])
def test_arbitrary_setting_is_taken_or_refused(faults_tried, examples):
    """Any text at all, and any value for a key that there is."""
    said = []
    keys = [name if not inner else f"{name}.{key}" for name, inner in SETTABLE.items() for key in inner or [""]]
    values = st.text() | TOML_VALUE.map(toml)

    @settings(max_examples=examples)
    @given(
        st.lists(st.text() | st.builds("{}={}".format, st.sampled_from([*keys, "conditions.sham"]), values), max_size=3)
    )
    def attempt(changes):
        said.append(loaded_or_refused("tiny", changes))

    attempt()
    assert any(said)
    assert not all(said)
    faults_tried(len(said))


@pytest.mark.fault("Bad studies", "arbitrary bytes as a study file")
@pytest.mark.parametrize("examples", [100, pytest.param(5000, marks=pytest.mark.exhaustive)])
def test_arbitrary_bytes_are_no_study(tmp_path, faults_tried, examples):
    """Nothing but a study or one line."""
    tried = []

    @settings(max_examples=examples)
    @given(
        st.binary()
        | st.lists(st.sampled_from(["[", "]", "a", ".", "=", '"', "\n", "1", "{", "}", ","]))
        .map("".join)
        .map(str.encode)
    )
    def attempt(content):
        tried.append(content)
        path = tmp_path / "any.toml"
        path.write_bytes(content)
        loaded_or_refused(str(path))

    attempt()
    faults_tried(len(tried))
