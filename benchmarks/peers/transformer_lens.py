"""TransformerLens: `TransformerBridge` on the model as it is, with backward hooks on each block's `hook_out`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from reading import Batch, Readings, Work, kept_logits, losses, read_work, torch_dtype
from serving import serve
from transformer_lens.model_bridge import TransformerBridge

held: dict[str, Any] = {}


def prepare(model: str, work: str, dtype: str, only: list[int] | None = None) -> None:
    """Load the model, frozen, without its compatibility mode: no weights folded, none of its slower paths."""
    bridge = TransformerBridge.boot_transformers(model, device="cpu", dtype=torch_dtype(dtype))
    bridge.eval().requires_grad_(False)
    held.update(work=read_work(work, only), model=bridge, layers=bridge.cfg.n_layers)


def gradients(batch: Batch) -> dict[int, torch.Tensor]:
    """Gradient of the summed losses with respect to each block's output."""
    bridge, found = held["model"], {}

    def keep(layer: int) -> Any:
        def hook(gradient: torch.Tensor, hook: Any) -> None:  # noqa: ARG001 - the library calls it by this name
            found[layer] = gradient

        return hook

    # The frozen model's stream requires no gradient by itself.
    enter = ("blocks.0.hook_in", lambda stream, hook: stream.requires_grad_(True))  # noqa: ARG005 - as above
    leave = [(f"blocks.{layer}.hook_out", keep(layer)) for layer in range(held["layers"])]
    with bridge.hooks(fwd_hooks=[enter], bwd_hooks=leave):
        logits = bridge(
            batch.ids, attention_mask=batch.mask, return_type="logits", use_cache=False,
            logits_to_keep=kept_logits(batch),
        )  # fmt: skip
        losses(logits, batch).sum().backward()
    return found


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
