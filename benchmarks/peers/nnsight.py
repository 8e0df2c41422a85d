"""nnsight: one trace a batch, the gradient of each block's output read inside `with loss.backward()`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import nnsight
import torch
from nnsight.modeling.transformers import TransformersModel
from reading import Batch, Gradients, kept_logits, losses, serve_gradients


def load(folder: str, dtype: torch.dtype) -> Callable[[Batch], Gradients]:
    """The model frozen: without gradients of weights the backward pass is as short as it can be."""
    model = TransformersModel(folder, task="text-generation", dtype=dtype, dispatch=True)
    model.requires_grad_(False)
    return partial(gradients, model, model.config.num_hidden_layers)


def gradients(model: Any, count: int, batch: Batch) -> Gradients:
    """Gradient of the summed losses with respect to each block's output."""
    found: list[Any] = []
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask}
    with model.trace(inputs, use_cache=False, logits_to_keep=kept_logits(batch)):
        found = nnsight.save([])
        outputs = []
        for layer in range(count):
            output = model.model.layers[layer].output
            if layer == 0:
                output.requires_grad_(True)
            outputs.append(output)
        total = losses(model.output.logits, batch).sum()
        with total.backward():
            for layer in reversed(range(count)):
                found.append(outputs[layer].grad)
    return found[::-1]


if __name__ == "__main__":
    serve_gradients(load)
