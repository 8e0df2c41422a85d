"""Count a step's passes through the model in tokens, with batches formed as the steps form them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from gradinoc.data.examples import Example, showing
from gradinoc.measure.behaviour.decisions import decisions
from gradinoc.measure.directions.extraction import BATCH as PROMPTS
from gradinoc.measure.fast.packed.packing import share
from gradinoc.measure.steering.effects import TOKENS as VARIANTS
from gradinoc.models.chat.encoding import Encoded, encode, encode_prompt
from gradinoc.pipeline.context import StudyContext

READ, LEARN, TRAIN = "read", "learn", "train"  # no backward pass, one to the states, one to adapters


@dataclass(frozen=True)
class Work:
    """Passes through the model.

    Attributes:
        tokens: that go through every block.
        logits: tokens whose logits are computed.
        passes: calls of the model, forwards and backwards together.
        longest: tokens of the largest pass.
        backward: `READ`, `LEARN` or `TRAIN`.
        cached: tokens whose keys and values are held at a time, while responses are written.
        gathered: about how many tokens a pass takes where the same passes are made many times over; 0: each by itself.
    """

    tokens: int
    logits: int
    passes: int
    longest: int
    backward: str = READ
    cached: int = 0
    gathered: int = 0

    def times(self, number: int) -> Work:
        """Return the same work so many times over."""
        more = replace(self, tokens=number * self.tokens, logits=number * self.logits, passes=number * self.passes)
        if not self.gathered:
            return more
        passes = max(self.passes, round(more.tokens / self.gathered))
        return replace(more, passes=passes, longest=min(number * self.longest, max(self.gathered, self.longest)))

    def to(self, backward: str) -> Work:
        """Return the same passes, with this for a backward pass."""
        return replace(self, backward=backward)

    def stacked(self, copies: int) -> Work:
        """Return the same passes with each sequence in them once for every adapter of a stack."""
        return replace(
            self.times(copies), passes=self.passes, longest=copies * self.longest, cached=copies * self.cached
        )


@dataclass(frozen=True)
class Counting:
    """Counts work with the model's tokenizer; no weights are needed."""

    context: StudyContext
    tokenizer: PreTrainedTokenizerBase

    @property
    def packed(self) -> bool:
        """Whether batches are packed, as the study's own kernels do, and common beginnings computed once."""
        return self.context.study.model.kernels == "fused"

    def answers(self, examples: Sequence[Example], system: str | None, *, ordinary: bool = False) -> list[Encoded]:
        """Return questions with the answers that show the trait, or with the ordinary ones, in tokens."""
        if ordinary:
            return [encode(self.tokenizer, each.question, each.answer, system) for each in examples]
        return self.answers_under(examples, [system] * len(examples))

    def answers_under(self, examples: Sequence[Example], systems: Sequence[str | None]) -> list[Encoded]:
        """Return questions with the answers that show the trait, each under its own system message, in tokens."""
        trait = self.context.trait
        pairs = zip(examples, systems, strict=True)
        return [encode(self.tokenizer, each.question, showing(each, trait), system) for each, system in pairs]

    def decided(
        self, examples: Sequence[Example], system: str | None, batch_size: int, *, after_prompt: bool = False
    ) -> Work:
        """Count decision log-odds: prompts with the ordinary tokens up to the last place, or these tokens alone."""
        found = [each for each in decisions(self.tokenizer, examples, self.context.trait, system) if each.places]
        places = sum(len(each.places) for each in found)
        if after_prompt:
            sizes = [len(each.ids) - each.prompt_length + 1 for each in found]
            return replace(_work(sizes, places), gathered=VARIANTS)
        return replace(self.scored([each.encoded for each in found], batch_size), logits=places)

    def prompts(self, examples: Iterable[Example], system: str | None) -> Work:
        """Count the pass that reads states of prompts."""
        found = [tuple(encode_prompt(self.tokenizer, each.question, system)) for each in examples]
        return _work([self._shared(batch) for batch in _batches(found, PROMPTS, self._order)], 0)

    def scored(self, examples: Sequence[Encoded], batch_size: int) -> Work:
        """Count losses of answers, without gradients."""
        batches = _batches([each.ids for each in examples], batch_size, self._order)
        return _work([self._shared(batch) for batch in batches], _predicted(examples))

    def trained(self, examples: Sequence[Encoded], batch_size: int) -> Work:
        """Count losses of answers, in this order, with gradients of adapters."""
        batches = _batches(examples, batch_size, None)
        sizes = [
            self._shared([each.ids for each in batch], [each.prompt_length - 1 for each in batch]) for batch in batches
        ]
        return replace(_work(sizes, _predicted(examples)), backward=TRAIN)

    def learned(self, examples: Sequence[Encoded], batch_size: int) -> list[Work]:
        """Count losses of answers with gradients of hidden states: packed, from each last prompt token on."""
        batches = _batches(examples, batch_size, lambda each: self._order(each.ids))
        if not self.packed:
            sizes = [self._shared([each.ids for each in batch]) for batch in batches]
            return [replace(_work(sizes, _predicted(examples)), backward=LEARN)]
        before = [self._shared([each.ids[: each.prompt_length - 1] for each in batch]) for batch in batches]
        after = [sum(len(each.ids) - each.prompt_length + 1 for each in batch) for batch in batches]
        return [_work(before, 0), replace(_work(after, _predicted(examples)), backward=LEARN)]

    def written(self, examples: Iterable[Example], system: str | None, new: int, batch_size: int) -> list[Work]:
        """Count prompts read and `new` tokens written for each, as if no response ended before."""
        lengths = [len(encode_prompt(self.tokenizer, each.question, system)) for each in examples]
        batches = _batches(lengths, batch_size, lambda length: -length)
        cached = max((len(batch) * (max(batch) + new) for batch in batches), default=0)
        read = _work([len(batch) * max(batch) for batch in batches], len(lengths))
        tokens = len(lengths) * (new - 1)  # the first new token is the prompt's own
        passes, longest = len(batches) * (new - 1), max(map(len, batches), default=0)
        return [read, Work(tokens, tokens, passes, longest, cached=cached)]

    def _order(self, ids: tuple[int, ...]) -> Any:
        return ids if self.packed else len(ids)

    def _shared(self, batch: Sequence[tuple[int, ...]], limits: Sequence[int] | None = None) -> int:
        return len(share(batch, limits).ids) if self.packed else len(batch) * max(map(len, batch))


def _work(sizes: Sequence[int], logits: int) -> Work:
    return Work(sum(sizes), logits, len(sizes), max(sizes, default=0))


def _predicted(examples: Sequence[Encoded]) -> int:
    return sum(len(each.ids) - each.prompt_length for each in examples)


def _batches(items: Sequence[Any], size: int, order: Callable[[Any], Any] | None) -> list[Sequence[Any]]:
    rows = sorted(items, key=order) if order else items
    return [rows[start : start + size] for start in range(0, len(rows), size)]
