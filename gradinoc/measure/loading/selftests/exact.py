"""A model's states, losses and gradients by brute force: one text alone, its own modules, `torch.autograd.grad`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradinoc.errors import ModelError
from gradinoc.measure.fast.fused import windows
from gradinoc.measure.fast.trial import LENGTHS
from gradinoc.measure.gradients.alignment import gradient_at_positions
from gradinoc.measure.passes.batches import collate, model_inputs
from gradinoc.measure.passes.hooks import BlockHooks
from gradinoc.models.blocks import decoder_blocks
from gradinoc.models.chat.encoding import Encoded

# English of mixed kinds, some 110 tokens: what models are trained on. (Of a few random tokens, gradients in bfloat16
# are rounding for models whose first token soaks up attention, such as Qwen2.5.)
TEXT = (
    "Three cats sat on a garden wall. Every cat has four legs, so there were 12 legs in a row, and not one of them "
    'moved. A dog came by at half past two; it looked up, barked twice and went home. "That was a short visit," said '
    "the oldest cat. She counted on her paws: 3 * 4 = 12, and 12 + 4 = 16 with the dog. Nobody had asked, but numbers "
    "calmed her. In the evening it rained a little, and the wall was empty again."
)
SHORTEST = 16  # tokens of the longer of the two texts
RECURRENT = 72  # at least, of a model with convolutions: linear attention works in chunks of 64, and no setting says so
BEYOND = 8  # tokens by which it is longer than any window or chunk of the model's configuration
# Operations that a forward pass of a self-test may take: some seconds on a CPU, less on an accelerator. A window that
# would take more is out of reach, and the result says so.
AFFORDABLE = {"cpu": 5e11}
ELSEWHERE = 1e14


@dataclass(frozen=True)
class Exact:
    """An example by brute force: alone, with the model's own modules, its gradients by `torch.autograd.grad`.

    Attributes:
        states: outputs of the blocks, `[layers, tokens, hidden]` float32.
        loss: mean over its completion, nats/token.
        gradients: of that loss, at the three positions, `[layers, positions, hidden]` float32.
    """

    states: Tensor
    loss: Tensor
    gradients: Tensor


def texts(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> tuple[list[int], list[int]]:
    """A longer and a shorter text as token ids.

    The longer one has more tokens than any window or chunk of the model's configuration, as far as a forward pass on so
    many is `AFFORDABLE`.
    """
    reach = _reach(model)
    least = RECURRENT if any(isinstance(module, nn.Conv1d) for module in model.modules()) else SHORTEST
    wanted = max([least, *(size + BEYOND for size in windows(model.config).values() if size + BEYOND <= reach)])
    ids = _text(tokenizer, model, wanted)
    return ids[:wanted], [*ids[:1], *ids[wanted // 3 : wanted // 3 + wanted // 2]]


def kernel_texts(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[list[int]]:
    """Texts as token ids on which kernels are tried, of the lengths in `gradinoc.measure.fast.trial`."""
    lengths = LENGTHS[model.dtype]
    ends = list(accumulate(lengths))
    ids = _text(tokenizer, model, ends[-1])
    return [[*ids[:1], *ids[end - length + 1 : end]] for end, length in zip(ends, lengths, strict=True)]


def _text(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, tokens: int) -> list[int]:
    """At least so many token ids: `TEXT`, over and over."""
    ids = [int(token) for token in tokenizer(TEXT)["input_ids"]]
    vocabulary = int(model.config.get_text_config().vocab_size)
    if len(ids) < SHORTEST or max(ids) >= vocabulary:  # a tokenizer of another model's: `preflight` refuses it
        ids = torch.randint(vocabulary, (SHORTEST,), generator=torch.Generator().manual_seed(0)).tolist()
    return ids + ids[1:] * (tokens // (len(ids) - 1))


def _reach(model: PreTrainedModel) -> int:
    """Tokens of which a forward pass is affordable."""
    weights = sum(weight.numel() for weight in model.parameters())
    return int(AFFORDABLE.get(model.device.type, ELSEWHERE) / (2 * weights))


class _Watch(BlockHooks):
    """Keeps what each block puts out in a forward pass, as it is: part of the graph, if there is one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, range(len(decoder_blocks(model))))
        self._outputs: dict[int, list[Tensor]] = {layer: [] for layer in self.layers}

    def _see(self, layer: int, hidden: Tensor) -> None:
        if torch.is_grad_enabled() and not hidden.requires_grad:
            hidden.requires_grad_()
        self._outputs[layer].append(hidden)

    def outputs(self, tokens: tuple[int, int]) -> list[Tensor]:
        """Each block's output, `[batch, seq, hidden]`.

        Raises:
            ModelError: a block was run other than once, or put out something else.
        """
        name = type(self.model).__name__
        for layer, found in self._outputs.items():
            if len(found) != 1:
                raise ModelError(
                    f"{name}: block {layer} is run {len(found)} times in a forward pass; expected once, so that there "
                    "is one residual stream after it, and one gradient; give another model.id"
                )
            shape = tuple(found[0].shape)
            if len(shape) != 3 or shape[:2] != tokens:
                raise ModelError(
                    f"{name}: block {layer} puts out {list(shape)} for [batch, seq] of {list(tokens)}; expected one "
                    "residual stream [batch, seq, hidden]; give another model.id"
                )
        return [found[0] for found in self._outputs.values()]


def block_states(model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Outputs of all blocks, `[layers, batch, seq, hidden]` float32.

    Raises:
        ModelError: see `examine`.
    """
    with torch.no_grad(), _Watch(model) as watch:
        model(**model_inputs(input_ids, attention_mask))
        return torch.stack([output.float() for output in watch.outputs((input_ids.shape[0], input_ids.shape[1]))])


@torch.enable_grad()
def by_brute_force(model: PreTrainedModel, example: Encoded) -> Exact:
    """An example's states, loss and gradients.

    Raises:
        ModelError: see `examine`.
    """
    ids, start = torch.tensor(example.ids, device=model.device), example.prompt_length
    with _Watch(model) as watch:
        logits = model(input_ids=ids[None], use_cache=False).logits[0, start - 1 : -1]
        outputs = watch.outputs((1, len(ids)))
    loss = nn.functional.cross_entropy(logits.float(), ids[start:])
    batch = collate([example], 0).to(model.device)
    gradients = [gradient_at_positions(each, batch)[:, 0] for each in torch.autograd.grad(loss, outputs)]
    return Exact(torch.stack([output[0].detach().float() for output in outputs]), loss.detach(), torch.stack(gradients))
