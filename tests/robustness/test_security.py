"""Nothing that lies in a model, adapter, store or study file is run, unpickled, or written where it should not be."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from contextlib import contextmanager
from pathlib import Path

import jinja2
import pytest
import torch
from huggingface_hub import constants

from fixtures.complaints import complaint
from fixtures.hub import COMMIT, Repository, serve_hub
from fixtures.small_models import ARCHITECTURES, letter_tokenizer, with_lora
from fixtures.smallest import smallest, tables
from gradinoc.claims.verdict import judge
from gradinoc.errors import ModelError, StudyError
from gradinoc.measure.load import load_model
from gradinoc.models.accepted import ensure_inert
from gradinoc.models.files import tokenizer_of
from gradinoc.models.generate import generate
from gradinoc.models.sources.locate import fingerprint
from gradinoc.models.sources.packaged import bundled_folder
from gradinoc.pipeline.context import adapted, stacked
from gradinoc.pipeline.environment import environment
from gradinoc.report import write_report
from gradinoc.study.loading import load_study

PICKLES = (
    "pytorch_model.bin", "model.bin", "adapter_model.bin", "training_args.bin", "optimizer.pt", "scheduler.pt",
    "rng_state.pth", "tokenizer.pkl",
)  # fmt: skip


class Mine:
    """What makes a folder `path` when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def marker(tmp_path):
    """The path that whatever is run leaves; checked after each test."""
    path = tmp_path / "it_ran"
    yield path
    assert not path.exists(), "something that was planted has been run"


@pytest.fixture
def sown(marker, monkeypatch):
    """A function that puts malicious pickles into folders and counts them; reading any pickle fails the test."""
    planted = pickle.dumps(Mine(marker))

    def refuse(*_, **__):
        raise AssertionError("a pickle was about to be read")

    monkeypatch.setattr(torch, "load", refuse)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)

    def sow(*places, names=PICKLES):
        for place in places:
            for name in names:
                (place / name).write_bytes(planted)
        return len(places) * len(names)

    return sow


@pytest.fixture
def folder(tmp_path):
    """A folder with a small Llama and its tokenizer."""
    path = tmp_path / "llama"
    ARCHITECTURES["llama"]().save_pretrained(path)
    letter_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def adapter(tmp_path):
    """A folder with an adapter for it."""
    path = tmp_path / "adapter"
    with_lora(ARCHITECTURES["llama"]()).save_pretrained(path)
    return path


def change(file, **keys):
    """Change keys of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def load(folder):
    """The model in a folder."""
    return load_model(str(folder), device="cpu")


# --- pickles


def test_planted_pickle_runs_where_it_is_read(tmp_path):
    """Otherwise none of these tests could fail."""
    pickle.loads(pickle.dumps(Mine(tmp_path / "it_ran")))  # noqa: S301 - that is the point
    assert (tmp_path / "it_ran").exists()


@pytest.mark.fault("Foreign code", "malicious pickles beside a model's safetensors")
def test_pickles_beside_safetensors_are_not_read(folder, sown, faults_tried):
    """The model is loaded as if nothing lay there, and its fingerprint stays."""
    before = fingerprint(str(folder))
    faults_tried(sown(folder))
    assert load(folder).fingerprint == before


@pytest.mark.fault("Foreign code", "a malicious pickle in place of a model's safetensors")
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.bin"])
def test_pickle_in_place_of_safetensors_is_refused(folder, sown, name):
    """In so many words."""
    (folder / "model.safetensors").unlink()
    sown(folder, names=[name])
    assert "safetensors" in complaint(ModelError, lambda: load(folder))


@pytest.mark.fault("Foreign code", "an index of weights that leads to a malicious pickle")
@pytest.mark.parametrize("place", ["evil.bin", "../evil.bin", "deep/evil.bin", "../evil.safetensors"])
@pytest.mark.parametrize("index", ["model.safetensors.index.json", "other.safetensors.index.json"])
def test_index_that_leads_to_a_pickle_is_refused(folder, sown, place, index):
    """Only safetensors beside the index are taken; loading runs nothing either."""
    (folder / "deep").mkdir()
    sown(folder, names=[place])
    (folder / "model.safetensors").unlink()
    (folder / index).write_text(json.dumps({"weight_map": {"lm_head.weight": place, "x": "model.safetensors"}}))
    change(folder / "config.json", transformers_weights=index)
    for attempt in (ensure_inert, load):
        message = complaint(ModelError, lambda attempt=attempt: attempt(folder))
        assert "weight_map: " in message
        assert repr(place) in message


@pytest.mark.fault("Foreign code", "malicious pickles beside an adapter's safetensors")
def test_pickles_beside_an_adapter_are_not_read(adapter, sown, faults_tried):
    """Alone and in a stack, the adapter is put in place as if nothing lay there."""
    faults_tried(sown(adapter))
    base = ARCHITECTURES["llama"]()
    with adapted(base, adapter) as model:
        assert "lora_A" in str(model)
    with stacked(base, [adapter, adapter]) as model:
        assert list(model.peft_config) == ["adapter_0", "adapter_1"]


@pytest.mark.fault("Foreign code", "a malicious pickle in place of an adapter's safetensors")
@pytest.mark.parametrize("place", [0, 1])
def test_pickle_in_place_of_an_adapter_is_refused(adapter, sown, tmp_path, place):
    """PEFT would read it. The first of a stack or a later one, alone or not: the message names its folder."""
    broken = shutil.copytree(adapter, tmp_path / "broken")
    (broken / "adapter_model.safetensors").unlink()
    sown(broken, names=["adapter_model.bin"])
    base = ARCHITECTURES["llama"]()
    folders = [adapter, adapter]
    folders[place] = broken
    for attempt in (lambda: stacked(base, folders), lambda: adapted(base, broken)):
        with pytest.raises(ModelError, match=r"broken: .*adapter_model\.safetensors"), attempt():
            pass
    assert "lora" not in str(base)


@pytest.mark.exhaustive
@pytest.mark.fault("Foreign code", "malicious pickles in every folder of a finished study, model, cache and artifacts")
def test_study_among_pickles_is_resumed_and_reported(tmp_path, sown, monkeypatch, faults_tried):
    """With every folder of the store, the model, cache and artifacts full of them: same tables, and a report."""
    cache, artifacts, store = (tmp_path / name for name in ("cache", "artifacts", "store"))
    monkeypatch.setenv("GRADINOC_CACHE", str(cache))
    model = shutil.copytree(bundled_folder("obedient"), tmp_path / "obedient")
    before = tables(smallest(store, f"model.id={model}"))
    for place in (artifacts, cache):
        place.mkdir()
    faults_tried(sown(*(path for path in store.rglob("*") if path.is_dir()), store, model, artifacts, cache))
    for name in ("drift", "matched", "gradients"):  # what reads adapters and model again
        for entry in (store / name).glob("[!.]*/manifest.json"):
            shutil.rmtree(entry.parent)
    pipeline = smallest(store, f"model.id={model}")
    after = tables(pipeline)
    assert all(after[name].equals(table) for name, table in before.items())
    evidence = pipeline.evidence()
    write_report(judge(evidence, pipeline.study.rules), evidence, pipeline.study, artifacts, environment(), "again")
    assert (artifacts / "report.html").is_file()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Opens a hub that holds a repository, and has this process take it for the real one; its cache is empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    @contextmanager
    def serve(repository):
        with serve_hub(repository) as address, monkeypatch.context() as patch:
            patch.setattr(constants, "ENDPOINT", address)
            template = address + "/{repo_id}/resolve/{revision}/{filename}"
            patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
            yield

    return serve


@pytest.mark.fault("Foreign code", "malicious pickles and code in a hub repository")
def test_pickles_and_code_are_not_fetched_from_the_hub(folder, sown, marker, hub, tmp_path, faults_tried):
    """Of a repository that holds both, the snapshot has neither."""
    faults_tried(sown(folder) + 1)
    plant_code(folder, marker)
    with hub(Repository("some/model", folder)):
        assert load_model("some/model", device="cpu").fingerprint == COMMIT
    fetched = {path.name for path in (tmp_path / "hub").rglob("*") if path.is_file()}
    assert "model.safetensors" in fetched
    assert not fetched & {*PICKLES, "modeling_evil.py"}


# --- code


def plant_code(folder, marker):
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


def of_unknown_type(folder):
    """A kind of model that transformers has no code of its own for."""
    change(folder / "config.json", model_type="evil", architectures=["EvilModel"])


def with_tokenizer(folder):
    """A tokenizer with code of its own."""
    auto_map = {"AutoTokenizer": ["modeling_evil.EvilTokenizer", "modeling_evil.EvilTokenizer"]}
    own = {"tokenizer_class": "EvilTokenizer", "auto_map": auto_map, "trust_remote_code": True}
    change(folder / "tokenizer_config.json", **own)


def with_generation(folder):
    """Generation by code of its own."""
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "modeling_evil.py", folder / "custom_generate" / "generate.py")
    change(folder / "generation_config.json", custom_generate=str(folder), trust_remote_code=True)


@pytest.mark.fault("Foreign code", "code of a model's own, every switch of the environment on")
@pytest.mark.parametrize(
    ("plant", "loads"),
    [(of_unknown_type, False), (with_tokenizer, False), (lambda _: None, True), (with_generation, True)],
    ids=["type", "tokenizer", "model", "generation"],
)
def test_code_of_a_model_s_own_is_not_run(folder, marker, monkeypatch, plant, loads):
    """A model that needs it is refused; where transformers has code for the model, that loads it and generates."""
    for name in ("", "HF_", "HF_HUB_", "HF_DATASETS_"):
        monkeypatch.setenv(f"{name}TRUST_REMOTE_CODE", "1")
    plant_code(folder, marker)
    plant(folder)
    if loads:
        loaded = load(folder)
        assert type(loaded.model).__module__.startswith("transformers.models.llama.")
        assert len(generate(loaded.model, loaded.tokenizer, [[5, 6]], 2, 1)) == 1
    else:
        assert "Cannot load" in complaint(ModelError, lambda: load(folder))


@pytest.mark.fault("Foreign code", "attention by the name of a hub repository")
@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
@pytest.mark.parametrize("value", ["evil/kernel@main:attend", "flash_attention_2", {"": "sdpa", "text": "evil/kernel"}])
def test_attention_from_the_hub_is_refused(folder, key, value):
    """At the top and for a text model; transformers would fetch and run it where the package `kernels` is installed."""
    ensure_inert(folder)
    for keys in ({key: value}, {"text_config": {key: value}}):
        change(folder / "config.json", **keys)
        assert "attn_implementation: " in complaint(ModelError, lambda: ensure_inert(folder))
        change(folder / "config.json", **dict.fromkeys(keys))


@pytest.mark.fault("Foreign code", "an adapter in a model's place, with a base model from somewhere else")
def test_adapter_in_a_model_s_place_is_refused(folder, adapter):
    """Transformers would fetch and load what it names as its base."""
    shutil.copy(adapter / "adapter_config.json", folder)
    assert "adapter_config.json: " in complaint(ModelError, lambda: load(folder))


@pytest.mark.parametrize("name", ["obedient", "deaf"])
def test_bundled_models_are_inert(name):
    """Nothing of the above is said of what needs no refusal."""
    ensure_inert(bundled_folder(name))


TEMPLATES = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.mkdir('MARKER') }}",
    "function": "{{ raise_exception.__globals__['__builtins__'].open('MARKER', 'w') }}",
    "attribute": "{{ messages|attr('__class__') }}",
    "format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "messages": "{{ messages.append({'role': 'system', 'content': 'x'}) }}",
    "file": "{% include '/etc/hostname' %}",
    "import": "{% import 'os' as os %}",
    "terminal": "{{ raise_exception('a\\nb\\x1b[2J\\x1b]0;title\\x07') }}",
}


def test_chat_template_does_harm_without_a_sandbox(tmp_path):
    """Otherwise the next test could not fail for it."""
    template = TEMPLATES["globals"].replace("MARKER", str(tmp_path / "it_ran"))
    jinja2.Environment().from_string(template).render(messages=[])  # noqa: S701 - nothing is shown to anyone
    assert (tmp_path / "it_ran").exists()


@pytest.mark.fault("Foreign code", "a chat template that breaks out of its sandbox, or tries to")
@pytest.mark.parametrize("name", TEMPLATES)
def test_chat_template_reaches_nothing(folder, marker, name):
    """It is a program of the model's author: it runs in a sandbox, and its end is one line that can be printed."""
    (folder / "chat_template.jinja").write_text(TEMPLATES[name].replace("MARKER", str(marker)))
    assert "chat_template" in complaint(ModelError, lambda: tokenizer_of(folder))


@pytest.mark.fault("Foreign code", "a study file that switches trust on")
@pytest.mark.parametrize("key", ["trust_remote_code", "model.trust_remote_code", "data.trust_remote_code"])
def test_study_has_no_switch_for_trust(key):
    """There is no such key."""
    assert "unknown key" in complaint(StudyError, lambda: load_study("tiny", [f"{key}=true"]))


# --- revisions of the hub

LATER = "f" * 40


class Moved(Repository):
    """A repository whose branch and tag have moved on to other files; the old commit is still there."""

    def __init__(self, name, old, new):
        super().__init__(name, old)
        self.new = Repository(name, new)

    def describe(self, what, revision):
        """The old commit by its hash alone."""
        if revision == COMMIT:
            return super().describe(what, revision)
        status, body, headers = self.new.describe(what, "main" if revision == LATER else revision)
        return status, body.replace(COMMIT.encode(), LATER.encode()), headers

    def send(self, kind, revision, file):
        """A file of the commit that is asked for."""
        if revision == COMMIT:
            return super().send(kind, revision, file)
        status, body, headers = self.new.send(kind, "main" if revision == LATER else revision, file)
        return status, body, {**headers, "X-Repo-Commit": LATER}


def test_pinned_revision_is_what_is_loaded_when_the_branch_moves_on(folder, hub, tmp_path):
    """By commit: the old weights, also anew; by tag: the new ones, and every key of the study changes with them."""
    other = shutil.copytree(folder, tmp_path / "other")
    changed = ARCHITECTURES["llama"]()
    with torch.no_grad():
        changed.lm_head.weight.add_(1.0)
    changed.save_pretrained(other)

    def weights(revision):
        loaded = load_model("some/model", revision=revision, device="cpu", kernels="plain")
        study = smallest(tmp_path / "store", "model.id=some/model", f"model.revision={revision}")
        key = study.steps["directions"].entry.key
        return loaded.fingerprint, float(loaded.model.lm_head.weight.sum()), key

    with hub(Repository("some/model", folder)):
        pinned, tag = weights(COMMIT), weights("v1")
    assert pinned == tag
    assert pinned[0] == COMMIT
    with hub(Moved("some/model", folder, other)):
        assert weights(COMMIT) == pinned
        moved = weights("v1")
        shutil.rmtree(tmp_path / "hub")
        assert weights(COMMIT) == pinned
    assert moved[0] == LATER
    assert not {*moved} & {*pinned}


class Gullible(Repository):
    """A repository that has whatever revision it is asked for."""

    def describe(self, what, _):
        """As its branch."""
        return super().describe(what, "main")

    def send(self, kind, _, file):
        """As its branch."""
        return super().send(kind, "main", file)


@pytest.mark.fault("Names from study files", "a model's revision that would lead elsewhere")
@pytest.mark.parametrize("revision", ["a/../../../../../escaped", "..", "refs/../../x"])
def test_revision_writes_to_its_own_cache_alone(folder, hub, tmp_path, revision):
    """The hub's library keeps a file named after the revision, even if a hub says that it has such a one."""

    def outside():
        return {path for path in tmp_path.rglob("*") if tmp_path / "hub" not in (path, *path.parents)}

    before = outside()
    with hub(Gullible("some/model", folder)):
        for ask in (load_model, fingerprint):
            message = complaint(ModelError, lambda ask=ask: ask("some/model", revision=revision))
            assert message.startswith("model.revision: ")
    assert outside() == before
