"""Causal attention of packed sequences, with a hand-written backward pass for the CPU."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from gradinoc.measure.fast.kernels import once

MANY = 8  # pieces from which on a GPU takes them in one call, padded
QUERIES = 128  # rows of attention scores at a time: what they take stays in a core's cache


class Sight(NamedTuple):
    """Rows of queries, and the rows of keys that they see."""

    queries: slice
    keys: slice


@dataclass(frozen=True)
class Layout:
    """Who sees whom among sequences in one row: the pieces of a tree, each before those that go on from it.

    Attributes:
        own: each piece and itself, of which a token sees what is before it.
        above: pieces, and the rows that go on from them and see all of them.
        past: so many keys come first, that were computed before; no gradient is wanted of them.
    """

    own: tuple[Sight, ...]
    above: tuple[Sight, ...] = ()
    past: int = 0
    _padded: dict[tuple[int, torch.device], tuple[Tensor, ...]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, lengths: Sequence[int], below: Sequence[int] = ()) -> Layout:
        """Pieces of `lengths` tokens, from each of which the next `below` tokens go on; none do if that is empty."""
        ends = list(accumulate(lengths))
        pieces = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
        above = [
            Sight(slice(piece.stop, piece.stop + more), piece)
            for piece, more in zip(pieces, below or [0] * len(pieces), strict=True)
            if more
        ]
        return cls(tuple(Sight(piece, piece) for piece in pieces), tuple(above))

    @cached_property
    def branches(self) -> list[tuple[slice, list[slice]]]:
        """Each piece's queries, and all keys on the way to them, their own last."""
        ways = [
            [each.keys for each in self.above if each.queries.start <= queries.start < each.queries.stop]
            for queries, _ in self.own
        ]
        return [(queries, [*way, keys]) for (queries, keys), way in zip(self.own, ways, strict=True)]

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest branch."""
        return max(sum(int(each.stop - each.start) for each in way) for _, way in self.branches)

    def padded(self, window: int, device: torch.device) -> tuple[Tensor, ...]:
        """Rows of queries `[pieces, longest]` and of keys, which of these see which, and where each query then is.

        A query that is nothing but padding sees the first key.
        """
        if (window, device) not in self._padded:
            own, known = zip(*((_rows([at]), _rows(way)) for at, way in self.branches), strict=True)
            queries, keys = (pad_sequence(list(rows), batch_first=True) for rows in (own, known))
            mine, all_ = (torch.tensor([len(row) for row in rows])[:, None, None] for rows in (own, known))
            query, key = torch.arange(queries.shape[1])[:, None], torch.arange(keys.shape[1])
            place = query + all_ - mine  # of a query among the keys on its branch
            seen = (key <= place) & (key > place - window) & (key < all_) | (query >= mine) & (key == 0)
            rows = torch.cat([row - row[0] + piece * queries.shape[1] for piece, row in enumerate(own)])
            pinned = device.type == "cuda"  # only then does the host not wait
            self._padded[window, device] = tuple(
                (each.pin_memory() if pinned else each).to(device, non_blocking=pinned)
                for each in (queries, keys, seen[:, None], rows)
            )
        return self._padded[window, device]


def _rows(slices: Sequence[slice]) -> Tensor:
    return torch.cat([torch.arange(each.start, each.stop) for each in slices])


class _CpuAttention(torch.autograd.Function):
    """Flash attention forward; backward as matrix products by blocks of queries, on a CPU faster than torch's own.

    What a query sees in each piece is found apart, and weighed together by the sums of its exponentials, as flash
    attention does with blocks of keys.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> Any:
        ctx.groups, ctx.layout, ctx.scale = q.shape[1] // k.shape[1], layout, scale
        out, log_sums = _attended(q, *_for_each_query(q, k, v), layout, scale)
        ctx.save_for_backward(q, k, v, out, log_sums)
        return out

    @staticmethod
    @once
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        q, k, v, out, log_sums = ctx.saved_tensors
        heads, gradient = (k.shape[1], ctx.groups), upstream[0]
        shared = (gradient * out).sum(-1, keepdim=True, dtype=torch.float32)[0]
        k, log_sums = _centred(q, k, log_sums, ctx.scale)
        # Two columns more take what is subtracted into the product itself: scores - log_sum, and dscores - shared.
        asked, change = _with_columns(q[0] * ctx.scale, log_sums, heads), _with_columns(gradient[0], shared, heads)
        keys, values = (torch.cat([each[0], torch.ones_like(each[0, :, :, :2])], dim=-1) for each in (k, v))
        to_q = torch.zeros_like(q, dtype=torch.float32)  # all three are summed over blocks
        to_k, to_v = (torch.zeros_like(each, dtype=torch.float32) for each in (keys, values))
        for (rows, seen), causal in [
            *((each, True) for each in ctx.layout.own),
            *((e, False) for e in ctx.layout.above),
        ]:
            length = rows.stop - rows.start
            block = -(-length // -(-length // QUERIES))  # all of one size, nearly
            for start in range(rows.start, rows.stop, block):
                at = slice(start, min(start + block, rows.stop))
                before = slice(seen.start, seen.start + at.stop - rows.start) if causal else seen
                # Key head by key head: (kv, groups * block, head + 2)
                queries, back = (each[:, :, at].flatten(1, 2) for each in (asked, change))
                weights = torch.bmm(queries, keys[:, before].transpose(1, 2)).exp_()
                if causal:
                    weights.view(*heads, at.stop - start, -1)[..., start - rows.start :].tril_()
                moved = torch.bmm(back, values[:, before].transpose(1, 2)).mul_(weights)
                found = torch.bmm(moved, keys[:, before, : q.shape[-1]]).mul_(ctx.scale)
                to_q[0, :, at] += found.view(-1, at.stop - start, q.shape[-1])
                if before.start >= ctx.layout.past:
                    to_k[:, before] += torch.bmm(moved.transpose(1, 2), queries)
                    to_v[:, before] += torch.bmm(weights.transpose(1, 2), back)
        to_k, to_v = (each[None, ..., : q.shape[-1]].to(k.dtype) for each in (to_k, to_v))
        return to_q.to(q.dtype), to_k, to_v, None, None


def _centred(q: Tensor, k: Tensor, log_sums: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Keys less their mean, and the logarithms of sums that go with them.

    Changes of a query's scores sum to zero, so that what all keys have in common (Qwen2's biases are in the hundreds)
    changes nothing; but in half precision their rounding does not cancel. Centred, gradients at Qwen2.5-Coder-0.5B's
    embedding are 0.05 from float32's; otherwise 0.11; with torch's own attention 0.07.
    """
    mean = k.mean(2, keepdim=True, dtype=torch.float32).to(k.dtype)
    queries = q[0].unflatten(0, (k.shape[1], -1)).float()  # (kv, groups, tokens, head)
    common = (queries @ mean[0].float().mT.unsqueeze(1)).flatten(0, 1)
    return k - mean, log_sums - scale * common


def _for_each_query(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values with a head for each of the queries'."""
    groups = q.shape[1] // k.shape[1]
    return (k, v) if groups == 1 else (k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1))


def _flash(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Attention `[1, heads, tokens, head]`, and the logarithm of each query's sum `[heads, tokens, 1]` float32."""
    out, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
    return out, sums[0].unsqueeze(-1)


def _attended(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> tuple[Tensor, Tensor]:
    """As `_flash`, of pieces laid out so; as many keys and values as queries."""
    out, sums = torch.empty_like(q), []
    for rows, keys in layout.own:
        out[:, :, rows], log_sum = _flash(q[:, :, rows], k[:, :, keys], v[:, :, keys], True, scale)
        sums.append(log_sum)
    log_sums = torch.cat(sums, dim=1)
    if not layout.above:
        return out, log_sums
    out = out.float()  # until the end: each weighing would round it
    for rows, keys in layout.above:
        found, log_sum = _flash(q[:, :, rows], k[:, :, keys], v[:, :, keys], False, scale)
        out[:, :, rows].lerp_(found.float(), torch.sigmoid(log_sum - log_sums[:, rows]))
        log_sums[:, rows] = torch.logaddexp(log_sums[:, rows], log_sum)
    return out.to(q.dtype), log_sums


def _with_columns(rows: Tensor, subtracted: Tensor, heads: tuple[int, int]) -> Tensor:
    """`rows` `[heads, tokens, head]` by key head and group, with minus `subtracted` as two columns: it and its rest."""
    coarse = subtracted.to(rows.dtype)
    rest = (subtracted - coarse).to(rows.dtype)
    return torch.cat([rows, -coarse, -rest], dim=-1).view(*heads, rows.shape[1], -1)


def packed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: Layout,
    scale: float,
    window: int = sys.maxsize,
    cap: float | None = None,
) -> Tensor:
    """Attention of sequences in one row, `[1, heads, tokens, head]`: causal along each branch of a tree.

    Args:
        q: queries `[1, heads, tokens, head]`.
        k: keys `[1, key_heads, past + tokens, head]`, whose number of heads divides that of the queries'; `v` alike.
        layout: who sees whom.
        scale: what scores are multiplied by.
        window: how many of the last tokens, itself among them, a token sees.
        cap: the largest size of a score; see `capped_attention`.
    """
    plain = cap is None and window >= layout.longest and q.shape[-1] == v.shape[-1]
    if q.device.type == "cpu" and plain:
        result: Tensor = _CpuAttention.apply(q, k, v, layout, scale)  # type: ignore[no-untyped-call]
        return result
    if len(layout.own) > MANY:
        return _side_by_side(q, k, v, layout, scale, window, cap)
    return torch.cat([_along(q, k, v, *each, scale, window, cap) for each in layout.branches], dim=2)


def _along(
    q: Tensor, k: Tensor, v: Tensor, queries: slice, way: Sequence[slice], scale: float, window: int, cap: float | None
) -> Tensor:
    """Of one piece, with the keys of all that it goes on from put before its own."""
    keys, values = (torch.cat([side[:, :, each] for each in way], dim=2) for side in (k, v))
    new, all_ = queries.stop - queries.start, keys.shape[2]
    root = new == all_ <= window and cap is None  # which flash attention knows how to mask
    seen = None if root else torch.ones(new, all_, dtype=torch.bool, device=q.device).tril(all_ - new)
    if seen is not None and all_ > window:
        seen = seen.triu(all_ - new - window + 1)
    if cap is not None:
        return capped_attention(q[:, :, queries], keys, values, seen, scale, cap)
    return nn.functional.scaled_dot_product_attention(
        q[:, :, queries], keys, values, attn_mask=seen, is_causal=root, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


def capped_attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, scale: float, cap: float) -> Tensor:
    """Attention `[batch, heads, queries, head]` by scores `cap tanh(score / cap)` (Gemma 2), written out.

    Torch's own attention knows no such thing.

    Args:
        q: queries `[batch, heads, queries, head]`.
        k: keys `[batch, key_heads, keys, head]`, whose number of heads divides that of the queries'; `v` alike.
        seen: whether a query sees a key, `[..., queries, keys]`; None where each sees all.
        scale: what scores are multiplied by, before.
        cap: what they stay below.
    """
    k, v = _for_each_query(q, k, v)
    scores = cap * torch.tanh(q @ k.mT * (scale / cap))
    if seen is not None:
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)  # finite for padding, which sees nothing
    return scores.softmax(-1, dtype=torch.float32).to(q.dtype) @ v


def _side_by_side(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, window: int, cap: float | None = None
) -> Tensor:
    """All pieces in one call, padded to the longest: a GPU waits for the host where pieces are many and short."""
    queries, keys, seen, rows = layout.padded(window, q.device)
    q, k, v = (side[0][:, at].transpose(0, 1) for side, at in ((q, queries), (k, keys), (v, keys)))
    if cap is None:
        k, v = _for_each_query(q, k, v)  # with a mask no kernel knows groups
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale)
    else:
        out = capped_attention(q, k, v, seen, scale, cap)
    return out.transpose(0, 1).flatten(1, 2)[None, :, rows]
