"""Examples in one row without padding; for forward passes alone, with what several begin with held once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch

from gradinoc.measure.batches import Batch, batch_at
from gradinoc.models.chat.encoding import Encoded, in_common

SHARED_FROM = 16  # tokens in common from which on they are held once: each piece costs calls of its own


@dataclass(frozen=True)
class Shared:
    """Sequences in one row, what several begin with held once: the pieces of a tree, each before those that go on.

    Attributes:
        ids: the pieces' token ids, one after the other.
        position_ids: each token's place in its sequences.
        lengths: tokens of each piece.
        below: how many of the tokens after each piece see it.
        places: index of each of a sequence's tokens, sequence by sequence.
    """

    ids: tuple[int, ...]
    position_ids: tuple[int, ...]
    lengths: tuple[int, ...]
    below: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]

    def repeated(self, copies: int) -> Shared:
        """The same row several times, one after the other."""
        return Shared(
            self.ids * copies,
            self.position_ids * copies,
            self.lengths * copies,
            self.below * copies,
            tuple(
                tuple(place + copy * len(self.ids) for place in places)
                for copy in range(copies)
                for places in self.places
            ),
        )


def share(sequences: Sequence[tuple[int, ...]]) -> Shared:
    """Sequences of token ids in one row, with beginnings of at least `SHARED_FROM` tokens that are alike held once."""
    ids: list[int] = []
    positions: list[int] = []
    lengths: list[int] = []
    below: list[int] = []
    places: list[tuple[int, ...]] = [()] * len(sequences)

    def lay(rows: Sequence[int], path: tuple[int, ...]) -> None:
        """Sequences in ascending order, of which all begin with the tokens at `path` and go on after them."""
        for group in _alike(sequences, rows, len(path) + SHARED_FROM):
            common, start, piece = in_common(sequences[group[0]], sequences[group[-1]]), len(ids), len(lengths)
            ids.extend(sequences[group[0]][len(path) : common])
            positions.extend(range(len(path), common))
            whole, end = path + tuple(range(start, len(ids))), len(ids)
            lengths.append(end - start)
            below.append(0)
            going_on = [row for row in group if len(sequences[row]) > common]
            for row in group:
                places[row] = whole
            lay(going_on, whole)
            below[piece] = len(ids) - end

    lay(sorted(range(len(sequences)), key=sequences.__getitem__), ())
    return Shared(tuple(ids), tuple(positions), tuple(lengths), tuple(below), tuple(places))


def _alike(sequences: Sequence[tuple[int, ...]], rows: Sequence[int], tokens: int) -> list[list[int]]:
    """Ascending sequences in groups of neighbours that begin with the same `tokens` tokens."""
    groups = [[row] for row in rows[:1]]
    for row, following in pairwise(rows):
        if in_common(sequences[row], sequences[following]) >= tokens:
            groups[-1].append(following)
        else:
            groups.append([following])
    return groups


def pack(examples: Sequence[Encoded]) -> Batch:
    """A batch without padding: all examples in one row, one after the other."""
    ids = torch.tensor([token for example in examples for token in example.ids])[None]
    positions = torch.cat([torch.arange(len(example.ids)) for example in examples])[None]
    ends = list(accumulate((len(example.ids) for example in examples), initial=0))
    places = [range(start, end) for start, end in pairwise(ends)]
    return replace(batch_at(examples, places, ids, positions, torch.ones_like(ids)), packed=True)


def pack_shared(examples: Sequence[Encoded], copies: int = 1) -> Batch:
    """A packed batch in which examples that begin alike share their beginning: for forward passes alone.

    The examples are there several times if there are `copies`, copy by copy.
    """
    shared = share([example.ids for example in examples]).repeated(copies)
    ids = torch.tensor(shared.ids)[None]
    positions = torch.tensor(shared.position_ids)[None]
    batch = batch_at([*examples] * copies, shared.places, ids, positions, torch.ones_like(ids))
    return replace(batch, packed=True, lengths=shared.lengths, below=shared.below)
