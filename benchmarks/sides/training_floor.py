"""The floor of a training step: its matrix products, bare, on the batches that the other sides train on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from products import Products
from reading import torch_dtype
from shapes import shaped_model
from stepping import MODEL, Task, serve_steps, task
from transformers import AutoConfig, AutoModelForCausalLM

from gradinoc.measure.training.order import data_order
from gradinoc.models.sources.locate import locate

held: dict[str, Any] = {}


def load(shape: str, dtype: str) -> Any:
    """A model without numbers: only its configuration is needed."""
    if shape:
        return shaped_model(shape, torch_dtype(dtype), "meta")
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(locate(MODEL)[0]))


@torch.no_grad()
def products_of(work: Task) -> Iterator[None]:
    """Step by step, the products of a batch."""
    settings = work.settings
    most = settings.batch_size * max(len(example.ids) for example in work.examples)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    products = Products(work.model.config, most, device, settings.lora_rank)
    order = data_order(len(work.examples), settings, 0)
    for start in range(0, len(order), settings.batch_size):
        batch = [work.examples[row] for row in order[start : start + settings.batch_size]]
        products.step([len(e.ids) for e in batch], sum(len(e.ids) - e.prompt_length for e in batch))
        yield


def repeat() -> None:
    """The products of the next batch."""
    if held.get("task") is not task():
        held.update(task=task(), steps=products_of(task()))
    next(held["steps"])
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    serve_steps(load, repeat)
