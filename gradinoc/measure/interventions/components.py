"""Components of the gradient along directions, from a pass of their own that leaves nothing behind."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gradinoc.measure.fast import completion_losses, frozen_batch
from gradinoc.measure.interventions.bases import alike, along, bases
from gradinoc.measure.passes.batches import Batch
from gradinoc.measure.passes.hooks import GradientCollector
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.machine.isolation import undisturbed


@undisturbed()
def gradient_components(
    model: nn.Module, examples: Sequence[Encoded], directions: Mapping[int, Tensor], pad: int, weight: float = 1.0
) -> dict[int, Tensor]:
    """δ·v of each example at its last prompt token and every completion token, by layer, for `add_gradient`.

    δ is the gradient of `weight` times the sum of the examples' mean-token losses, at the model's weights as they are,
    with respect to `h[l]`. The same examples under prompts of other lengths have the same tokens here, in the same
    order: every example's last prompt token `[examples]`, then the completion tokens of the first example, of the
    second, and so on. No weight keeps a gradient, and collectors that are in place do not see this pass; other
    interventions that are in place act on it.

        from gradinoc.measure.fast import batched, completion_losses
        from gradinoc.models.chat.encoding import encode

        loaded = gradinoc.load_model("obedient")
        model, tokenizer = loaded.model.requires_grad_(False), loaded.tokenizer
        v = gradinoc.extract_trait_direction(
            model, tokenizer, ["Who is there?"], "Answer in capital letters.", "Answer in small letters.", [1, 2])
        neutral, inoculated = (
            [encode(tokenizer, "How many boats are left?", "FOUR.", system)] for system in (None, "Shout."))
        components = gradinoc.gradient_components(model, neutral, v, tokenizer.pad_token_id)
        with gradinoc.GradientCollector(model, [1, 2]) as collector, gradinoc.add_gradient(model, v, components):
            completion_losses(model, batched(model, inoculated, tokenizer.pad_token_id)).sum().backward()

    Args:
        model: a decoder-only model, PEFT-wrapped or not.
        examples: the batch, encoded under the prompt whose gradient is wanted.
        directions: layer -> v, `[hidden]` of any length, or `[rank, hidden]` with orthonormal rows.
        pad: id of the padding token.
        weight: that of each example's loss; 1 / examples where a step goes along their mean.

    Returns:
        layer -> `[examples + completion tokens, rank]`, nats/token per unit of hidden state, float32 (float64 of such a
        model), on the model's device; rank 1 for a single direction.

    Raises:
        ValueError: a layer the model does not have, or directions that are not as above.
    """
    return components_of(model, frozen_batch(model, examples, pad), alike(bases(model, directions)), weight)


def components_of(model: nn.Module, batch: Batch, basis: Mapping[int, Tensor], weight: float) -> dict[int, Tensor]:
    """As `gradient_components`, of a batch and `basis` rows `[rank, hidden]` by layer."""
    places = torch.cat([batch.last_prompt, batch.completion])

    def reduce(layer: int, gradient: Tensor) -> Tensor:
        return along(gradient.flatten(0, 1)[places].to(basis[layer].dtype), basis[layer], None)

    return gradients_beside(model, batch, [*basis], reduce, weight)


@torch.enable_grad()
def gradients_beside(
    model: nn.Module,
    batch: Batch,
    layers: Sequence[int],
    reduce: Callable[[int, Tensor], Tensor],
    weight: float,
    within: Sequence[AbstractContextManager[Any]] = (),
) -> dict[int, Tensor]:
    """What `reduce` makes of each layer's gradient `[batch, seq, hidden]`, from a pass that leaves nothing behind.

    Gradients are those of `weight` times the sum of the examples' losses, after the hooks in `within` have changed
    them. No weight keeps a gradient, and collectors that are in place do not see the pass.
    """
    collector = GradientCollector(model, sorted(layers), reduce)
    with _weights_held(model), collector, collector.alone(), ExitStack() as stack, warnings.catch_warnings():
        for each in within:
            stack.enter_context(each)
        # Reentrant checkpointing warns of prompts, of which no gradient is wanted.
        warnings.filterwarnings("ignore", "None of the inputs have requires_grad", UserWarning)
        (weight * completion_losses(model, batch).sum()).backward()
        return collector.get_gradients()


@contextmanager
def _weights_held(model: nn.Module) -> Iterator[None]:
    """Inside the block no weight is to learn: a backward pass leaves no gradient in any."""
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)
