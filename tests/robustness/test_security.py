"""Nothing that lies in a model, adapter, store or study file is run, unpickled, or written where it should not be."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from fixtures.hub import COMMIT, Repository, serve_hub
from fixtures.small_models import ARCHITECTURES, letter_tokenizer, with_lora
from fixtures.small_study import SMALLEST
from fixtures.smallest import smallest, tables
from gradinoc import run_study
from gradinoc.errors import ModelError, StudyError
from gradinoc.measure.loading.load import load_model
from gradinoc.models.files import tokenizer_of
from gradinoc.models.generate import generate
from gradinoc.models.sources.accepted import ensure_inert
from gradinoc.models.sources.locate import fingerprint
from gradinoc.models.sources.packaged import bundled_folder
from gradinoc.pipeline.context import adapted, stacked
from gradinoc.study.loading import load_study

ROOT = Path(__file__).parents[2]
PICKLES = (
    "pytorch_model.bin", "model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt",
    "rng_state.pth", "tokenizer.pkl",
)  # fmt: skip


@pytest.fixture
def marker(tmp_path) -> Path:
    """The file that whatever is run leaves; checked after each test."""
    path = tmp_path / "it_ran"
    yield path
    assert not path.exists(), "something that was planted has been run"


class Mine:
    """What makes a folder `path` when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def mine(marker) -> bytes:
    """A pickle that leaves the marker."""
    return pickle.dumps(Mine(marker))


@pytest.fixture
def no_unpickling(monkeypatch):
    """Whoever reads a pickle in this process fails, whether the pickle does harm or not."""

    def refuse(*_, **__):
        raise AssertionError("a pickle was about to be read")

    monkeypatch.setattr(torch, "load", refuse)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a small Llama and its tokenizer."""
    path = tmp_path / "llama"
    ARCHITECTURES["llama"]().save_pretrained(path)
    letter_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def adapter(tmp_path) -> Path:
    """A folder with an adapter for it."""
    path = tmp_path / "adapter"
    with_lora(ARCHITECTURES["llama"]()).save_pretrained(path)
    return path


def change(file: Path, **keys) -> None:
    """Change keys of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def one_line(error: pytest.ExceptionInfo) -> str:
    """The message, which has to be one that can be printed."""
    text = str(error.value)
    assert text.isprintable(), text
    return text


# --- pickles


def test_planted_pickle_runs_where_it_is_read(tmp_path):
    """Otherwise none of these tests could fail."""
    (tmp_path / "mine.bin").write_bytes(pickle.dumps(Mine(tmp_path / "it_ran")))
    with (tmp_path / "mine.bin").open("rb") as file:
        pickle.load(file)  # noqa: S301 - that is the point
    assert (tmp_path / "it_ran").exists()


@pytest.mark.fault("Foreign code", "a malicious pickle beside a model's safetensors")
def test_pickles_beside_safetensors_are_not_read(folder, mine, no_unpickling, faults_tried):
    """The model is loaded as if nothing lay there, and its fingerprint stays."""
    before = fingerprint(str(folder))
    faults_tried(sown([folder], mine))
    assert load_model(str(folder), device="cpu").fingerprint == before


@pytest.mark.fault("Foreign code", "a malicious pickle in place of a model's safetensors")
def test_pickles_in_place_of_safetensors_are_refused(folder, mine, no_unpickling, faults_tried):
    """In so many words."""
    (folder / "model.safetensors").unlink()
    faults_tried(sown([folder], mine))
    with pytest.raises(ModelError, match=r"safetensors") as error:
        load_model(str(folder), device="cpu")
    one_line(error)


@pytest.mark.fault("Foreign code", "an index of weights that leads to a malicious pickle")
@pytest.mark.parametrize(
    ("place", "index"),
    [("evil.bin", "model.safetensors.index.json"), ("../evil.safetensors", "other.safetensors.index.json")],
)
def test_index_that_leads_to_a_pickle_is_refused(folder, mine, no_unpickling, place, index):
    """Only safetensors beside the index are taken; loading runs nothing either."""
    (folder / place).write_bytes(mine)
    (folder / "model.safetensors").unlink()
    (folder / index).write_text(json.dumps({"weight_map": {"lm_head.weight": place, "x": "model.safetensors"}}))
    change(folder / "config.json", transformers_weights=index)
    with pytest.raises(ModelError, match="weight_map") as error:
        load_model(str(folder), device="cpu")
    assert repr(place) in one_line(error)


@pytest.mark.fault("Foreign code", "a malicious pickle beside an adapter's safetensors")
def test_pickles_beside_an_adapter_are_not_read(adapter, mine, no_unpickling, faults_tried):
    """Alone and in a stack, the adapter is put in place as if nothing lay there."""
    faults_tried(sown([adapter], mine))
    base = ARCHITECTURES["llama"]()
    with adapted(base, adapter) as model:
        assert "lora_A" in str(model)
    with stacked(base, [adapter, adapter]) as model:
        assert list(model.peft_config) == ["adapter_0", "adapter_1"]


@pytest.mark.fault("Foreign code", "a malicious pickle in place of an adapter's safetensors")
def test_pickle_in_place_of_an_adapter_is_refused(adapter, mine, no_unpickling, tmp_path):
    """PEFT would read it. Alone or in a stack: the message names its folder."""
    broken = shutil.copytree(adapter, tmp_path / "broken")
    (broken / "adapter_model.safetensors").rename(broken / "adapter_model.bin")
    (broken / "adapter_model.bin").write_bytes(mine)
    base = ARCHITECTURES["llama"]()
    refused = pytest.raises(ModelError, match="broken: an adapter without")
    with refused as error, stacked(base, [adapter, broken]):
        pass
    one_line(error)
    with pytest.raises(ModelError, match="an adapter without"), adapted(base, broken):
        pass
    assert "lora" not in str(base)


def sown(places: list[Path], mine: bytes) -> int:
    """How many pickles were put into so many folders."""
    for place in places:
        for name in PICKLES:
            (place / name).write_bytes(mine)
    return len(places) * len(PICKLES)


@pytest.mark.exhaustive
@pytest.mark.fault("Foreign code", "malicious pickles in every folder of a finished study, model, cache and artifacts")
def test_study_among_pickles_is_resumed_and_reported(tmp_path, cache, mine, no_unpickling, faults_tried):
    """With every folder of the store, the model, cache and artifacts full of them: the same findings, and a report."""
    model, places = shutil.copytree(bundled_folder("obedient"), tmp_path / "obedient"), [tmp_path / "artifacts", cache]
    settings = [*SMALLEST, f"model.id={model}"]
    before = tables(smallest(tmp_path / "store", f"model.id={model}"))
    for place in places:
        place.mkdir(exist_ok=True)
    store = [path for path in (tmp_path / "store").rglob("*") if path.is_dir()]
    faults_tried(sown([*store, tmp_path / "store", model, *places], mine))
    for name in ("drift", "matrix", "gradients"):  # what reads adapters and model again
        shutil.rmtree(tmp_path / "store" / name)
    result = run_study("tiny", settings=settings, store=tmp_path / "store", artifacts=tmp_path / "artifacts")
    assert result.report.is_file()
    after = tables(smallest(tmp_path / "store", f"model.id={model}"))
    assert all(after[name].equals(table) for name, table in before.items())


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Opens a hub that holds a repository, and has this process take it for the real one; its cache is empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    @contextmanager
    def serve(repository: Repository):
        with serve_hub(repository) as address, monkeypatch.context() as patch:
            patch.setattr(constants, "ENDPOINT", address)
            patch.setattr(
                constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
            )
            yield

    return serve


@pytest.mark.fault("Foreign code", "malicious pickles and code in a hub repository")
def test_pickles_and_code_are_not_fetched_from_the_hub(
    folder, mine, marker, no_unpickling, hub, tmp_path, faults_tried
):
    """Of a repository that holds both, the snapshot has neither."""
    count = sown([folder], mine)
    plant_code(folder, marker)
    with hub(Repository("some/model", folder)):
        assert load_model("some/model", device="cpu").fingerprint == COMMIT
    fetched = {path.name for path in (tmp_path / "hub").rglob("*") if path.is_file()}
    assert "model.safetensors" in fetched
    assert not fetched & {*PICKLES, "modeling_evil.py"}
    faults_tried(count + 1)


# --- code


def plant_code(folder: Path, marker: Path) -> None:
    """Code of the model's own, which leaves the marker when imported, and a configuration that asks for it."""
    names = {"AutoConfig": "EvilConfig", "AutoModel": "EvilModel", "AutoModelForCausalLM": "EvilModel"}
    (folder / "modeling_evil.py").write_text(
        f"open({str(marker)!r}, 'w').close()\n"
        "from transformers import LlamaConfig as EvilConfig, LlamaForCausalLM as EvilModel\n"
        "from transformers import PreTrainedTokenizerFast as EvilTokenizer\n"
        "def generate(*_, **__): pass\n"
    )
    auto_map = {auto: f"modeling_evil.{name}" for auto, name in names.items()}
    change(folder / "config.json", auto_map=auto_map, trust_remote_code=True)


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
