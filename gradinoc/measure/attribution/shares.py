"""How much of a step's effect runs along a direction of the residual stream: an exact split at every layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from peft import PeftModel
from torch import Tensor, nn

from gradinoc.measure.attribution.slopes import Score, Slope, Weights, put_weights, slope_of, trained_weights
from gradinoc.measure.fast import batched, completion_losses
from gradinoc.measure.passes.batches import Batch
from gradinoc.measure.passes.hooks import BlockHooks
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.machine.isolation import undisturbed


@dataclass(frozen=True)
class Split:
    """How a step moves a score through each layer of the residual stream, to first order.

    Attributes:
        whole: layer -> sum over tokens of `<g, dh>`, all that the step does by way of the layer, `[examples, 2]`
            float64: of an example's prompt, and of its answer.
        along: layer -> the part of that along each direction, `sum (g.u)(u.dh)`, `[examples, 2, directions]`.
    """

    whole: dict[int, Tensor]
    along: dict[int, Tensor]

    def shares(self, layer: int) -> Tensor:
        """Part of the whole along each direction, `[directions]`; over an orthonormal basis they add up to 1."""
        return self.along[layer].sum((0, 1)) / self.whole[layer].sum()


class _Stream(BlockHooks):
    """Keeps the residual stream of one pass, `[batch, seq, hidden]` by layer."""

    def __init__(self, model: PeftModel, layers: Sequence[int]) -> None:
        super().__init__(model, layers)
        self.states: dict[int, Tensor] = {}

    def _see(self, layer: int, hidden: Tensor) -> None:
        self.states[layer] = hidden


@dataclass(frozen=True)
class Gradients:
    """A score's gradients at one point: of the weights, and of each example's residual stream.

    Attributes:
        slope: the mean of the score over the examples, and its gradient.
        streams: a mapping layer -> `[seq, hidden]` for each example.
    """

    slope: Slope
    streams: list[dict[int, Tensor]]


@undisturbed()
def layer_gradients(
    model: PeftModel,
    examples: Sequence[Encoded],
    score: Score,
    layers: Sequence[int],
    pad: int,
    along: Sequence[Weights] = (),
) -> Gradients:
    """The gradients of a score with respect to the weights and to the residual stream, from one pass an example.

    Args:
        model: with an adapter that takes gradients; see `gradinoc.measure.attribution.slopes`.
        examples: prompts with answers, as tokens.
        score: a number for each of a batch's rows: losses, or decision log-odds.
        layers: of whose output gradients are wanted.
        pad: id of the padding token.
        along: steps of the weights along which each example's own derivative is wanted.

    Raises:
        NumericalError: a number is not finite.
    """
    streams: list[dict[int, Tensor]] = [{} for _ in examples]

    def kept(own: nn.Module, batch: Batch, rows: Sequence[int]) -> Tensor:
        found = score(own, batch, rows)
        for layer, state in stream.states.items():
            state.register_hook(partial(streams[rows[0]].__setitem__, layer))
        return found

    with _Stream(model, layers) as stream:
        slope = slope_of(model, examples, kept, pad, 1, along)
    return Gradients(slope, streams)


@undisturbed()
def split_at_layers(
    model: PeftModel,
    examples: Sequence[Encoded],
    gradients: Gradients,
    step: Weights,
    directions: Mapping[int, Tensor],
    pad: int,
    size: float = 1e-2,
    outer: dict[int, Tensor] | None = None,
) -> Split:
    """How a step of an adapter's weights moves a score through each layer, and how much of that runs along directions.

    For the weights below block l's output h, `<gradient of the score, step> = sum over tokens of <g, dh>`, where g is
    the score's gradient with respect to h, and dh is how h moves when the weights move along the step. So for every
    direction u its part is `sum (g.u)(u.dh)`, all from one backward pass and two forward passes: dh is a central
    difference. Isotropic directions have a share of 1/hidden on average.

    Args:
        model: with the adapter at which the gradients were taken.
        examples: prompts with answers, as tokens.
        gradients: of the score on these examples, at the directions' layers (`layer_gradients`).
        step: by name of the weight, of any length: the split is linear in it.
        directions: layer -> `[directions, hidden]`, unit vectors.
        pad: id of the padding token.
        size: of the weights' movement to either side, relative to the adapter's norm.
        outer: layer -> `[hidden, hidden]` float64, to which the sum of `g dh^T` over examples and tokens is added: what
            goes along any unit vector u is `u^T outer u`, so that a thousand directions cost little.

    Raises:
        ValueError: a step of zero length.
    """
    layers = sorted(directions)
    whole: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    along: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    units = {layer: directions[layer].double().cpu() for layer in layers}
    for example, stream in zip(examples, gradients.streams, strict=True):
        batch = batched(model, [example], pad)
        moved = movement(model, partial(completion_losses, model, batch), step, layers, size)
        answer = slice(example.prompt_length, None)
        for layer in layers:
            g, dh = (each.detach().flatten(0, -2).double().cpu() for each in (stream[layer], moved[layer]))
            of_token, of_unit = (g * dh).sum(1), (g @ units[layer].T) * (dh @ units[layer].T)
            for totals, values in ((whole, of_token), (along, of_unit)):
                in_answer = values[answer].sum(0)
                totals[layer].append(torch.stack([values.sum(0) - in_answer, in_answer]))
            if outer is not None and layer in outer:
                outer[layer].addmm_(g.T, dh)
    return Split(*({layer: torch.stack(rows) for layer, rows in totals.items()} for totals in (whole, along)))


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
