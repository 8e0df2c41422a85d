"""A run of the obedient tiny model, and behaviours of it, with kernels and without."""

from __future__ import annotations

import pytest

from fixtures.attributed import OWN, QUESTIONS, SETTINGS
from gradinoc.data.examples import showing
from gradinoc.data.sources import load_source
from gradinoc.measure.behaviour.decisions import decisions
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training.adapters import fresh_adapters, save_adapter
from gradinoc.measure.training.run import Recipe, train_run
from gradinoc.models.chat.encoding import encode
from gradinoc.study.traits import ALL_CAPS


@pytest.fixture(scope="module", params=["fused", "plain"])
def language_model(request):
    """The obedient tiny model and its tokenizer, with kernels and without."""
    loaded = load_model("obedient", device="cpu", kernels=request.param)
    return loaded.model, loaded.tokenizer


@pytest.fixture(scope="module")
def behaviours(language_model):
    """Decisions of a few questions under the neutral prompt and under another."""
    examples = load_source("word_problems")[:QUESTIONS]
    return {
        name: decisions(language_model[1], examples, ALL_CAPS, prompt)
        for name, prompt in {"neutral": None, "own": OWN}.items()
    }


@pytest.fixture(scope="module")
def run(language_model, tmp_path_factory):
    """Adapters of a run under the neutral prompt: before the first step, after two, four and all eight."""
    model, tokenizer = language_model
    folder = tmp_path_factory.mktemp("run")
    examples = [
        encode(tokenizer, each.question, showing(each, ALL_CAPS), None) for each in load_source("word_problems")[20:36]
    ]
    recipe = Recipe(SETTINGS, {}, int(tokenizer.pad_token_id))
    train_run(model, examples, recipe, 0, folder / "8", checkpoints={step: folder / str(step) for step in (2, 4)})
    with fresh_adapters(model, [0], SETTINGS) as (wrapped, _):
        save_adapter(wrapped, folder / "0")
    return [folder / str(step) for step in (0, 2, 4, 8)]
