"""Losses by a model's own modules, with logits of a few tokens at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from transformers import PreTrainedModel

from gradinoc.measure.fast.kernels import CHUNK
from gradinoc.measure.fast.packed.forward import unembedding
from gradinoc.measure.passes.batches import Batch, logits_at, model_inputs, padded_inputs
from gradinoc.models.blocks import unwrapped

_ATTRIBUTE = "_gradinoc_splits"


@torch.no_grad()
def try_split(model: PreTrainedModel, ids: Sequence[int]) -> bool:
    """Whether logits of a text are those of `unembedding`, of the decoder's final states; it is remembered.

    Args:
        model: not wrapped by PEFT.
        ids: a few tokens.
    """
    inputs = model_inputs(row := torch.tensor([list(ids)], device=model.device), torch.ones_like(row))
    try:
        expected, head = model(**inputs).logits.float(), unembedding(model)
        found = head.logits(model.get_output_embeddings()(_final(model, inputs))).float()
        apart = float(vector_norm(found - expected) / vector_norm(expected))
    except Exception:  # whatever the model's own code stumbles over: it is one to be taken as a whole
        apart = torch.inf
    setattr(model, _ATTRIBUTE, apart <= 4 * torch.finfo(model.dtype).eps)
    return bool(getattr(model, _ATTRIBUTE))


def _final(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    base: Any = unwrapped(model)
    return torch.as_tensor(base.get_decoder()(**inputs).last_hidden_state)


def plain_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Losses `[completions]` float32, nats, of a padded batch.

    Of a model that was found to split (`try_split`) logits are made chunk by chunk; else all at once.
    """
    inputs = padded_inputs(batch)
    if _is_split(model):
        hidden = _final(model, inputs).flatten(0, 1)[batch.predicting]
        return by_chunks(_cross_entropies(model), hidden, batch.targets)
    start, width = batch.shortest_prompt - 1, batch.input_ids.shape[1]
    kept = torch.arange(start, width - 1, device=batch.input_ids.device)
    logits = logits_at(model, inputs, kept)  # (B, kept, vocab)
    chosen = logits[batch.owner, batch.predicting % width - start].float()
    return nn.functional.cross_entropy(chosen, batch.targets, reduction="none")


def plain_logits(model: nn.Module, batch: Batch, index: Tensor, tokens: Tensor) -> Tensor:
    """Logits float32 of `tokens`, both `[places, some]`, predicted at `index` `[places]` of a padded batch."""
    inputs, width = padded_inputs(batch), batch.input_ids.shape[1]
    if _is_split(model):
        return unembedding(model).logits_of(_final(model, inputs).flatten(0, 1)[index], tokens)
    columns, column = torch.unique(index % width, return_inverse=True)
    logits = logits_at(model, inputs, columns)  # (B, columns, vocab)
    return logits[index // width, column].gather(-1, tokens).float()


def _is_split(model: nn.Module) -> bool:
    """Whether logits are known to be the head's of the decoder's final states, and the head is as it was."""
    return bool(getattr(unwrapped(model), _ATTRIBUTE, False)) and not _trains_head(model)


def _trains_head(model: nn.Module) -> bool:
    """Whether what turns states into logits has gradients of its own, or an adapter."""
    base: Any = unwrapped(model)
    head = base.get_output_embeddings()
    return type(head) is not nn.Linear or head.weight.requires_grad


Losses = Callable[[Tensor, Tensor], Tensor]


def _cross_entropies(model: nn.Module) -> Losses:
    """Of final states `[tokens, hidden]` and `targets`, by the model's own head."""
    base: Any = unwrapped(model)
    head, product = unembedding(model), base.get_output_embeddings()

    def losses(hidden: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(head.logits(product(hidden)).float(), targets, reduction="none")

    return losses


def by_chunks(losses: Losses, hidden: Tensor, targets: Tensor) -> Tensor:
    """`losses` of each row of `hidden`, of `CHUNK` rows at a time; gradients too, for rows and not for weights.

    They may be differentiated again; all rows are then computed at once.
    """
    result: Tensor = _ByChunks.apply(hidden, targets, losses)  # type: ignore[no-untyped-call]
    return result


class _ByChunks(torch.autograd.Function):
    """Each row's gradient is found with its loss, so that nothing of a chunk is left when the next one comes."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, losses: Losses) -> Any:
        wanted = ctx.needs_input_grad[0]
        found = torch.empty(len(hidden), device=hidden.device)
        gradient = torch.empty_like(hidden) if wanted else None
        for start in range(0, len(hidden), CHUNK):
            part = slice(start, start + CHUNK)
            with torch.set_grad_enabled(gradient is not None):
                rows = hidden[part].detach().requires_grad_(gradient is not None)
                each = losses(rows.view_as(rows), targets[part])  # no leaf: torch's counter of operations takes none
                if gradient is not None:
                    (gradient[part],) = torch.autograd.grad(each.sum(), rows)
            found[part] = each.detach()
        if gradient is not None:
            ctx.losses = losses
            ctx.save_for_backward(hidden, targets, gradient)
        return found

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        hidden, targets, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated again
            return *torch.autograd.grad(ctx.losses(hidden, targets), hidden, upstream[0], create_graph=True), None, None
        return (gradient * upstream[0].unsqueeze(-1)).to(gradient.dtype), None, None
