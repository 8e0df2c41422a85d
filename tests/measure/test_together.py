"""Runs that are trained together are each what it is alone."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fixtures.small_models import ARCHITECTURES
from gradinoc.data.sources import load_source
from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.measure.fast import passes
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.fast.packed.packing import pack
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training.run import Recipe, Run, train_run, train_runs
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import encode
from gradinoc.study.settings import TrainingSettings

SYSTEMS = (None, "Be brief.", "You always respond in ALL CAPS.")
SETTINGS = {
    "adamw": TrainingSettings(batch_size=2, lr=1e-3),
    "sgd": TrainingSettings(batch_size=2, lr=0.1, optimizer="sgd"),
}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture(scope="module")
def obedient():
    """The tiny model that follows prompts, fused."""
    return load_model("obedient", device="cpu")


@pytest.fixture(scope="module", params=SETTINGS)
def recipe(obedient, request):
    """Three directions a layer."""
    directions = isotropic_directions(3, obedient.model.config.hidden_size, 0)
    layers = range(len(decoder_blocks(obedient.model)))
    return Recipe(SETTINGS[request.param], dict.fromkeys(layers, directions), obedient.tokenizer.pad_token_id)


@pytest.fixture(scope="module")
def make(obedient):
    """Makes a run of a condition and seed, its adapter and a checkpoint below a folder."""
    examples = {
        system: [
            encode(obedient.tokenizer, example.question, example.answer.upper(), system)
            for example in load_source("word_problems")[:7]  # the last batch of the epoch holds one
        ]
        for system in SYSTEMS
    }

    def one(folder, system, seed):
        place = folder / f"{SYSTEMS.index(system)}-{seed}"
        return Run(examples[system], seed, place / "adapter", {2: place / "2"})

    return one


@pytest.fixture(scope="module")
def alone(obedient, recipe, make, tmp_path_factory):
    """Every run alone: (condition, seed) -> run and log."""
    folder = tmp_path_factory.mktemp("alone")
    made = {}
    for system, seed in itertools.product(SYSTEMS, (0, 1)):
        run = make(folder, system, seed)
        log = train_run(obedient.model, run.examples, recipe, seed, run.adapter_dir, checkpoints=run.checkpoints)
        made[system, seed] = run, log
    return made


@pytest.mark.parametrize(
    ("order", "even"), [([0, 1], False), ([5, 0, 3], False), ([4, 5, 2, 3, 0, 1], False), ([2, 0, 1], True)], ids=str
)
def test_runs_together_are_each_what_it_is_alone(obedient, recipe, make, alone, order, even, tmp_path, monkeypatch):
    """Losses, alignments with every direction, the adapter halfway and at the end; whatever their number and order.

    `even` is how a GPU has it.
    """
    monkeypatch.setattr(passes, "pack", lambda examples, runs, **_: pack(examples, runs, even))
    keys = [list(alone)[place] for place in order]
    runs = [make(tmp_path, *key) for key in keys]
    for key, run, log in zip(keys, runs, train_runs(obedient.model, runs, recipe), strict=True):
        own, expected = alone[key]
        np.testing.assert_allclose(log.losses, expected.losses, rtol=1e-5)
        np.testing.assert_allclose(log.final_loss, expected.final_loss, rtol=1e-5)
        np.testing.assert_allclose(log.initial_loss, expected.initial_loss, rtol=1e-5)
        torch.testing.assert_close(log.direction_means, expected.direction_means, **CLOSE)
        assert list(log.table) == list(expected.table)
        # Rounding is that of the longest gradient; a cosine divides it by its own, which may be 10,000 times shorter.
        length = expected.table["grad_norm"] / expected.table["grad_norm"].max()
        for column in log.table:
            if log.table[column].dtype.kind == "f":
                found, wanted = (
                    each[column] * (length if column == "alignment" else 1.0) for each in (log.table, expected.table)
                )
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(expected.table[column]).max())
            else:
                assert (log.table[column] == expected.table[column]).all()
        for mine, theirs in ((run.adapter_dir, own.adapter_dir), (run.checkpoints[2], own.checkpoints[2])):
            assert_same_adapter(mine, theirs, each=recipe.settings.optimizer == "sgd")


def assert_same_adapter(mine, theirs, each=False):
    """The same files, the same configuration, weights that differ by rounding, all in one or `each` by itself.

    Adam steps as far along a gradient that is little but rounding as along any other; plain gradient descent does not.
    """
    assert sorted(path.name for path in mine.iterdir()) == sorted(path.name for path in theirs.iterdir())
    assert json.loads((mine / "adapter_config.json").read_text()) == json.loads(
        (theirs / "adapter_config.json").read_text()
    )
    found, expected = (load_file(folder / "adapter_model.safetensors") for folder in (mine, theirs))
    assert found.keys() == expected.keys()
    mine, theirs = (torch.cat([of[name].flatten() for name in sorted(of)]) for of in (found, expected))
    assert float((mine - theirs).norm()) <= 1e-5 * float(theirs.norm())
    for name, weight in expected.items() if each else ():
        assert float((found[name] - weight).norm()) <= 1e-4 * float(weight.norm()), name


def test_runs_differ(alone):
    """Otherwise the comparison would say nothing: by seed and by prompt, in what is learned."""
    losses = {log.losses for _, log in alone.values()}
    assert len(losses) == len(alone)


def test_parts_made_even_stay_within_the_longest_example(make, tmp_path):
    """Rotations that depend on how long the text is (longrope) would be others if what fills a part counted on."""
    runs = [make(tmp_path, system, 0).examples[:2] for system in (SYSTEMS[0], SYSTEMS[2])]
    batch = pack([example for run in runs for example in run], 2, even=True)
    assert len(set(batch.parts)) == 1
    assert int(batch.position_ids.max()) == max(batch.lengths) - 1


@pytest.mark.parametrize("fault", ["length", "plain", "recurrent"])
def test_runs_that_cannot_be_trained_together_are_refused(obedient, recipe, make, fault, tmp_path):
    """Unequal numbers of examples, a model with modules of its own, or one that goes through branches one by one."""
    runs = [make(tmp_path, None, seed) for seed in (0, 1)]
    model = obedient.model
    if fault == "length":
        runs[1] = Run(runs[1].examples[:-1], 1, runs[1].adapter_dir)
    else:
        model = ARCHITECTURES["gpt2" if fault == "plain" else "qwen3_5"]().requires_grad_(False)
        assert fuse(model)[0].startswith("plain") == (fault == "plain")
    with pytest.raises(ValueError, match="together" if fault == "length" else "one at a time"):
        train_runs(model, runs, recipe)
    assert not any("lora" in name for name, _ in model.named_modules())
