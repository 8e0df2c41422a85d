"""Hooks that change the gradient of the residual stream at decoder blocks, and nothing that is computed forward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from gradinoc.measure.interventions.bases import along, bases, by_token, ensure_hidden, made_of, row_counts, strengths
from gradinoc.measure.steering.chosen import ChosenTokens, Tokens

# (layer, gradients [tokens, hidden], their rows if these differ) -> gradients of the same shape
Change = Callable[[int, Tensor, Tensor | None], Tensor]


class _Identity(torch.autograd.Function):
    """Its input as it is; backward, `change` of the gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return hidden.view_as(hidden)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        return ctx.change(upstream[0]), None


class GradientHooks(ChosenTokens):
    """Identities after decoder blocks whose backward pass changes the gradient at chosen tokens.

    Gradients are changed in float32 where the model computes in half precision. They may be entered again and again.

    Args:
        model: a decoder-only model, PEFT-wrapped or not.
        layers: 0-based decoder blocks.
        change: what becomes of a gradient.
        positions: as `gradinoc.steered` takes them.
        run: in batches in which the examples of several runs are packed run by run, the only one that is meant.
        linear: whether the change of a sum is the sum of the changes, so that tokens which examples share are changed
            as each example's own would be.
        basis: layer -> what gradients are changed along, `[..., hidden]`, to be compared with the hidden size.

    Raises:
        ValueError: a layer the model does not have, or unknown positions.
        NotImplementedError: in a pass, a change that is not linear and tokens that examples share.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[int],
        change: Change,
        positions: str | Sequence[int] | Tensor,
        *,
        run: int | None = None,
        linear: bool = True,
        basis: Mapping[int, Tensor] = MappingProxyType({}),
    ) -> None:
        super().__init__(model, sorted(layers), positions, run)
        self._change, self._linear = change, linear
        self._dtype = torch.promote_types(next(model.parameters()).dtype, torch.float32)
        self._basis = basis

    @classmethod
    def along(
        cls,
        model: nn.Module,
        directions: Mapping[int, Tensor],
        strength: float | Tensor,
        change: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor],
        positions: str | Sequence[int] | Tensor,
        **further: Any,
    ) -> GradientHooks:
        """Those whose `change` is given `(gradients, basis, strength by token, rows)`; see `bases.bases`."""
        basis, amount = bases(model, directions), strengths(model, strength)

        def changed(layer: int, delta: Tensor, rows: Tensor | None) -> Tensor:
            return change(delta, basis[layer], by_token(amount, rows), rows)

        hooks = cls(model, sorted(directions), changed, positions, basis=basis, **further)
        hooks._agree(row_counts(basis, amount))
        return hooks

    def __enter__(self) -> Self:
        super().__enter__()
        if not self._linear:
            self._handles.append(self._decoder.register_forward_pre_hook(_refuse_shared, with_kwargs=True))
        return self._with_tokens()

    def _see(self, layer: int, hidden: Tensor) -> Tensor | None:
        if layer in self._basis:
            ensure_hidden(layer, self._basis[layer], hidden)
        if not (torch.is_grad_enabled() and hidden.requires_grad):
            return None
        tokens = self._tokens_of(layer, hidden)
        result: Tensor = _Identity.apply(  # type: ignore[no-untyped-call]
            hidden, lambda delta: self._changed(layer, delta, tokens)
        )
        return result

    def _changed(self, layer: int, delta: Tensor, tokens: Tokens | None) -> Tensor:
        flat = delta.flatten(0, 1)
        if tokens is None:
            return self._change(layer, flat.to(self._dtype), None).to(delta.dtype).view_as(delta)
        places, rows = tokens
        changed = self._change(layer, flat[places].to(self._dtype), rows)
        return flat.index_copy(0, places, changed.to(delta.dtype)).view_as(delta)


def projected(delta: Tensor, basis: Tensor, strength: Tensor, rows: Tensor | None) -> Tensor:
    """Gradients less `strength` times their part in the span of the basis."""
    removed = strength * along(delta, basis, rows)
    if basis.dim() == 2:  # in one pass over memory
        return torch.addmm(delta, removed, basis, alpha=-1)
    return delta - made_of(removed, basis, rows)


def shrunk(delta: Tensor, basis: Tensor, strength: Tensor, rows: Tensor | None) -> Tensor:
    """Gradients as long as `projected` leaves them, in the direction that they have; zero where they are."""
    energy = delta.square().sum(-1, keepdim=True)
    inside = along(delta, basis, rows).square().sum(-1, keepdim=True)
    removed = strength * (2 - strength) * inside / energy.clamp(min=torch.finfo(delta.dtype).tiny)
    return delta * (1 - removed).clamp(min=0).sqrt()


def _refuse_shared(_decoder: nn.Module, _arguments: Any, named: dict[str, Any]) -> None:
    layout = named.get("layout")
    if torch.is_grad_enabled() and layout is not None and layout.above and not layout.past:
        raise NotImplementedError(
            "A gradient changed token by token, not linearly, in a batch whose examples share tokens: make the batch "
            "inside the block, where none are shared"
        )
