"""Passes through a model, counted in tokens, with batches formed as the steps of a study form them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gradinoc.measure.directions import BATCH as PROMPTS
from gradinoc.measure.fast.packing import share
from gradinoc.models.chat.encoding import Encoded

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """Passes through the model.

    Attributes:
        tokens: that go through every block.
        pairs: of tokens of one sequence, in either order: what attention computes where nothing is spared.
        logits: tokens whose logits are computed.
        passes: calls of the model; with `learns`, forwards and backwards together.
        longest: tokens of the largest pass.
        learns: whether there is a backward pass.
        trains: whether adapters learn from it.
        writes: whether each pass takes one new token of every sequence.
        adapted: whether adapters are in place.
        extraction: whether it is done in the dtype in which directions are found.
    """

    tokens: int
    pairs: int
    logits: int
    passes: int
    longest: int
    learns: bool = False
    trains: bool = False
    writes: bool = False
    adapted: bool = False
    extraction: bool = False

    def times(self, number: int) -> Work:
        """The same work so many times over."""
        return replace(
            self, tokens=number * self.tokens, pairs=number * self.pairs, logits=number * self.logits,
            passes=number * self.passes,
        )  # fmt: skip

    def together(self, copies: int) -> Work:
        """The same passes with every sequence in them so many times, once for each adapter of a stack."""
        return replace(self.times(copies), passes=self.passes, longest=copies * self.longest)


def prompts_read(prompts: Sequence[Tokens], packed: bool, extraction: bool = False, adapted: bool = False) -> Work:
    """States of prompts; packed, what the prompts of a batch begin with is computed once."""
    batches = _batches(prompts, PROMPTS, _order(packed))
    return _work([_size(batch, packed) for batch in batches], 0, extraction=extraction, adapted=adapted)


def answers_scored(examples: Sequence[Encoded], batch_size: int, packed: bool, adapted: bool = False) -> Work:
    """Losses of answers, without gradients; as `prompts_read`."""
    order = _order(packed)
    batches = _batches(examples, batch_size, lambda example: order(example.ids))
    sizes = [_size([example.ids for example in batch], packed) for batch in batches]
    return _work(sizes, _predicted(examples), adapted=adapted)


def answers_learned(
    batches: Sequence[Sequence[Encoded]], packed: bool, adapted: bool = False, trains: bool = False
) -> Work:
    """Losses of answers with their gradients, of the states or of adapters too: each example by itself."""
    sizes = [_apart([len(example.ids) for example in batch], packed) for batch in batches]
    logits = sum(_predicted(batch) for batch in batches)
    return _work(sizes, logits, learns=True, adapted=adapted, trains=trains)


def responses_written(prompts: Sequence[Tokens], new: int, batch_size: int, adapted: bool) -> tuple[Work, Work]:
    """Prompts read, padded on the left, and `new` tokens written for each, as if no response ended before."""
    read, widths = [], []
    for batch in _batches(prompts, batch_size, lambda prompt: -len(prompt)):
        width, rows = max(map(len, batch)), len(batch)
        read.append((rows * width, rows * width**2))
        widths.append((width, rows))
    steps = range(1, new)  # the first new token is the prompt's own
    seen = sum(rows * (width + step) for width, rows in widths for step in steps)
    written = len(prompts) * len(steps)
    return (
        _work(read, len(prompts), adapted=adapted),
        Work(
            written, seen, written, len(widths) * len(steps), max((rows for _, rows in widths), default=0),
            writes=True, adapted=adapted,
        ),
    )  # fmt: skip


def by_length(examples: Sequence[Encoded], batch_size: int) -> list[Sequence[Encoded]]:
    """Batches of examples of similar length."""
    return _batches(examples, batch_size, lambda example: len(example.ids))


def _work(sizes: Sequence[tuple[int, int]], logits: int, **kind: bool) -> Work:
    """The work of passes of (tokens, pairs)."""
    tokens, pairs = ([size[part] for size in sizes] for part in (0, 1))
    return Work(sum(tokens), sum(pairs), logits, len(sizes), max(tokens, default=0), **kind)


def _predicted(examples: Sequence[Encoded]) -> int:
    """Tokens of the answers."""
    return sum(len(example.ids) - example.prompt_length for example in examples)


def _size(sequences: Sequence[Tokens], packed: bool) -> tuple[int, int]:
    """Tokens and pairs of a forward pass on these."""
    if not packed:
        return _apart([len(ids) for ids in sequences], packed)
    shared = share(sequences)
    pairs = sum(length * (length + below) for length, below in zip(shared.lengths, shared.below, strict=True))
    return len(shared.ids), pairs


def _apart(lengths: Sequence[int], packed: bool) -> tuple[int, int]:
    """Tokens and pairs of sequences side by side, each as long as the longest unless they are packed."""
    held = lengths if packed else [max(lengths)] * len(lengths)
    return sum(held), sum(length**2 for length in held)


def _order(packed: bool) -> Callable[[Tokens], Any]:
    """What sequences are sorted by before they share a batch: how they begin, or how long they are."""
    return (lambda ids: ids) if packed else len


def _batches(items: Sequence[Any], size: int, order: Callable[[Any], Any]) -> list[Sequence[Any]]:
    rows = sorted(items, key=order)
    return [rows[start : start + size] for start in range(0, len(rows), size)]
