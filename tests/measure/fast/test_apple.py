"""On Apple's GPU, by a stand-in: everything is computed there, and comes to the same as on the processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fixtures.apple import on_apple
from fixtures.small_models import ARCHITECTURES, END, HIDDEN, LAYERS, PAD, letter_tokenizer
from gradinoc.measure.behaviour.decisions import Decision, decision_log_odds
from gradinoc.measure.directions.extraction import prompt_activations
from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.measure.fast.fused import fuse
from gradinoc.measure.fast.packed.forward import is_fused
from gradinoc.measure.gradients.alignment import answer_losses, measure_alignments
from gradinoc.measure.loading.selftests import causal_leak
from gradinoc.measure.training.run import Recipe, train_run
from gradinoc.measure.training.tracking import Tracking
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.generate import generate, sample_copies
from gradinoc.models.sampling import Sampling
from gradinoc.study.settings import TrainingSettings

EXAMPLES = [Encoded((*range(start, start + 9), END), 4) for start in (5, 20, 30)]
DECISIONS = [Decision(tuple(range(start, start + 9)), 4, (5, 8), (33, 44)) for start in (5, 20, 30)]
DIRECTIONS = dict.fromkeys(range(LAYERS), isotropic_directions(3, HIDDEN, 0))
ROUNDING = 1e-5  # float32, seen through the blocks: sums are of float32 there, and of float64 on the processor


def test_stand_in_refuses_what_the_device_refuses():
    """Otherwise the tests below could not fail."""
    with on_apple() as apple:
        there = torch.ones(3, device="mps")
        assert (there.device.type, (2 * there).device.type, there.cpu().device.type) == ("mps", "mps", "cpu")
        assert torch.zeros(2).device.type == "cpu"
        for refused in (there.double, lambda: there.to(torch.float64), lambda: torch.zeros(2, device="mps").double()):
            with pytest.raises(TypeError, match="float64"):
                refused()
        with pytest.raises(TypeError, match="float64"):
            torch.zeros(2, dtype=torch.float64, device="mps")
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert there.cpu().double().numpy().sum() == 3.0
        leaf = there.clone().requires_grad_()
        (leaf * 2).sum().backward()
        assert leaf.grad.device.type == "mps"
        assert apple.operations > 3
    assert torch.ones(1).device.type == "cpu"


def everything(model: nn.Module, folder: Path) -> dict[str, Any]:
    """Whatever is computed of a model: measured, scored, read, generated and trained, a run shown as it goes."""
    tokenizer = letter_tokenizer()
    heard: list[Any] = []
    tracking = Tracking("tensorboard", folder / "logs", "apple", "run")
    recipe = Recipe(TrainingSettings(steps=3, batch_size=2, lr=1e-2, lora_rank=4), DIRECTIONS, PAD, tracking, (0, 2))
    log = train_run(model, EXAMPLES, recipe, 0, folder / "adapter", lambda *told: heard.append(told))
    measured = measure_alignments(model, EXAMPLES, DIRECTIONS, PAD, 2, kept=2)
    states = prompt_activations(model, tokenizer, ["ab", "cde"], None, [0, 2])
    return {
        "log": log.table,
        "log means": log.direction_means,
        "log steps": torch.cat([log.steps.alignment, log.steps.push, log.steps.norm], -1),
        "losses": np.asarray([*log.losses, log.initial_loss, log.final_loss]),
        "heard": heard[-1][3],
        "measured": measured.table,
        "means": measured.means,
        "descent": measured.descent,
        "by example": measured.by_example,
        "scored": answer_losses(model, EXAMPLES, PAD, 2),
        "decided": decision_log_odds(model, DECISIONS, PAD, 2),
        "states": torch.stack(list(states.values())),
        "leak": np.asarray(causal_leak(model, range(5, 25))),
        "responses": generate(model, tokenizer, [[5, 6], [7, 8, 9]], 4, 2),
        "samples": sample_copies(model, tokenizer, [[5, 6], [7, 8, 9]], Sampling(3, 4), 4),
    }


@pytest.mark.parametrize(("name", "kernels"), [("llama", "fused"), ("gpt2", "plain")])
def test_everything_is_computed_there_as_on_the_processor(name, kernels, tmp_path):
    """Nothing is asked of the device that it cannot do, and tables hold float64 all the same."""
    host, other = (ARCHITECTURES[name]().requires_grad_(False) for _ in range(2))
    if kernels == "fused":
        assert all("fused" in fuse(model)[0] and is_fused(model) for model in (host, other))
    expected = everything(host, tmp_path / "host")
    with on_apple(other) as apple:
        found = everything(other, tmp_path / "apple")
        assert next(other.parameters()).device.type == "mps", "the model was moved"
    assert apple.operations > 1000
    for texts in ("responses", "samples"):
        assert found.pop(texts) == expected.pop(texts)
    for what, one in found.items():
        if isinstance(one, pd.DataFrame):
            pd.testing.assert_frame_equal(one, expected[what], rtol=ROUNDING, atol=ROUNDING)
        else:
            assert one.dtype == expected[what].dtype, what
            np.testing.assert_allclose(one, expected[what], rtol=ROUNDING, atol=ROUNDING, err_msg=what)
