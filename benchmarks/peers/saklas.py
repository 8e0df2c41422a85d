"""saklas: the capture that its fits run on (`compute_manifold_node_stats`), given the prompts' own tokens.

It batches both sides together by length, pools inside its hooks, and leaves the forward pass after the last block. Its
`session.extract` pools answers, not prompts; the prepared rows tell it to pool each prompt's last token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from reading import torch_dtype
from saklas.core.manifold import compute_manifold_node_stats
from serving import serve
from transformers import AutoModelForCausalLM, AutoTokenizer

held: dict[str, Any] = {}


def prepare(model: str, prompts: str, dtype: str) -> None:
    """Load the model and the rendered prompts."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch_dtype(dtype)).eval().requires_grad_(False)
    texts = json.loads(Path(prompts).read_text(encoding="utf-8"))
    held.update(model=loaded, tokenizer=AutoTokenizer.from_pretrained(model), texts=texts)


def extract() -> torch.Tensor:
    """Mean under the promoting prompt minus mean under the suppressing one, `[layers, hidden]`."""
    model, sides = held["model"], [held["texts"]["promote"], held["texts"]["suppress"]]
    tokens = held["tokenizer"]([*sides[0], *sides[1]], add_special_tokens=False)["input_ids"]
    rows = [(torch.tensor([ids]), len(ids) - 1) for ids in tokens]
    means, _ = compute_manifold_node_stats(
        model, held["tokenizer"], model.model.layers, torch.device("cpu"),
        [("promote", sides[0]), ("suppress", sides[1])], [""], roles=[None, None], prepared_rows=rows,
    )  # fmt: skip
    return torch.stack([means[layer][0] - means[layer][1] for layer in sorted(means)])


def check(path: str) -> None:
    """Write the directions to the file `path`."""
    np.save(path, extract().float().numpy())


def repeat() -> None:
    """Do the work once."""
    extract()


if __name__ == "__main__":
    serve({"prepare": prepare, "check": check, "repeat": repeat})
