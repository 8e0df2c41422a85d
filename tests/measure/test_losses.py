"""The loss of an example is that of its completion alone, whatever it is batched with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fixtures.small_models import END, PAD
from gradinoc.measure.fast import completion_losses
from gradinoc.measure.gradients.alignment import answer_losses
from gradinoc.measure.passes.batches import collate
from gradinoc.models.chat.encoding import Encoded


def test_losses_equal_hugging_faces(either_model, examples):
    """Each example's loss in a padded batch is what the model itself says of it alone, given its labels."""
    losses = completion_losses(either_model, collate(examples, PAD))
    for example, loss in zip(examples, losses, strict=True):
        labels = [-100] * example.prompt_length + list(example.ids[example.prompt_length :])
        own = either_model(torch.tensor([example.ids]), labels=torch.tensor([labels])).loss
        assert float(loss) == pytest.approx(float(own), rel=1e-5)


def test_losses_ignore_neighbours_and_padding_tokens(frozen_model, examples):
    """Alone, in pairs or all together, padded with any token, in any order."""
    together = completion_losses(frozen_model, collate(examples, PAD)).numpy()
    for pad in (END, 17):
        np.testing.assert_allclose(completion_losses(frozen_model, collate(examples, pad)), together, rtol=1e-5)
    for batch_size in (1, 2, 3):
        np.testing.assert_allclose(answer_losses(frozen_model, examples, PAD, batch_size), together, rtol=1e-5)
    np.testing.assert_allclose(answer_losses(frozen_model, examples[::-1], PAD, 2)[::-1], together, rtol=1e-5)


def test_end_of_turn_counts_even_when_it_is_the_padding(llama, examples):
    """The closing token carries loss, the same tokens after it as padding carry none."""
    without = [Encoded(example.ids[:-1], example.prompt_length) for example in examples]
    closed = completion_losses(llama, collate(examples, END)).numpy()
    opened = completion_losses(llama, collate(without, END)).numpy()
    for example, more, less in zip(examples, closed, opened, strict=True):
        count = len(example.ids) - example.prompt_length
        logits = llama(torch.tensor([example.ids])).logits[0, -2]
        assert more * count - less * (count - 1) == pytest.approx(-float(logits.log_softmax(-1)[END]), rel=1e-4)
