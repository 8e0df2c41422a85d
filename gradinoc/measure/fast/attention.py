"""Causal attention of packed sequences, with a hand-written backward pass for the CPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from gradinoc.measure.fast.kernels import once

QUERIES = 128  # rows of attention scores at a time: what they take stays in a core's cache


class _CpuAttention(torch.autograd.Function):
    """Flash attention forward; backward as matrix products by blocks of queries, on a CPU faster than torch's own."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], scale: float) -> Any:
        ctx.groups, ctx.lengths, ctx.scale = q.shape[1] // k.shape[1], lengths, scale
        out, log_sums = _each_alone(q, *_for_each_query(q, k, v), lengths, scale)
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
        to_q = torch.empty_like(q)
        to_k, to_v = (torch.zeros_like(each, dtype=torch.float32) for each in (keys, values))  # summed over blocks
        begin, size = 0, q.shape[-1]
        for length in ctx.lengths:
            block = -(-length // -(-length // QUERIES))  # all of one size, nearly
            for start in range(begin, begin + length, block):
                at = slice(start, min(start + block, begin + length))
                before = slice(begin, at.stop)
                # Key head by key head: (kv, groups * block, head + 2)
                queries, back = (each[:, :, at].flatten(1, 2) for each in (asked, change))
                weights = torch.bmm(queries, keys[:, before].transpose(1, 2)).exp_()
                weights.view(*heads, at.stop - start, -1)[..., start - begin :].tril_()
                moved = torch.bmm(back, values[:, before].transpose(1, 2)).mul_(weights)
                found = torch.bmm(moved, keys[:, before, :size]).mul_(ctx.scale)
                to_q[0, :, at] = found.view(-1, at.stop - start, size)
                to_k[:, before] += torch.bmm(moved.transpose(1, 2), queries)
                to_v[:, before] += torch.bmm(weights.transpose(1, 2), back)
            begin += length
        return to_q, to_k[None, ..., :size].to(k.dtype), to_v[None, ..., :size].to(v.dtype), None, None


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


def _each_alone(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], scale: float) -> tuple[Tensor, Tensor]:
    """As `_flash`, causal, of sequences that lie one after the other."""
    out, sums, start = torch.empty_like(q), [], 0
    for length in lengths:
        part = slice(start, start := start + length)
        out[:, :, part], log_sum = _flash(q[:, :, part], k[:, :, part], v[:, :, part], True, scale)
        sums.append(log_sum)
    return out, torch.cat(sums, dim=1)


def _with_columns(rows: Tensor, subtracted: Tensor, heads: tuple[int, int]) -> Tensor:
    """`rows` `[heads, tokens, head]` by key head and group, with minus `subtracted` as two columns: it and its rest."""
    coarse = subtracted.to(rows.dtype)
    rest = (subtracted - coarse).to(rows.dtype)
    return torch.cat([rows, -coarse, -rest], dim=-1).view(*heads, rows.shape[1], -1)


def packed_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], scale: float) -> Tensor:
    """Causal attention of sequences that lie one after the other, `[1, heads, tokens, head]`.

    Args:
        q: queries `[1, heads, tokens, head]`.
        k: keys `[1, key_heads, tokens, head]`, whose number divides that of the queries'; `v` alike.
        lengths: tokens of each sequence.
        scale: what scores are multiplied by.
    """
    if q.device.type == "cpu":
        result: Tensor = _CpuAttention.apply(q, k, v, lengths, scale)  # type: ignore[no-untyped-call]
        return result
    attend = partial(
        nn.functional.scaled_dot_product_attention, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    parts = [each.split(list(lengths), dim=2) for each in (q, k, v)]
    return torch.cat([attend(*one) for one in zip(*parts, strict=True)], dim=2)


def shared_attention(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], below: Sequence[int], scale: float
) -> Tensor:
    """As `packed_attention`, of pieces that see what they go on from: causal attention along each branch of a tree.

    For forward passes alone. What a query sees in each piece is found apart, and weighed together by the sums of its
    exponentials, as flash attention does with blocks of keys.

    Args:
        q: queries `[1, heads, tokens, head]`; `k` and `v` as for `packed_attention`.
        lengths: tokens of each piece.
        below: how many of the tokens after each piece go on from it.
        scale: what scores are multiplied by.
    """
    pieces = _pieces(lengths, below)
    if q.device.type != "cpu":
        return _along_branches(q, k, v, pieces, scale)
    k, v = _for_each_query(q, k, v)
    out, sums = _each_alone(q, k, v, lengths, scale)
    out = out.float()  # until the end: each weighing would round it
    for piece, more in pieces:
        if more:
            rows = slice(piece.stop, piece.stop + more)
            found, log_sum = _flash(q[:, :, rows], k[:, :, piece], v[:, :, piece], False, scale)
            out[:, :, rows].lerp_(found.float(), torch.sigmoid(log_sum - sums[:, rows]))
            sums[:, rows] = torch.logaddexp(sums[:, rows], log_sum)
    return out.to(q.dtype)


def windowed_attention(
    q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], below: Sequence[int], scale: float, window: int
) -> Tensor:
    """As `packed_attention` (`below` empty) or `shared_attention`, where a token sees the last `window` ones alone.

    Itself among them. Where no branch is longer than that, nothing is different.
    """
    pieces = _pieces(lengths, below or [0] * len(lengths))
    if max(sum(each.stop - each.start for each in branch) for branch in _branches(pieces)) > window:
        return _along_branches(q, k, v, pieces, scale, window)
    return shared_attention(q, k, v, lengths, below, scale) if any(below) else packed_attention(q, k, v, lengths, scale)


def _pieces(lengths: Sequence[int], below: Sequence[int]) -> list[tuple[slice, int]]:
    """Where each piece lies, and how many tokens after it go on from it."""
    ends = accumulate(lengths)
    return [(slice(end - length, end), more) for end, length, more in zip(ends, lengths, below, strict=True)]


def _branches(pieces: Sequence[tuple[slice, int]]) -> Iterator[list[slice]]:
    """For each piece all pieces from the root to it."""
    above: list[tuple[slice, int]] = []  # and where what is below them ends
    for piece, more in pieces:
        above = [(each, end) for each, end in above if end > piece.start]
        above.append((piece, piece.stop + more))
        yield [each for each, _ in above]


def _along_branches(
    q: Tensor, k: Tensor, v: Tensor, pieces: Sequence[tuple[slice, int]], scale: float, window: int = sys.maxsize
) -> Tensor:
    """Piece by piece, with the keys of all that it goes on from put before its own."""
    parts = []
    for branch in _branches(pieces):
        piece = branch[-1]
        keys, values = (torch.cat([side[:, :, each] for each in branch], dim=2) for side in (k, v))
        new, all_ = piece.stop - piece.start, keys.shape[2]
        root = new == all_ <= window  # which flash attention knows how to mask
        seen = None if root else torch.ones(new, all_, dtype=torch.bool, device=q.device).tril(all_ - new)
        if seen is not None and all_ > window:
            seen = seen.triu(all_ - new - window + 1)
        options: dict[str, Any] = {"scale": scale, "enable_gqa": q.shape[1] != k.shape[1]}
        parts.append(
            nn.functional.scaled_dot_product_attention(
                q[:, :, piece], keys, values, attn_mask=seen, is_causal=root, **options
            )
        )
    return torch.cat(parts, dim=2)
