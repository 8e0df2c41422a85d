"""What a decoder spends its time on, with hand-written backward passes: fewer passes over memory, the same numbers.

Each is the formula of the module that it replaces (see `gradinoc.measure.fast.fused`), in that module's dtype, with
reductions in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

CHUNK = 128  # rows of logits at a time: 128 x 49,152 in bfloat16 and float32 are 38 MB


def once(backward: Callable[..., Any]) -> Callable[..., Any]:
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
    @once
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
        ctx.save_for_backward(gate, up)
        return gated(gate, up)

    @staticmethod
    @once
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        gate, up = ctx.saved_tensors
        to_gate = torch.ops.aten.silu_backward(upstream[0] * up, gate)
        return to_gate, nn.functional.silu(gate).mul_(upstream[0])  # anew: kept, it would be a tenth of a step's memory


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """As `swiglu`, for where no gradient is wanted."""
    return nn.functional.silu(gate).mul_(up)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up` (Shazeer 2020, https://arxiv.org/abs/2002.05202).

    A linear map that it goes into (`lora_linear`) keeps these two, which are kept anyway, and makes it anew.
    """
    result: Tensor = _SwiGlu.apply(gate, up)  # type: ignore[no-untyped-call]
    vars(result)["made_of"] = (gate.detach(), up.detach())
    return result


def made_of(x: Tensor) -> tuple[Tensor, ...]:
    """Gate and up where `x` is what `swiglu` made of them; nothing where it is another tensor."""
    found: tuple[Tensor, ...] = getattr(x, "made_of", ())
    return found


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    width, half = cos.shape[-1], cos.shape[-1] // 2
    turned = x[..., :width] * cos
    turned[..., :half].addcmul_(x[..., half:width], sin[..., :half], value=-1)
    turned[..., half:].addcmul_(x[..., :half], sin[..., half:])
    turned = turned.to(x.dtype)
    return turned if width == x.shape[-1] else torch.cat([turned, x[..., width:]], dim=-1)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Any:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    @once
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        cos, sin = ctx.saved_tensors
        # The halves of cos and of sin are alike, so that turning back is turning by the opposite angle.
        return _turned(upstream[0], cos, -sin), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    result: Tensor = _Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return result


def rotate(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
    """Queries and keys `[batch, heads, seq, head]`, turned by their positions (Su et al. 2021, RoPE; halves layout).

    Where `cos` and `sin` are narrower than a head, so is what is turned, at its front (GPT-NeoX, Nemotron, Qwen3.5).
    Where they are float32 (OLMo 2), so is what is computed; what comes back has the dtype of what came.
    """
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    return _rotated(q, cos, sin), _rotated(k, cos, sin)


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, cap: float | None) -> Any:
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
            slope = None if cap is None else _capped(scores, cap)
            largest = scores.amax(-1, keepdim=True).float()
            chosen = scores.gather(-1, target).float()
            powers.copy_(scores).sub_(largest).exp_()
            total = powers.sum(-1, keepdim=True)
            losses[part] = (total.log() + largest - chosen).squeeze(-1)
            if gradient is not None:
                powers.scatter_add_(-1, target, -total)  # before anything is rounded: of a sure token little is left
                # Normalised after the product, which is narrower.
                scores.copy_(powers if slope is None else powers.mul_(slope))
                gradient[part] = (scores @ weight).float().div_(total).to(hidden.dtype)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    @once
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return (gradient * upstream[0].unsqueeze(-1)).to(gradient.dtype), None, None, None


def _capped(scores: Tensor, cap: float) -> Tensor:
    """Change `scores` to `cap tanh(scores / cap)`, in place; the slope of that, in the same dtype."""
    curved = scores.div_(cap).tanh_()
    slope = 1 - curved.square()
    scores.mul_(cap)
    return slope


def token_losses(hidden: Tensor, weight: Tensor, targets: Tensor, cap: float | None = None) -> Tensor:
    """Cross-entropy `[tokens]` float32, nats, of the logits `hidden weight'` with `targets`; `weight` is frozen.

    Logits exist for `CHUNK` tokens at a time, and their gradient is taken on the spot, so that neither is ever held
    for a whole batch (as in Liger Kernel, Hsu et al. 2024, https://arxiv.org/abs/2410.10989).

    Args:
        hidden: final hidden states `[tokens, hidden]`.
        weight: unembedding `[vocabulary, hidden]`, same dtype.
        targets: token ids `[tokens]`.
        cap: the largest size of a logit, approached as `cap tanh(logit / cap)` (Gemma 2); None for no such thing.
    """
    result: Tensor = _TokenLosses.apply(hidden, weight, targets, cap)  # type: ignore[no-untyped-call]
    return result
