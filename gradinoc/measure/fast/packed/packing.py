"""Examples in one row without padding, with what several begin with held once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch

from gradinoc.measure.fast.attention import Layout, Sight
from gradinoc.measure.passes.batches import Batch, Row, batch_at
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

    @staticmethod
    def joined(rows: Sequence[Shared]) -> Shared:
        """Several such rows, one after the other; nothing is shared between them."""
        starts = accumulate((len(row.ids) for row in rows), initial=0)
        return Shared(
            tuple(id_ for row in rows for id_ in row.ids),
            tuple(position for row in rows for position in row.position_ids),
            tuple(length for row in rows for length in row.lengths),
            tuple(more for row in rows for more in row.below),
            tuple(
                tuple(place + start for place in places)
                for row, start in zip(rows, starts, strict=False)
                for places in row.places
            ),
        )

    def filled(self, tokens: int) -> Shared:
        """The same with tokens behind that nothing sees, until it has so many."""
        more = tokens - len(self.ids)
        if not more:
            return self
        return Shared.joined([self, Shared((0,) * more, (0,) * more, (more,), (0,), ())])

    @property
    def layout(self) -> Layout:
        """Which tokens see which."""
        return Layout.of(self.lengths, self.below)

    @property
    def row(self) -> Row:
        """As tensors."""
        return Row(torch.tensor(self.ids)[None], torch.tensor(self.position_ids)[None], self.layout)


def share(sequences: Sequence[tuple[int, ...]], limits: Sequence[int] | None = None) -> Shared:
    """Sequences of token ids in one row, with beginnings of at least `SHARED_FROM` tokens that are alike held once.

    Of each sequence no more than `limits` says are shared, if given.
    """
    ids: list[int] = []
    positions: list[int] = []
    lengths: list[int] = []
    below: list[int] = []
    places: list[tuple[int, ...]] = [()] * len(sequences)
    beginnings = [row[:most] for row, most in zip(sequences, limits or map(len, sequences), strict=True)]

    def lay(rows: Sequence[int], path: tuple[int, ...]) -> None:
        """Sequences whose beginnings ascend, of which all begin with the tokens at `path` and go on after them."""
        for group in _alike(beginnings, rows, len(path) + SHARED_FROM):
            first, start, piece = sequences[group[0]], len(ids), len(lengths)
            common = len(first) if len(group) == 1 else in_common(beginnings[group[0]], beginnings[group[-1]])
            ids.extend(first[len(path) : common])
            positions.extend(range(len(path), common))
            whole, end = path + tuple(range(start, len(ids))), len(ids)
            lengths.append(end - start)
            below.append(0)
            going_on = [row for row in group if len(sequences[row]) > common]
            for row in group:
                places[row] = whole
            lay(going_on, whole)
            below[piece] = len(ids) - end

    lay(sorted(range(len(sequences)), key=beginnings.__getitem__), ())
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


def pack(examples: Sequence[Encoded], runs: int = 1, even: bool = False, shared: bool = True) -> Batch:
    """The examples in one row, with what several prompts begin with held once: for forward and backward passes.

    Nothing is held once if they are not to be `shared`.

    From its last prompt token on each is its own: gradients are read there. The examples of several `runs`, as many of
    each, lie run by run and share nothing, each run's with as many tokens as the others' if they are to be `even`.
    """
    size = len(examples) // runs
    rows = [
        share([each.ids for each in run], [shared * (each.prompt_length - 1) for each in run])
        for run in (examples[start : start + size] for start in range(0, len(examples), size))
    ]
    if even:
        rows = [row.filled(max(len(each.ids) for each in rows)) for row in rows]
    return replace(_packed(examples, Shared.joined(rows)), parts=tuple(len(row.ids) for row in rows))


def pack_shared(examples: Sequence[Encoded], copies: int = 1) -> Batch:
    """The examples in one row, with whatever several begin with held once: for forward passes alone.

    The examples are there several times if there are `copies`, copy by copy.
    """
    shared = Shared.joined([share([example.ids for example in examples])] * copies)
    return replace(_packed([*examples] * copies, shared), forward_only=True)


def pack_ends(examples: Sequence[Encoded]) -> Batch:
    """The examples from their last prompt token on, in one row; what is before that, in another.

    For gradients with respect to the hidden states of a frozen model from there on: no backward pass goes further back.
    """
    limits = [example.prompt_length - 1 for example in examples]
    if not all(limits):  # a prompt of one token has nothing before it
        return pack(examples)
    beginnings = [example.ids[:limit] for example, limit in zip(examples, limits, strict=True)]
    ends = [Encoded(example.ids[limit:], 1) for example, limit in zip(examples, limits, strict=True)]
    before = share(beginnings)
    order = sorted(range(len(examples)), key=beginnings.__getitem__)  # in which they are laid there
    at, start, past = [slice(0)] * len(examples), 0, len(before.ids)
    for row in order:
        at[row] = slice(start, start := start + len(ends[row].ids))
    own = [Sight(at[row], slice(at[row].start + past, at[row].stop + past)) for row in order]
    above = []
    for _, piece in before.layout.own:
        below = [at[row] for row in order if piece.start in before.places[row]]
        above.append(Sight(slice(below[0].start, below[-1].stop), piece))
    ids = torch.tensor([token for row in order for token in ends[row].ids])[None]
    positions = torch.cat([torch.arange(limits[row], len(examples[row].ids)) for row in order])[None]
    places = [range(each.start, each.stop) for each in at]
    batch = batch_at(ends, places, ids, positions, torch.ones_like(ids))
    return replace(batch, layout=Layout(tuple(own), tuple(above), past), before=before.row)


def _packed(examples: Sequence[Encoded], shared: Shared) -> Batch:
    row = shared.row
    batch = batch_at(examples, shared.places, row.input_ids, row.position_ids, torch.ones_like(row.input_ids))
    return replace(batch, layout=row.layout)
