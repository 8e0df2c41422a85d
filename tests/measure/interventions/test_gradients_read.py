"""What alignments are read of where gradients are changed: of what the weights receive."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch

from fixtures.by_hand import random_directions, small
from fixtures.small_models import HIDDEN, PAD, with_lora
from gradinoc import project_gradient
from gradinoc.measure.fast import batched, completion_losses
from gradinoc.measure.gradients.alignment import GradientLogger


@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize("adapted", [True, False], ids=["learner", "frozen"])
def test_alignments_are_those_of_the_changed_gradient(examples, kernels, adapted):
    """Whichever was entered first, and at the lowest layer of a frozen model too: along v nothing is left."""
    model = small("llama", kernels)
    model = with_lora(model) if adapted else model.requires_grad_(requires_grad=False)
    vectors, found = random_directions((0, 2), HIDDEN), []
    batch = batched(model, examples, PAD)
    for step in (1, -1):
        logger = GradientLogger(model, {layer: each[None] / each.norm() for layer, each in vectors.items()})
        with ExitStack() as entered:
            for each in (project_gradient(model, vectors), logger)[::step]:
                entered.enter_context(each)
            logger.expect(batch, 1.0)
            completion_losses(model, batch).sum().backward()
        found.append(logger.read().alignment)
    assert torch.equal(*found)
    assert found[0].abs().max() < 1e-5
