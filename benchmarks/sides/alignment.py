"""Sides of the alignment job that run in this project's environment: ours, brute force, one backward a direction."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import torch
from reading import Batch, Readings, Work, kept_logits, losses, read_work, torch_dtype
from serving import serve
from transformers import AutoModelForCausalLM

held: dict[str, Any] = {}


def prepare_ours(model: str, work: str, dtype: str, only: list[int] | None = None) -> None:
    """Load the model as a study does."""
    from gradinoc.measure.loading.load import load_model

    held.update(work=read_work(work, only), model=load_model(model, device="cpu", dtype=dtype).model)


def prepare_plain(model: str, work: str, dtype: str, only: list[int] | None = None) -> None:
    """Load the model as Hugging Face has it, frozen."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch_dtype(dtype)).eval().requires_grad_(False)
    held.update(work=read_work(work, only), model=loaded)


# --- ours


def measure(kept: int = 1) -> Any:
    """Alignments as a study measures them."""
    from gradinoc.measure.gradients.alignment import measure_alignments
    from gradinoc.models.chat.encoding import Encoded

    work: Work = held["work"]
    examples = [Encoded(tuple(ids), prompt) for ids, prompt in work.examples]
    return measure_alignments(held["model"], examples, dict(enumerate(work.directions)), work.pad, kept=kept)


def check_ours(path: str) -> None:
    """Write the alignments, NaN where a study keeps none: by example, the trait's at all positions, the others' at the
    primary one.
    """
    work: Work = held["work"]
    values = Readings(work).alignments
    measured = measure(kept=work.directions.shape[1])
    order = measured.table.sort_values(["position", "layer", "example"], kind="stable")
    from gradinoc.study.description import POSITIONS

    for place, position in enumerate(POSITIONS):
        rows = order.loc[order["position"] == position, "alignment"].to_numpy()
        values[place, :, :, 0] = rows.reshape(values.shape[1:3])
    values[0, :, :, 1:] = measured.by_example[..., 1:].numpy()
    np.save(path, values)


# --- brute force


def check_reference(path: str) -> None:
    """Write what autograd says, an example at a time: no padding, logits of every token, no hooks of ours."""
    work: Work = held["work"]
    readings = Readings(work)
    for batch in work.batches(1):
        loss, outputs = _graph(batch, all_logits=True)
        readings.take(batch, torch.autograd.grad(loss, outputs))
    np.save(path, readings.alignments)


def _graph(batch: Batch, all_logits: bool = False) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The batch's summed losses, and the output of each block that they depend on."""
    outputs: list[torch.Tensor] = []

    def note(_block: Any, _inputs: Any, output: torch.Tensor) -> None:
        outputs.append(output if output.requires_grad else output.requires_grad_())

    handles = [block.register_forward_hook(note) for block in held["model"].model.layers]
    try:
        kept = {} if all_logits else {"logits_to_keep": kept_logits(batch)}
        logits = held["model"](batch.ids, attention_mask=batch.mask, use_cache=False, **kept).logits
    finally:
        for handle in handles:
            handle.remove()
    return losses(logits, batch).sum(), outputs


# --- one backward a direction


def each_direction(only: int | None = None) -> tuple[Readings, float, float]:
    """Alignments from a backward pass for each direction, the forward pass shared by all; seconds of the forward
    passes, and of the backward passes together. `only` so many directions are read.
    """
    work: Work = held["work"]
    readings, forward, backward = Readings(work), 0.0, 0.0
    count = only or work.directions.shape[1]
    for batch in work.batches():
        began = time.perf_counter()
        loss, outputs = _graph(batch)
        between = time.perf_counter()
        for direction in range(count):
            gradients = torch.autograd.grad(loss, outputs, retain_graph=True)
            readings.take(batch, gradients, slice(direction, direction + 1))
        forward, backward = forward + between - began, backward + time.perf_counter() - between
    return readings, forward, backward


def check_each(path: str) -> None:
    """Write the alignments along the first two directions, NaN for the others."""
    np.save(path, each_direction(2)[0].alignments)


def repeat_each() -> float:
    """Seconds for all directions, of which one is timed: forward once, and as many backward passes as directions."""
    _, forward, backward = each_direction(1)
    return forward + backward * held["work"].directions.shape[1]


SIDES = {
    "ours": {"check": check_ours, "repeat": lambda: measure() and None},
    "reference": {"check": check_reference},
    "each_direction": {"check": check_each, "repeat": repeat_each},
}

if __name__ == "__main__":
    serve({"prepare": prepare_ours if sys.argv[1] == "ours" else prepare_plain, **SIDES[sys.argv[1]]})
