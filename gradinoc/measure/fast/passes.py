"""Batches and forward passes as a model takes them: packed where its modules are fused, padded elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradinoc.measure.fast.attention import Layout
from gradinoc.measure.fast.packed.forward import Past, final_states, is_fused, unembedding
from gradinoc.measure.fast.packed.packing import Shared, pack, pack_ends, pack_shared, share
from gradinoc.measure.fast.plain import plain_logits, plain_losses
from gradinoc.measure.passes.batches import Batch, Row, collate, model_inputs, right_padded
from gradinoc.measure.passes.rows import Ends, announcing
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.steered import is_apart, is_steered, refuse_reordering


def sharing_order(model: nn.Module, sequences: Sequence[Sequence[int]]) -> list[int]:
    """Rows of `sequences` in an order in which neighbours share a batch well.

    By their tokens where what they begin with is computed once, by length elsewhere.

    Raises:
        ValueError: the model is steered row by row.
    """
    refuse_reordering(model)
    fused = is_fused(model)
    return sorted(range(len(sequences)), key=lambda row: list(sequences[row]) if fused else [len(sequences[row])])


def batched(model: nn.Module, examples: Sequence[Encoded], pad: int, runs: int = 1) -> Batch:
    """The examples as one batch on the model's device, for forward and backward passes.

    Of several `runs`, as many of each and run by run, see `takes_several`. Elsewhere than on a CPU, where one product
    for all takes no longer than a small one, their parts are made equally long.
    """
    device = next(model.parameters()).device
    if not is_fused(model):
        return collate(examples, pad).to(device)
    return pack(examples, runs, even=device.type != "cpu", shared=not is_apart(model)).to(device)


def frozen_batch(model: nn.Module, examples: Sequence[Encoded], pad: int) -> Batch:
    """As `batched`, for gradients with respect to hidden states alone, from each last prompt token on."""
    batch = pack_ends(examples) if is_fused(model) else collate(examples, pad)
    return batch.to(next(model.parameters()).device)


def scored_batch(model: nn.Module, examples: Sequence[Encoded], pad: int, copies: int = 1) -> Batch:
    """The examples, `copies` times over, as one batch on the model's device, for forward passes alone.

    Of a steered model they share nothing from their last prompt tokens on: what is steered there belongs to one row.
    """
    if not is_fused(model):
        batch = collate([*examples] * copies, pad)
    else:
        batch = pack([*examples] * copies, copies) if is_steered(model) else pack_shared(examples, copies)
    return batch.to(next(model.parameters()).device)


def completion_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Each example's loss `[batch]`: mean negative log-likelihood over its completion tokens, nats/token, float32.

    Logits are computed only where there is a token to predict. A packed batch needs a fused model.

    Raises:
        NotImplementedError: gradients of a batch that is for forward passes alone.
    """
    losses = token_losses(model, batch)
    sums = torch.zeros(len(batch), device=losses.device).index_add(0, batch.owner, losses)
    return sums / batch.counts


def token_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Negative log-likelihood of every completion token `[completions]`, nats, float32; see `completion_losses`."""
    with announcing(lambda: Ends.of(batch)):
        if batch.layout is None:
            return plain_losses(model, batch)
        states = _packed_states(model, batch, batch.layout)
        return unembedding(model).losses(states[batch.predicting], batch.targets)


def logits_of(model: nn.Module, batch: Batch, index: Tensor, tokens: Tensor) -> Tensor:
    """Logits `[places, some]` float32 of a few `tokens` `[places, some]`, predicted from the tokens at `index`.

    They are products of single rows of the head, in float32, where logits are nothing but that. `index` `[places]`
    counts as the batch's own. A packed batch needs a fused model.

    Raises:
        NotImplementedError: gradients of a batch that is for forward passes alone.
    """
    with announcing(lambda: Ends.of(batch)):
        if batch.layout is None:
            return plain_logits(model, batch, index, tokens)
        return unembedding(model).logits_of(_packed_states(model, batch, batch.layout)[index], tokens)


def _packed_states(model: nn.Module, batch: Batch, layout: Layout) -> Tensor:
    """Final states `[tokens, hidden]` of a packed batch."""
    if batch.forward_only and torch.is_grad_enabled():
        raise NotImplementedError("gradients of examples that share more than their prompts: pack them for gradients")
    past = batch.kept if batch.before is None else kept_past(model, batch, batch.before)
    return final_states(model, layout, past, input_ids=batch.input_ids, position_ids=batch.position_ids)


@torch.no_grad()
def kept_past(model: nn.Module, batch: Batch, before: Row) -> Past:
    """Keys and values of the row of tokens that come before those of a batch."""
    past = Past()
    with announcing(lambda: Ends.of(batch).before):
        final_states(model, before.layout, past, input_ids=before.input_ids, position_ids=before.position_ids)
    return past


@dataclass(frozen=True)
class Prompts:
    """Rows of tokens, padded on either side.

    Attributes:
        input_ids: `[batch, seq]`.
        attention_mask: 1 on tokens and 0 on padding, `[batch, seq]`.
        prompt_tokens: how many of a row's tokens are its prompt, `[batch]`; others may come after it.
    """

    input_ids: Tensor
    attention_mask: Tensor
    prompt_tokens: Tensor

    def ends(self, places: Sequence[Sequence[int]], copies: int) -> Ends:
        """The tokens from each row's last prompt token on, where all of the row's tokens are at `places`."""
        last = [tokens - 1 for tokens in self.prompt_tokens.tolist()] * copies
        found = [
            (place, row, index)
            for row, (whole, first) in enumerate(zip(places, last, strict=True))
            for index, place in enumerate(whole)
            if index >= first
        ]
        tokens, rows, positions = torch.tensor(found, device=self.input_ids.device).T
        return Ends(tokens, rows, positions, torch.tensor(last, device=tokens.device))


def prompt_pass(
    model: nn.Module, prompts: Prompts, index: Tensor, copies: int
) -> tuple[Callable[[], object], tuple[Any, Tensor]]:
    """A forward pass over rows of tokens, and where in its states `[batch, seq, hidden]` each row's token then is.

    Args:
        model: fused or not.
        prompts: the rows.
        index: column of the token wanted of each row, `[batch]`.
        copies: how often the rows are put, copy by copy.
    """
    make = _packed_pass if is_fused(model) else _padded_pass
    return make(model, prompts, index, copies)


def _packed_pass(
    model: nn.Module, prompts: Prompts, index: Tensor, copies: int
) -> tuple[Callable[[], object], tuple[Any, Tensor]]:
    """All rows in one, without padding, what they begin with computed once: up to the last prompt token if steered."""
    device, mask = prompts.input_ids.device, prompts.attention_mask
    rows = zip(prompts.input_ids.tolist(), mask.tolist(), strict=True)
    sequences = [tuple(id_ for id_, kept in zip(*row, strict=True) if kept) for row in rows]
    limits = [tokens - 1 for tokens in prompts.prompt_tokens.tolist()] if is_steered(model) else None
    shared = Shared.joined([share(sequences, limits)] * copies)
    row = shared.row
    inputs: dict[str, Any] = {"input_ids": row.input_ids.to(device), "position_ids": row.position_ids.to(device)}
    wanted = (index - mask.argmax(-1)).tolist() * copies
    flat = torch.tensor([place[token] for place, token in zip(shared.places, wanted, strict=True)], device=device)

    def forward() -> object:
        with announcing(lambda: prompts.ends(shared.places, copies)):
            return final_states(model, row.layout, **inputs)

    return forward, (0, flat)


def _padded_pass(
    model: nn.Module, prompts: Prompts, index: Tensor, copies: int
) -> tuple[Callable[[], object], tuple[Any, Tensor]]:
    input_ids, attention_mask, shift = right_padded(prompts.input_ids, prompts.attention_mask)
    inputs = model_inputs(input_ids.repeat(copies, 1), attention_mask.repeat(copies, 1))
    # By index: given a number of logits, Gemma 4 leaves the earlier tokens out of its upper blocks too.
    width = input_ids.shape[1]
    last = torch.tensor([width - 1], device=input_ids.device)
    rows = torch.arange(copies * len(input_ids), device=input_ids.device)

    def ends() -> Ends:
        lengths = attention_mask.sum(-1).tolist() * copies
        places = [range(width * row, width * row + tokens) for row, tokens in enumerate(lengths)]
        return prompts.ends(places, copies)

    def forward() -> object:
        with announcing(ends):
            return model(**inputs, logits_to_keep=last)

    return forward, (rows, (index - shift).repeat(copies))
