"""How much of a step's effect runs along a direction of the residual stream: an exact split at every layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from peft import PeftModel
from torch import Tensor

from gradinoc.measure.attribution.slopes import Score, Weights, put_weights, trained_weights
from gradinoc.measure.fast import batched
from gradinoc.measure.hooks import BlockHooks
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.isolation import undisturbed


@dataclass(frozen=True)
class Split:
    """How a step moves the mean of a score through each layer of the residual stream, to first order.

    Attributes:
        whole: layer -> sum over tokens of `<g, dh>`: all that the step does by way of the layer.
        along: layer -> the part of that along each direction, `sum (g.u)(u.dh)`, `[directions]` float64.
    """

    whole: dict[int, float]
    along: dict[int, Tensor]

    def shares(self, layer: int) -> Tensor:
        """Part of the whole along each direction, `[directions]`; over an orthonormal basis they add up to 1."""
        return self.along[layer] / self.whole[layer]


class _Stream(BlockHooks):
    """Keeps the residual stream of one pass, `[batch, seq, hidden]` by layer."""

    def __init__(self, model: PeftModel, layers: Sequence[int]) -> None:
        super().__init__(model, layers)
        self.states: dict[int, Tensor] = {}

    def _see(self, layer: int, hidden: Tensor) -> None:
        self.states[layer] = hidden


@undisturbed()
def split_at_layers(
    model: PeftModel,
    examples: Sequence[Encoded],
    score: Score,
    step: Weights,
    directions: Mapping[int, Tensor],
    pad: int,
    batch_size: int = 8,
    size: float = 1e-2,
) -> Split:
    """How a step of an adapter's weights moves a score through each layer, and how much of that runs along directions.

    For the weights below block l's output h, `<gradient of the score, step> = sum over tokens of <g, dh>`, where g is
    the score's gradient with respect to h, and dh is how h moves when the weights move along the step. So for every
    direction u its part is `sum (g.u)(u.dh)`, all from one backward pass and two forward passes: dh is a central
    difference. Isotropic directions have a share of 1/hidden on average.

    Args:
        model: with an adapter that takes gradients; see `gradinoc.measure.attribution.slopes`.
        examples: prompts with answers, as tokens.
        score: a number for each of a batch's rows: losses, or decision log-odds.
        step: by name of the weight, of any length: the split is linear in it.
        directions: layer -> `[directions, hidden]`, unit vectors.
        pad: id of the padding token.
        batch_size: examples at a time.
        size: of the weights' movement to either side, relative to the adapter's norm.

    Raises:
        ValueError: a layer the model does not have; a step of zero length.
    """
    layers = sorted(directions)
    whole = dict.fromkeys(layers, 0.0)
    along = {layer: torch.zeros(len(directions[layer]), dtype=torch.float64) for layer in layers}
    for start in range(0, len(examples), batch_size):
        rows = range(start, min(start + batch_size, len(examples)))
        batch = batched(model, [examples[row] for row in rows], pad)
        with _Stream(model, layers) as stream:
            found = score(model, batch, rows).sum()
            gradients = torch.autograd.grad(found, [stream.states[layer] for layer in layers])
        moved = movement(model, partial(score, model, batch, rows), step, layers, size)
        for layer, gradient in zip(layers, gradients, strict=True):
            g, dh = (each.detach().flatten(0, -2).double().cpu() for each in (gradient, moved[layer]))
            units = directions[layer].double().cpu()
            whole[layer] += float((g * dh).sum()) / len(examples)
            along[layer] += ((g @ units.T) * (dh @ units.T)).sum(0) / len(examples)
    return Split(whole, along)


@torch.no_grad()
def movement(
    model: PeftModel, forward: Callable[[], Tensor], step: Weights, layers: Sequence[int], size: float
) -> dict[int, Tensor]:
    """How the residual stream moves along a step of the adapter's weights, per unit of it, `[batch, seq, hidden]`.

    A central difference of two forward passes, float64, by layer. Afterwards the weights are as they were.

    Args:
        forward: makes a pass through the model.
        size: how far the weights are moved to either side, relative to their norm.

    Raises:
        ValueError: a step of zero length.
    """
    at = {name: weight.detach().clone() for name, weight in trained_weights(model).items()}
    length = sum(float(value.square().sum()) for value in step.values()) ** 0.5
    if not length:
        raise ValueError("A step of zero length: there is nothing to split")
    reach = size * max(1.0, sum(float(value.square().sum()) for value in at.values()) ** 0.5) / length
    sides = []
    with _restoring(model, at):
        for sign in (1, -1):
            put_weights(model, {name: at[name].double().cpu() + sign * reach * step[name] for name in at})
            with _Stream(model, layers) as stream:
                forward()
                sides.append({layer: stream.states[layer].double() for layer in layers})
    return {layer: (sides[0][layer] - sides[1][layer]) / (2 * reach) for layer in layers}


@contextmanager
def _restoring(model: PeftModel, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Afterwards, and after an exception, the adapter's weights are these, to the last bit."""
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in trained_weights(model).items():
                weight.copy_(weights[name])
