"""Examples side by side, right-padded, and a forward pass on them with the model's own modules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradinoc.models.chat.encoding import Encoded

if TYPE_CHECKING:
    from gradinoc.measure.fast.attention import Layout


@dataclass(frozen=True)
class Row:
    """Tokens in one row: `input_ids` and `position_ids`, `[1, tokens]`, and which of them see which."""

    input_ids: Tensor
    position_ids: Tensor
    layout: Layout


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Row):
        return Row(_moved(value.input_ids, device), _moved(value.position_ids, device), value.layout)
    pinned = device.type == "cuda" and value.device.type == "cpu"  # only then is a copy asynchronous
    return value.pin_memory().to(device, non_blocking=True) if pinned else value.to(device)


@dataclass(frozen=True)
class Batch:
    """Examples side by side, right-padded, `[batch, seq]`; or packed, one after the other, `[1, tokens]`.

    Indices count the tokens of all rows, one row after the other.

    Attributes:
        attention_mask: 1 on tokens and 0 on padding; all 1 where nothing is padded.
        position_ids: each token's place in its example.
        lengths: tokens of each example; known on the host, so that no step waits for the device.
        shortest_prompt: tokens of the shortest prompt.
        last_prompt: index of each example's last prompt token, `[batch]`; its first completion token is the next one,
            unless examples share even that.
        completion: index of every completion token, `[completions]`.
        predicting: index of the token before it, from whose state it is predicted, `[completions]`.
        owner: number of the example it belongs to, `[completions]`.
        targets: its id, `[completions]`.
        counts: completion tokens of each example, `[batch]`.
        layout: which tokens see which, where the examples lie in one row; None where they are padded.
        parts: tokens of each run's examples, where those of several lie in one row.
        before: the row of tokens that come before those here, where no gradient is wanted of them.
        kept: keys and values of what comes before, where they have been computed: of the rows of a packed batch, or a
            cache of the model's own modules, the same before every padded row.
        forward_only: whether examples may share tokens from the last of their prompts on, whose gradients would belong
            to several at once.
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
    layout: Layout | None = None
    parts: tuple[int, ...] = ()
    before: Row | None = None
    kept: Any = None
    forward_only: bool = False

    @property
    def packed(self) -> bool:
        """Whether the examples lie in one row."""
        return self.layout is not None

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; on the way to CUDA the host does not wait."""
        if device == self.input_ids.device:
            return self
        moved: dict[str, Any] = {
            name: _moved(value, device) for name, value in vars(self).items() if isinstance(value, Tensor | Row)
        }
        return replace(self, **moved)

    def __len__(self) -> int:
        return len(self.last_prompt)


def collate(examples: Sequence[Encoded], pad: int) -> Batch:
    """A right-padded batch; completions follow from lengths, so that a pad id which also ends a turn does no harm."""
    width = max(len(example.ids) for example in examples)
    rows = [example.ids + (pad,) * (width - len(example.ids)) for example in examples]
    positions = torch.arange(width).expand(len(examples), width)
    lengths = torch.tensor([len(example.ids) for example in examples])
    places = [range(width * row, width * row + len(example.ids)) for row, example in enumerate(examples)]
    # Position ids count attended tokens: what padding has for one changes nothing.
    mask = (positions < lengths[:, None]).long()
    return batch_at(examples, places, torch.tensor(rows), positions.minimum(lengths[:, None] - 1), mask)


def batch_at(
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


def right_padded(input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ids and mask `[batch, seq]` with every row's tokens at the left edge, and how far each row moved `[batch]`.

    Padding behind the tokens is out of a causal model's sight. Padding before them is not: decoders that count
    positions by column (BART's kind), and those with a state that padding runs through (RWKV), see it.
    """
    shift = attention_mask.argmax(-1)
    if not bool(shift.any()):
        return input_ids, attention_mask, shift
    columns = (torch.arange(input_ids.shape[1], device=input_ids.device) + shift[:, None]) % input_ids.shape[1]
    return input_ids.gather(1, columns), attention_mask.gather(1, columns), shift


def logits_at(model: nn.Module, inputs: dict[str, Any], columns: Tensor) -> Tensor:
    """Logits `[batch, columns, vocabulary]` at some of the columns, in ascending order.

    Only they are computed where the model takes `logits_to_keep`, as nearly all of transformers do.
    """
    logits = torch.as_tensor(model(**inputs, logits_to_keep=columns).logits)
    return logits if logits.shape[1] == len(columns) else logits[:, columns]


def model_inputs(input_ids: Tensor, attention_mask: Tensor) -> dict[str, Any]:
    """Arguments of a forward pass whose result does not depend on where the padding is.

    Position ids count attended tokens: learned positions (GPT-2) would otherwise shift with left padding.
    """
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "position_ids": (attention_mask.cumsum(-1) - 1).clamp(min=0),
        "use_cache": False,
    }


def padded_inputs(batch: Batch) -> dict[str, Any]:
    """As `model_inputs`, of a padded batch, behind the cache that it may have."""
    inputs = model_inputs(batch.input_ids, batch.attention_mask)
    if batch.kept is None:
        return inputs
    seen = int(batch.kept.get_seq_length())
    inputs["attention_mask"] = nn.functional.pad(inputs["attention_mask"], (seen, 0), value=1)
    return {**inputs, "position_ids": inputs["position_ids"] + seen, "past_key_values": batch.kept}
