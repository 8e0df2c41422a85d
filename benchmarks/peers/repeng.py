"""repeng: its `batched_get_hiddens` in its default batches, texts of similar length together; mean difference, no PCA.

Hidden states come from `output_hidden_states=True`, whose last is taken after the model's final norm.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reading import torch_dtype
from repeng.extract import batched_get_hiddens
from serving import serve
from transformers import AutoModelForCausalLM, AutoTokenizer

held: dict[str, Any] = {}


def prepare(model: str, prompts: str, dtype: str) -> None:
    """Load the model and the rendered prompts, each with whether it promotes."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch_dtype(dtype)).eval().requires_grad_(False)
    texts = json.loads(Path(prompts).read_text(encoding="utf-8"))
    both = [(text, True) for text in texts["promote"]] + [(text, False) for text in texts["suppress"]]
    both.sort(key=lambda item: len(item[0]))
    held.update(model=loaded, tokenizer=AutoTokenizer.from_pretrained(model), texts=[text for text, _ in both])
    held["promotes"] = np.array([promotes for _, promotes in both])


def extract() -> np.ndarray:
    """Mean under the promoting prompt minus mean under the suppressing one, `[layers, hidden]`."""
    layers = list(range(held["model"].config.num_hidden_layers))
    with torch.inference_mode():
        states = batched_get_hiddens(held["model"], held["tokenizer"], held["texts"], layers, 32)
    promotes = held["promotes"]
    return np.stack([states[layer][promotes].mean(0) - states[layer][~promotes].mean(0) for layer in layers])


def check(path: str) -> None:
    """Write the directions to the file `path`."""
    np.save(path, extract())


def repeat() -> None:
    """Do the work once."""
    extract()


if __name__ == "__main__":
    serve({"prepare": prepare, "check": check, "repeat": repeat})
