"""Push and pooled alignment: what the mean gradient of several examples does along a direction.

A mean of cosines weighs every example alike. A step of training goes along the sum of their gradients, in which a long
one counts for more, and what points in different ways cancels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

PRIMARY = 0  # of the positions at which gradients are read


class Pooled(NamedTuple):
    """Of a mean gradient: its `alignment` (cosine) and `push` (projection), both `[layers, positions, directions]`."""

    alignment: Tensor
    push: Tensor


def pooled(descent: Tensor, directions: Mapping[int, Tensor]) -> Pooled:
    """Pooled alignment with every direction, and push along it, of minus a mean gradient; float64, CPU.

    NaN where the mean gradient is zero.

    Args:
        descent: `[layers, positions, hidden]`, as in `gradinoc.measure.gradients.alignment.Measured`.
        directions: layer -> rows `[directions, hidden]`, those layers; an alignment is the cosine times the length of
            a row, as it is there.
    """
    rows = torch.stack([directions[layer].cpu().double() for layer in sorted(directions)])
    exact = descent.cpu().double()
    push = exact @ rows.mT
    return Pooled(push / vector_norm(exact, dim=-1, keepdim=True), push)


@dataclass(frozen=True)
class StepMeans:
    """What each step of a run shows along every direction, over the examples of its batch; float32, CPU.

    Attributes:
        alignment: mean cosine at the primary position, `[steps, layers, directions]`, the trait's direction first.
        push: mean projection there, of the same shape, which is the projection of minus the mean gradient.
        norm: length of the mean gradient, `[steps, layers, positions]`.
        at_positions: `alignment` and `push` of the first directions at every position, `[steps, layers, positions,
            kept]`.
    """

    alignment: Tensor
    push: Tensor
    norm: Tensor
    at_positions: Pooled

    @property
    def pooled(self) -> Tensor:
        """Pooled alignment at the primary position, `[steps, layers, directions]`: the mean gradient's cosine."""
        return self.push / self.norm[..., PRIMARY, None]
