"""What a decoder spends its time on, with hand-written backward passes: fewer passes over memory, the same numbers.

Each is the formula of the module that it stands in for (see `gradinoc.measure.fast.fused`), in that module's dtype,
with reductions in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, wraps
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

CHUNK = 128  # rows of logits at a time: 128 x 49,152 in bfloat16 and float32 are 38 MB
QUERIES = 128  # rows of attention scores at a time: what they take stays in a core's cache


def _once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass that cannot be differentiated itself, and says so.

    `once_differentiable` says so only where what comes from above depends on something: a penalty on the gradient of a
    sum of losses would silently be a constant.
    """

    @wraps(backward)
    def checked(ctx: Any, *upstream: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise NotImplementedError("Kernels are differentiated once; kernels='plain' allows create_graph=True")
        return backward(ctx, *upstream)

    return checked


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, base: tuple[Tensor, Tensor | None], down: Tensor, up: Tensor, scale: float) -> Any:
        weight, bias = base
        rows, small = x.reshape(-1, x.shape[-1]), down.to(x.dtype)
        wide = (up * scale).to(x.dtype)
        inner = rows @ small.T  # (tokens, rank)
        ctx.save_for_backward(rows, inner, weight, small, wide)
        ctx.scale = scale
        result = nn.functional.linear(rows, weight, bias).addmm_(inner, wide.T)
        return result.view(*x.shape[:-1], -1)

    @staticmethod
    @_once
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        rows, inner, weight, small, wide = ctx.saved_tensors
        gradient = upstream[0].reshape(-1, upstream[0].shape[-1])
        through = gradient @ wide  # (tokens, rank)
        to_input = None
        if ctx.needs_input_grad[0]:
            to_input = (gradient @ weight).addmm_(through, small).view(*upstream[0].shape[:-1], -1)
        return to_input, None, (through.T @ rows).float(), (gradient.T @ inner).float().mul_(ctx.scale), None


def lora_linear(x: Tensor, base: tuple[Tensor, Tensor | None], down: Tensor, up: Tensor, scale: float) -> Tensor:
    """`x W' + bias + scale (x A') B'`, `[..., out]`, of a frozen base and a low-rank adapter (Hu et al. 2021).

    The adapter's weights are cast to the dtype of `x`, which is small work; the activations never are. Their gradients
    are float32.

    Args:
        x: `[..., in]`.
        base: the frozen weight `[out, in]` and bias `[out]` or None, in the dtype of `x`.
        down: A, `[rank, in]` float32.
        up: B, `[out, rank]` float32.
    """
    result: Tensor = _LoraLinear.apply(x, base, down, up, scale)  # type: ignore[no-untyped-call]
    return result


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Any:
        exact = x.float() if x.dtype != torch.float32 else x.clone()
        length = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        inverse = torch.rsqrt(length.square_().div_(x.shape[-1]).add_(epsilon))
        unit = exact.mul_(inverse).to(x.dtype)
        ctx.save_for_backward(unit, inverse, weight)
        return unit * weight

    @staticmethod
    @_once
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        unit, inverse, weight = ctx.saved_tensors
        gradient = upstream[0] * weight
        shared = (gradient * unit).sum(-1, keepdim=True, dtype=torch.float32).div_(-unit.shape[-1])
        turned = gradient.addcmul_(unit, shared.to(unit.dtype))
        return turned.float().mul_(inverse).to(unit.dtype), None, None


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """`weight * x / sqrt(mean(x^2) + epsilon)` over the last dimension; `weight` is frozen.

    Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467.
    """
    result: Tensor = _RmsNorm.apply(x, weight, epsilon)  # type: ignore[no-untyped-call]
    return result


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Any:
        active = nn.functional.silu(gate)
        ctx.save_for_backward(gate, up, active)
        return active * up

    @staticmethod
    @_once
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        gate, up, active = ctx.saved_tensors
        to_gate = torch.ops.aten.silu_backward(upstream[0] * up, gate)
        return to_gate, upstream[0] * active


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up` (Shazeer 2020, https://arxiv.org/abs/2002.05202)."""
    result: Tensor = _SwiGlu.apply(gate, up)  # type: ignore[no-untyped-call]
    return result


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turned = x * cos
    turned[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    turned[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return turned.to(x.dtype)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Any:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    @_once
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        # The halves of cos and of sin are alike, so that turning back is turning by the opposite angle.
        return _turned(upstream[0], cos, -sin), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    result: Tensor = _Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return result


def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
    """Queries and keys `[batch, heads, seq, head]`, turned by their positions (Su et al. 2021, RoPE; halves layout).

    Where `cos` and `sin` are float32 (OLMo 2), so is what is computed; what comes back has the dtype of what came.
    """
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return _rotated(q, cos, sin), _rotated(k, cos, sin)


class _CpuAttention(torch.autograd.Function):
    """Flash attention forward; backward as matrix products by blocks of queries, on a CPU faster than torch's own."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], scale: float) -> Any:
        ctx.groups, ctx.lengths, ctx.scale = q.shape[1] // k.shape[1], lengths, scale
        out, log_sums = _each_alone(q, *_for_each_query(q, k, v), lengths, scale)
        ctx.save_for_backward(q, k, v, out, log_sums)
        return out

    @staticmethod
    @_once
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        q, k, v, out, log_sums = ctx.saved_tensors
        heads, gradient = (k.shape[1], ctx.groups), upstream[0]
        shared = (gradient * out).sum(-1, keepdim=True, dtype=torch.float32)[0]
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
    ends = list(accumulate(lengths))
    pieces = [(slice(end - length, end), more) for end, length, more in zip(ends, lengths, below, strict=True)]
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


def _along_branches(q: Tensor, k: Tensor, v: Tensor, pieces: Sequence[tuple[slice, int]], scale: float) -> Tensor:
    """Piece by piece, with the keys of all that it goes on from put before its own."""
    parts, above = [], list[tuple[slice, int]]()  # the pieces from the root to this one, and where what is below ends
    for piece, more in pieces:
        above = [(each, end) for each, end in above if end > piece.start]
        above.append((piece, piece.stop + more))
        keys, values = (torch.cat([side[:, :, each] for each, _ in above], dim=2) for side in (k, v))
        new, all_ = piece.stop - piece.start, keys.shape[2]
        root = new == all_  # which flash attention knows how to mask
        seen = None if root else torch.ones(new, all_, dtype=torch.bool, device=q.device).tril(all_ - new)
        options: dict[str, Any] = {"scale": scale, "enable_gqa": q.shape[1] != k.shape[1]}
        parts.append(
            nn.functional.scaled_dot_product_attention(
                q[:, :, piece], keys, values, attn_mask=seen, is_causal=root, **options
            )
        )
    return torch.cat(parts, dim=2)


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Any:
        wanted = ctx.needs_input_grad[0]
        losses = torch.empty(len(hidden), device=hidden.device)
        gradient = torch.empty_like(hidden) if wanted else None
        rows = min(CHUNK, len(hidden))
        # On a CPU torch's product of a few tokens is twice as fast with contiguous columns; the gradient's is slower.
        columns = hidden.device.type == "cpu" and not wanted
        logits, exact = (
            torch.empty(len(weight), rows, dtype=dtype, device=hidden.device).T
            if columns
            else torch.empty(rows, len(weight), dtype=dtype, device=hidden.device)
            for dtype in (hidden.dtype, torch.float32)
        )
        for start in range(0, len(hidden), CHUNK):
            part = slice(start, min(start + CHUNK, len(hidden)))
            scores, powers = logits[: part.stop - start], exact[: part.stop - start]
            target = targets[part, None]
            if columns:
                torch.mm(weight, hidden[part].T, out=scores.T)
            else:
                torch.mm(hidden[part], weight.T, out=scores)
            largest = scores.amax(-1, keepdim=True).float()
            chosen = scores.gather(-1, target).float()
            powers.copy_(scores).sub_(largest).exp_()
            total = powers.sum(-1, keepdim=True)
            losses[part] = (total.log() + largest - chosen).squeeze(-1)
            if gradient is not None:
                powers.scatter_add_(-1, target, -total)  # before anything is rounded: of a sure token little is left
                scores.copy_(powers)  # normalised after the product, which is narrower
                gradient[part] = (scores @ weight).float().div_(total).to(hidden.dtype)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @_once
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return (gradient * upstream[0].unsqueeze(-1)).to(gradient.dtype), None, None


def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy `[tokens]` float32, nats, of the logits `hidden weight'` with `targets`; `weight` is frozen.

    Logits exist for `CHUNK` tokens at a time, and their gradient is taken on the spot, so that neither is ever held
    for a whole batch (as in Liger Kernel, Hsu et al. 2024, https://arxiv.org/abs/2410.10989).

    Args:
        hidden: final hidden states `[tokens, hidden]`.
        weight: unembedding `[vocabulary, hidden]`, same dtype.
        targets: token ids `[tokens]`.
    """
    result: Tensor = _TokenLosses.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return result
