"""From text to tokens: chat templates, completions, padded and packed batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase


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
        lengths: tokens of each example, known on the host, so that no step waits for the device.
        shortest_prompt: tokens of the shortest prompt, likewise.
        last_prompt: index of each example's last prompt token, `[batch]`; its first completion token is the next one.
        completion: index of every completion token, `[completions]`.
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
    owner: Tensor
    targets: Tensor
    counts: Tensor
    packed: bool

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        if device == self.input_ids.device:
            return self
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    def __len__(self) -> int:
        return len(self.lengths)


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
    starts = [width * row for row in range(len(examples))]
    # Position ids count attended tokens: what padding has for one changes nothing.
    return _batch(
        examples, torch.tensor(rows), positions.minimum(lengths[:, None] - 1), (positions < lengths[:, None]), starts
    )


def pack(examples: Sequence[Encoded]) -> Batch:
    """A batch without padding: all examples in one row, one after the other."""
    ids = torch.tensor([token for example in examples for token in example.ids])[None]
    positions = torch.cat([torch.arange(len(example.ids)) for example in examples])[None]
    starts = list(accumulate((len(example.ids) for example in examples[:-1]), initial=0))
    return replace(_batch(examples, ids, positions, torch.ones_like(ids), starts), packed=True)


def _batch(examples: Sequence[Encoded], ids: Tensor, positions: Tensor, mask: Tensor, starts: Sequence[int]) -> Batch:
    """A batch whose examples begin at the tokens `starts`.

    Raises:
        ValueError: an example without prompt or without completion: there would be nothing to predict from, or nothing
            to predict.
    """
    if not all(0 < example.prompt_length < len(example.ids) for example in examples):
        raise ValueError("An example needs a prompt and a completion, of one token at least")
    prompts = torch.tensor([example.prompt_length for example in examples])
    counts = torch.tensor([len(example.ids) for example in examples]) - prompts
    last_prompt = torch.tensor(starts) + prompts - 1
    owner = torch.arange(len(examples)).repeat_interleave(counts)
    completion = last_prompt[owner] + 1 + torch.cat([torch.arange(count) for count in counts.tolist()])
    return Batch(
        ids,
        mask.long(),
        positions,
        tuple(len(example.ids) for example in examples),
        min(example.prompt_length for example in examples),
        last_prompt,
        completion,
        owner,
        ids.flatten()[completion],
        counts,
        packed=False,
    )
