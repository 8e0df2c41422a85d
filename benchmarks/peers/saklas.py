"""saklas: the capture that its fits run on (`compute_manifold_node_stats`), given the prompts' own tokens.

It batches both sides together by length, pools inside its hooks, and leaves the forward pass after the last block. Its
`session.extract` pools answers, not prompts; the prepared rows tell it to pool each prompt's last token.
"""

from __future__ import annotations

import torch
from contrast import Extract, Texts, serve_directions
from saklas.core.manifold import compute_manifold_node_stats
from transformers import AutoModelForCausalLM, AutoTokenizer


def load(folder: str, dtype: torch.dtype, texts: Texts) -> Extract:
    """Mean under the promoting prompt minus mean under the suppressing one."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval().requires_grad_(False)
    tokenizer, sides = AutoTokenizer.from_pretrained(folder), [texts["promote"], texts["suppress"]]

    def extract() -> torch.Tensor:
        tokens = tokenizer([*sides[0], *sides[1]], add_special_tokens=False)["input_ids"]
        rows = [(torch.tensor([ids]), len(ids) - 1) for ids in tokens]
        means, _ = compute_manifold_node_stats(
            model, tokenizer, model.model.layers, torch.device("cpu"),
            [("promote", sides[0]), ("suppress", sides[1])], [""], roles=[None, None], prepared_rows=rows,
        )  # fmt: skip
        return torch.stack([means[layer][0] - means[layer][1] for layer in sorted(means)])

    return extract


if __name__ == "__main__":
    serve_directions(load)
