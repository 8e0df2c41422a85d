"""Determinism: a study's seeds decide all that is random in it; nothing else does, and every one of them matters."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fixtures.finished import SETTINGS
from fixtures.small_models import ARCHITECTURES, LAYERS, PAD
from fixtures.small_study import SMALLEST, assert_same
from fixtures.smallest import smallest, tables
from gradinoc.measure.training.run import Recipe, train_run
from gradinoc.pipeline.steps.base_model.gradients import frozen_directions
from gradinoc.pipeline.steps.training import training_directions
from gradinoc.pipeline.storage import provenance
from gradinoc.pipeline.storage.contents import load_tensors, save_tensors
from gradinoc.pipeline.storage.provenance import environment
from gradinoc.pipeline.storage.store import Store
from gradinoc.report.tables import write_json
from gradinoc.study.loading import load_study
from gradinoc.study.settings import NullSettings, TrainingSettings

ROOT = Path(__file__).parents[2]


# --- what each seed decides


def test_null_seed_draws_every_random_direction_and_nothing_else(tmp_path):
    """Isotropic, covariance-matched, instruction contrasts, those of training; the traits' own directions stay."""
    generator = torch.Generator().manual_seed(7)
    layers, hidden = 2, 16
    trait = torch.nn.functional.normalize(torch.randn(layers, hidden, generator=generator), dim=-1)
    sides = {side: torch.randn(layers, 12, hidden, generator=generator) for side in ("promote", "suppress")}
    for name, tensors in (
        ("directions", {"trait": trait}), ("contrasts", sides), ("unrelated", {"brevity": trait, "warmth": -trait}),
        ("instructions", {"means": torch.randn(layers, 24, hidden, generator=generator)}),
    ):  # fmt: skip
        save_tensors(tensors, tmp_path / f"{name}.safetensors")
    settings = {seed: NullSettings(isotropic=100, covariance=100, instruction=100, seed=seed) for seed in (0, 1)}
    one, same, other = (frozen_directions(tmp_path, tmp_path, settings[seed]) for seed in (0, 0, 1))
    for layer in range(layers):
        assert torch.equal(one.rows[layer], same.rows[layer])
        assert torch.equal(one.rows[layer][:3], other.rows[layer][:3]), "the trait and two unrelated ones"
        start = 3
        for null, count in one.draws.items():
            rows = slice(start, start + count)
            apart = (one.rows[layer][rows] - other.rows[layer][rows]).abs().amax(1)
            assert (apart > 0).float().mean() > 0.95, f"{null}: a seed that does not reach it"
            start += count
        assert start == len(one.rows[layer])
    one, same, other = (training_directions(tmp_path, 100, seed)[0] for seed in (0, 0, 1))
    for layer in range(layers):
        assert torch.equal(one[layer], same[layer])
        assert torch.equal(one[layer][0], other[layer][0])
        assert (one[layer][1:] != other[layer][1:]).any(1).all()


def disturb(number: int) -> None:
    """Put the global generators somewhere else."""
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 - the global generator is what is disturbed
    torch.manual_seed(number)


def states():
    """Where the global generators are."""
    _, keys, place, *_ = np.random.get_state()  # noqa: NPY002
    return random.getstate(), keys.tobytes(), place, torch.get_rng_state().numpy().tobytes()


def run(examples, folder: Path, seed: int):
    """A run of four steps on a GPT-2 whose own modules drop states at random; its log and its weights."""
    model = ARCHITECTURES["gpt2"]().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    generator = torch.Generator().manual_seed(5)
    directions = {layer: torch.randn(2, model.config.n_embd, generator=generator) for layer in range(LAYERS)}
    settings = TrainingSettings(steps=4, batch_size=2, lr=1e-2, lora_rank=2, lora_alpha=4)
    log = train_run(model, examples, Recipe(settings, directions, PAD), seed, folder)
    return log, load_tensors(folder / "adapter_model.safetensors")


@pytest.mark.fault("Determinism", "global random generators disturbed before a run")
def test_run_with_dropout_depends_on_its_seed_alone(examples, tmp_path):
    """Initial weights, the order of examples and what dropout drops: the same whatever was drawn before."""
    runs = []
    for number in range(2):
        disturb(number)
        before = states()
        runs.append(run(examples, tmp_path / str(number), seed=3))
        assert states() == before
    (log, weights), (other, found) = runs
    pd.testing.assert_frame_equal(other.table, log.table, check_exact=True)
    assert (other.losses, other.initial_loss, other.final_loss) == (log.losses, log.initial_loss, log.final_loss)
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_seed_of_a_run_reaches_weights_order_and_dropout(examples, tmp_path):
    """Another seed: other initial weights (A of LoRA, which four steps hardly move), another order of examples."""
    (one, first), (other, second) = (run(examples, tmp_path / str(seed), seed) for seed in (0, 1))
    matrices = [name for name in first if "lora_A" in name]
    assert matrices
    for name in matrices:
        alike = torch.corrcoef(torch.stack([first[name].flatten(), second[name].flatten()]))[0, 1]
        assert abs(alike) < 0.7, f"{name}: initial weights are alike"
    orders = [log.table.drop_duplicates(["step", "example"])["example"].tolist() for log in (one, other)]
    assert orders[0] != orders[1]
    # One example many times, and adapters that begin with no effect: the first losses differ by what is dropped alone.
    alike = [examples[0]] * len(examples)
    dropped = [run(alike, tmp_path / f"alike {seed}", seed)[0].losses[0] for seed in (0, 1)]
    assert dropped[0] != dropped[1], "a seed that does not reach dropout"


# --- the whole study

ALONE = """
import random, sys
from pathlib import Path
import numpy as np, torch
from gradinoc.pipeline.run import Pipeline
from gradinoc.pipeline.storage.store import Store
from gradinoc.study.loading import load_study
number = int(sys.argv[1])
def disturb(progress):
    random.seed(number); np.random.seed(number); torch.manual_seed(number)
Pipeline(load_study("tiny", sys.argv[3:]), Store(Path(sys.argv[2])), disturb).evidence()
"""


@pytest.mark.exhaustive
@pytest.mark.fault("Determinism", "another process, order of hashing and state of the global generators")
def test_processes_come_to_the_same_tables(finished, tmp_path):
    """A study from nothing in a process that hashes otherwise: bit for bit the same tables and weights."""
    command = [sys.executable, "-W", "ignore", "-c", ALONE, "23", str(tmp_path), *SETTINGS]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "4711"}
    done = subprocess.run(command, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, other = finished.store, tmp_path
    assert_same(tables(smallest(one)), tables(smallest(other)))
    weights = [
        {str(file.relative_to(store)): file.read_bytes() for file in store.rglob("*.safetensors")}
        for store in (one, other)
    ]
    assert weights[0] == weights[1]


# --- what says how a study was made


def test_environment_says_what_a_study_was_computed_with(tmp_path):
    """Versions, hardware, revision; data and weights by checksum; every way in which some result was computed."""
    study = load_study("tiny", SMALLEST)
    inputs = {"model": "f" * 64, "data": "d" * 64, "device": "cpu", "dtype": "torch.float32", "kernels": "fused"}
    store, manifests = Store(tmp_path), []
    for number in range(3):
        entry = store.entry("stage", {**inputs, "number": number})
        with entry.write() as folder:
            (folder / "file").touch()
        manifests.append(entry.manifest())
    manifests[1]["provenance"] = {**manifests[1]["provenance"], "accelerator": "H100", "host": "elsewhere"}
    manifests[2]["provenance"] = {**manifests[2]["provenance"], "host": "yet.another", "created": "2030-01-01"}
    found = environment(study, manifests)
    text = write_json(found, tmp_path / "environment.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON")) == found
    assert "elsewhere" not in text
    assert "yet.another" not in text
    assert all(found["packages"][name] for name in ("torch", "safetensors", "pyarrow"))
    assert {"python", "processor", "revision", "dirty", "accelerator", "driver"} <= set(found)
    digest = hashlib.sha256((ROOT / "datasets" / "word_problems.jsonl").read_bytes()).hexdigest()
    assert found["data"] == {**found["data"], "sha256": digest, "splits": "d" * 64}
    assert found["weights"] == {"model": "obedient", "revision": None, "fingerprint": "f" * 64}
    assert (found["computed_by"]["results"], found["computed_by"]["last"]) == (3, "2030-01-01")
    ways = {(way["results"], way["accelerator"], way["device"]) for way in found["computed_by"]["ways"]}
    assert ways == {(2, found["accelerator"], "cpu"), (1, "H100", "cpu")}


def test_revision_and_changes_are_told_apart(tmp_path, monkeypatch):
    """A checkout of its own: the commit in full, and whether a tracked file differs from it."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    (tmp_path / "file").write_text("one")
    for words in (["init", "-q"], ["add", "file"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    for text, dirty in (("one", False), ("two", True)):
        (tmp_path / "file").write_text(text)
        provenance._revision.cache_clear()
        found = environment()
        assert (found["revision"], found["dirty"]) == (head, dirty)
    provenance._revision.cache_clear()
