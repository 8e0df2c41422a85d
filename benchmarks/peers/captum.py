"""Captum: the gradients of every layer from one `LayerGradientXActivation` call a batch, without the activation."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from captum.attr import LayerGradientXActivation
from reading import Batch, Readings, Work, kept_logits, losses, read_work, torch_dtype
from serving import serve
from transformers import AutoModelForCausalLM

held: dict[str, Any] = {}


def prepare(model: str, work: str, dtype: str, only: list[int] | None = None) -> None:
    """Load the model, frozen: captum makes the layers' outputs require a gradient by itself."""
    # It says of each call that token ids have none.
    warnings.filterwarnings("ignore", message=".*Gradients cannot be activated.*")
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch_dtype(dtype)).eval().requires_grad_(False)
    blocks = list(loaded.model.layers)
    # Memory-efficient off: nothing to offload from a CPU.
    layers = LayerGradientXActivation(_loss_of(loaded), blocks, multiply_by_inputs=False)
    held.update(work=read_work(work, only), layers=layers)


def _loss_of(model: Any) -> Any:
    def loss(ids: torch.Tensor, batch: Batch) -> torch.Tensor:
        logits = model(ids, attention_mask=batch.mask, use_cache=False, logits_to_keep=kept_logits(batch)).logits
        return losses(logits, batch)

    return loss


def read() -> Readings:
    """Alignments of every example."""
    work: Work = held["work"]
    readings = Readings(work)
    for batch in work.batches():
        readings.take(batch, held["layers"].attribute(batch.ids, additional_forward_args=(batch,)))
    return readings


def check(path: str) -> None:
    """Write the alignments to the file `path`."""
    np.save(path, read().alignments)


def repeat() -> None:
    """Do the work once."""
    read()


if __name__ == "__main__":
    serve({"prepare": prepare, "check": check, "repeat": repeat})
