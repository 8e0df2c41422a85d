"""The whole way: known models get their verdicts, workers share the work, and nothing finished is done again."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from fixtures.small_study import SMALL, as_options, assert_same, manifests, tables
from fixtures.smallest import smallest
from gradinoc.claims.finding import Status
from gradinoc.claims.tables import Evidence
from gradinoc.claims.verdict import C1, C2, GATES, Verdict, judge
from gradinoc.measure.fast.packed import is_fused
from gradinoc.pipeline import estimates
from gradinoc.pipeline.estimates.speed import Speed
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.store import Store, load_tensors
from gradinoc.pytest_plugin.session import option
from gradinoc.study.loading import load_study
from gradinoc.study.rules import Rules

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """A store in which one process has computed the small study from beginning to end."""
    store = tmp_path_factory.mktemp("undisturbed")
    Pipeline(load_study("tiny", SMALL), Store(store)).evidence()
    return store


def evidence_of(name: str, pytestconfig) -> Evidence:
    """Every table of a ready study, from the session's own store."""
    return Pipeline(load_study(name), Store(Path(option(pytestconfig, "store")))).evidence()


def test_obedient_model_is_supported(pytestconfig):
    """Where system prompts rule the trait, inoculation works, and the whole apparatus says so."""
    assert judge(evidence_of("tiny", pytestconfig), Rules()).verdict is Verdict.SUPPORTED


def test_deaf_model_is_not_supported(pytestconfig):
    """Where system prompts have no say, inoculation cannot work, and no verdict says it does."""
    assert judge(evidence_of("deaf", pytestconfig), Rules()).verdict is not Verdict.SUPPORTED


def test_deaf_model_shows_no_effect_even_if_every_gate_were_open(pytestconfig):
    """It is not the gates alone that keep the deaf model from being supported: C1 and C2 find nothing either."""
    evidence = evidence_of("deaf", pytestconfig)
    opened = [replace(gate(evidence, Rules()), status=Status.SUPPORTED) for gate in GATES]
    for claim in (C1, C2):
        finding = claim(evidence, Rules(), opened)
        assert finding.status is not Status.SUPPORTED, finding.statement


def test_two_workers_give_the_tables_of_one(undisturbed, tmp_path):
    """The same study under `-n 2` gives the same tables, to the last bit."""
    command = [sys.executable, "-m", "pytest", "claims", "--study", "tiny", *as_options(SMALL), "-n", "2"]
    places = ["--store", str(tmp_path / "store"), "--artifacts", str(tmp_path / "artifacts"), "--refuted", "report"]
    places += ["--datasets", str(tmp_path / "datasets")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, *places, "-p", "no:cacheprovider"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(tables(tmp_path / "store"), tables(undisturbed))


def test_killed_study_resumes_and_repeats_nothing(undisturbed, tmp_path):
    """After SIGKILL amid the runs, what was finished stays, and the tables are those of an undisturbed study."""
    store = tmp_path / "store"
    command = [sys.executable, "-m", "gradinoc", "run", "tiny", *as_options(SMALL), "--store", str(store)]
    command += ["--artifacts", str(tmp_path / "artifacts")]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(finished := manifests(store, "training")) < 2:
        assert first.poll() is None, "the study ended before it could be killed"
        assert time.monotonic() < deadline, "no run was finished in two minutes"
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    finished = manifests(store)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = manifests(store)
    assert {path: after[path] for path in finished} == finished, "a finished step was computed again"
    assert len(after) > len(finished), "nothing was left to do: it was killed too late"
    assert_same(tables(store), tables(undisturbed))


def test_kernels_change_no_table(undisturbed, tmp_path):
    """From the directions to the drift of one seed: with the model's own modules, padded, the same, rounding away."""
    plain, fused = (
        Pipeline(load_study("tiny", [*SMALL, f"model.kernels={kernels}"]), Store(store))
        for kernels, store in (("plain", tmp_path), ("fused", undisturbed))
    )
    plain.complete(["gradients inoculation", "drift of seed 0"])
    assert is_fused(fused.bench.language_model.model)
    assert not is_fused(plain.bench.language_model.model)
    done = {label: step.entry.path for label, step in plain.steps.items() if step.entry.complete()}
    assert len(done) >= 6, f"expected directions, gradients, three runs and their drift, found {sorted(done)}"
    for label, folder in done.items():
        assert folder.name != fused.steps[label].entry.path.name, f"{label}: one key for both kernels"
        for file in folder.glob("*.parquet"):
            own, ours = (pd.read_parquet(each / file.name) for each in (folder, fused.steps[label].entry.path))
            # float32 keeps 1e-7, and sums over tokens and blocks two digits less; a cosine divides by the gradient of
            # a single token, which may be twenty times shorter than others.
            for column in own.columns.drop("seconds", errors="ignore"):
                tolerance = 2e-4 if column == "alignment" else 1e-5
                pd.testing.assert_series_equal(ours[column], own[column], rtol=tolerance, atol=tolerance)


def test_directions_are_found_in_float32(tmp_path):
    """Whatever the model computes in otherwise, unless a study says so: the same ones, to the last bit."""
    found = {}
    for dtype, extraction in (("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "auto")):
        changes = [f"model.dtype={dtype}", f"model.extraction_dtype={extraction}"]
        pipeline = Pipeline(load_study("tiny", [*SMALL, *changes]), Store(tmp_path))
        own, others = pipeline.complete(["directions", "unrelated traits"])
        traits = {**load_tensors(own / "directions.safetensors"), **load_tensors(others / "unrelated.safetensors")}
        found[dtype, extraction] = torch.stack(list(traits.values()))
        assert pipeline.bench.language_model.dtype == getattr(torch, dtype)
    exact, apart, rounded = found.values()
    assert torch.equal(exact, apart)
    assert not torch.equal(exact, rounded)
    assert len(manifests(tmp_path, "directions")) == 3, "one key for different directions"
    keys = set()
    for dtype, extraction in (("float32", "auto"), ("float32", "bfloat16"), ("auto", "auto"), ("auto", "bfloat16")):
        changes = [f"model.dtype={dtype}", f"model.extraction_dtype={extraction}"]
        keys.add(Pipeline(load_study("tiny", [*SMALL, *changes]), Store(tmp_path)).steps["directions"].entry.key)
    assert len(keys) == 2, "a tiny model of auto is one in float32, and has its keys"
    tiny = Pipeline(load_study("tiny", [*SMALL, "model.extraction_dtype=bfloat16"]), Store(tmp_path)).bench
    assert (tiny.language_model.dtype, tiny.extraction_model().dtype) == (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_dtype_is_told_as_it_is_used(dtype, native, tmp_path, monkeypatch):
    """By every key, from which card and environment have it; by the plan; and by the model itself, once it is there."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native}, raising=False)
    monkeypatch.setattr(
        estimates, "measure", lambda *_: Speed(defaultdict(lambda: 1e9), defaultdict(lambda: 1e9), 1e-3)
    )
    pipeline = smallest(tmp_path, f"model.dtype={dtype}")
    used = str(pipeline.bench.language_model.dtype)
    assert {step.entry.inputs["dtype"] for step in pipeline.steps.values()} == {used}
    assert f"torch.{estimates.estimate(pipeline.study).dtype}" == used
    assert f" in {used.removeprefix('torch.')}" in pipeline.bench.language_model.notes[0]


def test_model_of_a_step_is_let_go_with_it(tmp_path):
    """The float32 copy that directions are found with is gone when they are, at once."""
    pipeline = Pipeline(load_study("tiny", [*SMALL, "model.dtype=bfloat16"]), Store(tmp_path))

    def maps():
        return sum(issubclass(type(each), torch.nn.Linear) for each in gc.get_objects())

    gc.collect()
    before = maps()
    gc.disable()
    try:
        pipeline.complete(["directions"])
        assert maps() == before
    finally:
        gc.enable()


def test_changed_setting_repeats_only_what_depends_on_it(undisturbed):
    """Longer responses change what is evaluated, and no direction, gradient or run."""
    plain, longer = (
        Pipeline(load_study("tiny", [*SMALL, *more]), Store(undisturbed)) for more in ([], ["drift.max_new_tokens=9"])
    )
    missing = {step.entry.stage for step in longer.steps.values() if not step.entry.complete()}
    assert missing == {"drift"}
    assert all(step.entry.complete() for step in plain.steps.values())


def test_progress_names_step_loss_and_time_left(tmp_path):
    """A study tells at every step of every run where it is, what the loss is, and how long it takes."""
    heard = []
    Pipeline(load_study("tiny", SMALL), Store(tmp_path), heard.append).evidence()
    in_runs = [progress for progress in heard if progress.step == "run neutral/0" and progress.loss is not None]
    assert in_runs, "no word during the run"
    assert (in_runs[-1].detail, in_runs[-1].done, in_runs[-1].total) == ("step", 3, 3)
    assert in_runs[-1].seconds_left == 0
    assert heard[-1].study_seconds_left == 0
    assert [progress.steps_done for progress in heard] == sorted(progress.steps_done for progress in heard)
