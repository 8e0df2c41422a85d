"""Adapters of a model as kernels: the one in training, or several at once on parts of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any, TypeVar

import torch
from peft.tuners.lora import Linear as LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from gradinoc.measure.fast.kernels import gated, made_of, once
from gradinoc.measure.fast.packed.forward import is_fused
from gradinoc.measure.fast.recurrent import recurrence_of

Each = TypeVar("Each")


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, base: tuple[Tensor, Tensor | None], scale: float, parts: Sequence[int], *factors: Tensor
    ) -> Any:
        weight, bias = base
        rows = x.reshape(-1, x.shape[-1])
        ctx.made_of = bool(source := made_of(x))
        small = [down.to(x.dtype) for down in factors[::2]]
        wide = [(up * scale).to(x.dtype) for up in factors[1::2]]
        result = nn.functional.linear(rows, weight, bias)
        inner = [part @ down.T for part, down in zip(rows.split(parts), small, strict=True)]  # (tokens, rank) each
        for part, low, up in zip(result.split(parts), inner, wide, strict=True):
            part.addmm_(low, up.T)
        ctx.save_for_backward(*(source or (rows, rows)), weight, *inner, *small, *wide)
        ctx.scale, ctx.parts = scale, parts
        return result.view(*x.shape[:-1], -1)

    @staticmethod
    @once
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        gate, up, weight, *rest = ctx.saved_tensors
        count, gradient = len(ctx.parts), upstream[0].reshape(-1, upstream[0].shape[-1])
        rows = gated(gate, up).reshape(len(gradient), -1) if ctx.made_of else gate
        inner, small, wide = rest[:count], rest[count : 2 * count], rest[2 * count :]
        to_input = gradient @ weight if ctx.needs_input_grad[0] else None
        to_factors: list[Tensor] = []
        for place, (back, part) in enumerate(zip(gradient.split(ctx.parts), rows.split(ctx.parts), strict=True)):
            through = back @ wide[place]  # (tokens, rank)
            if to_input is not None:
                to_input.split(ctx.parts)[place].addmm_(through, small[place])
            to_factors += [(through.T @ part).float(), (back.T @ inner[place]).float().mul_(ctx.scale)]
        return None if to_input is None else to_input.view(*upstream[0].shape[:-1], -1), None, None, None, *to_factors


class _EvenLoraLinear(torch.autograd.Function):
    """The same of parts with as many rows each, in one product for all where the other makes one for each."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, base: tuple[Tensor, Tensor | None], scale: float, count: int, *factors: Tensor
    ) -> Any:
        weight, bias = base
        rows = x.reshape(count, -1, x.shape[-1])
        ctx.made_of, ctx.count = bool(source := made_of(x)), count
        small = torch.stack(factors[::2]).to(x.dtype)  # (adapters, rank, in)
        wide = (torch.stack(factors[1::2]) * scale).to(x.dtype)  # (adapters, out, rank)
        result = nn.functional.linear(rows.flatten(0, 1), weight, bias).view(count, rows.shape[1], -1)
        inner = rows @ small.mT
        ctx.save_for_backward(*(source or (rows, rows)), weight, inner, small, wide)
        ctx.scale = scale
        return result.baddbmm_(inner, wide.mT).view(*x.shape[:-1], -1)

    @staticmethod
    @once
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        gate, up, weight, inner, small, wide = ctx.saved_tensors
        gradient = upstream[0].reshape(ctx.count, -1, upstream[0].shape[-1])
        rows = gated(gate, up).reshape(*gradient.shape[:2], -1) if ctx.made_of else gate
        through = gradient @ wide
        to_input = None
        if ctx.needs_input_grad[0]:
            to_input = (gradient.flatten(0, 1) @ weight).view_as(rows).baddbmm_(through, small)
            to_input = to_input.view(*upstream[0].shape[:-1], -1)
        downs = (through.mT @ rows).float()
        ups = (gradient.mT @ inner).float().mul_(ctx.scale)
        return to_input, None, None, None, *(each for pair in zip(downs, ups, strict=True) for each in pair)


Factors = tuple[Tensor, Tensor]  # A, `[rank, in]`, and B, `[out, rank]`


def lora_linear(
    x: Tensor, base: tuple[Tensor, Tensor | None], adapters: Sequence[Factors], scale: float, parts: Sequence[int] = ()
) -> Tensor:
    """`x W' + bias + scale (x A') B'`, `[..., out]`, of a frozen base and low-rank adapters (Hu et al. 2021).

    The adapters' weights are cast to the dtype of `x`, which is small work; the activations never are. Their gradients
    are float32.

    Args:
        x: `[..., in]`.
        base: the frozen weight `[out, in]` and bias `[out]` or None, in the dtype of `x`.
        adapters: A, `[rank, in]` float32, and B, `[out, rank]` float32, of each.
        scale: of all of them.
        parts: rows of `x` that each adapter is for, one after the other; all of them if there is one.

    Raises:
        ValueError: `x` has other rows than the parts, as in a block that sends only some of them here.
    """
    factors, found = [each for pair in adapters for each in pair], x.numel() // x.shape[-1]
    rows = [found] if len(adapters) == 1 else list(parts)
    if sum(rows) != found:
        raise ValueError(f"Adapters for parts of {rows} rows: expected {sum(rows)} in all, received {found}")
    if len(adapters) > 1 and len(set(rows)) == 1:
        result: Tensor = _EvenLoraLinear.apply(x, base, scale, len(rows), *factors)  # type: ignore[no-untyped-call]
    else:
        result = _LoraLinear.apply(x, base, scale, rows, *factors)  # type: ignore[no-untyped-call]
    return result


def adapters_in_one_pass(model: nn.Module, adapters: Sequence[Each]) -> list[list[Each]]:
    """Adapters in groups that one pass through `model` takes: all together where they can be stacked."""
    return [list(adapters)] if is_fused(model) else [[each] for each in adapters]


class Parts:
    """How many tokens of a packed batch are for each of a model's active adapters; set before each pass.

    Attributes:
        sizes: one number an adapter; of no account where there is one.
        only: the one adapter that a pass is through; None for all that are active.
    """

    sizes: tuple[int, ...] = ()
    only: str | None = None

    @contextmanager
    def through(self, adapter: str) -> Iterator[None]:
        """Inside the block passes are through this one of the active adapters."""
        before, self.only = self.only, adapter
        try:
            yield
        finally:
            self.only = before


@contextmanager
def fused_adapter(model: nn.Module) -> Iterator[Parts]:
    """Inside the block the active adapter of a fused, PEFT-wrapped model is computed by `lora_linear`.

    If several are active each is for its own part of a batch, see `Parts`.
    """
    parts = Parts()
    layers: list[Any] = [module for module in model.modules() if _is_plain_lora(module)] if is_fused(model) else []
    for layer in layers:
        layer.forward = MethodType(_adapted(parts), layer)
    try:
        yield parts
    finally:
        for layer in layers:
            del layer.forward


def takes_several(model: nn.Module) -> bool:
    """Whether several adapters of a PEFT-wrapped model can be trained in one pass, each as if it were alone.

    Not where modules are the model's own, where there are adapters that `lora_linear` does not know, where something
    drops out at random, or where a block puts a row's branches side by side (`recurrence_of`): its adapters see other
    rows than a batch has.
    """
    dropout = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    adapters = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    recurrent = any(recurrence_of(module) for module in model.modules())
    return is_fused(model) and not (dropout or recurrent) and all(map(_is_plain_lora, adapters))


def _is_plain_lora(module: nn.Module) -> bool:
    """Low-rank updates of an ordinary linear map, without dropout or variants of LoRA."""
    if not isinstance(module, LoraLayer) or not isinstance(module.base_layer, nn.Linear):
        return False
    return not _is_special(module)


def _is_special(layer: Any) -> bool:
    """Whether an adapter is more than two factors: a variant of LoRA, dropout, a bias of its own, merged weights."""
    biased = any(up.bias is not None for up in layer.lora_B.values())
    dropout = any(not isinstance(each, nn.Identity) for each in layer.lora_dropout.values())
    return bool(layer.lora_variant) or biased or dropout or layer.merged


def _adapted(parts: Parts) -> Any:
    def forward(layer: Any, x: Tensor) -> Tensor:
        if layer.disable_adapters:
            return torch.as_tensor(layer.base_layer(x))
        names, base = [parts.only] if parts.only else layer.active_adapters, layer.base_layer
        factors = [(layer.lora_A[name].weight, layer.lora_B[name].weight) for name in names]
        return lora_linear(x, (base.weight, base.bias), factors, layer.scaling[names[0]], parts.sizes)

    return forward


@contextmanager
def stacked_adapters(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Inside the block a batch is in as many equal parts as there are `names`, each seen through its own adapter.

    The adapters have one rank; there are no gradients. A name "" stands for no adapter at all.

    Raises:
        NotImplementedError: an adapter is more than two factors of a linear map.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    special = [type(layer).__name__ for layer in layers if not isinstance(layer, LoraLayer) or _is_special(layer)]
    if special:
        raise NotImplementedError(f"Stacked adapters of {sorted(set(special))}: expected plain low-rank updates")
    for layer in layers:
        layer.forward = MethodType(_stacked(layer, names), layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _stacked(layer: Any, names: Sequence[str]) -> Any:
    like = next(layer.base_layer.parameters())
    known = next(iter(layer.lora_A))
    down, up = (
        torch.stack([side[name or known].weight.T * (scale if name else 0.0) for name, scale in scales]).to(like.dtype)
        for side, scales in (
            (layer.lora_A, [(name, 1.0) for name in names]),
            (layer.lora_B, [(name, layer.scaling[name or known]) for name in names]),
        )
    )

    def forward(own: Any, x: Tensor) -> Tensor:
        result = own.base_layer(x)
        parts = x.reshape(len(names), -1, x.shape[-1])
        return torch.as_tensor(result.view(len(names), -1, result.shape[-1]).baddbmm_(parts @ down, up).view_as(result))

    return forward
