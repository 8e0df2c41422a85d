"""Captum: the gradients of every layer from one `LayerGradientXActivation` call a batch, without the activation."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from captum.attr import LayerGradientXActivation
from reading import Batch, Gradients, kept_logits, losses, serve_gradients
from transformers import AutoModelForCausalLM


def load(folder: str, dtype: torch.dtype) -> Callable[[Batch], Gradients]:
    """The model frozen: captum makes the layers' outputs require a gradient by itself."""
    # It says of each call that token ids have none.
    warnings.filterwarnings("ignore", message=".*Gradients cannot be activated.*")
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().requires_grad_(False)

    def loss(ids: torch.Tensor, batch: Batch) -> torch.Tensor:
        logits = model(ids, attention_mask=batch.mask, use_cache=False, logits_to_keep=kept_logits(batch)).logits
        return losses(logits, batch)

    # Memory-efficient off: nothing to offload from a CPU.
    layers = LayerGradientXActivation(loss, list(model.model.layers), multiply_by_inputs=False)
    return lambda batch: layers.attribute(batch.ids, additional_forward_args=(batch,))


if __name__ == "__main__":
    serve_gradients(load)
