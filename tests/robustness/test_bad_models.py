"""Models that will not do, by their files: found before any weights are loaded, and named."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from huggingface_hub import HfApi
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.bad_models import changed, config, content
from fixtures.complaints import complaint, message_or_nothing
from fixtures.hub import Repository, serve_hub
from fixtures.jsonl import SMALL
from gradinoc.errors import DataError, DeviceError, ModelError
from gradinoc.measure.loading.load import load_model
from gradinoc.models.files import INDEX
from gradinoc.models.sources.packaged import ORGANISMS
from gradinoc.pipeline.check import check
from gradinoc.study.loading import load_study

SYSTEM = "{% for m in messages %}{% if m.role == 'system' %}"
TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
ROOT = ORGANISMS.parents[1]
OPENING = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.fixture
def no_weights(monkeypatch):
    """Nothing may load weights."""
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("loaded"))


@pytest.fixture
def folder(tmp_path):
    """A copy of the obedient model."""
    return shutil.copytree(ORGANISMS / "obedient", tmp_path / "model")


def template(text):
    """A fault: another chat template."""
    return content("chat_template.jinja", text)


def gone(*names):
    """A fault: files that are not there."""
    return lambda folder: [(folder / name).unlink() for name in names]


def cut(name, share):
    """A fault: the rest of a file is missing, as after a download that broke off."""

    def damage(folder):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(share * len(whole))])

    return damage


UNFIT = "config.json: architectures: expected a causal .decoder-only. language model with its head, received "
FILES = {
    "no files": (lambda folder: [file.unlink() for file in folder.iterdir()], "is no folder with a model: expected co"),
    "no configuration": (gone("config.json"), "is no folder with a model: expected config.json, safetensors and token"),
    "configuration not UTF-8": (content("config.json", b'{"model_type": "\xff"}'), r"config\.json: no configuration"),
    "unknown kind of model": (config(model_type="quux"), r"config\.json: no configuration .*quux.*; give another mode"),
    "code of its own": (
        config(model_type="quux", auto_map={"AutoConfig": "run.Me"}), r"config\.json: no configuration .*never run",
    ),
    "encoder": (config(architectures=["BertForMaskedLM"]), UNFIT + r"\['BertForMaskedLM'\]"),
    "a wrapper of no language model": (config(architectures=["Qwen3ForConditionalGeneration"]), UNFIT),
    "no head": (config(architectures=["Qwen3Model"]), UNFIT + r"\['Qwen3Model'\]"),
    "marks in pieces": (changed("tokenizer_config.json", split_special_tokens=True), r"split_special_tokens: exp"),
    "vocabulary of no size": (config(vocab_size=0), r"vocab_size: expected a whole number above 0, received 0; mend"),
    "no weights": (gone("model.safetensors"), "expected weights as safetensors, found none; fetch the model again, or"),
    "weights cut off": (cut("model.safetensors", 0.5), r"model\.safetensors: damaged \(SafetensorError: .*; fetch the"),
    "part of the weights missing": (
        content(INDEX, '{"weight_map": {"a": "model-00002.safetensors"}}'), r"\['model-00002\.safetensors'\] missing",
    ),
    "list of weights no JSON": (content(INDEX, "{"), r"index\.json: cannot be read \(JSONDecodeError: .*; fetch the"),
    "no tokenizer": (gone("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"), "token"),
    "tokenizer cut off": (cut("tokenizer.json", 0.5), "no tokenizer that can be read"),
    "no chat template": (gone("chat_template.jinja"), "chat_template: the tokenizer has none; expected an instruction"),
    "template no template": (template("{% for %}"), r"chat_template: cannot close .*\(TemplateSyntaxError: .*; give a"),
    "template without end": (
        template("{% for i in range(999999999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}"),
        r"chat_template: cannot close an assistant's turn \(OverflowError: Range too big",
    ),
    "template that reaches out": (template("{{ ''.__class__.__mro__ }}" + TURNS), r"chat_template: .*\(SecurityError:"),
    "template that changes answers": (
        template("{% for m in messages %}{{ m.content | upper }}<|end|>{% endfor %}"),
        r"chat_template: the answer at .* comes to the same tokens",
    ),
    "template that refuses system messages": (
        template(SYSTEM + "{{ raise_exception('No system\nrole') }}{% endif %}{% endfor %}" + TURNS + OPENING),
        r"chat_template: refuses the system message '.*' \(TemplateError: No system role\); give a model whose",
    ),
    "template that ignores system messages": (
        template(TURNS.replace(" %}<", " if m.role != 'system' %}<", 1) + OPENING),
        "chat_template: 'promote' and 'suppress' come to the same tokens; expected a template that shows the system",
    ),
    "template with a prompt of its own": (
        template("{% if messages[0].role != 'system' %}<|system|>You always respond in ALL CAPS.<|end|>"
                 "{% endif %}" + TURNS + OPENING),
        "chat_template: 'neutral' and 'inoculation' come to the same tokens; .* and adds none that a condition has",
    ),
    "template that ignores questions": (
        template(TURNS.replace(" %}<", " if m.role != 'user' %}<", 1) + OPENING), "chat_template: shows no question",
    ),
    "fewer tokens than the tokenizer's": (
        config(vocab_size=300), r"tokenizer\.json: gives token \d+, but config\.json: vocab_size is 300; expected",
    ),
}  # fmt: skip


@pytest.mark.fault("Bad models", "a folder with a file that will not do")
@pytest.mark.parametrize("case", FILES)
def test_file_that_will_not_do_is_named(folder, no_weights, case):
    """Which file, what is wrong, what to do, and no weight is loaded to find out."""
    damage, said = FILES[case]
    damage(folder)
    message = complaint(ModelError, lambda: check(load_study("tiny", [f"model.id={folder}"])))
    assert str(folder) in message
    assert re.search(said, message), message


@pytest.mark.fault("Bad models", "a template that closes no turn, and no token that ends one")
def test_answers_have_to_end_somewhere(folder, no_weights):
    """An end of turn or of text; one of the two is enough."""
    asks = "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
    template("{% for m in messages %}{{ m.role }}:\n{{ m.content }}\n{% endfor %}" + asks)(folder)
    changed("tokenizer_config.json", eos_token=None)(folder)
    study = load_study("tiny", [f"model.id={folder}"])
    message = complaint(ModelError, lambda: check(study))
    assert re.search(
        r"cannot close an assistant's turn \(ValueError: The chat template closes no turn and the tok", message
    )
    shutil.copy(ORGANISMS / "obedient" / "tokenizer_config.json", folder)
    assert check(study) == []


@pytest.mark.fault("Bad models", "no pad token, or one that ends turns")
@pytest.mark.parametrize("pad", [None, "<|end|>"])
def test_model_without_a_pad_token_of_its_own_is_worked_around(folder, pad):
    """Nothing is refused, and padding ends no turn."""
    changed("tokenizer_config.json", pad_token=pad)(folder)
    assert check(load_study("tiny", [f"model.id={folder}"])) == []
    loaded = load_model(str(folder), device="cpu")
    assert loaded.tokenizer.pad_token_id not in (None, loaded.tokenizer.eos_token_id)
    assert any(note.startswith("padding with") for note in loaded.notes)


@pytest.mark.fault("Bad models", "a context that prompts, answers or generation do not fit")
@pytest.mark.parametrize(
    ("context", "changes", "said"),
    [
        (170, [], r"tokens .*under the prompt '.+' in data\.\w+; expected at most 170, the model's context"),
        (
            1024,
            ["drift.max_new_tokens=1000"],
            r"tokens with 1000 new ones \(drift\.max_new_tokens\) under .* in data\.\w+",
        ),
    ],
)
def test_context_has_room_for_the_longest_prompt(folder, no_weights, context, changes, said):
    """With its answer, or with what is generated; the question is named by file and line."""
    config(max_position_embeddings=context)(folder)
    message = complaint(DataError, lambda: check(load_study("tiny", [f"model.id={folder}", *changes])))
    assert re.search(rf"(word_problems|everyday_requests)\.jsonl:\d+: question: \d.*{said}", message), message


@pytest.mark.fault("Bad models", "a device, dtype or id that there is not")
@pytest.mark.parametrize(
    ("setting", "kind", "said"),
    [
        ("model.device=tpu", DeviceError, "No device 'tpu' on this machine; there are"),
        ("model.dtype=int8", DeviceError, "Unknown dtype 'int8'; expected auto or one of"),
        ("model.id=/no/such/folder", ModelError, "'/no/such/folder' is no folder with a model: expected config.json"),
        (
            "model.id=https://huggingface.co/a/b/tree/main",
            ModelError,
            r"'https://huggingface\.co/a/b/tree/main' is no model: .* give the hub id 'a/b'$",
        ),
        ("model.id=/a\n\x1b[2J", ModelError, r"'/a\\n\\x1b\[2J' is no folder with a model"),
    ],
)
def test_model_that_is_not_there_is_named(no_weights, setting, kind, said):
    """Without asking a hub for what is no name of one's."""
    assert re.match(said, complaint(kind, lambda: check(load_study("tiny", [setting]))))


@pytest.mark.fault("Bad models", "a hub that is out of reach, or has no such model")
@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), ValueError("\x1b[2Jbad id")])
def test_hub_that_does_not_answer_is_told_on_one_line(monkeypatch, tmp_path, no_weights, error):
    """What there is instead; one request, no repetition."""
    asked = []

    def fail(*_, **__):
        asked.append(1)
        raise error

    monkeypatch.setattr(HfApi, "repo_info", fail)
    message = complaint(ModelError, lambda: check(load_study("tiny", ["model.id=nobody/nothing"])))
    assert "'nobody/nothing'" in message
    assert "smollm2-135m-instruct" in message
    assert len(asked) == 1


# --- anything

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.fault("Bad models", "arbitrary values in a model's own settings")
@pytest.mark.parametrize("examples", [15, pytest.param(300, marks=pytest.mark.exhaustive)])
def test_arbitrary_settings_of_a_model_are_taken_or_refused(folder, no_weights, faults_tried, examples):
    """Nothing but a study that can be run, or one line."""
    own = {name: json.loads((folder / name).read_text()) for name in ("config.json", "tokenizer_config.json")}
    places = [(name, key) for name, known in own.items() for key in known]
    study, tried = load_study("tiny", [f"model.id={folder}", *SMALL]), []

    @settings(max_examples=examples)
    @given(st.sampled_from(places), VALUES)
    def attempt(place, value):
        name, key = place
        tried.append(place)
        (folder / name).write_text(json.dumps({**own[name], key: value}))
        message_or_nothing((ModelError, DataError), lambda: check(study))
        (folder / name).write_text(json.dumps(own[name]))

    attempt()
    faults_tried(len(tried))


# --- on a hub

PEEK = """
import sys
from pathlib import Path
from gradinoc.errors import ModelError
from gradinoc.pipeline.check import check
from gradinoc.study.loading import load_study
try:
    print("checked", check(load_study("tiny", ["model.id=some/model"])))
except ModelError as error:
    print(error)
print("weights", len(list(Path(sys.argv[1]).rglob("*.safetensors"))))
"""


@pytest.mark.fault("Bad models", "a hub model that will not do")
@pytest.mark.exhaustive
@pytest.mark.parametrize("damaged", [False, True])
def test_hub_model_is_looked_at_before_its_weights_are_fetched(folder, tmp_path, damaged):
    """Configuration and tokenizer come first."""
    if damaged:
        config(architectures=["Qwen3Model"])(folder)
    with serve_hub(Repository("some/model", folder)) as address:
        done = subprocess.run(
            [sys.executable, "-c", PEEK, str(tmp_path / "home")], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")},
        )  # fmt: skip
    checked, weights = done.stdout.splitlines()
    assert weights == "weights 0", done.stderr
    assert ("architectures: expected a causal" in checked) if damaged else checked == "checked []"
