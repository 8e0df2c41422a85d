"""No code that lies in a model, adapter or study file is run, and no revision is written where it should not be."""

from __future__ import annotations

import shutil

import pytest

from fixtures.hub import Repository
from fixtures.malicious import change, one_line, plant_code
from gradinoc.errors import ModelError, StudyError
from gradinoc.measure.loading.load import load_model
from gradinoc.models.files import tokenizer_of
from gradinoc.models.generate import generate
from gradinoc.models.sources.accepted import ensure_inert
from gradinoc.models.sources.locate import fingerprint
from gradinoc.study.loading import load_study


@pytest.fixture
def everything_trusted(monkeypatch):
    """Every switch that an environment could have for trusting a repository's code is on."""
    for prefix in ("", "HF_", "HF_HUB_", "HF_DATASETS_"):
        monkeypatch.setenv(f"{prefix}TRUST_REMOTE_CODE", "1")


@pytest.mark.fault("Foreign code", "code of a model's own, every switch of the environment on")
@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("config.json", {"model_type": "evil", "architectures": ["EvilModel"]}),
        (
            "tokenizer_config.json",
            {
                "tokenizer_class": "EvilTokenizer",
                "auto_map": {"AutoTokenizer": ["modeling_evil.EvilTokenizer"] * 2},
                "trust_remote_code": True,
            },
        ),
    ],
    ids=["model", "tokenizer"],
)
def test_model_that_needs_its_own_code_is_refused(folder, marker, everything_trusted, file, keys):
    """It is not run, whatever configuration and environment say."""
    plant_code(folder, marker)
    change(folder / file, **keys)
    with pytest.raises(ModelError, match="Cannot load") as error:
        load_model(str(folder), device="cpu")
    one_line(error)


@pytest.mark.fault("Foreign code", "code of a model's own, every switch of the environment on")
def test_model_that_only_brings_code_is_loaded_without_it(folder, marker, everything_trusted):
    """Where transformers has code of its own for the model, that is what loads it and generates."""
    plant_code(folder, marker)
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "modeling_evil.py", folder / "custom_generate" / "generate.py")
    change(folder / "generation_config.json", custom_generate=str(folder), trust_remote_code=True)
    loaded = load_model(str(folder), device="cpu")
    assert type(loaded.model).__module__.startswith("transformers.models.llama.")
    assert len(generate(loaded.model, loaded.tokenizer, [[5, 6]], 2, 1)) == 1


@pytest.mark.fault("Foreign code", "attention by the name of a hub repository")
@pytest.mark.parametrize(
    "keys",
    [
        {"_attn_implementation": "evil/kernel"},
        {"attn_implementation": {"": "sdpa", "text_config": "evil/kernel"}},
        {"text_config": {"attn_implementation": "evil/kernel@main:attend"}},
    ],
)
def test_attention_from_the_hub_is_refused(folder, keys):
    """Transformers would fetch and run it where the package `kernels` is installed."""
    ensure_inert(folder)
    change(folder / "config.json", **keys)
    with pytest.raises(ModelError, match="attn_implementation: expected one of") as error:
        ensure_inert(folder)
    one_line(error)


@pytest.mark.fault("Foreign code", "an adapter in a model's place, with a base model from somewhere else")
def test_adapter_in_a_model_s_place_is_refused(folder, adapter):
    """Transformers would fetch and load what it names as its base."""
    shutil.copy(adapter / "adapter_config.json", folder)
    with pytest.raises(ModelError, match="an adapter has its base model fetched from wherever it says") as error:
        load_model(str(folder), device="cpu")
    one_line(error)


TEMPLATES = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.mkdir('MARKER') }}",
    "messages": "{{ messages.append({'role': 'system', 'content': 'x'}) }}",
    "file": "{% include '/etc/hostname' %}",
    "terminal": "{{ raise_exception('a\\nb\\x1b[2J\\x1b]0;title\\x07') }}",
}


@pytest.mark.fault("Foreign code", "a chat template that breaks out of its sandbox, or tries to")
@pytest.mark.parametrize("name", TEMPLATES)
def test_chat_template_reaches_nothing(folder, marker, name):
    """It is a program of the model's author: it runs in a sandbox, and its end is one line that can be printed."""
    (folder / "chat_template.jinja").write_text(TEMPLATES[name].replace("MARKER", str(marker)))
    with pytest.raises(ModelError, match="chat_template") as error:
        tokenizer_of(folder)
    one_line(error)


@pytest.mark.fault("Foreign code", "a study file that switches trust on")
@pytest.mark.parametrize("key", ["trust_remote_code", "model.trust_remote_code"])
def test_study_has_no_switch_for_trust(key):
    """There is no such key."""
    with pytest.raises(StudyError, match="unknown key"):
        load_study("tiny", [f"{key}=true"])


# --- revisions of the hub


class Gullible(Repository):
    """A repository that has whatever revision it is asked for."""

    def describe(self, what: str, _: str):
        """As its branch."""
        return super().describe(what, "main")

    def send(self, kind: str, _: str, file: str):
        """As its branch."""
        return super().send(kind, "main", file)


@pytest.mark.fault("Names from study files", "a model's revision that would lead elsewhere")
@pytest.mark.parametrize("revision", ["../../../../escaped", "refs/../../x"])
def test_revision_writes_to_its_own_cache_alone(folder, hub, tmp_path, revision):
    """The hub's library keeps a file named after the revision, even if a hub says that it has such a one."""
    before = {path for path in tmp_path.rglob("*") if (tmp_path / "hub") not in path.parents}
    with hub(Gullible("some/model", folder)):
        for ask in (load_model, fingerprint):
            with pytest.raises(ModelError, match=r"model\.revision: expected"):
                ask("some/model", revision=revision)
    after = {path for path in tmp_path.rglob("*") if (tmp_path / "hub") not in path.parents}
    assert after - before <= {tmp_path / "hub"}
