"""No pickle that lies in a model, adapter, store or hub repository is read."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest

from fixtures.hub import COMMIT, Repository
from fixtures.malicious import PICKLES, Mine, change, one_line, plant_code, sown
from fixtures.small_models import ARCHITECTURES
from fixtures.small_study import SMALLEST
from fixtures.smallest import smallest, tables
from gradinoc import run_study
from gradinoc.errors import ModelError
from gradinoc.measure.loading.load import load_model
from gradinoc.models.sources.locate import fingerprint
from gradinoc.models.sources.packaged import bundled_folder
from gradinoc.pipeline.context import adapted, stacked


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
