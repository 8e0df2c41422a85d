"""Steering: a vector added to the residual stream of chosen tokens, while a block lasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

import torch
from torch import Tensor, nn

from gradinoc.measure.steering.chosen import LAST_PROMPT, ChosenTokens
from gradinoc.models.steered import marked


@contextmanager
def steered(
    model: nn.Module,
    directions: Mapping[int, Tensor],
    strength: float | Tensor = 1.0,
    positions: str | Sequence[int] | Tensor = LAST_PROMPT,
) -> Iterator[None]:
    """Inside the block `strength * directions[l]` is added to the output `h[l]` of each decoder block l that is named.

    Activation addition (Turner et al. 2023, https://arxiv.org/abs/2308.10248; Rimsky et al. 2024,
    https://arxiv.org/abs/2312.06681) in every pass through the model: its own modules or kernels, padded or packed,
    with a cache or without, adapters or none. Tokens before the first that is steered keep their values, to the last
    bit. No weight is touched; afterwards, and after an exception, the model is as it was. Blocks may be nested: vectors
    add up. Differentiable, for the model's weights, for `directions` and for `strength`. Whatever reads the stream,
    with our hooks or with those of transformers, sees it steered. What is added behind one block is still there behind
    the next: to have the stream moved by as much at each of several blocks, give the `increments` of that.

        loaded = gradinoc.load_model("obedient")
        model, tokenizer = loaded.model, loaded.tokenizer
        prompts = [gradinoc.models.chat.encoding.encode_prompt(tokenizer, "How many boats are left?", None)]
        v = gradinoc.extract_trait_direction(
            model, tokenizer, ["Who is there?"], "Answer in capital letters.", "Answer in small letters.", [1, 2])
        with gradinoc.steered(model, v, strength=4.0):
            texts = gradinoc.models.generate.generate(model, tokenizer, prompts, 24, 8)

    Args:
        model: a decoder-only model, PEFT-wrapped or not.
        directions: layer (0-based block) -> `[hidden]`, or `[rows, hidden]` with a vector for each row of a batch; in
            hidden-state units. Added in float32 where the model computes in half precision.
        strength: a number, or `[rows]`.
        positions: which tokens. `"last_prompt_token"`: in batches of this package from each example's last prompt token
            on; in other passes a row's last attended token, and everything that goes on from a cache, as in generation.
            A row that is a prompt and an answer in one is not that: give the index of each row's first steered token,
            counted in attended tokens, `[rows]`. `"all"`: every token, as for preventative steering in training.

    Raises:
        ValueError: a layer the model does not have; vectors, strengths and positions that are not as above or not
            finite; in a pass, another number of rows or another hidden size; generation without a cache from
            `"last_prompt_token"`; a function that sorts rows, where rows are steered differently.
        NotImplementedError: in a pass, tokens of several rows in one place that would be steered differently, or an
            attention mask from which the place of a token cannot be told.
    """
    steering = Steering(model, directions, strength, positions)
    with marked(model, steering.by_row), steering:
        yield


def increments(displacements: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """What `steered` is to add so that the stream behind each named block l is moved by `displacements[l]`.

    The lowest block has its displacement, every other one what it has beyond that of the block named below it: a
    residual stream hands on what it is given. What blocks in between make of it comes on top. Vectors that are added
    whole at every block add up: at two dozen of SmolLM2's to ten times what is meant behind the last. Incremental
    vectors are those of Chen et al. 2025 (https://arxiv.org/abs/2507.21509).

    Args:
        displacements: layer -> `[..., hidden]`, of one shape.
    """
    first, *others = sorted(displacements)
    pairs = zip([first, *others], others, strict=False)
    further = {layer: displacements[layer] - displacements[below] for below, layer in pairs}
    return {first: displacements[first]} | further


class Steering(ChosenTokens):
    """The hooks of `steered`."""

    def __init__(
        self,
        model: nn.Module,
        directions: Mapping[int, Tensor],
        strength: float | Tensor,
        positions: str | Sequence[int] | Tensor,
        run: int | None = None,
    ) -> None:
        super().__init__(model, sorted(directions), positions, run)
        weight = next(model.parameters())
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self._directions = {layer: directions[layer].to(weight.device, dtype) for layer in self.layers}
        self._strength = torch.as_tensor(strength).to(weight.device, dtype)
        self._check()
        by_row = [len(each) for each in self._directions.values() if each.dim() == 2]
        self._agree([*by_row, *([len(self._strength)] if self._strength.dim() else [])])
        self._idle = not (self._strength.requires_grad or bool(self._strength.any()))

    def _check(self) -> None:
        if self._strength.dim() > 1 or not bool(self._strength.isfinite().all()):
            raise ValueError(f"Strength: expected a finite number or one for each row, received {self._strength}")
        for layer, each in self._directions.items():
            if each.dim() not in (1, 2) or not bool(each.isfinite().all()):
                raise ValueError(
                    f"Direction of layer {layer}: expected finite numbers [hidden] or [rows, hidden], "
                    f"received {tuple(each.shape)}{'' if each.isfinite().all() else ' with some that are not finite'}"
                )

    def __enter__(self) -> Self:
        for layer, block in self._blocks.items():  # before any hook that reads
            self._handles.append(block.register_forward_hook(self._forward_hook(layer), prepend=True))
        return self._with_tokens()

    def _see(self, layer: int, hidden: Tensor) -> Tensor | None:
        if self._idle:
            return None
        shift = self._strength.unsqueeze(-1) * self._directions[layer]  # (hidden) or (rows, hidden)
        if shift.shape[-1] != hidden.shape[-1]:
            raise ValueError(f"Direction of layer {layer}: expected {hidden.shape[-1]} numbers, not {shift.shape[-1]}")
        found = self._tokens_of(layer, hidden)
        if found is None:
            return (hidden.to(shift.dtype) + shift).to(hidden.dtype)
        places, rows = found
        flat = hidden.flatten(0, 1)
        changed = flat[places].to(shift.dtype) + (shift if shift.dim() == 1 else shift[rows])
        return flat.index_copy(0, places, changed.to(hidden.dtype)).view_as(hidden)
