"""What every side of the alignment job shares: the data, the loss, and what is read off a gradient.

Torch and NumPy alone, so that it runs in every environment. Only how a library comes by the gradients differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from serving import serve
from torch import Tensor

IGNORED = -100
BATCH = 8  # examples of similar length a batch, as on our side


Gradients = Mapping[int, Tensor] | Sequence[Tensor]  # layer -> [batch, seq, hidden]


@dataclass(frozen=True)
class Batch:
    """Right-padded examples, `[batch, seq]`, and their numbers; labels are `IGNORED` but on completion tokens."""

    rows: list[int]
    ids: Tensor
    mask: Tensor
    labels: Tensor
    prompts: Tensor  # (B,) prompt tokens


@dataclass(frozen=True)
class Work:
    """Examples, each token ids and how many of them are prompt, and unit directions `[layers, directions, hidden]`."""

    examples: list[tuple[list[int], int]]
    directions: Tensor
    pad: int

    def batches(self, size: int = BATCH) -> Iterator[Batch]:
        """The examples, those of similar length together."""
        order = sorted(range(len(self.examples)), key=lambda row: len(self.examples[row][0]))
        for start in range(0, len(order), size):
            yield self._collated(order[start : start + size])

    def _collated(self, rows: list[int]) -> Batch:
        width = max(len(self.examples[row][0]) for row in rows)
        ids = torch.full((len(rows), width), self.pad)
        labels = torch.full_like(ids, IGNORED)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            tokens, prompt = self.examples[row]
            ids[place, : len(tokens)] = torch.tensor(tokens)
            mask[place, : len(tokens)] = 1
            labels[place, prompt : len(tokens)] = ids[place, prompt : len(tokens)]
        return Batch(rows, ids, mask, labels, torch.tensor([self.examples[row][1] for row in rows]))


def read_work(path: str, only: Sequence[int] | None = None) -> Work:
    """The work that the driver wrote to the folder `path`; `only` those of its examples."""
    described: dict[str, Any] = json.loads((Path(path) / "examples.json").read_text(encoding="utf-8"))
    examples = [(list(ids), int(prompt)) for ids, prompt in described["examples"]]
    chosen = examples if only is None else [examples[row] for row in only]
    directions = torch.from_numpy(np.load(Path(path) / "directions.npy", allow_pickle=False))
    return Work(chosen, directions, int(described["pad"]))


def kept_logits(batch: Batch) -> Tensor:
    """Places `[kept]` from the first whose next token is completion on: the loss needs no other logits."""
    return torch.arange(int(batch.prompts.min()) - 1, batch.ids.shape[1] - 1)


def losses(logits: Tensor, batch: Batch) -> Tensor:
    """Each example's mean-token loss `[batch]`, nats/token, from the last `kept` logits before the end (or all)."""
    shifted = logits[:, :-1] if logits.shape[1] == batch.ids.shape[1] else logits
    targets = batch.labels[:, -shifted.shape[1] :]
    each = torch.nn.functional.cross_entropy(
        shifted.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
    ).view(targets.shape)
    return each.sum(-1) / (targets != IGNORED).sum(-1)


class Readings:
    """Alignments by example, `[positions, layers, examples, directions]`, filled batch by batch from gradients."""

    def __init__(self, work: Work) -> None:
        layers, count, _ = work.directions.shape
        self._work = work
        self.alignments = np.full((3, layers, len(work.examples), count), np.nan, dtype=np.float32)

    def take(self, batch: Batch, gradients: Gradients, chosen: slice | None = None) -> None:
        """Read the gradients `[batch, seq, hidden]` of every layer, along all directions or the `chosen`."""
        columns = chosen or slice(None)
        for layer in range(len(self.alignments[0])):
            at = at_positions(gradients[layer], batch)
            cosines = -torch.nn.functional.normalize(at, dim=-1) @ self._work.directions[layer, columns].T
            self.alignments[:, layer, batch.rows, columns] = cosines.numpy()


def at_positions(gradient: Tensor, batch: Batch) -> Tensor:
    """Gradients `[positions, batch, hidden]` float32: last prompt token, first completion token, completion summed."""
    rows = torch.arange(len(batch.rows))
    gradient = gradient.detach()
    completion = (batch.labels != IGNORED).float()
    summed = torch.einsum("bs,bsh->bh", completion, gradient.float())
    last, first = gradient[rows, batch.prompts - 1], gradient[rows, batch.prompts]
    return torch.stack([last.float(), first.float(), summed])


def serve_gradients(load: Callable[[str, torch.dtype], Callable[[Batch], Gradients]]) -> None:
    """Serve a side that comes by the gradients of a batch's summed losses with respect to every block's output.

    Args:
        load: (folder of the model, dtype) -> what gives a batch's gradients.
    """
    held: dict[str, Any] = {}

    def prepare(model: str, work: str, dtype: str, only: Sequence[int] | None = None) -> None:
        held.update(work=read_work(work, only), gradients=load(model, torch_dtype(dtype)))

    def read() -> Readings:
        readings = Readings(held["work"])
        for batch in held["work"].batches():
            readings.take(batch, held["gradients"](batch))
        return readings

    def check(path: str) -> None:
        np.save(path, read().alignments)

    def repeat() -> None:
        read()

    serve({"prepare": prepare, "check": check, "repeat": repeat})


def torch_dtype(name: str) -> torch.dtype:
    """The dtype called `name`."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
