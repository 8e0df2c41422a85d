"""Steering: a vector added to the residual stream of chosen tokens, while a block lasts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from gradinoc.measure.passes.hooks import BlockHooks
from gradinoc.measure.passes.rows import Ends, announced
from gradinoc.models.blocks import decoder_of
from gradinoc.models.steered import marked

LAST_PROMPT, ALL = "last_prompt_token", "all"
CACHES = ("past_key_values", "cache_params", "state", "mems")  # arguments in which a pass is given what came before

Tokens = tuple[Tensor, Tensor]  # indices of the tokens that are steered, of all rows in a row, and of their rows


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
    with our hooks or with those of transformers, sees it steered.

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


class Steering(BlockHooks):
    """The hooks of `steered`.

    Attributes:
        by_row: whether rows have vectors, strengths or places of their own.
    """

    def __init__(
        self,
        model: nn.Module,
        directions: Mapping[int, Tensor],
        strength: float | Tensor,
        positions: str | Sequence[int] | Tensor,
    ) -> None:
        super().__init__(model, sorted(directions))
        weight = next(model.parameters())
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self._directions = {layer: directions[layer].to(weight.device, dtype) for layer in self.layers}
        self._strength = torch.as_tensor(strength).to(weight.device, dtype)
        self._first = None if isinstance(positions, str) else torch.as_tensor(positions).to(weight.device)
        self._everywhere = self._first is None and positions == ALL
        if self._first is None and positions not in (LAST_PROMPT, ALL):
            raise ValueError(f"Positions {positions!r}: expected {LAST_PROMPT!r}, {ALL!r} or an index for each row")
        self._rows = self._agreed()
        self.by_row = self._rows is not None
        self._idle = not (self._strength.requires_grad or bool(self._strength.any()))
        self._tokens: Tokens | None = None
        self._held = 0  # tokens of this pass
        self._before: Tensor | None = None  # the token ids of the last pass without a cache

    def _agreed(self) -> int | None:
        """For how many rows there are vectors, strengths and positions; None where all rows are alike."""
        first = self._first
        if first is not None and (first.dim() != 1 or first.is_floating_point() or bool((first < 0).any())):
            raise ValueError(f"Positions: expected for each row an index from 0 on, received {first.tolist()}")
        if self._strength.dim() > 1 or not bool(self._strength.isfinite().all()):
            raise ValueError(f"Strength: expected a finite number or one for each row, received {self._strength}")
        for layer, each in self._directions.items():
            if each.dim() not in (1, 2) or not bool(each.isfinite().all()):
                raise ValueError(
                    f"Direction of layer {layer}: expected finite numbers [hidden] or [rows, hidden], "
                    f"received {tuple(each.shape)}{'' if each.isfinite().all() else ' with some that are not finite'}"
                )
        by_row = [len(each) for each in self._directions.values() if each.dim() == 2]
        by_row += [len(each) for each in (self._strength, first) if each is not None and each.dim() == 1]
        if len(set(by_row)) > 1:
            raise ValueError(f"Directions, strength and positions are for {by_row} rows: expected one number of rows")
        return by_row[0] if by_row else None

    def __enter__(self) -> Self:
        for layer, block in self._blocks.items():  # before any hook that reads
            self._handles.append(block.register_forward_hook(self._forward_hook(layer), prepend=True))
        if self.by_row or not self._everywhere:
            self._handles.append(decoder_of(self.model).register_forward_pre_hook(self._begin, with_kwargs=True))
        return self

    def _see(self, layer: int, hidden: Tensor) -> Tensor | None:
        if self._idle:
            return None
        shift = self._strength.unsqueeze(-1) * self._directions[layer]  # (hidden) or (rows, hidden)
        if shift.shape[-1] != hidden.shape[-1]:
            raise ValueError(f"Direction of layer {layer}: expected {hidden.shape[-1]} numbers, not {shift.shape[-1]}")
        if self._everywhere and not self.by_row:
            return (hidden.to(shift.dtype) + shift).to(hidden.dtype)
        flat = hidden.flatten(0, 1)
        if self._tokens is None or len(flat) != self._held:
            raise NotImplementedError(
                f"Block {layer} was given {len(flat)} tokens in a pass of {self._held}: which of them are steered is "
                "not known; expected passes through the whole model, that keep all tokens"
            )
        places, rows = self._tokens
        changed = flat[places].to(shift.dtype) + (shift if shift.dim() == 1 else shift[rows])
        return flat.index_copy(0, places, changed.to(hidden.dtype)).view_as(hidden)

    def _begin(self, decoder: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Find the tokens that this pass steers, from what the decoder is given."""
        given = {**dict(zip(inspect.signature(decoder.forward).parameters, arguments, strict=False)), **named}
        ids = given["inputs_embeds"] if given.get("input_ids") is None else given["input_ids"]
        self._held, ends = ids.shape[0] * ids.shape[1], announced.get()
        if given.get("layout") is not None:
            if ends is None:
                raise NotImplementedError("Packed tokens of a steered model: expected a pass that names their rows")
            self._tokens = self._packed(ends(), ids.shape[1])
        elif ends is not None and not self._everywhere and self._first is None:
            known = ends()
            self._check_rows(len(known.last_prompt))
            self._tokens = known.places, known.rows
        else:
            self._tokens = self._padded(ids, given)

    def _check_rows(self, found: int) -> None:
        if self._rows not in (None, found):
            raise ValueError(f"Steering is for {self._rows} rows: the pass has {found}")

    def _packed(self, ends: Ends, tokens: int) -> Tokens:
        if self._everywhere:  # run by run, where there are several
            if self._rows != len(ends.parts):
                raise NotImplementedError(
                    f"Every token steered by row, in rows that share beginnings: expected a vector for each of the "
                    f"{len(ends.parts)} runs packed here, received {self._rows}; or steer from the last prompt token on"
                )
            every = torch.arange(tokens, device=ends.places.device)
            parts = torch.tensor(ends.parts, device=every.device)
            return every, torch.arange(len(parts), device=every.device).repeat_interleave(parts)
        self._check_rows(len(ends.last_prompt))
        if self._first is None:
            return ends.places, ends.rows
        if bool((self._first < ends.last_prompt).any()):
            raise NotImplementedError("Steering from before the last prompt token on: rows share these tokens here")
        kept = ends.positions >= self._first[ends.rows]
        return ends.places[kept], ends.rows[kept]

    def _padded(self, ids: Tensor, given: Mapping[str, Any]) -> Tokens:
        rows, tokens = ids.shape[:2]
        self._check_rows(rows)
        if self._everywhere or (self._first is None and self._goes_on(ids, given)):
            chosen = torch.ones(rows, tokens, dtype=torch.bool, device=ids.device)
        else:
            index, attended = _attended(ids, given)
            first = index[:, -1] if self._first is None else self._first
            chosen = (index >= first[:, None]) & attended
        return chosen.flatten().nonzero().flatten(), chosen.nonzero()[:, 0]

    def _goes_on(self, ids: Tensor, given: Mapping[str, Any]) -> bool:
        """Whether this pass goes on from a cache.

        Raises:
            ValueError: it goes on from the pass before without one: where the prompt ended is not to be seen.
        """
        if _seen(ids, given) != 0:
            return True
        before, self._before = self._before, ids.detach()
        if before is not None and before.shape[:2] == (len(ids), ids.shape[1] - 1) and before.equal(ids[:, :-1]):
            raise ValueError(
                "Generation without a cache, steered from the last prompt token on: expected use_cache=True, or the "
                "index of each row's first steered token as `positions`"
            )
        return False


def _seen(ids: Tensor, given: Mapping[str, Any]) -> int | None:
    """How many columns came before those of this pass; None if some did, and how many is not known."""
    mask = given.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2:
        return mask.shape[1] - ids.shape[1]
    cache = next((given[name] for name in CACHES if given.get(name) is not None), None)
    if cache is None:
        return 0
    return int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else None


def _attended(ids: Tensor, given: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Each token's index among those of its row that are attended to, and whether it is, both `[rows, tokens]`."""
    rows, tokens = ids.shape[:2]
    mask, seen = given.get("attention_mask"), _seen(ids, given)
    if mask is None and seen is not None:
        index = torch.arange(seen, seen + tokens, device=ids.device).expand(rows, tokens)
        return index, torch.ones_like(index, dtype=torch.bool)
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        raise NotImplementedError(
            "Steering from a token on: expected an attention mask [rows, tokens], from which each token's place is read"
        )
    whole = mask.bool()
    return (whole.cumsum(-1) - 1)[:, -tokens:], whole[:, -tokens:]
