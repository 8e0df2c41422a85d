"""Models of the shapes of the plan's, with random weights or with none at all."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3Config

# As in the models' own config.json.
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-0.6b": {
        "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": True,
        "max_position_embeddings": 40_960,
    },
    "qwen2.5-coder-0.5b": {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True,
        "max_position_embeddings": 32_768,
    },
    "qwen2.5-7b": {
        "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152_064, "tie_word_embeddings": False,
        "max_position_embeddings": 32_768,
    },
    # To try a script where there is no room for the others.
    "rehearsal": {
        "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 1_000, "tie_word_embeddings": True,
    },
}  # fmt: skip


def device() -> str:
    """Where models are put: "cuda" if there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def shaped_model(shape: str, dtype: torch.dtype, device: str, layers: int = 0) -> Any:
    """A frozen model of a shape of `SHAPES` on `device` ("meta": shapes alone); with `layers`, of so many."""
    values = SHAPES[shape] | ({"num_hidden_layers": layers} if layers else {})
    config = (Qwen3Config if shape.startswith("qwen3") else Qwen2Config)(**values)
    with torch.device(device), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)
