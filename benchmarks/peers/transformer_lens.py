"""TransformerLens: `TransformerBridge` on the model as it is, with backward hooks on each block's `hook_out`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from reading import Batch, Gradients, kept_logits, losses, serve_gradients
from transformer_lens.model_bridge import TransformerBridge


def load(folder: str, dtype: torch.dtype) -> Callable[[Batch], Gradients]:
    """The model frozen, without its compatibility mode: no weights folded, none of its slower paths."""
    bridge = TransformerBridge.boot_transformers(folder, device="cpu", dtype=dtype)
    bridge.eval().requires_grad_(False)
    return partial(gradients, bridge)


def gradients(bridge: Any, batch: Batch) -> Gradients:
    """Gradient of the summed losses with respect to each block's output."""
    found: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(gradient: torch.Tensor, hook: Any) -> None:  # noqa: ARG001 - the library calls it by this name
            found[layer] = gradient

        return hook

    # The frozen model's stream requires no gradient by itself.
    enter = ("blocks.0.hook_in", lambda stream, hook: stream.requires_grad_(True))  # noqa: ARG005 - as above
    leave = [(f"blocks.{layer}.hook_out", keep(layer)) for layer in range(bridge.cfg.n_layers)]
    with bridge.hooks(fwd_hooks=[enter], bwd_hooks=leave):
        logits = bridge(
            batch.ids, attention_mask=batch.mask, return_type="logits", use_cache=False,
            logits_to_keep=kept_logits(batch),
        )  # fmt: skip
        losses(logits, batch).sum().backward()
    return found


if __name__ == "__main__":
    serve_gradients(load)
