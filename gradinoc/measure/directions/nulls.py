"""Directions without the trait: at random, with the stream's covariance, and contrasts of unrelated prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm  # on Apple's GPU `Tensor.norm` takes a way that warns

from gradinoc.study.settings import COVARIANCE, INSTRUCTION, ISOTROPIC


def isotropic_directions(count: int, hidden: int, seed: int) -> Tensor:
    """`count` random unit vectors, `[count, hidden]` float32, uniform on the sphere.

    One draw serves every layer of a model. Drawing anew for each layer would average the null over layers, which the
    trait direction, alike in neighbouring layers, does not enjoy: the null would be too narrow.
    """
    generator = torch.Generator().manual_seed(seed)
    return nn.functional.normalize(torch.randn(count, hidden, generator=generator), dim=-1)


def covariance_directions(
    promote: Mapping[int, Tensor], suppress: Mapping[int, Tensor], count: int, seed: int
) -> dict[int, Tensor]:
    """Random unit vectors with the residual stream's covariance: layer -> `[count, hidden]` float32.

    The covariance is that of the activations `[prompts, hidden]` within each side: what sets the sides apart is the
    trait itself. A draw is a random combination of the centred activations, whose covariance is exactly theirs, so that
    no matrix `[hidden, hidden]` is needed; it lies in the space that they span. One combination serves every layer, for
    the reason given in `isotropic_directions`.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = sum(len(side[min(side)]) for side in (promote, suppress))
    weights = torch.randn(count, rows, generator=generator)
    centred = {
        layer: torch.cat([side[layer] - side[layer].mean(0) for side in (promote, suppress)]) for layer in promote
    }
    return {layer: nn.functional.normalize(weights @ states, dim=-1) for layer, states in centred.items()}


def instruction_directions(means: Tensor, count: int, seed: int) -> Tensor:
    """Contrasts of two unrelated system prompts, `[layers, count, hidden]` float32 unit vectors.

    The class that the trait's direction belongs to: the difference of mean states under two prompts. Pairs are drawn
    without repetition, each with either sign at random; the same pairs serve every layer, for the reason given in
    `isotropic_directions`. Where two prompts leave a layer's state as it is the direction is NaN.

    Args:
        means: mean state under each prompt, `[layers, prompts, hidden]`.

    Raises:
        ValueError: there are fewer pairs than `count`.
    """
    pairs = torch.combinations(torch.arange(means.shape[1]))
    if len(pairs) < count:
        raise ValueError(f"{means.shape[1]} prompts have {len(pairs)} pairs; expected {count} or more")
    generator = torch.Generator().manual_seed(seed)
    chosen = pairs[torch.randperm(len(pairs), generator=generator)[:count]]
    sign = torch.randint(0, 2, (count, 1), generator=generator) * 2.0 - 1
    contrasts = sign * (means[:, chosen[:, 0]].double() - means[:, chosen[:, 1]].double())
    return torch.as_tensor(contrasts / vector_norm(contrasts, dim=-1, keepdim=True)).float()


@dataclass(frozen=True)
class States:
    """What directions are drawn from: activations `[prompts, hidden]` by layer under the two sides of the trait's
    contrast, and the mean state under each unrelated prompt, `[layers, prompts, hidden]`.
    """

    promote: Mapping[int, Tensor]
    suppress: Mapping[int, Tensor]
    unrelated: Tensor


Draw = Callable[[States, int, int], Mapping[int, Tensor]]  # (states, count, seed) -> layer -> `[count, hidden]`
DRAWN: dict[str, Draw] = {
    ISOTROPIC: lambda states, count, seed: dict.fromkeys(
        states.promote, isotropic_directions(count, states.unrelated.shape[-1], seed)
    ),
    COVARIANCE: lambda states, count, seed: covariance_directions(states.promote, states.suppress, count, seed),
    INSTRUCTION: lambda states, count, seed: dict(enumerate(instruction_directions(states.unrelated, count, seed))),
}  # how each of `study.settings.NULLS` is drawn
