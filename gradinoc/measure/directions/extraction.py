"""The trait's direction in the residual stream, how well it separates, and the layer band."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from gradinoc.errors import NumericalError
from gradinoc.measure.fast import batched, completion_losses, sharing_order
from gradinoc.measure.passes.batches import Batch
from gradinoc.measure.passes.finite import fault_in_states
from gradinoc.measure.passes.hooks import ActivationCollector, BlockHooks, Position
from gradinoc.models.chat.encoding import Encoded, encode_prompt
from gradinoc.models.machine.isolation import undisturbed
from gradinoc.models.machine.memory import in_batches
from gradinoc.stats.effect import auc, cohens_d

UNMOVED = 1e-5  # of a mean state's norm: rounding in float32. SmolLM2's smallest contrast is 8e-3 of it
BATCH = 24  # prompts a forward pass; results do not depend on it. More, of some 100 tokens each, leave a CPU's cache


@undisturbed()
def prompt_activations(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    system: str | None,
    layers: Sequence[int],
    position: Position = "last_prompt_token",
    copies: int = 1,
) -> dict[int, Tensor]:
    """Residual stream of each question under a system prompt: layer -> `[prompts, hidden]` float32, CPU.

    With several `copies` each batch is put once for each adapter of a stack (see
    `gradinoc.measure.fast.stacked_adapters`), and there are `[copies * prompts]` rows, copy by copy. A batch that does
    not fit into memory is halved.

    Raises:
        NumericalError: an activation is not finite; the message names layer and prompts.
        OutOfMemoryError: memory does not suffice for a single prompt.
    """
    encoded = [encode_prompt(tokenizer, prompt, system) for prompt in prompts]
    order = sharing_order(model, encoded)
    device = next(model.parameters()).device
    states: dict[int, list[Tensor]] = {layer: [] for layer in layers}

    def read(rows: Sequence[int]) -> None:
        tokens = [torch.tensor(encoded[row]) for row in rows]
        ids = nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True)
        found = collector.get_activations(ids.to(device), position, mask.to(device), copies)
        host = {layer: found[layer].cpu() for layer in layers}
        for layer in sorted(layers):  # a fault goes on from the layer where it arose to those above
            if fault := fault_in_states(host[layer], layer, [*rows] * copies):
                raise NumericalError(f"{fault}; look at them and the model's weights, or try model.dtype=float32")
            states[layer].append(host[layer].unflatten(0, (copies, -1)))

    with ActivationCollector(model, layers) as collector:
        in_batches(order, BATCH, read)
    back = torch.tensor(order).argsort()
    return {layer: torch.cat(states[layer], dim=1)[:, back].flatten(0, 1) for layer in layers}


class _AnswerMeans(BlockHooks):
    """Keeps each example's mean state over its completion tokens: layer -> `[batch, hidden]` float32."""

    def __init__(self, model: nn.Module, layers: Sequence[int]) -> None:
        super().__init__(model, layers)
        self.batch: Batch | None = None
        self.means: dict[int, Tensor] = {}

    def _see(self, layer: int, hidden: Tensor) -> None:
        assert self.batch is not None
        rows = hidden.flatten(0, 1)[self.batch.completion].float()
        sums = torch.zeros(len(self.batch), rows.shape[-1], device=rows.device).index_add_(0, self.batch.owner, rows)
        self.means[layer] = sums / self.batch.counts[:, None]


@undisturbed()
@torch.no_grad()
def answer_activations(
    model: nn.Module, examples: Sequence[Encoded], layers: Sequence[int], pad: int, batch_size: int = 8
) -> dict[int, Tensor]:
    """Mean residual stream over each answer's tokens: layer -> `[examples, hidden]` float32, CPU.

    The response contrast of persona vectors (Chen et al. 2025, https://arxiv.org/abs/2507.21509) is their difference
    between answers with the trait and without it. A batch that does not fit into memory is halved.

    Raises:
        NumericalError: a state is not finite; the message names layer and examples.
        OutOfMemoryError: memory does not suffice for a single example.
    """
    order = sharing_order(model, [example.ids for example in examples])
    found = {layer: torch.empty(len(examples), 0) for layer in layers}

    def read(rows: Sequence[int]) -> None:
        collector.batch = batched(model, [examples[row] for row in rows], pad)
        completion_losses(model, collector.batch)
        for layer, means in sorted(collector.means.items()):
            host = means.cpu()
            if fault := fault_in_states(host, layer, rows):
                raise NumericalError(f"{fault}; look at them and the model's weights, or try model.dtype=float32")
            if not found[layer].shape[1]:
                found[layer] = torch.full((len(examples), host.shape[1]), torch.nan)
            found[layer][rows] = host

    with _AnswerMeans(model, layers) as collector:
        in_batches(order, batch_size, read)
    return found


@undisturbed()
def extract_trait_direction(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    promote_system: str,
    suppress_system: str,
    layers: Sequence[int],
    position: Position = "last_prompt_token",
) -> dict[int, Tensor]:
    """Trait direction `v[l]`: layer -> unit vector `[hidden]`, float32, CPU.

    The mean of `h[l]` under the promoting system prompt minus the mean under the suppressing one, same questions,
    scaled to length 1 (contrastive mean difference; Marks & Tegmark 2023, https://arxiv.org/abs/2310.06824).

    Raises:
        ValueError: the two prompts give the same mean at some layer, so that there is no direction.
    """
    promote = prompt_activations(model, tokenizer, prompts, promote_system, layers, position)
    suppress = prompt_activations(model, tokenizer, prompts, suppress_system, layers, position)
    return {layer: mean_difference(promote[layer], suppress[layer]) for layer in layers}


def mean_difference(promote: Tensor, suppress: Tensor) -> Tensor:
    """Unit vector `[hidden]` from the mean of `suppress` to the mean of `promote`, both `[prompts, hidden]`.

    Raises:
        ValueError: no prompts, other shapes than these, no floating-point numbers, or equal means.
    """
    shapes = [tuple(side.shape) for side in (promote, suppress)]
    if any(len(shape) != 2 or 0 in shape for shape in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(f"Expected activations [prompts, hidden] of equal hidden size, received {shapes}")
    if not (promote.is_floating_point() and suppress.is_floating_point()):
        raise ValueError(f"Expected floating-point activations, received {promote.dtype} and {suppress.dtype}")
    difference = (promote.double().mean(0) - suppress.double().mean(0)).float()
    length = difference.norm()
    if not length > 0:
        raise ValueError("The promoting and suppressing prompts give equal mean activations: they must differ")
    return torch.as_tensor(difference / length)


def unmoved(promote: Tensor, suppress: Tensor) -> bool:
    """Whether the two sides `[prompts, hidden]` have one mean but for rounding: nothing of the prompts is seen there.

    So it is below the first full attention of models whose first layers look back over a few tokens only (LFM2's
    convolutions, windows): the last prompt token is the same under any system prompt.
    """
    one, other = promote.double().mean(0), suppress.double().mean(0)
    return bool((one - other).norm() <= UNMOVED * torch.maximum(one.norm(), other.norm()))


def separation(
    promote: Mapping[int, Tensor], suppress: Mapping[int, Tensor], directions: Mapping[int, Tensor]
) -> pd.DataFrame:
    """Projections of held-out prompts on each layer's direction: columns example, side, layer, projection."""
    frames = [
        pd.DataFrame(
            {
                "example": np.arange(len(states[layer])),
                "side": side,
                "layer": layer,
                "projection": (states[layer] @ direction).numpy().astype(float),
            }
        )
        for layer, direction in directions.items()
        for side, states in (("promote", promote), ("suppress", suppress))
    ]
    return pd.concat(frames, ignore_index=True)


def layer_statistics(projections: pd.DataFrame) -> pd.DataFrame:
    """Cohen's d and AUC by layer (columns layer, cohens_d, auc) of promote against suppress projections."""
    rows = []
    for layer, group in projections.groupby("layer"):
        sides = {side: part.to_numpy(np.float64) for side, part in group.groupby("side")["projection"]}
        promote, suppress = sides["promote"], sides["suppress"]
        rows.append({"layer": layer, "cohens_d": cohens_d(promote, suppress), "auc": auc(promote, suppress)})
    return pd.DataFrame(rows)


def declare_band(separations: pd.DataFrame) -> list[int]:
    """The layers on which decisions rest: those whose Cohen's d is at least half of the largest.

    Never empty: where no layer has a positive d, it is the layer of the largest, for gate G1 to fail on.
    """
    largest = separations["cohens_d"].max()
    strong = separations["cohens_d"] >= min(0.5 * largest, largest)
    return [int(layer) for layer in separations.loc[strong, "layer"]]
