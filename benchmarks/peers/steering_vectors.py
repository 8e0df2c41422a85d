"""steering-vectors: `train_steering_vector` with its mean aggregator, pairs of similar length in batches of 16."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reading import torch_dtype
from serving import serve
from steering_vectors import train_steering_vector
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

held: dict[str, Any] = {}


def prepare(model: str, prompts: str, dtype: str) -> None:
    """Load the model and the rendered prompts. The library's own transformers does not know the names by which the
    folder's newer one wrote the tokenizer's class and the base of the rotary embedding.
    """
    config = AutoConfig.from_pretrained(model)
    config.rope_theta = config.rope_parameters["rope_theta"]
    loaded = AutoModelForCausalLM.from_pretrained(model, config=config, dtype=torch_dtype(dtype))
    loaded.eval().requires_grad_(False)
    texts = json.loads(Path(prompts).read_text(encoding="utf-8"))
    pairs = sorted(zip(texts["promote"], texts["suppress"], strict=True), key=lambda pair: len(pair[0]))
    held.update(model=loaded, tokenizer=PreTrainedTokenizerFast.from_pretrained(model), pairs=pairs)


def extract() -> torch.Tensor:
    """Mean difference `[layers, hidden]`, in the library's units."""
    vector = train_steering_vector(held["model"], held["tokenizer"], held["pairs"], read_token_index=-1, batch_size=16)
    return torch.stack([vector.layer_activations[layer] for layer in sorted(vector.layer_activations)])


def check(path: str) -> None:
    """Write the directions to the file `path`."""
    np.save(path, extract().float().numpy())


def repeat() -> None:
    """Do the work once."""
    extract()


if __name__ == "__main__":
    serve({"prepare": prepare, "check": check, "repeat": repeat})
