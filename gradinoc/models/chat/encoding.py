"""From text to tokens: chat templates, completions; batches padded, packed, or packed with beginnings shared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate, pairwise
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from gradinoc.errors import ModelError, shown
from gradinoc.study.chat_template import CLOCK, dated, is_dated

SHARED_FROM = 16  # tokens in common from which on they are held once: each piece costs calls of its own
ADDRESS = re.compile(r" at 0x[0-9a-f]+>", re.IGNORECASE)  # as Python writes an object that says nothing else of itself
MOMENTS = (datetime(2001, 2, 3, 4, 5, 6), datetime(1999, 12, 31, 23, 58, 59))  # they differ in all that can be told
AROUND = 12  # characters before a place that are shown with it
CONTEXT = 4  # tokens before a token with which it is decoded


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


def _in_common(first: Sequence[object], second: Sequence[object]) -> int:
    """How many tokens, or characters, both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(first), len(second)))


def render_prompt(tokenizer: PreTrainedTokenizerBase, question: str, system: str | None) -> str:
    """The prompt's text up to where the assistant begins; reasoning is switched off where a template has it (Qwen3).

    `system` None puts no system message, and some templates (Qwen2.5, SmolLM2) then insert a default of their own; an
    empty string is an explicit empty system message, a third case. A template that asks for the day is told the
    study's, or a fixed one (see `gradinoc.study.chat_template`): a prompt is the same whenever it is rendered.

    Raises:
        ModelError: the template would write another prompt each time.
    """
    return _render(tokenizer, _messages(question, system), opens=True)


def tells_the_time(tokenizer: PreTrainedTokenizerBase, systems: Iterable[str | None]) -> bool:
    """Whether a prompt under one of the `systems` is another when the date or the time of day is another."""
    template = tokenizer.get_chat_template()
    if CLOCK not in template:
        return False
    one, other = (dated(template, moment) for moment in MOMENTS)
    for system in systems:
        asked = _messages("1", system)
        with suppress(Exception):  # a template may refuse a system message, or the lack of one
            if _render(tokenizer, asked, True, one) != _render(tokenizer, asked, True, other):
                return True
    return False


def _messages(question: str, system: str | None, answer: str | None = None) -> list[dict[str, str]]:
    turns = {"system": system, "user": question, "assistant": answer}
    return [{"role": role, "content": text} for role, text in turns.items() if text is not None]


def _render(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], opens: bool, template: str | None = None
) -> str:
    """The text of a conversation; if it `opens`, up to where the assistant begins to answer."""
    own = template or tokenizer.get_chat_template()
    text = str(
        tokenizer.apply_chat_template(
            messages,
            chat_template=own if is_dated(own) else dated(own),
            tokenize=False,
            add_generation_prompt=opens,
            enable_thinking=False,
        )
    )
    _ensure_no_address(text, messages)
    return text


def _ensure_no_address(text: str, messages: list[dict[str, str]]) -> None:
    """See to it that the template itself writes no object of Python's, whose address is another in each process."""
    for found in ADDRESS.finditer(text):
        if not any(found.group() in message["content"] for message in messages):
            raise ModelError(
                f"chat_template: writes {shown(text[: found.end()])}, where an object lies in memory, which is "
                "elsewhere in each process; expected text; mend it and give it as model.chat_template"
            )


@dataclass(frozen=True)
class _End:
    """How a template ends an assistant's turn: the token's id, whether the template writes it, and what comes after."""

    token: int
    written: bool
    after: str  # the token; or the answer, where the template writes no such token


_ENDS: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[object, _End]] = WeakKeyDictionary()


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the token that the chat template puts after an assistant's answer; the eos token where it puts none.

    Raises:
        ValueError: the template puts none and the tokenizer has no eos token.
    """
    return _end(tokenizer).token


def _end(tokenizer: PreTrainedTokenizerBase) -> _End:
    """Found once for each tokenizer, as long as its template and tokens stay the same."""
    now = (tokenizer.get_chat_template(), tokenizer.eos_token, len(tokenizer))
    known = _ENDS.get(tokenizer)
    if known is None or known[0] != now:
        known = _ENDS[tokenizer] = (now, _find_end(tokenizer))
    return known[1]


def _find_end(tokenizer: PreTrainedTokenizerBase) -> _End:
    text = _render(tokenizer, _messages("1", None, "zq"), opens=False)
    # In whatever case: a template that changes it is told of where answers are looked at.
    closing, eos = text[text.lower().rindex("zq") + 2 :], tokenizer.eos_token_id
    # Some fine-tuned models close turns with an added token that nobody marked as special.
    ends = {token: str(added) for token, added in tokenizer.added_tokens_decoder.items() if str(added).strip()}
    if eos is not None:
        ends.setdefault(eos, tokenizer.eos_token)
    token = next((each for each in tokenizer(closing, add_special_tokens=False)["input_ids"] if each in ends), None)
    if token is not None:
        return _End(int(token), True, closing.partition(ends[token])[2])
    if eos is None:
        raise ValueError("The chat template closes no turn and the tokenizer has no eos token: completions cannot end")
    return _End(int(eos), False, closing)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, question: str, system: str | None) -> list[int]:
    """Token ids of the rendered prompt; the template alone decides on special tokens."""
    return _ids(tokenizer, render_prompt(tokenizer, question, system))


def encode(tokenizer: PreTrainedTokenizerBase, question: str, answer: str, system: str | None = None) -> Encoded:
    """Prompt and completion as tokens: prompt ids are a prefix by construction, the end-of-turn token comes last.

    The completion is what the template writes after the prompt, in the tokens of the whole conversation; see `Written`.
    """
    return written(tokenizer, question, answer, system).encoded


def completion_note(
    tokenizer: PreTrainedTokenizerBase,
    question: str = "How many boats are left?",
    answer: str = "She has two boats left.",
    system: str | None = None,
) -> str | None:
    """What is not as it should be between prompt and answer, the first token that differs by name; None if all is well.

    Compares the ids that `encode` gives with those of the whole conversation as the template writes it.
    """
    return written(tokenizer, question, answer, system).note


def opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the words that the template writes between a prompt and its answer, as gpt-oss's channel; none mostly."""
    found = written(tokenizer, "How many boats are left?", "She has two boats left.", None)
    return _ids(tokenizer, found.opened) if found.follows else []


def written(tokenizer: PreTrainedTokenizerBase, question: str, answer: str, system: str | None) -> Written:
    """The prompt of a question, and the conversation in which it is answered, as the template writes both."""
    prompt, end = render_prompt(tokenizer, question, system), _end(tokenizer)
    whole = _render(tokenizer, _messages(question, system, answer), opens=False).removesuffix(end.after)
    ids = [*_ids(tokenizer, whole), *([] if end.written else [end.token])]
    return Written(tokenizer, answer, (prompt, whole), (_ids(tokenizer, prompt), ids))


@dataclass(frozen=True)
class Written:
    """A prompt, and the whole conversation up to its end-of-turn token: `texts` and `ids`, in this order.

    Where the conversation begins with the prompt's tokens and ends with an end of turn, what is between is the
    completion. It need not be the answer's own tokens: a blank before it may have become part of its first one, and a
    template may write words of its own first. Where the conversation does not begin so (the prompt opens a thought, a
    token reaches over the boundary), the answer is put after the prompt as it stands, and `note` says so.
    """

    tokenizer: PreTrainedTokenizerBase
    answer: str
    texts: tuple[str, str]
    ids: tuple[list[int], list[int]]

    @property
    def follows(self) -> bool:
        """Whether the conversation goes on from the prompt."""
        prompt, whole = self.ids
        return len(whole) > len(prompt) and whole[: len(prompt)] == prompt and whole[-1] == end_of_turn(self.tokenizer)

    @property
    def encoded(self) -> Encoded:
        """Prompt and completion."""
        prompt, whole = self.ids
        if self.follows:
            return Encoded(tuple(whole), len(prompt))
        return Encoded((*prompt, *_ids(self.tokenizer, self.answer), end_of_turn(self.tokenizer)), len(prompt))

    @property
    def kind(self) -> Literal["apart", "changed", "trimmed", "opened"] | None:
        """What there is to note, if anything: for counting."""
        if not self.follows:
            return "apart"
        if self.answer and self.answer not in self._after_prompt:
            return "trimmed" if self.answer.strip() in self._after_prompt else "changed"
        return "opened" if self.opened else None

    @property
    def note(self) -> str | None:
        """What whoever runs a study should know of this completion."""
        match self.kind:
            case "apart":
                mine, theirs = self._first_difference()
                return (
                    f"chat_template: a conversation does not go on from its prompt: it has {theirs} where prompt and "
                    f"answer have {mine}; completions are the answer as it stands, put after the prompt"
                )
            case "changed":
                place = max(0, _in_common(self.answer, self._after_prompt) - AROUND)
                mine, theirs = (shown(text[place : place + 4 * AROUND]) for text in (self.answer, self._after_prompt))
                return f"chat_template: changes an answer: {theirs} is written for {mine}, and is what is learned"
            case "trimmed":
                return "chat_template: leaves out white space at the ends of an answer"
            case "opened":
                return (
                    f"chat_template: writes {shown(self.opened)} before an answer, which no prompt ends with: it "
                    "is the beginning of every completion, and is learned with it"
                )
            case None:
                return None

    @property
    def opened(self) -> str:
        """The words that the template writes before the answer, after the prompt; white space alone is none."""
        before, found, _ = self._after_prompt.partition(self.answer)
        return before if found and before.strip() else ""

    @property
    def _after_prompt(self) -> str:
        prompt, whole = self.texts
        return whole.removeprefix(prompt)

    def _first_difference(self) -> tuple[str, str]:
        """The first token of ours that a conversation does not have, and what it has there."""
        ours, theirs = self.encoded.ids, self.ids[1]
        place = _in_common(ours, theirs)
        named = [token_texts(self.tokenizer, ids[: place + 1]) for ids in (ours, theirs)]
        first, second = (shown(texts[place]) if len(texts) > place else "nothing" for texts in named)
        return first, second


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text of each token, blanks and special tokens included; part of a character is U+FFFD."""

    def text(start: int, stop: int) -> str:
        return str(tokenizer.decode(list(ids[start:stop]), clean_up_tokenization_spaces=False))

    found = []
    for place in range(len(ids)):
        start = max(0, place - CONTEXT)  # a decoder may treat the first token in a way of its own
        before, through = text(start, place), text(start, place + 1)
        found.append(through[_in_common(before, through) :] or str(tokenizer.convert_ids_to_tokens(ids[place])))
    return found


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


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
