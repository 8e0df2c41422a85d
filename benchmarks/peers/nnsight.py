"""nnsight: one trace a batch, the gradient of each block's output read inside `with loss.backward()`."""

from __future__ import annotations

from typing import Any

import nnsight
import numpy as np
from nnsight.modeling.transformers import TransformersModel
from reading import Batch, Readings, Work, kept_logits, losses, read_work, torch_dtype
from serving import serve

held: dict[str, Any] = {}


def prepare(model: str, work: str, dtype: str, only: list[int] | None = None) -> None:
    """Load the model, frozen: without gradients of weights the backward pass is as short as it can be."""
    loaded = TransformersModel(model, task="text-generation", dtype=torch_dtype(dtype), dispatch=True)
    loaded.requires_grad_(False)
    held.update(work=read_work(work, only), model=loaded, layers=loaded.config.num_hidden_layers)


def gradients(batch: Batch) -> list[Any]:
    """Gradient of the summed losses with respect to each block's output."""
    model, count, found = held["model"], held["layers"], []
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


def read() -> Readings:
    """Alignments of every example."""
    work: Work = held["work"]
    readings = Readings(work)
    for batch in work.batches():
        readings.take(batch, gradients(batch))
    return readings


def check(path: str) -> None:
    """Write the alignments to the file `path`."""
    np.save(path, read().alignments)


def repeat() -> None:
    """Do the work once."""
    read()


if __name__ == "__main__":
    serve({"prepare": prepare, "check": check, "repeat": repeat})
