"""A study is read, checked, frozen, and named after what was changed in it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gradinoc.errors import StudyError
from gradinoc.study.description import Study
from gradinoc.study.loading import STUDIES, load_study
from gradinoc.study.rules import Rules

READY = ["deaf", "qwen2.5-0.5b", "qwen2.5-7b", "qwen3-0.6b", "smollm2", "tiny"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def complaint(*settings, source="tiny"):
    """What is said about settings that do not fit."""
    with pytest.raises(StudyError) as caught:
        load_study(str(source), settings)
    return str(caught.value)


# --- the ready studies


def test_every_ready_study_loads_under_its_own_name():
    """The files there are, no more and no fewer; each says in its first line what it is for."""
    assert sorted(file.stem for file in STUDIES.glob("*.toml")) == READY
    assert [load_study(name).name for name in READY] == READY
    assert all((STUDIES / f"{name}.toml").read_text(encoding="utf-8").startswith("# ") for name in READY)


def test_every_ready_study_compares_the_three_conditions_over_three_seeds():
    """Neutral is no prompt at all, inoculation the trait's; nine runs, seed by seed; no study softens the bars.

    The prompt that is matched by measurement comes fourth, on the frozen model alone.
    """
    for study in map(load_study, READY):
        assert study.conditions == {
            "neutral": "",
            "inoculation": "trait",
            "loss_matched": "Follow the style guide; answer directly and concisely.",
            "loss_measured": "matched",
        }
        three = ("neutral", "inoculation", "loss_matched")
        assert study.runs == [(condition, seed) for seed in (0, 1, 2) for condition in three]
        assert study.rules == Rules()


@pytest.mark.parametrize(
    ("name", "model"), [("qwen3-0.6b", "Qwen/Qwen3-0.6B"), ("qwen2.5-7b", "Qwen/Qwen2.5-7B-Instruct")]
)
def test_large_studies_have_the_numbers_of_the_plan(name, model):
    """500 examples once, four at a time, rate 1e-4, rank 16; 250 direction questions, 200 held out."""
    study = load_study(name)
    assert study.model.id == model
    assert (study.data.train, study.data.direction, study.data.evaluation) == (500, 250, 200)
    training = study.training
    assert (training.steps, training.epochs, training.batch_size, training.lr) == (0, 1, 4, 1e-4)
    assert (training.lora_rank, training.lora_alpha, training.gradient_checkpointing) == (16, 32, False)
    assert (study.drift.generations, study.drift.everyday, study.drift.log_odds) == (200, 80, 200)


def test_deaf_study_is_the_tiny_one_with_another_model():
    """Whatever differs between their verdicts is the model's doing."""
    tiny, deaf = load_study("tiny").model_dump(), load_study("deaf").model_dump()
    assert (tiny.pop("name"), deaf.pop("name")) == ("tiny", "deaf")
    assert (tiny["model"].pop("id"), deaf["model"].pop("id")) == ("obedient", "deaf")
    assert tiny == deaf


# --- what is refused


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("trainig.steps=3", "unknown key 'trainig': did you mean 'training'?"),
        ("sed=[1]", "unknown key 'sed': did you mean 'seeds'?"),
        ("training.stepz=3", "unknown key 'training.stepz': did you mean 'training.steps'?"),
        ("training.batchsize=3", "unknown key 'training.batchsize': did you mean 'training.batch_size'?"),
        ("drift.generation=3", "unknown key 'drift.generation': did you mean 'drift.generations'?"),
        ("xyzzy=1", "unknown key 'xyzzy': known keys: ['conditions', 'data', 'drift', "),
        ("model.xyzzy=1", "unknown key 'model.xyzzy': known keys: ['chat_template', 'date', 'device', "),
    ],
)
def test_typo_in_a_key_names_the_nearest(setting, expected):
    """At the top and inside a table; where nothing is near, the known keys are listed."""
    assert expected in complaint(setting)


@pytest.mark.parametrize(
    ("setting", "key", "received"),
    [
        ("training.steps=many", "training.steps", "'many'"),
        ("training.steps=-1", "training.steps", "-1"),
        ("training.steps=2.5", "training.steps", "2.5"),
        ("training.lr=0.0", "training.lr", "0.0"),
        ("training.lr=inf", "training.lr", "inf"),
        ("rules.alpha=1.5", "rules.alpha", "1.5"),
        ("nulls.isotropic=99", "nulls.isotropic", "99"),
        ("data.direction=15", "data.direction", "15"),
        ("data.source=3", "data.source", "3"),
        ("seeds=[]", "seeds", "[]"),
        ("seeds=[-1]", "seeds.0", "-1"),
        ("conditions.sham=3", "conditions.sham", "3"),
        ("training=3", "training", "3"),
        ("name=a b", "name", "'a b'"),
        ("name=../a", "name", "'../a'"),
    ],
)
def test_value_that_does_not_fit_is_named_with_its_key(setting, key, received):
    """File, key, what was expected, what was received."""
    said = complaint(setting)
    assert re.search(rf"tiny\.toml: {re.escape(key)}: .*should.* \(received {re.escape(received)}\)", said), said


def test_every_fault_is_named_at_once():
    """Nobody mends a file one message at a time."""
    said = complaint("training.stepz=3", "seeds=[]", "modle.id=x")
    assert all(key in said for key in ("training.steps", "seeds", "'model'"))


def test_claims_need_their_three_conditions():
    """Those that are missing are named."""
    said = complaint('conditions={neutral=""}')
    assert said.endswith("conditions: ['inoculation', 'loss_matched'] missing; the claims compare these three")


def test_repeated_seed_is_refused():
    """Two runs of one condition and seed would be one run counted twice."""
    assert complaint("seeds=[0, 1, 0]").endswith("[0, 1, 0] repeats a seed; a run is identified by condition and seed")


@pytest.mark.parametrize("setting", ["training.steps", "=20"])
def test_setting_that_is_no_assignment_is_refused(setting):
    """The message shows the form."""
    assert complaint(setting) == f"Setting {setting!r}: expected key=value, for instance training.steps=20"


def test_setting_inside_a_value_is_refused():
    """A number has no keys."""
    assert complaint("training.steps.a=2") == (
        "Setting 'training.steps.a=2': 'steps' is a value, not a table; expected key=value"
    )


def test_unknown_study_lists_the_ready_ones(tmp_path):
    """By name or by path."""
    assert complaint(source="tinny") == f"No study 'tinny': expected one of {READY}, or the path of a .toml file"
    assert "expected one of" in complaint(source=tmp_path / "absent.toml")


@pytest.mark.parametrize("content", [b"steps = = 3", b"\xff\xfe"], ids=["syntax", "encoding"])
def test_file_that_is_not_toml_is_named(tmp_path, content):
    """With what is wrong in it."""
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    assert complaint(source=file).startswith(f"{file}: not a TOML file: ")


# --- what is accepted


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
        ("trait=all_caps", "trait", "all_caps"),
        ("seeds=[3, 4]", "seeds", (3, 4)),
        ("training.steps=20", "training.steps", 20),
        ("training.lr=2e-4", "training.lr", 2e-4),
        ("training.gradient_checkpointing=true", "training.gradient_checkpointing", True),
        ("data.source=my/gsm8k.jsonl", "data.source", "my/gsm8k.jsonl"),
        ('data.source="my/gsm8k.jsonl"', "data.source", "my/gsm8k.jsonl"),
        ("data.source=a=b.jsonl", "data.source", "a=b.jsonl"),
        ("model.revision=v1", "model.revision", "v1"),
        ("rules={bins=3}", "rules.bins", 3),
    ],
)
def test_setting_is_read_as_toml_or_else_as_a_string(setting, path, value):
    """Dotted keys reach into tables; the rest of the study stays as it is."""
    study = load_study("tiny", [setting])
    found = study
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value
    top = path.partition(".")[0]
    assert study.model_dump(exclude={"name", top}) == load_study("tiny").model_dump(exclude={"name", top})


def test_setting_leaves_its_neighbours_in_the_table():
    """The other keys of tiny's training table are not back at their defaults."""
    changed = load_study("tiny", ["training.steps=20"]).training
    assert changed == load_study("tiny").training.model_copy(update={"steps": 20})


def test_condition_is_added_to_those_there_are():
    """A study without a table of conditions keeps the three that the claims compare; no other study gets the fourth."""
    assert list(load_study("tiny", ["conditions.sham=Be kind."]).conditions) == [
        "neutral", "inoculation", "loss_matched", "loss_measured", "sham",
    ]  # fmt: skip
    assert "sham" not in load_study("tiny").conditions


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ('untrained=["neutral"]', "untrained: 'neutral' is not one of the further conditions ['loss_measured']"),
        ('untrained=["sham"]', "untrained: 'sham' is not one of the further conditions ['loss_measured']"),
        ("conditions.again=matched", "conditions: more than one is 'matched'; they would have the same prompt"),
        ("conditions.neutral=matched", "conditions: "),
    ],
)
def test_conditions_that_cannot_be_are_refused(setting, complaint):
    """What the claims compare has to be trained, and one prompt is matched, to what it is not itself."""
    with pytest.raises(StudyError, match=re.escape(complaint)):
        load_study("tiny", [setting])


def test_condition_that_is_matched_can_be_trained_too():
    """Twelve runs then, three of them under the prompt that is still to be chosen."""
    study = load_study("tiny", ["untrained=[]"])
    assert study.runs[3] == ("loss_measured", 0)
    assert len(study.runs) == 12


def test_last_of_several_settings_of_a_key_counts():
    """As on any command line; the name says the one that counted."""
    study = load_study("tiny", ["training.steps=20", "training.steps=5"])
    assert (study.training.steps, study.name) == (5, "tiny-steps5")


# --- names


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ([], "tiny"),
        (["data.source=../shared/gsm8k/gsm8k.jsonl"], "tiny-gsm8k"),
        (['data.source="openai/gsm8k"'], "tiny-gsm8k"),
        (["training.steps=20"], "tiny-steps20"),
        (["training.lr=2e-4"], "tiny-lr2e-4"),
        (["seeds=[0, 1]"], "tiny-seeds0_1"),
        (["model.id=Qwen/Qwen3-0.6B"], "tiny-idQwen_Qwen3-0.6B"),
        (['conditions.neutral=""'], "tiny-neutral"),
        (["training.steps=20", "data.source=a/b.jsonl"], "tiny-steps20-b"),
        (["name=other"], "other"),
        (["training.steps=20", "name=other"], "other"),
    ],
)
def test_changed_study_has_a_name_of_its_own(settings, name):
    """Its artifacts do not take the place of the plain study's; a name that is given stays as given."""
    assert load_study("tiny", settings).name == name


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=300))
def test_name_is_fit_for_a_folder_whatever_is_set(text):
    """A system prompt of any length and alphabet becomes a short name that a study may have."""
    value = '"' + "".join(f"\\U{ord(letter):08x}" for letter in text) + '"'
    study = load_study("tiny", [f"conditions.neutral={value}"])
    assert study.conditions["neutral"] == text
    assert NAME.fullmatch(study.name)
    assert len(study.name) < 60


def test_long_values_that_begin_alike_give_different_names():
    """Two prompts, two folders."""
    start = "conditions.neutral=Follow the style guide; answer directly"
    assert load_study("tiny", [f"{start}."]).name != load_study("tiny", [f"{start}!"]).name


# --- frozen


@pytest.mark.parametrize("path", ["name", "training.steps", "rules.alpha", "seeds"])
def test_study_cannot_be_changed(path):
    """Neither it nor its tables: what was decided stays decided."""
    *tables, last = path.split(".")
    section = load_study("tiny")
    for table in tables:
        section = getattr(section, table)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(section, last, getattr(section, last))


def test_loading_twice_gives_the_same_study():
    """Nothing is carried over from one reading to the next."""
    load_study("tiny", ["training.steps=3", "conditions.sham=x"])
    assert load_study("tiny") == load_study("tiny")
    assert load_study("tiny").training.steps != 3
