"""From text to tokens: chat templates, completions; batches padded, packed, or packed with beginnings shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

SHARED_FROM = 16  # tokens in common from which on they are held once: each piece costs calls of its own


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt followed by a completion, the end-of-turn token included."""

    ids: tuple[int, ...]
    prompt_length: int

    @property
    def prompt(self) -> list[int]:
        """The prompt's ids alone."""
        return list(self.ids[: self.prompt_length])


@dataclass(frozen=True)
class Batch:
    """Examples side by side, right-padded, `[batch, seq]`; or packed, one after the other, `[1, tokens]`.

    Indices count the tokens of all rows, one row after the other.

    Attributes:
        attention_mask: 1 on tokens and 0 on padding; all 1 where nothing is padded.
        position_ids: each token's place in its example.
        lengths: tokens of each example, or of each piece of a packed batch that shares beginnings; known on the host,
            so that no step waits for the device.
        below: tokens after each piece that see it, where beginnings are shared; see `Shared`.
        shortest_prompt: tokens of the shortest prompt.
        last_prompt: index of each example's last prompt token, `[batch]`; its first completion token is the next one,
            unless beginnings are shared.
        completion: index of every completion token, `[completions]`.
        predicting: index of the token before it, from whose state it is predicted, `[completions]`.
        owner: number of the example it belongs to, `[completions]`.
        targets: its id, `[completions]`.
        counts: completion tokens of each example, `[batch]`.
        packed: whether the examples lie in one row, one after the other.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    lengths: tuple[int, ...]
    shortest_prompt: int
    last_prompt: Tensor
    completion: Tensor
    predicting: Tensor
    owner: Tensor
    targets: Tensor
    counts: Tensor
    packed: bool = False
    below: tuple[int, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; on the way to CUDA the host does not wait."""
        if device == self.input_ids.device:
            return self
        pinned = device.type == "cuda" and self.input_ids.device.type == "cpu"  # only then is a copy asynchronous
        moved: dict[str, Any] = {
            name: value.pin_memory().to(device, non_blocking=True) if pinned else value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    def __len__(self) -> int:
        return len(self.last_prompt)


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
            common, start, piece = _in_common(sequences[group[0]], sequences[group[-1]]), len(ids), len(lengths)
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
        if _in_common(sequences[row], sequences[following]) >= tokens:
            groups[-1].append(following)
        else:
            groups.append([following])
    return groups


def _in_common(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))


def render_prompt(tokenizer: PreTrainedTokenizerBase, question: str, system: str | None) -> str:
    """The prompt's text up to where the assistant begins; reasoning is switched off where a template has it (Qwen3).

    `system` None puts no system message, and some templates (Qwen2.5, SmolLM2) then insert a default of their own; an
    empty string is an explicit empty system message, a third case.
    """
    messages = [] if system is None else [{"role": "system", "content": system}]
    return str(
        tokenizer.apply_chat_template(
            [*messages, {"role": "user", "content": question}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
    )


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the token that the chat template puts after an assistant's answer; the eos token where it puts none.

    Raises:
        ValueError: the template puts none and the tokenizer has no eos token.
    """
    turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "zq"}]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    special_tokens = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    closing = tokenizer(text[text.rindex("zq") + 2 :], add_special_tokens=False)["input_ids"]
    special = [token for token in closing if token in special_tokens]
    if special:
        return int(special[0])
    if tokenizer.eos_token_id is None:
        raise ValueError("The chat template closes no turn and the tokenizer has no eos token: completions cannot end")
    return int(tokenizer.eos_token_id)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, question: str, system: str | None) -> list[int]:
    """Token ids of the rendered prompt; the template alone decides on special tokens."""
    return list(tokenizer(render_prompt(tokenizer, question, system), add_special_tokens=False)["input_ids"])


def encode(tokenizer: PreTrainedTokenizerBase, question: str, answer: str, system: str | None = None) -> Encoded:
    """Prompt and completion as tokens: prompt ids are a prefix by construction, the end-of-turn token comes last."""
    prompt = encode_prompt(tokenizer, question, system)
    completion = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return Encoded((*prompt, *completion, end_of_turn(tokenizer)), len(prompt))


def collate(examples: Sequence[Encoded], pad: int) -> Batch:
    """A right-padded batch; completions follow from lengths, so that a pad id which also ends a turn does no harm."""
    width = max(len(example.ids) for example in examples)
    rows = [example.ids + (pad,) * (width - len(example.ids)) for example in examples]
    positions = torch.arange(width).expand(len(examples), width)
    lengths = torch.tensor([len(example.ids) for example in examples])
    places = [range(width * row, width * row + len(example.ids)) for row, example in enumerate(examples)]
    # Position ids count attended tokens: what padding has for one changes nothing.
    mask = (positions < lengths[:, None]).long()
    return _batch(examples, places, torch.tensor(rows), positions.minimum(lengths[:, None] - 1), mask)


def pack(examples: Sequence[Encoded]) -> Batch:
    """A batch without padding: all examples in one row, one after the other."""
    ids = torch.tensor([token for example in examples for token in example.ids])[None]
    positions = torch.cat([torch.arange(len(example.ids)) for example in examples])[None]
    ends = list(accumulate((len(example.ids) for example in examples), initial=0))
    places = [range(start, end) for start, end in pairwise(ends)]
    return replace(_batch(examples, places, ids, positions, torch.ones_like(ids)), packed=True)


def pack_shared(examples: Sequence[Encoded], copies: int = 1) -> Batch:
    """A packed batch in which examples that begin alike share their beginning: for forward passes alone.

    The examples are there several times if there are `copies`, copy by copy.
    """
    shared = share([example.ids for example in examples]).repeated(copies)
    ids = torch.tensor(shared.ids)[None]
    positions = torch.tensor(shared.position_ids)[None]
    batch = _batch([*examples] * copies, shared.places, ids, positions, torch.ones_like(ids))
    return replace(batch, packed=True, lengths=shared.lengths, below=shared.below)


def _batch(
    examples: Sequence[Encoded], places: Sequence[Sequence[int]], ids: Tensor, positions: Tensor, mask: Tensor
) -> Batch:
    """A batch with each example's tokens at its `places`.

    Raises:
        ValueError: an example without prompt or without completion: there would be nothing to predict from, or nothing
            to predict.
    """
    if not all(0 < example.prompt_length < len(example.ids) for example in examples):
        raise ValueError("An example needs a prompt and a completion, of one token at least")
    prompts = [example.prompt_length for example in examples]
    counts = torch.tensor([len(example.ids) for example in examples]) - torch.tensor(prompts)
    each = list(zip(places, prompts, strict=True))
    completion = torch.tensor([index for place, prompt in each for index in place[prompt:]])
    return Batch(
        ids,
        mask,
        positions,
        tuple(len(example.ids) for example in examples),
        min(prompts),
        torch.tensor([place[prompt - 1] for place, prompt in each]),
        completion,
        torch.tensor([index for place, prompt in each for index in place[prompt - 1 : -1]]),
        torch.arange(len(examples)).repeat_interleave(counts),
        ids.flatten()[completion],
        counts,
    )
