"""A study is read, checked, frozen, and named after what was changed in it."""

from __future__ import annotations

import json
import re
from operator import attrgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fixtures.complaints import complaint
from gradinoc.errors import StudyError
from gradinoc.study.description import BUDGETS, Study
from gradinoc.study.loading import PLAN_KIND, STUDIES, is_frozen_plan, load_study
from gradinoc.study.prompts import PLACEHOLDERS
from gradinoc.study.settings import DriftSettings

READY = [
    "causal-smollm2",
    "causal-tiny",
    "deaf",
    "qwen2.5-0.5b",
    "qwen2.5-7b",
    "qwen3-0.6b",
    "smollm2",
    "smollm2-full",
    "tiny",
]


# --- the ready studies


def test_every_ready_study_loads_under_its_own_name():
    """The files there are, no more and no fewer; each says in its first line what it is for."""
    assert sorted(file.stem for file in STUDIES.glob("*.toml")) == READY
    assert [load_study(name).name for name in READY] == READY
    assert all((STUDIES / f"{name}.toml").read_text(encoding="utf-8").startswith("# ") for name in READY)


def test_deaf_study_is_the_tiny_one_with_another_model():
    """Any difference between their verdicts comes from the model."""
    tiny, deaf = load_study("tiny"), load_study("deaf")
    assert (tiny.model.id, deaf.model.id) == ("obedient", "deaf")
    assert deaf.model_copy(update={"name": "tiny", "model": tiny.model, "published": tiny.published}) == tiny


@pytest.mark.parametrize("name", READY)
def test_study_is_read_from_its_frozen_plan_and_from_its_description(name, tmp_path):
    """The plan has neither what was published nor engines; both files are as the project writes them."""
    study, plan, note = load_study(name), tmp_path / "plan.json", tmp_path / "study.json"
    beside = {"published", "engine"}
    plan.write_text(json.dumps({"kind": PLAN_KIND, "study": study.model_dump(mode="json", exclude=beside)}))
    note.write_text(study.model_dump_json(indent=2))
    assert load_study(str(note)) == study
    assert load_study(str(plan)) == Study.model_validate(study.model_dump(exclude=beside))
    assert load_study(str(plan), ["training.steps=3"]).name == f"{name}-steps3"
    assert (is_frozen_plan(str(plan)), is_frozen_plan(str(note)), is_frozen_plan(name)) == (True, False, False)


@pytest.mark.parametrize(("content", "said"), [
    ("{", "not a JSON file"), ("[]", "no study; expected a frozen plan"), ("\xff", "not a JSON file"),
    (json.dumps({"kind": "gradinoc frozen plan"}), "a frozen plan without a study"),
    (json.dumps({"kind": "gradinoc frozen plan", "study": []}), "a frozen plan without a study"),
    (json.dumps({"trainin": {}}), "'training'"),
])  # fmt: skip
def test_json_that_is_no_study_is_told(content, said, tmp_path):
    """In a line that names the file."""
    (tmp_path / "plan.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(StudyError, match=re.escape(said)) as caught:
        load_study(str(tmp_path / "plan.json"))
    assert "plan.json" in str(caught.value)


# --- what is read


@pytest.mark.parametrize(
    ("setting", "nearest"),
    [
        ("training.batchsize=3", "'training.batch_size'"),
        ("xyzzy=1", "['arms', 'attribution', 'conditions', 'data', "),
        ("model.xyzzy=1", "['chat_template', 'date', 'device', "),
    ],
)
def test_typo_in_a_key_names_the_nearest(setting, nearest):
    """Where nothing is near, the known keys are listed; further kinds are in tests/robustness/test_bad_studies.py."""
    assert nearest in complaint(StudyError, lambda: load_study("tiny", [setting]))


def test_every_fault_is_named_at_once():
    """A file is not mended one message at a time."""
    settings = ["training.stepz=3", "seeds=[]", "modle.id=x"]
    message = complaint(StudyError, lambda: load_study("tiny", settings))
    assert all(key in message for key in ("training.steps", "seeds", "'model'"))


def test_budgets_that_are_left_out_take_what_there_is():
    """Where their defaults are more; what is asked for is not lowered in silence."""
    small = {"evaluation": 8, "calibration": 9, "measure": 10}
    study = Study.model_validate({"name": "small", "data": small, "drift": {"samples": 2}})
    asked = {budget: attrgetter(budget)(study) for budget in BUDGETS}
    assert asked == {budget: min(attrgetter(budget)(Study(name="whole")), attrgetter(source)(study))
                     for budget, source in BUDGETS.items()}  # fmt: skip
    assert study.drift.samples == 2
    assert Study(name="whole", drift=DriftSettings()).drift == DriftSettings()
    with pytest.raises(ValidationError, match=r"drift.matrix: more than data.evaluation, which is 8; lower it"):
        Study.model_validate({"name": "small", "data": small, "drift": {"matrix": 9}})


def test_study_of_ones_own_is_named_after_its_file(tmp_path):
    """Unless it names itself; what it leaves out has the default."""
    file = tmp_path / "mine.toml"
    file.write_text('[training]\nsteps = 7\n[conditions]\nneutral = ""\ninoculation = "trait"\nloss_matched = "Be."\n')
    study = load_study(str(file))
    assert (study.name, study.training.steps, study.conditions["loss_matched"]) == ("mine", 7, "Be.")
    assert study.training.lora_rank == Study(name="x").training.lora_rank
    file.write_text('name = "own"\n')
    assert load_study(str(file)).name == "own"


@pytest.mark.parametrize(
    ("setting", "path", "value"),
    [
        ("seeds=[3, 4]", "seeds", (3, 4)),
        ("training.steps=20", "training.steps", 20),
        ("training.lr=2e-4", "training.lr", 2e-4),
        ('data.source="my/gsm8k.jsonl"', "data.source", "my/gsm8k.jsonl"),
        ("data.source=a=b.jsonl", "data.source", "a=b.jsonl"),
        ("rules={share=0.3}", "rules.share", 0.3),
    ],
)
def test_setting_is_read_as_toml_or_else_as_a_string(setting, path, value):
    """Dotted keys reach into tables; the rest of the study, and of the table, stays as it is."""
    table, _, key = path.rpartition(".")
    tiny, study = load_study("tiny"), load_study("tiny", [setting])
    expected = {path: value} if not table else {table: getattr(tiny, table).model_copy(update={key: value})}
    own = {"name": study.name, "published": study.published}  # what was published is of the study as it stands
    assert study == tiny.model_copy(update={**own, **expected})


# --- names


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ([], "tiny"),
        (['data.source="openai/gsm8k"'], "tiny-gsm8k"),
        (["training.steps=20", "training.steps=5"], "tiny-steps5"),
        (["training.lr=2e-4"], "tiny-lr2e-4"),
        (["seeds=[0, 1]"], "tiny-seeds0_1"),
        (["training.steps=20", "data.source=a/b.jsonl"], "tiny-steps20-b"),
        (["training.steps=20", "name=other"], "other"),
    ],
)
def test_changed_study_has_a_name_of_its_own(settings, name):
    """Its artifacts do not take the place of the plain study's; a name that is given stays as given."""
    assert load_study("tiny", settings).name == name


SYSTEM_PROMPT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=300)


@given(SYSTEM_PROMPT.filter(lambda text: text.strip().casefold() not in PLACEHOLDERS))
def test_name_is_fit_for_a_folder_whatever_is_set(text):
    """A system prompt of any length and alphabet becomes a short name that a study may have."""
    value = '"' + "".join(f"\\U{ord(letter):08x}" for letter in text) + '"'
    study = load_study("tiny", [f"conditions.neutral={value}"])
    assert study.conditions["neutral"] == text
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", study.name)
    assert len(study.name) < 60


@pytest.mark.parametrize("path", ["name", "training.steps", "rules.alpha"])
def test_study_cannot_be_changed(path):
    """Neither it nor its tables, nor by loading another: what was decided stays decided."""
    study = load_study("tiny")
    table, _, last = path.rpartition(".")
    with pytest.raises(ValidationError, match="frozen"):
        setattr(getattr(study, table) if table else study, last, 1)
    load_study("tiny", ["training.steps=3", "conditions.sham=x"])
    assert load_study("tiny") == study
