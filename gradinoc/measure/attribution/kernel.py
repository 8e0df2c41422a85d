"""Which training prompt would move which behaviour, before anything is trained: inner products of gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from gradinoc.measure.attribution.slopes import inner, log_odds_slope, norm, slope_of
from gradinoc.measure.behaviour.decisions import Decision
from gradinoc.measure.fast import completion_losses
from gradinoc.measure.passes.batches import Batch
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.machine.isolation import undisturbed


@undisturbed()
def kernel_matrix(
    model: nn.Module,
    training: Mapping[str, Sequence[Encoded]],
    behaviours: Mapping[str, Sequence[Decision]],
    pad: int,
    batch_size: int = 8,
) -> pd.DataFrame:
    """How far a step of gradient descent under each training prompt would move each behaviour, to first order.

    `K[a, e] = <-gradient of the loss under a, gradient of S under e>` over the weights that take gradients: the neural
    tangent kernel between training and behaviour (Jacot et al. 2018, https://arxiv.org/abs/1806.07572), per unit of
    learning rate of plain SGD. At a fresh LoRA adapter (B = 0) gradients with respect to B are those of the full
    weights through a random projection, so that K is, but for a factor, an estimate of the full weights' kernel, the
    better the higher the rank.

    Args:
        model: with an adapter that takes gradients, fresh or not, or with weights of its own that do (`whole_weights`).
        training: prompt -> questions with trait-bearing answers under it.
        behaviours: evaluation prompt -> decisions under it.
        pad: id of the padding token.
        batch_size: examples at a time.

    Returns:
        A row a pair: `training`, `evaluation`, `kernel` (nats a unit of learning rate), `cosine`, and the norms
        `training_norm` and `evaluation_norm` of the two gradients: kernel = cosine x both norms.

    Raises:
        ValueError: no decision of a behaviour has a place.
        NumericalError: a number is not finite.
    """
    wanted = {
        name: log_odds_slope(model, decided, pad, batch_size, torch.float32).gradient
        for name, decided in behaviours.items()
    }
    lengths, rows = {name: norm(gradient) for name, gradient in wanted.items()}, []
    for prompt, examples in training.items():
        loss = slope_of(model, examples, _losses, pad, batch_size, dtype=torch.float32).gradient
        length = norm(loss)
        for evaluation, gradient in wanted.items():
            norms, found = (length, lengths[evaluation]), -inner(loss, gradient)
            cosine = found / (norms[0] * norms[1]) if all(norms) else float("nan")
            rows.append((prompt, evaluation, found, cosine, *norms))
    columns = ["training", "evaluation", "kernel", "cosine", "training_norm", "evaluation_norm"]
    return pd.DataFrame(rows, columns=columns)


def _losses(model: nn.Module, batch: Batch, _rows: Sequence[int]) -> Tensor:
    return completion_losses(model, batch)
