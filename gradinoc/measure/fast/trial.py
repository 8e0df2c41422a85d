"""A trial of kernels in place: losses and gradients of packed sequences against the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from transformers import PreTrainedModel

from gradinoc.measure.fast.attention import Layout
from gradinoc.measure.fast.kernels import token_losses
from gradinoc.measure.fast.packed import final_states, unembedding

# Largest relative difference of losses and of gradients that a trial may show: rounding, seen through every block.
# In bfloat16 the gradient at the embedding is 0.06 to 0.18 from float32's with a model's own modules and 0.08 to 0.10
# with the kernels, on text (SmolLM2, Qwen2.5-Coder); the two are up to 0.15 apart.
TRIAL_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.25}
LOSS_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}
TRIAL_LENGTHS = (7, 12)  # tokens


def random_rows(model: PreTrainedModel) -> list[Tensor]:
    """Two texts of random tokens."""
    generator, vocabulary = torch.Generator().manual_seed(0), model.config.get_text_config().vocab_size
    return [torch.randint(vocabulary, (length,), generator=generator).to(model.device) for length in TRIAL_LENGTHS]


@torch.enable_grad()
def own_results(model: PreTrainedModel, rows: Sequence[Tensor]) -> list[Tensor]:
    """Losses of each of the sequences alone, and their gradients with respect to the embedded tokens."""
    embedding: Any = model.get_input_embeddings()
    found = []
    for row in rows:
        embedded = embedding(row[None]).detach().requires_grad_()
        logits = model(inputs_embeds=embedded, use_cache=False).logits[0]
        one = nn.functional.cross_entropy(logits[:-1].float(), row[1:], reduction="sum")
        found.append((one.detach(), torch.autograd.grad(one, embedded)[0][0].float()))
    return [torch.stack([one for one, _ in found]), torch.cat([gradient for _, gradient in found])]


def disagreement(model: PreTrainedModel, rows: Sequence[Tensor], expected: Sequence[Tensor]) -> str | None:
    """Why the kernels in place are not to be trusted; None where losses and gradients are the `expected` ones."""
    losses, gradients = _packed_results(model, rows)
    for apart, most in (
        (_difference(expected[:1], [losses]), LOSS_TOLERANCE[model.dtype]),
        (_difference(expected[1:], [gradients]), TRIAL_TOLERANCE[model.dtype]),
        (_prefix_sharing_error(model, rows), TRIAL_TOLERANCE[model.dtype]),
    ):
        if not apart <= most:
            return f"fused ones are {apart:.2g} away"
    return None


@torch.enable_grad()
def _packed_results(model: PreTrainedModel, rows: Sequence[Tensor]) -> list[Tensor]:
    """As `own_results`, of packed sequences.

    Raises:
        NotImplementedError: a loss depends on the other sequence or on a later token.
    """
    embedding: Any = model.get_input_embeddings()
    embedded = embedding(torch.cat(list(rows))[None]).detach().requires_grad_()
    weight, scale = unembedding(model)
    hidden = final_states(model, Layout.of([len(row) for row in rows]), inputs_embeds=embedded) * scale
    losses, gradients, begin = [], [], 0
    for row in rows:
        end = begin + len(row)
        # First the earlier tokens of a sequence, then the later ones: what the former may not see is exactly zero.
        for start, stop in pairwise((begin, begin + len(row) // 2, end - 1)):
            targets = row[start - begin + 1 : stop - begin + 1]
            losses.append(token_losses(hidden[start:stop], weight, targets).sum())
            gradients.append(torch.autograd.grad(losses[-1], embedded, retain_graph=True)[0][0].float())
            if gradients[-1][:begin].any() or gradients[-1][end:].any():
                raise NotImplementedError("a packed sequence sees its neighbour")
            if gradients[-1][stop:end].any():
                raise NotImplementedError("a packed token sees later ones")
        begin = end
    return [torch.stack(losses).detach().view(len(rows), -1).sum(1), torch.stack(gradients).sum(0)]


@torch.no_grad()
def _prefix_sharing_error(model: PreTrainedModel, rows: Sequence[Tensor]) -> float:
    """How far final states of two sequences that share their beginning are from those of each alone, relative.

    The first of the `rows` is the beginning; the second, in two parts, is what goes on from it.
    """
    stem, rest = rows
    branches = rest.split([len(rest) // 2, len(rest) - len(rest) // 2])
    alone = torch.cat([each for branch in branches for each in (stem, branch)])
    layout = Layout.of([len(stem) + len(branch) for branch in branches])
    expected = final_states(model, layout, input_ids=alone[None])
    places = [torch.arange(len(stem)), *(len(stem) + torch.arange(len(branch)) for branch in branches)]
    inputs: dict[str, Any] = {
        "input_ids": torch.cat([stem, rest])[None],
        "position_ids": torch.cat(places)[None].to(model.device),
    }
    lengths, below = [len(stem), *map(len, branches)], [len(rest), 0, 0]
    found = final_states(model, Layout.of(lengths, below), **inputs).split(lengths)
    received = torch.cat([found[0], found[1], found[0], found[2]])
    return _difference([expected.float()], [received.float()])


def _difference(expected: Sequence[Tensor], received: Sequence[Tensor]) -> float:
    """The largest difference, each relative to its own norm."""
    pairs = zip(expected, received, strict=True)
    return float(
        torch.stack([vector_norm(one - other) / vector_norm(one).clamp_min(1e-12) for one, other in pairs]).max()
    )
