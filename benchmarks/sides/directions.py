"""Sides of the directions job that run in this project's environment: ours, brute force, and the bare products."""

from __future__ import annotations

import sys
from typing import Any

import torch
from contrast import Extract, Texts, serve_directions
from products import Products
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def load_ours(folder: str, dtype: torch.dtype, texts: Texts) -> Extract:
    """Our directions, of a model as a study loads it; rendering and tokenizing the questions is part of it."""
    from gradinoc import extract_trait_direction
    from gradinoc.measure.loading.load import load_model

    loaded = load_model(folder, device="cpu", dtype=str(dtype).removeprefix("torch."))
    layers = range(loaded.model.config.num_hidden_layers)

    def extract() -> torch.Tensor:
        sides = texts["promote_system"], texts["suppress_system"]
        found = extract_trait_direction(loaded.model, loaded.tokenizer, texts["questions"], *sides, layers)
        return torch.stack([found[layer] for layer in layers])

    return extract


def load_reference(folder: str, dtype: torch.dtype, texts: Texts) -> Extract:
    """The same, a rendered prompt at a time: no padding, no hooks of ours, means in float64."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def extract() -> torch.Tensor:
        means = []
        for side in ("promote", "suppress"):
            total = torch.tensor(0.0, dtype=torch.float64)
            for text in texts[side]:
                ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
                total = total + torch.stack(_last_states(model, ids)).double()
            means.append(total / len(texts[side]))
        return means[0] - means[1]

    return extract


def _last_states(model: Any, ids: torch.Tensor) -> list[torch.Tensor]:
    """Each block's output `[hidden]` at the last token."""
    states: list[torch.Tensor] = []
    blocks = model.model.layers
    handles = [block.register_forward_hook(lambda _b, _i, output: states.append(output[0, -1])) for block in blocks]
    model(ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return states


def load_floor(folder: str, dtype: torch.dtype, texts: Texts) -> Extract:
    """No directions: the blocks' matrix products over our batches, bare, of tokens that are held once."""
    from gradinoc.measure.directions.extraction import BATCH
    from gradinoc.measure.fast.packed.packing import share

    tokenizer, batches = AutoTokenizer.from_pretrained(folder), []
    for side in ("promote", "suppress"):
        rows = sorted(tuple(ids) for ids in tokenizer(texts[side], add_special_tokens=False)["input_ids"])
        batches += [share(rows[start : start + BATCH]).lengths for start in range(0, len(rows), BATCH)]
    products = Products(AutoConfig.from_pretrained(folder), max(map(sum, batches)), torch.device("cpu"), dtype=dtype)

    @torch.no_grad()
    def extract() -> None:
        for batch in batches:
            products.forward(batch)

    return extract


LOAD = {"ours": load_ours, "reference": load_reference, "floor": load_floor}

if __name__ == "__main__":
    serve_directions(LOAD[sys.argv[1]])
