"""A strength is what is left behind every block, whatever was done at the blocks above."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fixtures.by_hand import random_directions
from gradinoc.data.sources import load_source
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training.interventions import Intervention
from gradinoc.measure.training.run import Recipe, Run, train_runs
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import encode
from gradinoc.study.settings import TrainingSettings


@pytest.fixture(scope="module", params=["fused", "plain"])
def first_step(request, tmp_path_factory):
    """Gives the log of a run's first step, in which weights are those of every run, under an intervention or none."""
    loaded = load_model("obedient", device="cpu", kernels=request.param)
    v = random_directions(range(len(decoder_blocks(loaded.model))), loaded.model.config.hidden_size)
    rows = {layer: torch.nn.functional.normalize(each, dim=-1)[None] for layer, each in v.items()}
    recipe = Recipe(TrainingSettings(steps=1, batch_size=4), rows, loaded.tokenizer.pad_token_id)
    examples = [encode(loaded.tokenizer, each.question, each.answer.upper(), None)
                for each in load_source("word_problems")[:4]]  # fmt: skip

    def log(kind=None, strength=1.0):
        done = [Intervention(kind, v, strength)] if kind else []
        run = Run(examples, 0, tmp_path_factory.mktemp("run"), interventions=done)
        return train_runs(loaded.model, [run], recipe)[0].table

    return log


@pytest.mark.parametrize("strength", [-1.0, 0.5, 2.0])
def test_of_the_component_as_much_is_left_behind_every_block(first_step, strength):
    """1 - strength times the ordinary run's, at all positions.

    Halving at every block what comes from the block above, halved there already, would leave ever less below.
    """
    found, ordinary = (each["projection"].to_numpy() for each in (first_step("project", strength), first_step()))
    scale = np.abs(ordinary).max()
    np.testing.assert_allclose(found, (1 - strength) * ordinary, rtol=1e-4, atol=1e-5 * scale)
    assert scale > 0.01


def test_a_shrunken_gradient_is_as_long_as_a_projected_one_behind_every_block(first_step):
    """Token by token; it points where it did."""
    shrunk, projected, ordinary = (
        table[table["position"] != "completion_sum"] for table in map(first_step, ("shrink", "project", None))
    )
    np.testing.assert_allclose(shrunk["grad_norm"], projected["grad_norm"], rtol=1e-4)
    assert (shrunk["grad_norm"] < ordinary["grad_norm"]).any()
    assert float(shrunk["alignment"].abs().max()) > 0.02
