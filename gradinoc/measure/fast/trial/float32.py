"""A half-precision model computed in float32, without a float32 copy of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

PIECE = 2**23  # numbers of a matrix that are float32 at a time: 34 MB


class _Copies:
    """Float32 copies of weights, each for as long as its module computes; backward passes make them anew.

    Autograd keeps the matrix of a product for the gradient of its input: here it keeps the half-precision one.
    """

    def __init__(self) -> None:
        self._originals: dict[int, Tensor] = {}  # by the address of their copy
        self._place: Tensor | None = None

    def copy(self, weight: Tensor) -> Tensor:
        """The weight in float32."""
        return self._known(weight.float(), weight)

    def piece(self, weight: Tensor) -> Tensor:
        """As `copy`, of a matrix of at most `PIECE` numbers, in the place of the last one.

        Between what stays, allocations of some megabytes that come and go leave a heap full of holes: 250 MB of them
        after a pass through SmolLM2.
        """
        if self._place is None:
            self._place = torch.empty(PIECE, device=weight.device)
        return self._known(self._place[: weight.numel()].view(weight.shape).copy_(weight), weight)

    def _known(self, made: Tensor, weight: Tensor) -> Tensor:
        self._originals[made.untyped_storage().data_ptr()] = weight
        return made

    def forget(self, made: Tensor) -> None:
        """Its memory may now hold something else."""
        del self._originals[made.untyped_storage().data_ptr()]

    def pack(self, saved: Tensor) -> Any:
        """What autograd keeps in the place of a tensor."""
        weight = self._originals.get(saved.untyped_storage().data_ptr())
        return saved if weight is None else (weight, saved.size(), saved.stride(), saved.storage_offset())

    def unpack(self, kept: Any) -> Tensor:
        """The tensor again."""
        if isinstance(kept, Tensor):
            return kept
        weight, *view = kept
        return torch.as_strided(weight.float(), *view)


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Inside the block modules of a frozen half-precision `model` take and give float32, with the weights they have.

    What is rounded is the weights alone. Beside the activations, memory is taken for the float32 copy of one module's
    weights at a time, of a large matrix for a piece of it. Fused modules are computed by the kernels. Embeddings look
    up before they are cast.
    """
    copies, before = _Copies(), []
    for module in model.modules():
        if any(_is_half(weight) for place in _places(module) for weight in place.values()):
            own: Any = module
            before.append((own, vars(module).get("forward")))
            own.forward = MethodType(_forward(own, copies), own)
    try:
        with torch.autograd.graph.saved_tensors_hooks(copies.pack, copies.unpack):
            yield
    finally:
        for own, forward in before:
            del own.forward
            if forward is not None:
                own.forward = forward


def _places(module: nn.Module) -> Iterator[dict[str, Any]]:
    """Where the weights are that a module's forward uses; of a short convolution it takes them without calling it."""
    for each in (module, *(child for child in module.children() if isinstance(child, nn.Conv1d))):
        yield each._parameters
        yield each._buffers


def _is_half(weight: Tensor | None) -> bool:
    return weight is not None and weight.numel() > 0 and weight.dtype in (torch.bfloat16, torch.float16)


def _forward(module: Any, copies: _Copies) -> Callable[..., Any]:
    """A forward of the module in float32."""
    inner = module.forward

    def whole(own: Any, *given: Any, **named: Any) -> Any:
        held = [(place, name, weight) for place in _places(own) for name, weight in place.items()]
        replaced = [each for each in held if _is_half(each[2])]
        for place, name, weight in replaced:
            place[name] = copies.copy(weight)
        try:
            return inner(*given, **named)
        finally:
            for place, name, weight in replaced:
                copies.forget(place[name])
                place[name] = weight

    def in_pieces(own: Any, x: Tensor) -> Tensor:
        """A product with a matrix, some of its rows at a time."""
        parts = []
        for rows in range(0, len(own.weight), step := PIECE // own.weight.shape[1]):
            weight = copies.piece(own.weight[rows : rows + step])
            bias = None if own.bias is None else own.bias[rows : rows + step].float()
            parts.append(nn.functional.linear(x, weight, bias))
            copies.forget(weight)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def looked_up(_own: Any, *given: Any, **named: Any) -> Tensor:
        return torch.as_tensor(inner(*given, **named)).float()

    if isinstance(module, nn.Embedding):
        return looked_up
    return in_pieces if type(module) is nn.Linear and module.weight.shape[1] <= PIECE else whole
