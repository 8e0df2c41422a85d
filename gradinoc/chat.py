"""From text to tokens: chat templates, completion labels, padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

IGNORED = -100  # label of tokens that carry no loss


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
    """Right-padded examples, `[batch, seq]`; `labels` are `IGNORED` on everything but completion tokens."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    prompt_lengths: Tensor  # (batch,)
    shortest_prompt: int  # known on the host, so that no step waits for the device

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        ids, mask, labels, prompts = (
            tensor.to(device) for tensor in (self.input_ids, self.attention_mask, self.labels, self.prompt_lengths)
        )
        return Batch(ids, mask, labels, prompts, self.shortest_prompt)

    def __len__(self) -> int:
        return len(self.input_ids)


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
    """A right-padded batch; labels follow from lengths, so that a pad id which also ends a turn does no harm."""
    width = max(len(example.ids) for example in examples)
    input_ids = torch.full((len(examples), width), pad)
    labels = torch.full((len(examples), width), IGNORED)
    attention_mask = torch.zeros((len(examples), width), dtype=torch.long)
    for row, example in enumerate(examples):
        length = len(example.ids)
        input_ids[row, :length] = torch.tensor(example.ids)
        attention_mask[row, :length] = 1
        labels[row, example.prompt_length : length] = input_ids[row, example.prompt_length : length]
    lengths = [example.prompt_length for example in examples]
    return Batch(input_ids, attention_mask, labels, torch.tensor(lengths), min(lengths))
