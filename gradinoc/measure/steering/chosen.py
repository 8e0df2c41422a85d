"""Hooks on decoder blocks that change the residual stream, or its gradient, at chosen tokens of every pass."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from gradinoc.measure.passes.hooks import BlockHooks
from gradinoc.measure.passes.rows import Ends, announced
from gradinoc.models.blocks import decoder_of

LAST_PROMPT, ALL = "last_prompt_token", "all"
CACHES = ("past_key_values", "cache_params", "state", "mems")  # arguments in which a pass is given what came before

Tokens = tuple[Tensor, Tensor]  # indices of the chosen tokens, of all rows in a row, and of their rows


class ChosenTokens(BlockHooks):
    """Hooks that know which tokens of a pass are meant: all of them, or those from each row's own place on.

    Attributes:
        by_row: whether rows have vectors, strengths or places of their own.

    Args:
        model: a decoder-only model, PEFT-wrapped or not.
        layers: 0-based decoder blocks.
        positions: as `gradinoc.steered` takes them.
        run: in batches in which the examples of several runs are packed run by run, the only one that is meant.

    Raises:
        ValueError: a layer the model does not have, or unknown positions.
    """

    def __init__(
        self, model: nn.Module, layers: Sequence[int], positions: str | Sequence[int] | Tensor, run: int | None = None
    ) -> None:
        super().__init__(model, layers)
        device = next(model.parameters()).device
        self._first = None if isinstance(positions, str) else torch.as_tensor(positions).to(device)
        self._everywhere = self._first is None and positions == ALL
        if self._first is None and positions not in (LAST_PROMPT, ALL):
            raise ValueError(f"Positions {positions!r}: expected {LAST_PROMPT!r}, {ALL!r} or an index for each row")
        first = self._first
        if first is not None and (first.dim() != 1 or first.is_floating_point() or bool((first < 0).any())):
            raise ValueError(f"Positions: expected for each row an index from 0 on, received {first.tolist()}")
        self._run, self._decoder = run, decoder_of(model)
        self._rows: int | None = None
        self.by_row = False
        self._agree([])
        self._tokens: Tokens | None = None
        self._held = 0  # tokens of this pass
        self._before: Tensor | None = None  # the token ids of the last pass without a cache

    def _agree(self, sizes: Sequence[int]) -> None:
        """Note for how many rows there are vectors, strengths (`sizes`) and positions.

        Raises:
            ValueError: for other numbers of rows than one.
        """
        by_row = [*sizes, *([] if self._first is None else [len(self._first)])]
        if len(set(by_row)) > 1:
            raise ValueError(f"Directions, strength and positions are for {by_row} rows: expected one number of rows")
        self._rows = by_row[0] if by_row else None
        self.by_row = bool(by_row)

    def _with_tokens(self) -> Self:
        """Look at what the decoder is given, if it takes that to know the chosen tokens."""
        if self.by_row or not self._everywhere or self._run is not None:
            self._handles.append(self._decoder.register_forward_pre_hook(self._begin, with_kwargs=True))
        return self

    def _tokens_of(self, layer: int, hidden: Tensor) -> Tokens | None:
        """The chosen tokens of this pass; None for all of them, in which rows are alike.

        Raises:
            NotImplementedError: a block was given others than the decoder.
        """
        if self._everywhere and not self.by_row and self._run is None:
            return None
        found = hidden.shape[0] * hidden.shape[1]
        if self._tokens is None or found != self._held:
            raise NotImplementedError(
                f"Block {layer} was given {found} tokens in a pass of {self._held}: which of them are chosen is "
                "not known; expected passes through the whole model, that keep all tokens"
            )
        return self._tokens

    def _begin(self, decoder: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Find the chosen tokens of this pass, from what the decoder is given."""
        given = {**dict(zip(inspect.signature(decoder.forward).parameters, arguments, strict=False)), **named}
        ids = given["inputs_embeds"] if given.get("input_ids") is None else given["input_ids"]
        self._held, ends = ids.shape[0] * ids.shape[1], announced.get()
        if given.get("layout") is not None:
            if ends is None:
                raise NotImplementedError("Tokens chosen among packed ones: expected a pass that names their rows")
            known = ends()
            if self._run is None:
                self._tokens = self._packed(known, ids.shape[1])
            else:
                self._tokens = self._packed_run(known, self._run)
        elif ends is not None and not self._everywhere and self._first is None:
            known = ends()
            self._check_rows(len(known.last_prompt))
            self._tokens = known.places, known.rows
        else:
            self._tokens = self._padded(ids, given)

    def _check_rows(self, found: int) -> None:
        if self._rows not in (None, found):
            raise ValueError(f"Vectors and positions are for {self._rows} rows: the pass has {found}")

    def _packed(self, ends: Ends, tokens: int) -> Tokens:
        if self._everywhere:  # run by run, where there are several
            if self._rows != len(ends.parts):
                raise NotImplementedError(
                    f"Every token by row, in rows that share beginnings: expected a vector for each of the "
                    f"{len(ends.parts)} runs packed here, received {self._rows}; or choose tokens from the last of "
                    "the prompt on"
                )
            every = torch.arange(tokens, device=ends.places.device)
            parts = torch.tensor(ends.parts, device=every.device)
            return every, torch.arange(len(parts), device=every.device).repeat_interleave(parts)
        self._check_rows(len(ends.last_prompt))
        if self._first is None:
            return ends.places, ends.rows
        if bool((self._first < ends.last_prompt).any()):
            raise NotImplementedError("Tokens before the last prompt token: rows share these tokens here")
        kept = ends.positions >= self._first[ends.rows]
        return ends.places[kept], ends.rows[kept]

    def _packed_run(self, ends: Ends, run: int) -> Tokens:
        """Those of one of the runs whose examples are packed run by run; a run's are alike."""
        device, runs = ends.places.device, len(ends.parts)
        if not 0 <= run < runs or self.by_row:
            raise NotImplementedError(f"Run {run} of {runs} that are packed: expected one of them, its rows all alike")
        if self._everywhere:
            start = sum(ends.parts[:run])
            places = torch.arange(start, start + ends.parts[run], device=device)
            return places, torch.zeros_like(places)
        kept = ends.rows // (len(ends.last_prompt) // runs) == run
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
                "Generation without a cache, from the last prompt token on: expected use_cache=True, or the "
                "index of each row's first chosen token as `positions`"
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
            "Tokens from one on: expected an attention mask [rows, tokens], from which each token's place is read"
        )
    whole = mask.bool()
    return (whole.cumsum(-1) - 1)[:, -tokens:], whole[:, -tokens:]
