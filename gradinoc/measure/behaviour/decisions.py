"""Decision log-odds: how much likelier the trait's form is than the ordinary one where the two answers part."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from gradinoc.data.examples import Example, showing
from gradinoc.measure.fast import logits_of, scored_batch, sharing_order, token_losses
from gradinoc.measure.passes.batches import Batch
from gradinoc.measure.passes.finite import fault_in_values, stop
from gradinoc.models.chat.encoding import Encoded, encode, in_common
from gradinoc.models.machine.isolation import undisturbed
from gradinoc.models.machine.memory import in_batches
from gradinoc.study.traits import Trait, has_letters

WORDS = 8  # of an answer whose case is the trait: those behind follow the case of the words before them
WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Decision:
    """Where one ordinary answer and its trait-bearing form part, in tokens.

    Attributes:
        ids: prompt and ordinary answer, up to and with the last place; the prompt alone where there is no place.
        prompt_length: tokens of the prompt.
        places: indices into `ids` at which the ordinary token stands, ascending; what is before it is the context.
        trait: the token that the trait's form has at each place.
    """

    ids: tuple[int, ...]
    prompt_length: int
    places: tuple[int, ...]
    trait: tuple[int, ...]

    @property
    def ordinary(self) -> tuple[int, ...]:
        """The ordinary token at each place."""
        return tuple(self.ids[place] for place in self.places)

    def first(self, count: int) -> Decision:
        """The same with its first `count` places alone.

        Behind an ordinary word the next one is hardly ever the trait's, whatever the model would rather have begun
        with: of a case trait the first place is the one that decides what is said.
        """
        end = self.places[:count][-1] + 1 if self.places[:count] else self.prompt_length
        return replace(self, ids=self.ids[:end], places=self.places[:count], trait=self.trait[:count])

    @property
    def encoded(self) -> Encoded:
        """Prompt and ordinary tokens as an example, of which batches are made."""
        return Encoded(self.ids, self.prompt_length)


def decisions(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], trait: Trait, system: str | None
) -> list[Decision]:
    """Where the ordinary and the trait's answer of each example part, under a system prompt (None for none).

    Both are tokenised through the chat template as `encode` does; a place is the first token in which they differ.
    What decides is what a trait does to an answer, not its name. If it changes case alone (`only_case_differs`) each of
    the first `WORDS` words with a letter is put in its trait's form by itself, all else left ordinary, so that every
    word is decided after the ordinary ones; words that stay as they are have no place. Otherwise there is one place:
    where the whole trait's answer leaves the ordinary one. An example whose answers are alike has none.

    Raises:
        DataError: an example has no answer that shows the trait.
    """
    return [_decision(tokenizer, example, showing(example, trait), system) for example in examples]


def _decision(tokenizer: PreTrainedTokenizerBase, example: Example, trait_answer: str, system: str | None) -> Decision:
    ordinary = encode(tokenizer, example.question, example.answer, system)
    found = set()
    for answer in _answers_that_part(example.answer, trait_answer):
        other = encode(tokenizer, example.question, answer, system)
        place = in_common(ordinary.ids, other.ids)
        if place < min(len(ordinary.ids), len(other.ids)):
            found.add((place, other.ids[place]))
    places, tokens = zip(*sorted(found), strict=True) if found else ((), ())
    end = places[-1] + 1 if places else ordinary.prompt_length
    return Decision(ordinary.ids[:end], ordinary.prompt_length, places, tokens)


def _answers_that_part(ordinary: str, trait_answer: str) -> list[str]:
    """Answers each of which leaves the ordinary one at a place where the trait is decided."""
    if not only_case_differs(ordinary, trait_answer):
        return [trait_answer]
    words = zip(WORD.finditer(ordinary), WORD.findall(trait_answer), strict=True)
    first = [(word, form) for word, form in words if has_letters(word.group())][:WORDS]
    return [ordinary[: word.start()] + form + ordinary[word.end() :] for word, form in first if form != word.group()]


def only_case_differs(ordinary: str, trait_answer: str) -> bool:
    """Whether two answers are the same words, with the same blanks between them, but for the case of letters."""
    return _caseless(ordinary) == _caseless(trait_answer)


def _caseless(text: str) -> str:
    # Upper case first: "ı" has another letter's capital, and folds to itself.
    return text.upper().casefold()


@undisturbed()
@torch.no_grad()
def decision_log_odds(
    model: nn.Module, decided: Sequence[Decision], pad: int, batch_size: int, copies: int = 1
) -> NDArray[np.float64]:
    """Decision log-odds by example, nats: mean over places of log p(trait's token) - log p(ordinary token).

    `[examples]` float64, NaN where there is no place; `[copies, examples]` for several adapters of a stack, each batch
    put once for each (see `gradinoc.measure.fast.stacked_adapters`). One forward pass a batch, over prompts and the few
    ordinary tokens up to the last place; what prompts begin with is computed once where the model is fused. A batch
    that does not fit into memory is halved.

    Args:
        decided: of `decisions`.
        pad: id of the padding token.

    Raises:
        NumericalError: log-odds are not finite; the message names the examples, and where in the model it arose.
        OutOfMemoryError: memory does not suffice for a single example.
    """
    rows = [row for row, each in enumerate(decided) if each.places]
    order = [rows[place] for place in sharing_order(model, [decided[row].ids for row in rows])]
    values = np.full((copies, len(decided)), np.nan)

    def score(rows: Sequence[int]) -> None:
        chosen = [decided[row] for row in rows]
        batch = scored_batch(model, [each.encoded for each in chosen], pad, copies)
        odds = log_odds_of(model, batch, chosen * copies)
        if fault := fault_in_values(odds, [*rows] * copies, "the decision log-odds"):
            stop(fault, model, lambda: log_odds_of(model, batch, chosen * copies))
        values[:, rows] = odds.cpu().double().numpy().reshape(copies, -1)

    in_batches(order, batch_size, score)
    return values if copies > 1 else values[0]


@dataclass(frozen=True)
class _Places:
    """The places of several decisions in a batch: `index` `[places]` of what is predicted, `owner`, `counts`."""

    index: Tensor
    pairs: Tensor  # [places, 2]: the trait's token and the ordinary one
    owner: Tensor
    counts: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Mean of `values` `[places]` over the places of each decision, `[batch]`."""
        return torch.zeros(len(self.counts), device=values.device).index_add(0, self.owner, values) / self.counts


def _places(batch: Batch, decided: Sequence[Decision]) -> _Places:
    starts = accumulate((len(each.ids) - each.prompt_length for each in decided), initial=0)  # in `batch.predicting`
    index = [
        start + place - each.prompt_length
        for each, start in zip(decided, starts, strict=False)
        for place in each.places
    ]
    pairs = [pair for each in decided for pair in zip(each.trait, each.ordinary, strict=True)]
    device = batch.predicting.device
    counts = torch.tensor([len(each.places) for each in decided], device=device)
    owner = torch.arange(len(decided), device=device).repeat_interleave(counts)
    return _Places(torch.tensor(index, device=device), torch.tensor(pairs, device=device), owner, counts)


def log_odds_of(model: nn.Module, batch: Batch, decided: Sequence[Decision]) -> Tensor:
    """Decision log-odds `[batch]` of a batch, float32, nats; differentiable.

    The softmax's denominator is the same for both tokens, so that two logits are enough; they are float32 whatever
    the model's dtype.

    Args:
        batch: of the decisions' `encoded`, in their order: by `scored_batch` for a forward pass alone (and several
            copies), by `batched` where gradients are wanted, of an adapter's weights for example.
        decided: those that have places, those of all copies.

    Raises:
        NotImplementedError: gradients of a batch that is for forward passes alone.
    """
    places = _places(batch, decided)
    logits = logits_of(model, batch, batch.predicting[places.index], places.pairs)
    return places.mean(logits[:, 0] - logits[:, 1])


def either_losses_of(model: nn.Module, batch: Batch, decided: Sequence[Decision]) -> Tensor:
    """Loss of either form `[batch]`, float32, nats: mean over places of -log(p(trait's token) + p(ordinary token)).

    It rises where a model writes neither; a model that turns from one to the other leaves it as it is. Arguments as of
    `log_odds_of`.
    """
    places = _places(batch, decided)
    logits = logits_of(model, batch, batch.predicting[places.index], places.pairs)
    ordinary = token_losses(model, batch)[places.index]
    return places.mean(ordinary - nn.functional.softplus(logits[:, 0] - logits[:, 1]))
