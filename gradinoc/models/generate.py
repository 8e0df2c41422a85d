"""Continuations of prompts, greedy or sampled, in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import groupby
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from gradinoc.errors import NumericalError
from gradinoc.models.blocks import unwrapped
from gradinoc.models.chat.encoding import opening
from gradinoc.models.chat.template import end_of_turn
from gradinoc.models.machine.isolation import undisturbed
from gradinoc.models.machine.memory import in_batches
from gradinoc.models.past import can_share, past_of
from gradinoc.models.sampling import GumbelNoise, Sampling, noise_keys
from gradinoc.models.steered import is_steered, refuse_reordering

_ATTRIBUTE = "gradinoc_way"  # of a model whose responses cannot be generated in any way


class Batching(StrEnum):
    """Which prompts may share a batch, so that a response is what it is alone."""

    PADDED = "of any length, padded on the left"
    EQUAL = "of equal length"
    ALONE = "of one"


class Way(NamedTuple):
    """How responses are generated: in which batches, and whether through the cache, which is much faster."""

    batches: Batching = Batching.PADDED
    cached: bool = True

    def __str__(self) -> str:
        """In words."""
        return f"in batches {self.batches}{'' if self.cached else ', without a cache'}"


def way(model: nn.Module) -> Way:
    """How responses of `model`, wrapped by PEFT or not, are generated: the fastest way unless it is known better."""
    return Way(*getattr(unwrapped(model), _ATTRIBUTE, Way()))


def set_way(model: nn.Module, chosen: Way) -> None:
    """Have responses of `model` generated so from now on."""
    setattr(unwrapped(model), _ATTRIBUTE, chosen)


def generate(
    lm_model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """Greedy continuations of the token ids in `prompts`, as text without special tokens, in their order.

    A continuation stops before its first end-of-turn or end-of-text token, or after `max_new_tokens`. What a template
    writes before an answer (gpt-oss's channel), and what comes before that, is no part of it. Prompts of similar length
    share a batch; the model's own settings (temperature, repetition penalty) have no say.

    Raises:
        ValueError: a prompt is empty.
    """
    return generate_copies(lm_model, tokenizer, prompts, max_new_tokens, batch_size, 1)[0]


@undisturbed()
def generate_copies(
    lm_model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    max_new_tokens: int,
    batch_size: int,
    copies: int,
) -> list[list[str]]:
    """As `generate`, with every batch of prompts put `copies` times, once for each adapter of a stack.

    See `gradinoc.measure.fast.stacked_adapters`. One list of continuations a copy. A batch that memory does not
    suffice for is halved.

    Raises:
        ValueError: a prompt is empty, or the model is steered row by row.
        NumericalError: a logit is not a number; the message names the prompts.
        OutOfMemoryError: memory does not suffice for a single prompt.
    """
    return _continuations(lm_model, tokenizer, prompts, max_new_tokens, batch_size, copies)


@undisturbed()
def sample_copies(
    lm_model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    sampling: Sampling,
    batch_size: int,
    labels: Sequence[str] = ("",),
) -> list[list[list[str]]]:
    """Sampled continuations `[copies][prompts][samples]` at temperature 1; all else as in `generate_copies`.

    There are as many copies as `labels`, which name what is sampled from (a run, its checkpoint): a response is decided
    by seed, label, the prompt's tokens and the number of the sample, whatever shares a batch. Under another label the
    same model says something else. A prompt that is there twice is sampled twice as often.

    Args:
        batch_size: responses at a time from each copy.

    Raises:
        ValueError: a prompt is empty, or two copies have one label and would share their noise.
        NumericalError: a logit is not a number; the message names the prompts.
        OutOfMemoryError: memory does not suffice for a single response.
    """
    if len({*labels}) < len(labels):
        raise ValueError(f"Labels {list(labels)}: expected another one for each copy, whose noise is drawn by it")
    firsts, seen = [], Counter[tuple[int, ...]]()
    for prompt in map(tuple, prompts):
        firsts.append(seen[prompt])
        seen[prompt] += sampling.samples

    def key(label: str, row: int) -> NDArray[np.int32]:
        place, sample = divmod(row, sampling.samples)
        return noise_keys(sampling.seed, label, prompts[place], firsts[place] + sample, sampling.max_new_tokens)

    def noise(rows: Sequence[int]) -> GumbelNoise:
        return GumbelNoise(np.stack([key(label, row) for label in labels for row in rows]), device)

    device, copies = next(lm_model.parameters()).device, len(labels)
    found = _continuations(
        lm_model, tokenizer, prompts, sampling.max_new_tokens, batch_size, copies, noise, sampling.samples
    )
    starts = range(0, len(prompts) * sampling.samples, sampling.samples)
    return [[own[start : start + sampling.samples] for start in starts] for own in found]


def _continuations(
    lm_model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    max_new_tokens: int,
    batch_size: int,
    copies: int,
    noise: Callable[[Sequence[int]], LogitsProcessor] | None = None,
    samples: int = 1,
) -> list[list[str]]:
    """Continuations of each copy, `samples` of each prompt, one after the other: greedy, or of logits with `noise`.

    That is made for the rows of a batch: numbers of responses, `samples` to a prompt.
    """
    empty = [index for index, prompt in enumerate(prompts) if not prompt]
    if empty:
        raise ValueError(f"Prompts {empty} hold no token; a continuation needs at least one")
    refuse_reordering(lm_model)
    model: Any = unwrapped(lm_model)
    ends = end_tokens(model, tokenizer)
    opened = [] if tokenizer.chat_template is None else opening(tokenizer)
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    # Padding is masked and cut off: where there is no pad token, any other serves.
    pad = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=sorted(ends) or None, pad_token_id=pad,
        use_cache=way(model).cached,
    )  # fmt: skip
    every = [prompt for prompt in prompts for _ in range(samples)]
    responses = [[""] * len(every) for _ in range(copies)]
    # Longest first: a lack of memory shows at once.
    order = sorted(range(len(every)), key=lambda index: -len(every[index]))
    chosen = way(model)
    alike = [order] if chosen.batches is Batching.PADDED else _of_equal_length(order, every)
    # Where a prompt ends is seen in a pass over all of it: what is steered from there on shares no beginnings.
    shared = samples > 1 and chosen.cached and can_share(model) and not is_steered(model)

    def respond(rows: Sequence[int]) -> None:
        ids, mask = (each.repeat(copies, 1) for each in _pad_left([every[row] for row in rows], pad))
        device, sound, asked = next(model.parameters()).device, _SoundLogits(), [row // samples for row in rows]
        ids, mask = ids.to(device), mask.to(device)
        past = past_of(model, ids, mask, asked, copies) if shared else {}
        output = model.generate(
            ids, attention_mask=mask, generation_config=settings, **past,
            logits_processor=LogitsProcessorList([sound, noise(rows)] if noise else [sound]),
        )  # fmt: skip
        sound.check(asked)
        for place, tokens in enumerate(output[:, ids.shape[1] :].tolist()):
            stop = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
            copy, row = divmod(place, len(rows))
            answer = _answer(tokens[:stop], opened, special)
            responses[copy][rows[row]] = str(tokenizer.decode(answer, skip_special_tokens=True))

    with _own_settings_aside(model):
        for rows in alike:
            in_batches(rows, 1 if chosen.batches is Batching.ALONE else batch_size, respond)
    return responses


def _answer(tokens: list[int], opened: Sequence[int], special: set[int]) -> list[int]:
    """What comes after the place where a response opens its answer; all of it where it does not.

    Words that hold a special token, as gpt-oss's channel, open it wherever they come last; others at the beginning.
    """
    width = len(opened)
    places = range(len(tokens) - width + 1) if special & set(opened) else range(1)
    found = [at for at in places if width and tokens[at : at + width] == list(opened)]
    return tokens[found[-1] + width :] if found else tokens


def _of_equal_length(order: Sequence[int], prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    return [list(rows) for _, rows in groupby(order, key=lambda index: len(prompts[index]))]


@torch.no_grad()
def generated_logits(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], new: int, cached: bool
) -> tuple[Tensor, Tensor]:
    """The `new` tokens that follow each of the prompts in one batch, `[batch, new]`, and their logits.

    Logits are `[batch, new, vocabulary]` float32, those from which the tokens were taken.
    """
    ids, mask = _pad_left([list(prompt) for prompt in prompts], 0)
    settings = GenerationConfig(
        max_new_tokens=new, do_sample=False, pad_token_id=0, output_logits=True, return_dict_in_generate=True,
        use_cache=cached,
    )  # fmt: skip
    with _own_settings_aside(model):
        found: Any = cast(Any, model).generate(
            ids.to(model.device), attention_mask=mask.to(model.device), generation_config=settings
        )
    return found.sequences[:, -new:], torch.stack(found.logits, dim=1).float()


class _SoundLogits(LogitsProcessor):
    """Notes which rows have had logits that are no numbers: the largest of them would be taken for a token."""

    def __init__(self) -> None:
        self._sound: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` as they are."""
        del input_ids
        sound = scores.amax(-1).isfinite()
        self._sound = sound if self._sound is None else self._sound & sound
        return scores

    def check(self, rows: Sequence[int]) -> None:
        """Stop if any of the prompts `rows`, put once or several times, was answered from such logits."""
        unsound = [] if self._sound is None else (~self._sound).nonzero().flatten().tolist()
        if unsound:
            raise NumericalError(
                f"Logits are not finite in responses to prompts {sorted({rows[row % len(rows)] for row in unsound})}: "
                "the model or an adapter is broken, or try model.dtype=float32"
            )


def end_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the tokens that end a response: end of turn, end of text, those the model's settings name."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = set(own if isinstance(own, list) else [own]) | {tokenizer.eos_token_id}
    if tokenizer.chat_template is not None:
        ends.add(end_of_turn(tokenizer))
    return ends - {None}


@contextmanager
def _own_settings_aside(model: Any) -> Iterator[None]:
    """Eval mode and plain settings: transformers fills what a call leaves open from the model's own."""
    own, training = model.generation_config, model.training
    model.generation_config = GenerationConfig()
    model.eval()
    try:
        yield
    finally:
        model.generation_config = own
        model.train(training)


def _pad_left(prompts: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, `[batch, seq]`, with every prompt at the right edge."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask
