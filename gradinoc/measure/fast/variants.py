"""Many passes over one example that differ from a block and token on: what they have in common is computed once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicLayer

from gradinoc.measure.fast.attention import Layout, Sight
from gradinoc.measure.fast.packed.forward import Past, final_states, is_fused
from gradinoc.measure.passes.batches import Batch, batch_at, collate, padded_inputs
from gradinoc.measure.passes.rows import Ends, announcing
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import Encoded

PAD = 0  # is masked: any token serves


class Common(NamedTuple):
    """What is computed once for all variants of an example.

    Attributes:
        beginning: whether the tokens before its last prompt token are.
        blocks: how many of the lowest blocks are, on the tokens from there on.
    """

    beginning: bool
    blocks: int


@torch.no_grad()
def variants(model: nn.Module, example: Encoded, count: int, common: Common) -> tuple[Batch, Any]:
    """The example `count` times, and what the last of the common blocks puts out, for `resumed` (None without any).

    With a common beginning the batch holds the tokens from the last prompt token on, behind keys and values of those
    before; in one row where the model is fused.

    Raises:
        NotImplementedError: there is no such beginning, the model keeps more than keys and values of it, or its blocks
            hand on more than hidden states. Not all that makes sharing wrong is found here: compare with `common` of
            (False, 0).
    """
    device = next(model.parameters()).device
    if not common.beginning:
        one, all_ = (collate([example] * rows, PAD) for rows in (1, count))
    elif example.prompt_length == 1:
        raise NotImplementedError("A prompt of a single token has nothing before it")
    elif is_fused(model):
        past = _past(model, example.prompt[:-1])
        one, all_ = (replace(_behind(example, rows), kept=past) for rows in (1, count))
    else:
        end, cache = Encoded(example.ids[example.prompt_length - 1 :], 1), _cache(model, example.prompt[:-1])
        one, all_ = (replace(collate([end] * rows, PAD), kept=cache) for rows in (1, count))
    one, all_ = one.to(device), all_.to(device)
    return all_, _repeated(_output(model, one, common.blocks - 1), count, int(one.packed)) if common.blocks else None


def _no_end(ids: Tensor) -> Ends:
    """Of a row that is all before its last prompt token."""
    nothing = torch.zeros(0, dtype=torch.long, device=ids.device)
    return Ends(nothing, nothing, nothing, torch.full((1,), ids.shape[1], device=ids.device))


def _past(model: nn.Module, tokens: list[int]) -> Past:
    past, ids = Past(), torch.tensor([tokens], device=next(model.parameters()).device)
    with announcing(lambda: _no_end(ids)):
        final_states(model, Layout.of([len(tokens)]), past, input_ids=ids)
    return past


def _behind(example: Encoded, count: int) -> Batch:
    """The example's end `count` times in one row, each of which sees itself and all that comes before."""
    end, past = Encoded(example.ids[example.prompt_length - 1 :], 1), example.prompt_length - 1
    size = len(end.ids)
    pieces = [slice(size * copy, size * (copy + 1)) for copy in range(count)]
    own = tuple(Sight(each, slice(each.start + past, each.stop + past)) for each in pieces)
    layout = Layout(own, (Sight(slice(0, size * count), slice(0, past)),), past)
    ids = torch.tensor([list(end.ids) * count])
    positions = torch.arange(past, past + size).repeat(count)[None]
    places = [range(each.start, each.stop) for each in pieces]
    return replace(batch_at([end] * count, places, ids, positions, torch.ones_like(ids)), layout=layout)


class _KeptLayer(DynamicLayer):
    """Keys and values of one row, seen by any number of rows, whose own are not kept."""

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values, self.is_initialized = layer.keys, layer.values, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Those of the row and of the tokens behind it, `[rows, heads, tokens, head]`."""
        sides: Any = ((self.keys, key_states), (self.values, value_states))
        key, value = (torch.cat([kept.expand(len(new), -1, -1, -1), new], dim=-2) for kept, new in sides)
        return key, value


def _cache(model: Any, tokens: list[int]) -> Cache:
    """What a model's own modules keep of a row of tokens."""
    ids = torch.tensor([tokens], device=next(model.parameters()).device)
    with announcing(lambda: _no_end(ids)):
        cache = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True).past_key_values
    layers = getattr(cache, "layers", [None])
    if any(type(layer) is not DynamicLayer for layer in layers):  # windows and states are another thing
        raise NotImplementedError("A cache of more than all tokens' keys and values")
    return Cache(layers=[_KeptLayer(layer) for layer in layers])


@contextmanager
def resumed(model: nn.Module, output: Any, blocks: int) -> Iterator[None]:
    """Inside the block the lowest `blocks` compute nothing: the last of them puts out `output`, of `variants`."""
    skipped: list[Any] = decoder_blocks(model)[:blocks]
    own = [vars(block).get("forward") for block in skipped]
    for block in skipped:
        block.forward = lambda *_given, **_named: output
    try:
        yield
    finally:
        for block, forward in zip(skipped, own, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward


class _Seen(Exception):  # noqa: N818 - no error: the block has been seen
    pass


def _output(model: nn.Module, batch: Batch, layer: int) -> Any:
    """What block `layer` itself puts out, before hooks."""
    held: list[Any] = []

    def keep(*call: Any) -> None:
        held.append(call[2])
        raise _Seen

    handle = decoder_blocks(model)[layer].register_forward_hook(keep, prepend=True)
    try:
        with announcing(lambda: Ends.of(batch)):
            if batch.layout is None:
                model(**padded_inputs(batch))
            else:
                inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids}
                final_states(model, batch.layout, batch.kept, **inputs)
    except _Seen:
        pass
    finally:
        handle.remove()
    return held[0]


def _repeated(output: Any, count: int, dim: int) -> Any:
    """A block's output with its hidden states `[batch, seq, hidden]` several times along a dimension."""
    if not isinstance(output, tuple | list):
        return torch.cat([output] * count, dim)
    if any(each is not None for each in output[1:]):
        raise NotImplementedError("Blocks that hand on more than hidden states")
    return type(output)((torch.cat([output[0]] * count, dim), *output[1:]))
