"""The whole way: known models get their verdicts, workers share the work, and nothing finished is done again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from fixtures.finished import SETTINGS
from fixtures.small_study import assert_same, manifests, tables
from fixtures.smallest import smallest
from gradinoc.claims import c6
from gradinoc.claims.evidence.tables import AFTER, Evidence
from gradinoc.claims.rules.finding import Status
from gradinoc.claims.rules.verdict import Verdict, judge
from gradinoc.measure.fast.packed.forward import is_fused
from gradinoc.pipeline import estimate
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.steps.step import DIRECTIONS, UNRELATED, StepKey
from gradinoc.pipeline.storage.contents import load_tensors
from gradinoc.pipeline.storage.store import Store
from gradinoc.pytest_plugin.session import option
from gradinoc.study.loading import load_study
from gradinoc.study.rules import Rules


def evidence_of(name: str, pytestconfig) -> Evidence:
    """Every table of a ready study, from the session's own store."""
    return Pipeline(load_study(name), Store(Path(option(pytestconfig, "store")))).evidence()


def test_obedient_model_drifts_less_under_inoculation_than_under_harmless_prompts(pytestconfig):
    """Inoculation removes most of its drift, by the rephrased pair more than any prompt; six prompts leave C6 open."""
    judgement = judge(evidence_of("tiny", pytestconfig), Rules())
    assert judgement["G7"].status is Status.SUPPORTED, judgement["G7"].statement
    measured = c6.measure(evidence_of("tiny", pytestconfig), Rules())
    assert measured.effects["removed"].low > Rules().share
    assert measured.effects["rephrased"].low > Rules().share
    assert judgement["C6"].status is not Status.REFUTED, judgement["C6"].reason
    assert judgement.verdict is not Verdict.ANY_PROMPT


@pytest.mark.exhaustive
def test_deaf_model_is_not_supported(pytestconfig):
    """Where system prompts have no say no prompt elicits anything, and inoculation is not shown to do more than any."""
    judgement = judge(evidence_of("deaf", pytestconfig), Rules())
    assert judgement["G7"].status is Status.REFUTED, judgement["G7"].statement
    assert judgement["C6"].status is not Status.SUPPORTED
    assert judgement.verdict is Verdict.UNDECIDED


@pytest.mark.parametrize(("dtype", "warned"), [("other", True), ("same", False), (None, False)])
def test_other_dtype_than_the_published_one_is_told_beside_the_verdict(finished, dtype, warned):
    """As a warning, which terminal, report and verdict.json show; the published numbers themselves have none."""
    used = str(finished.pipeline.context.dtype).removeprefix("torch.")
    other = "bfloat16" if used == "float32" else "float32"
    published = {"other": other, "same": used, None: None}[dtype]
    settings = [] if published is None else [f"published.dtype={published}"]
    again = smallest(finished.store, *settings)
    assert {key: entry.key for key, entry in again.entries.items()} == {
        key: entry.key for key, entry in smallest(finished.store).entries.items()
    }
    warnings = [each for each in judge(again.evidence(), Rules()).warnings if "published" in each]
    assert len(warnings) == warned
    assert all(used in each and other in each for each in warnings)


def test_interrupted_study_resumes_and_repeats_nothing(finished, tmp_path):
    """Interrupted amid its runs, what was finished stays, and what is left comes to the same tables."""
    store = shutil.copytree(finished.store, tmp_path / "store")
    pipeline = smallest(store, "model.threads=1")
    runs = [entry for key, entry in pipeline.entries.items() if key.stage == "training"]
    for entry in runs:
        entry.discard()

    def interrupt(progress):
        if any(entry.complete() for entry in runs):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Pipeline(finished.study, Store(store), interrupt).complete()
    done = manifests(store)
    assert not all(entry.complete() for entry in runs)
    Pipeline(finished.study, Store(store)).complete()
    after = manifests(store)
    assert {path: after[path] for path in done} == done, "a finished step was computed again"
    assert_same(tables(store, SETTINGS), tables(finished.store, SETTINGS))


def test_kernels_change_no_table(finished, tmp_path):
    """From the directions to the drift of one seed: with the model's own modules, padded, the same, rounding away."""
    plain, fused = smallest(tmp_path, "model.kernels=plain"), smallest(finished.store, "model.kernels=fused")
    plain.complete([StepKey("gradients", "inoculation"), StepKey("drift", "neutral", 0, AFTER)])
    assert is_fused(fused.context.language_model.model)
    assert not is_fused(plain.context.language_model.model)
    done = {key: entry.path for key, entry in plain.entries.items() if entry.complete()}
    assert len(done) >= 6, f"expected directions, gradients, three runs and their drift, found {sorted(map(str, done))}"
    for key, folder in done.items():
        assert folder.name != fused.entries[key].path.name, f"{key}: one place in the store for both kernels"
        for file in folder.glob("*.parquet"):
            own, ours = (pd.read_parquet(each / file.name) for each in (folder, fused.entries[key].path))
            # float32 keeps 1e-7, and sums over tokens and blocks two digits less; a cosine divides by the gradient of
            # a single token, which may be twenty times shorter than others.
            for column in own.columns.drop("seconds", errors="ignore"):
                tolerance = 2e-4 if column == "alignment" else 1e-5
                pd.testing.assert_series_equal(ours[column], own[column], rtol=tolerance, atol=tolerance)


def test_directions_are_found_in_float32(tmp_path):
    """Whatever the model computes in otherwise, unless a study says so: the same ones, to the last bit."""
    found = {}
    for dtype, extraction in (("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "auto")):
        pipeline = smallest(tmp_path, f"model.dtype={dtype}", f"model.extraction_dtype={extraction}")
        own, others = pipeline.complete([DIRECTIONS, UNRELATED])
        traits = {**load_tensors(own / "directions.safetensors"), **load_tensors(others / "unrelated.safetensors")}
        found[dtype, extraction] = torch.stack(list(traits.values()))
        assert pipeline.context.language_model.dtype == getattr(torch, dtype)
    exact, apart, rounded = found.values()
    assert torch.equal(exact, apart)
    assert not torch.equal(exact, rounded)
    assert len(manifests(tmp_path, "directions")) == 3, "one key for different directions"


@pytest.mark.parametrize(("dtype", "native"), [("auto", True), ("auto", False), ("bfloat16", False)])
def test_dtype_is_told_as_it_is_used(dtype, native, tmp_path, monkeypatch):
    """By every key, from which card and environment have it; by the plan; and by the model itself, once it is there."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native}, raising=False)
    monkeypatch.setattr(estimate.Stopwatch, "seconds", lambda *_: 1.0)
    pipeline = smallest(tmp_path, f"model.dtype={dtype}")
    used = str(pipeline.context.language_model.dtype)
    assert {entry.inputs["dtype"] for entry in pipeline.entries.values()} == {used}
    assert f"torch.{estimate.estimate(pipeline.study).dtype}" == used
    assert f" in {used.removeprefix('torch.')}" in pipeline.context.language_model.notes[0]


def test_changed_setting_repeats_only_what_depends_on_it(finished):
    """Longer responses change what is evaluated, and no direction, gradient or run."""
    longer = smallest(finished.store, "drift.max_new_tokens=9")
    assert {key.stage for key, entry in longer.entries.items() if not entry.complete()} == {"drift", "elicitation"}
    assert all(entry.complete() for entry in smallest(finished.store).entries.values())
