"""Numbers that are not finite are found where they arise, named by example and layer, and never averaged away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from gradinoc.errors import NumericalError
from gradinoc.measure.passes.hooks import BlockHooks
from gradinoc.models.blocks import decoder_blocks
from gradinoc.study.description import POSITIONS

SHOWN = 8  # examples named in a message


def named(rows: Sequence[int], word: str = "example") -> str:
    """Examples in words, each once, the first few of many."""
    once = list(dict.fromkeys(rows))
    more = f" and {len(once) - SHOWN} more" if len(once) > SHOWN else ""
    return f"{word}{'s' if len(once) > 1 else ''} {', '.join(map(str, once[:SHOWN]))}{more}"


def broken(values: Tensor) -> list[int]:
    """Along the first axis of `values`, which entries hold a number that is not finite."""
    sound = values.isfinite().flatten(1).all(1) if values.dim() > 1 else values.isfinite()
    return [int(place) for place in (~sound).nonzero()]


def fault_in_losses(losses: Tensor, examples: Sequence[int]) -> str | None:
    """What is wrong with losses `[batch]` of `examples`; None if nothing is."""
    return fault_in_values(losses, examples, "the loss")


def fault_in_values(values: Tensor, examples: Sequence[int], what: str) -> str | None:
    """What is wrong with `values` `[batch]` of `examples`, each of which is `what`; None if nothing is."""
    places = broken(values)
    if not places:
        return None
    return f"{what} of {named([examples[place] for place in places])} is {float(values[places[0]])}"


def fault_in_gradients(norms: Tensor, alignment: Tensor, layers: Sequence[int], examples: Sequence[int]) -> str | None:
    """What is wrong with gradients whose norms are `[layers, positions, batch]`, and their alignments; None if nothing.

    A backward pass comes from above, so that the uppermost layer is named.
    """
    for bad, word in ((~norms.isfinite(), "not finite"), (norms == 0, "zero, which has no direction")):
        if bool(bad.any()):
            layer, position, _ = bad.nonzero()[-1].tolist()  # the last has the uppermost layer
            rows = [examples[place] for place in bad[layer].any(0).nonzero().flatten().tolist()]
            return f"the gradient at layer {layers[layer]}, {POSITIONS[position]}, of {named(rows)} is {word}"
    if not bool(alignment.isfinite().all()):
        layer = int((~alignment.isfinite()).nonzero()[-1][0])
        return f"an alignment at layer {layers[layer]} is not finite: a direction is not"
    return None


def fault_in_states(states: Tensor, layer: int, rows: Sequence[int]) -> str | None:
    """What is wrong with activations `[prompts, hidden]` of a layer; None if nothing is."""
    places = broken(states)
    if not places:
        return None
    return f"the activation at layer {layer} of {named([rows[place] for place in places], 'prompt')} is not finite"


class _Watch(BlockHooks):
    """Notes which blocks put out a number that is not finite."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, range(len(decoder_blocks(model))))
        self.broken: list[int] = []

    def _see(self, layer: int, hidden: Tensor) -> None:
        if not bool(hidden.isfinite().all()):
            self.broken.append(layer)


@torch.no_grad()
def origin(model: nn.Module, forward: Callable[[], object]) -> str:
    """Where in the model a forward pass first gives a number that is not finite, in words; for messages alone."""
    with _Watch(model) as watch:
        forward()
    if watch.broken:
        return f"first not finite in the output of layer {min(watch.broken)}"
    return "every layer's output is finite"


def stop(fault: str, model: nn.Module, forward: Callable[[], object]) -> NoReturn:
    """Raise what is wrong with the numbers of a frozen or finished model; `forward` repeats the pass that gave them.

    Raises:
        NumericalError: always; the message says where in the model a number was first not finite.
    """
    raise NumericalError(
        f"{fault}, {origin(model, forward)}: nothing that rests on it is kept; look at these examples and the model's "
        "weights, or try model.dtype=float32"
    )


def broken_weights(model: nn.Module) -> list[str]:
    """Names of the trained weights that hold a number that is not finite."""
    return [name for name, weight in model.named_parameters() if weight.requires_grad and broken(weight.flatten())]
