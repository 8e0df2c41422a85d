"""Sides of the directions job that run in this project's environment: ours, and brute force."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reading import torch_dtype
from serving import serve
from transformers import AutoModelForCausalLM, AutoTokenizer

held: dict[str, Any] = {}


def prepare_ours(model: str, prompts: str, dtype: str) -> None:
    """Load the model as a study does, the questions and their system prompts."""
    from gradinoc.models import load_model

    loaded = load_model(model, device="cpu", dtype=dtype)
    texts = json.loads(Path(prompts).read_text(encoding="utf-8"))
    held.update(model=loaded.model, tokenizer=loaded.tokenizer, texts=texts)


def prepare_plain(model: str, prompts: str, dtype: str) -> None:
    """Load the model as Hugging Face has it, and the rendered prompts."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch_dtype(dtype)).eval().requires_grad_(False)
    texts = json.loads(Path(prompts).read_text(encoding="utf-8"))
    held.update(model=loaded, tokenizer=AutoTokenizer.from_pretrained(model), texts=texts)


def extract() -> torch.Tensor:
    """Our directions, `[layers, hidden]`; rendering and tokenizing the questions is part of it."""
    from gradinoc import extract_trait_direction

    model, texts = held["model"], held["texts"]
    layers = range(model.config.num_hidden_layers)
    found = extract_trait_direction(
        model, held["tokenizer"], texts["questions"], texts["promote_system"], texts["suppress_system"], layers
    )
    return torch.stack([found[layer] for layer in layers])


@torch.no_grad()
def brute_force() -> torch.Tensor:
    """The same, a rendered prompt at a time: no padding, no hooks of ours, means in float64."""
    means = []
    for side in ("promote", "suppress"):
        total: Any = 0.0
        for text in held["texts"][side]:
            total = total + torch.stack(_last_states(text)).double()
        means.append(total / len(held["texts"][side]))
    return means[0] - means[1]


def _last_states(text: str) -> list[torch.Tensor]:
    """Each block's output `[hidden]` at the last token of `text`."""
    states: list[torch.Tensor] = []
    blocks = held["model"].model.layers
    handles = [block.register_forward_hook(lambda _b, _i, output: states.append(output[0, -1])) for block in blocks]
    held["model"](held["tokenizer"](text, return_tensors="pt", add_special_tokens=False)["input_ids"], use_cache=False)
    for handle in handles:
        handle.remove()
    return states


SIDES = {
    "ours": {"check": lambda path: np.save(path, extract().numpy()), "repeat": lambda: extract() is None or None},
    "reference": {"check": lambda path: np.save(path, brute_force().float().numpy())},
}

if __name__ == "__main__":
    serve({"prepare": prepare_ours if sys.argv[1] == "ours" else prepare_plain, **SIDES[sys.argv[1]]})
