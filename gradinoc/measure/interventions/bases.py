"""Directions of layers as orthonormal rows: what a vector has along them, and vectors made of such components."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

ORTHONORMAL = 1e-5  # how far products of different rows of a basis may be from zero


def bases(model: nn.Module, directions: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Unit rows by layer, `[rank, hidden]`, or `[rows, rank, hidden]` where each row has a basis of its own.

    On the model's device; float32, or float64 for a model of that dtype. They are constants: no gradient reaches
    `directions`.

    Args:
        model: a decoder-only model, PEFT-wrapped or not.
        directions: layer -> a direction `[hidden]` of any length, an orthonormal basis of a subspace `[rank, hidden]`,
            or such a basis for each row, `[rows, rank, hidden]`.

    Raises:
        ValueError: a direction that is zero or not finite, or a basis whose rows are not orthogonal.
    """
    weight = next(model.parameters())
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return {layer: basis_of(layer, each).to(weight.device, dtype) for layer, each in directions.items()}


def basis_of(layer: int, direction: Tensor) -> Tensor:
    """As `bases`, of one layer, float64 on the CPU."""
    if direction.dim() not in (1, 2, 3) or not direction.is_floating_point():
        raise ValueError(
            f"Direction of layer {layer}: expected real numbers [hidden], [rank, hidden] or [rows, rank, hidden], "
            f"received {tuple(direction.shape)} {direction.dtype}"
        )
    exact = torch.atleast_2d(direction.detach().cpu().double())
    length = vector_norm(exact, dim=-1, keepdim=True)
    if not bool(((length > 0) & length.isfinite()).all()):
        raise ValueError(f"Direction of layer {layer}: expected vectors of positive, finite length")
    unit: Tensor = exact / length
    apart = (unit @ unit.mT - torch.eye(unit.shape[-2], dtype=unit.dtype)).abs().max()
    if bool(apart > ORTHONORMAL):
        raise ValueError(
            f"Directions of layer {layer}: expected orthonormal rows, received rows whose products are up to "
            f"{float(apart):.2g}; take those of torch.linalg.qr(rows.T).Q.T"
        )
    return unit


def along(vectors: Tensor, basis: Tensor, rows: Tensor | None) -> Tensor:
    """Components `[tokens, rank]` of `vectors` `[tokens, hidden]`; `rows` says whose basis each has, if they differ."""
    if basis.dim() == 2:
        return vectors @ basis.mT
    return torch.einsum("th,trh->tr", vectors, basis[rows])


def made_of(components: Tensor, basis: Tensor, rows: Tensor | None) -> Tensor:
    """Vectors `[tokens, hidden]` with these components `[tokens, rank]`."""
    if basis.dim() == 2:
        return components @ basis
    return torch.einsum("tr,trh->th", components, basis[rows])


def by_token(strength: Tensor, rows: Tensor | None) -> Tensor:
    """A strength, or that of each token's row, as a factor of `[tokens, ...]`."""
    return strength if strength.dim() == 0 else strength[rows].unsqueeze(-1)


def strengths(model: nn.Module, strength: float | Tensor) -> Tensor:
    """A strength, or one for each row, `[]` or `[rows]`, in the dtype of `bases`.

    Raises:
        ValueError: it is neither, or not finite.
    """
    weight = next(model.parameters())
    found = torch.as_tensor(strength).detach().to(weight.device, torch.promote_types(weight.dtype, torch.float32))
    if found.dim() > 1 or not bool(found.isfinite().all()):
        raise ValueError(f"Strength: expected a finite number or one for each row, received {strength}")
    return found


def alike(basis: dict[int, Tensor]) -> dict[int, Tensor]:
    """Bases that are the same for every row.

    Raises:
        ValueError: they are not.
    """
    if by_row := [layer for layer, each in basis.items() if each.dim() != 2]:
        raise ValueError(f"Directions of layers {by_row}: expected [hidden] or [rank, hidden], the same for every row")
    return basis


def row_counts(basis: Mapping[int, Tensor], strength: Tensor) -> list[int]:
    """For how many rows there are bases and strengths, where they are by row."""
    counts = [len(each) for each in basis.values() if each.dim() == 3]
    return counts + ([len(strength)] if strength.dim() else [])


def ensure_hidden(layer: int, basis: Tensor, hidden: Tensor) -> None:
    """Refuse directions of another hidden size than the stream's.

    Raises:
        ValueError: they are.
    """
    if basis.shape[-1] != hidden.shape[-1]:
        raise ValueError(f"Direction of layer {layer}: expected {hidden.shape[-1]} numbers, not {basis.shape[-1]}")
