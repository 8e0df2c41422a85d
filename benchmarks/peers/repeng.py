"""repeng: its `batched_get_hiddens` in its default batches, texts of similar length together; mean difference, no PCA.

Hidden states come from `output_hidden_states=True`, whose last is taken after the model's final norm.
"""

from __future__ import annotations

import numpy as np
import torch
from contrast import Extract, Texts, serve_directions
from repeng.extract import batched_get_hiddens
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder: str, dtype: torch.dtype, texts: Texts) -> Extract:
    """Mean under the promoting prompt minus mean under the suppressing one."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().requires_grad_(False)
    tokenizer, layers = AutoTokenizer.from_pretrained(folder), list(range(model.config.num_hidden_layers))
    both = [(text, True) for text in texts["promote"]] + [(text, False) for text in texts["suppress"]]
    both.sort(key=lambda item: len(item[0]))
    inputs, promotes = [text for text, _ in both], np.array([promotes for _, promotes in both])

    def extract() -> np.ndarray:
        with torch.inference_mode():
            states = batched_get_hiddens(model, tokenizer, inputs, layers, 32)
        return np.stack([states[layer][promotes].mean(0) - states[layer][~promotes].mean(0) for layer in layers])

    return extract


if __name__ == "__main__":
    serve_directions(load)
