"""steering-vectors: `train_steering_vector` with its mean aggregator, pairs of similar length in batches of 16."""

from __future__ import annotations

import torch
from contrast import Extract, Texts, serve_directions
from steering_vectors import train_steering_vector
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast


def load(folder: str, dtype: torch.dtype, texts: Texts) -> Extract:
    """Mean difference over pairs. The library's own transformers does not know the names by which the folder's newer
    one wrote the tokenizer's class and the base of the rotary embedding.
    """
    config = AutoConfig.from_pretrained(folder)
    config.rope_theta = config.rope_parameters["rope_theta"]
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=dtype).eval().requires_grad_(False)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    pairs = sorted(zip(texts["promote"], texts["suppress"], strict=True), key=lambda pair: len(pair[0]))

    def extract() -> torch.Tensor:
        layers = train_steering_vector(model, tokenizer, pairs, read_token_index=-1, batch_size=16).layer_activations
        return torch.stack([layers[layer] for layer in sorted(layers)])

    return extract


if __name__ == "__main__":
    serve_directions(load)
