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

from gradinoc.measure.fast.kernels import lora_linear
from gradinoc.measure.fast.packed import is_fused
from gradinoc.measure.fast.recurrent import recurrence_of

Each = TypeVar("Each")


def adapters_in_one_pass(model: nn.Module, adapters: Sequence[Each]) -> list[list[Each]]:
    """Adapters in groups that one pass through `model` takes: all together where they can be stacked."""
    return [list(adapters)] if is_fused(model) else [[each] for each in adapters]


class Parts:
    """How many tokens of a packed batch are for each of a model's active adapters; set before each pass.

    Attributes:
        sizes: one number an adapter; of no account where there is one.
    """

    sizes: tuple[int, ...] = ()


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
        names, base = layer.active_adapters, layer.base_layer
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
