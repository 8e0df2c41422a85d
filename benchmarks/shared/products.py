"""The matrix products that no forward pass and no training step can avoid, bare: the floor of a job's times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Products:
    """Products of a decoder's blocks: preallocated, no autograd, nothing between them.

    Args:
        config: the model's.
        tokens: of the largest batch, without padding.
        rank: of LoRA's factors; 0 for a forward pass alone.
    """

    def __init__(
        self, config: Any, tokens: int, device: torch.device, rank: int = 0, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        hidden, inner, self.layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
        self.heads, self.hidden = config.num_attention_heads, hidden
        self._like = {"device": device, "dtype": dtype}
        # Qwen3's heads are wider than hidden / heads.
        self.size = getattr(config, "head_dim", None) or hidden // self.heads
        self.queries, kept = self.heads * self.size, config.num_key_value_heads * self.size
        self.shapes = [
            (hidden, self.queries), (hidden, kept), (hidden, kept), (self.queries, hidden),
            (hidden, inner), (hidden, inner), (inner, hidden),
        ]  # fmt: skip
        widths = {width for shape in self.shapes for width in shape} | ({rank} if rank else set())
        self.weights = [[self._random(out, into) for into, out in self.shapes] for _ in range(self.layers)]
        self.states = {width: self._random(tokens, width) for width in sorted(widths)}
        self.results = {width: self._random(tokens, width) for width in sorted(widths)}
        if rank:
            self.factors = [(self._random(rank, into), self._random(out, rank)) for into, out in self.shapes]
            self.head = self._random(config.vocab_size, hidden)

    def forward(self, lengths: Sequence[int]) -> None:
        """Those of a forward pass over examples of so many tokens: every linear map, and per example and head two for
        attention.
        """
        tokens = sum(lengths)
        for weights in self.weights:
            for weight in weights:
                self._onward(weight, tokens)
            for length in lengths:
                self._attend(length)

    def step(self, lengths: Sequence[int], labelled: int) -> None:
        """Those of a training step on such examples, `labelled` of whose tokens have a label.

        For every linear map, forward and the gradient of its input; for LoRA's two factors also the gradients of their
        weights; for attention two products forward and four backward; for labelled tokens the logits and the gradient
        of their hidden states.
        """
        tokens = sum(lengths)
        for weights in self.weights:
            for weight, factors in zip(weights, self.factors, strict=True):
                for each in (weight, *factors):
                    self._onward(each, tokens)
                    self._back(each, tokens)
                for factor in factors:
                    out, into = factor.shape
                    torch.mm(self.states[out][:tokens].T, self.states[into][:tokens])
            for length in lengths:
                self._attend_back(length, self._attend(length))
        logits = self.states[self.hidden][:labelled] @ self.head.T
        torch.mm(logits, self.head, out=self.results[self.hidden][:labelled])

    def _onward(self, weight: Tensor, tokens: int) -> None:
        out, into = weight.shape
        torch.mm(self.states[into][:tokens], weight.T, out=self.results[out][:tokens])

    def _back(self, weight: Tensor, tokens: int) -> None:
        out, into = weight.shape
        torch.mm(self.states[out][:tokens], weight, out=self.results[into][:tokens])

    def _heads(self, length: int) -> Tensor:
        return self.states[self.queries][:length].view(length, self.heads, self.size).transpose(0, 1)  # (H, n, d)

    def _attend(self, length: int) -> Tensor:
        queries = self._heads(length)
        scores = torch.bmm(queries, queries.transpose(1, 2))  # Q K^T
        torch.bmm(scores, queries)  # P V
        return scores

    def _attend_back(self, length: int, scores: Tensor) -> None:
        queries = self._heads(length)
        torch.bmm(scores.transpose(1, 2), queries)  # gradient of V
        torch.bmm(queries, queries.transpose(1, 2))  # gradient of P
        torch.bmm(scores, queries)  # gradient of Q
        torch.bmm(scores.transpose(1, 2), queries)  # gradient of K

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, **self._like)
