"""A trial of kernels in place: losses and gradients of packed sequences beside the model's own, and float32's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from transformers import PreTrainedModel

from gradinoc.measure.fast.attention import Layout
from gradinoc.measure.fast.packed.forward import final_states, unembedding
from gradinoc.measure.fast.trial.float32 import in_float32

# Largest relative difference in float32, of losses and of gradients: rounding, seen through every block.
TOLERANCE = 1e-3
# In half precision kernels may be farther from float32 than the model's own modules by so much: what is left to chance
# on a few dozen tokens, and, where nothing is rounded, a rounding of the losses or gradients themselves.
MARGIN = 1.2
# Final states of sequences that share a beginning, in half precision: they differ by 0.01 on SmolLM2 and Qwen2.5.
SHARING_TOLERANCE = 0.05
# Tokens of the texts: of the two that are tried, and of the others, for when rounding speaks against kernels on those.
LENGTHS = {torch.float32: (12, 7), torch.bfloat16: (16, 12) * 3, torch.float16: (16, 12) * 3}
SHARING_LENGTHS = (6, 4)  # tokens of the two, at most, that are a beginning, and what goes on from it
PIECE, PREDICTED = 4096, 8  # tokens of the vocabulary on which losses are tried in float32, and how many are predicted


class UntrustedError(Exception):
    """Kernels do not give what a model's own modules do; the message says how far apart they are."""


class RoundingError(UntrustedError):
    """Kernels have the right formula, and round more than the model's own modules, on the texts that were tried."""


@dataclass(frozen=True)
class Results:
    """What a pass over some texts gives: `losses` `[predictions]` and `gradients` of their sum `[tokens, hidden]`."""

    losses: Tensor
    gradients: Tensor

    def apart(self, exact: Results) -> tuple[float, float]:
        """How far losses are from the `exact` ones, relative to the norm of all; gradients, in the mean over tokens."""
        sizes = vector_norm(exact.gradients, dim=-1)
        apart = vector_norm(self.gradients - exact.gradients, dim=-1)[sizes > 0] / sizes[sizes > 0]
        return relative(self.losses, exact.losses), float(apart.mean())


@dataclass(frozen=True)
class Own:
    """What the model's own modules give: in float32, and in its own dtype where that is another."""

    exact: Results
    rounded: Results | None


def relative(found: Tensor, exact: Tensor) -> float:
    """The norm of the difference as a share of the exact one's."""
    return float(vector_norm(found - exact) / vector_norm(exact).clamp_min(1e-12))


def random_rows(model: PreTrainedModel) -> list[Tensor]:
    """Texts of random tokens."""
    generator, vocabulary = torch.Generator().manual_seed(0), model.config.get_text_config().vocab_size
    return [
        torch.randint(vocabulary, (length,), generator=generator).to(model.device) for length in LENGTHS[model.dtype]
    ]


def own_results(model: PreTrainedModel, rows: Sequence[Tensor]) -> Own:
    """What the model gives for some texts; kernels are not in place yet."""
    if model.dtype == torch.float32:
        return Own(_plain_results(model, rows, torch.float32), None)
    with in_float32(model):
        exact = _plain_results(model, rows, torch.float32)
    return Own(exact, _plain_results(model, rows, model.dtype))


@torch.enable_grad()
def _plain_results(model: PreTrainedModel, rows: Sequence[Tensor], dtype: torch.dtype) -> Results:
    """The texts side by side; what is behind the shorter one is out of its sight."""
    padded = nn.utils.rnn.pad_sequence(list(rows), batch_first=True)  # with any token
    embedded = _embedded(model, padded, dtype)
    logits = model(inputs_embeds=embedded, use_cache=False).logits.float()
    each = [
        nn.functional.cross_entropy(one[: len(row) - 1], row[1:], reduction="none")
        for one, row in zip(logits, rows, strict=True)
    ]
    losses = torch.cat(each)
    (gradient,) = torch.autograd.grad(losses.sum(), embedded)
    kept = torch.cat([one[: len(row)] for one, row in zip(gradient, rows, strict=True)])
    return Results(losses.detach(), kept.float())


def _embedded(model: PreTrainedModel, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Embedded tokens `[batch, seq, hidden]`, as a leaf: the same numbers in either dtype."""
    embedding: Any = model.get_input_embeddings()
    return torch.as_tensor(embedding(ids)).detach().to(dtype).requires_grad_()


def try_kernels(model: PreTrainedModel, rows: Sequence[Tensor], own: Own) -> str:
    """In half precision the distances that speak for the kernels in place, in words; nothing in float32.

    Computed in float32 they have to give what the model's own modules do, whatever the dtype of the model: that is
    their formula. In half precision, besides, they have to be as near to float32 as those are: that is their rounding.

    Raises:
        UntrustedError: one is not so.
        RoundingError: the other is not.
        NotImplementedError: a loss depends on another sequence or on a later token; or logits are of an unknown kind.
    """
    found, sharing = _packed_results(model, rows), _sharing_error(model, rows)
    if own.rounded is None:
        _at_most(TOLERANCE, "fused ones are {:.2g} away", max(*found.apart(own.exact), sharing))
        return ""
    formula = max(*_exact_packed(model, rows).apart(own.exact), _losses_apart(model))
    _at_most(TOLERANCE, "fused ones are {:.2g} away, computed in float32", formula)
    floor = torch.finfo(model.dtype).eps / 2
    said = []
    for name, ours, theirs in zip(
        ("losses", "gradients"), found.apart(own.exact), own.rounded.apart(own.exact), strict=True
    ):
        words = f"{name} {ours:.2g} from float32's, the model's own modules {theirs:.2g}"
        if not ours <= MARGIN * theirs + floor:
            raise RoundingError(f"with fused ones {words}")
        said.append(words)
    _at_most(SHARING_TOLERANCE, "fused ones are {:.2g} away where sequences share their beginning", sharing)
    return "; ".join(said)


def _at_most(most: float, words: str, apart: float) -> None:
    if not apart <= most:  # which a number that is none is not
        raise UntrustedError(words.format(apart))


@torch.enable_grad()
def _exact_packed(model: PreTrainedModel, rows: Sequence[Tensor]) -> Results:
    """What packed sequences give in float32; the losses are torch's, as logits there are made by pieces of a matrix."""
    head: Any = model.get_output_embeddings()
    with in_float32(model):
        embedded = _embedded(model, torch.cat(list(rows))[None], torch.float32)
        hidden = final_states(model, Layout.of([len(row) for row in rows]), inputs_embeds=embedded)
        logits = unembedding(model).logits(head(hidden))
    each = zip(logits.split([len(row) for row in rows]), rows, strict=True)
    losses = torch.cat([nn.functional.cross_entropy(one[:-1], row[1:], reduction="none") for one, row in each])
    return Results(losses.detach(), torch.autograd.grad(losses.sum(), embedded)[0][0])


@torch.enable_grad()
def _losses_apart(model: PreTrainedModel) -> float:
    """How far the kernel's losses are from torch's, and their gradients, in float32, on a part of the vocabulary."""
    head = unembedding(model)
    part = replace(head, weight=head.weight[:PIECE].float())
    hidden = part.weight[:PREDICTED].flip(0).requires_grad_()
    targets = torch.arange(len(hidden), device=hidden.device)
    expected = nn.functional.cross_entropy(part.logits(hidden @ part.weight.T), targets, reduction="none")
    exact, found = (
        Results(losses.detach(), torch.autograd.grad(losses.sum(), hidden)[0])
        for losses in (expected, part.losses(hidden, targets))
    )
    return max(found.apart(exact))


@torch.enable_grad()
def _packed_results(model: PreTrainedModel, rows: Sequence[Tensor]) -> Results:
    """What packed sequences give, in the model's dtype.

    Raises:
        NotImplementedError: a loss depends on the other sequence or on a later token.
    """
    embedded = _embedded(model, torch.cat(list(rows))[None], model.dtype)
    head, layout = unembedding(model), Layout.of([len(row) for row in rows])
    hidden = final_states(model, layout, inputs_embeds=embedded)
    last = torch.tensor([len(row) for row in rows], device=hidden.device).cumsum(0) - 1
    predicting = torch.ones(len(hidden), dtype=torch.bool, device=hidden.device).index_fill(0, last, False)
    losses = head.losses(hidden[predicting], torch.cat([row[1:] for row in rows]))
    # Two passes: the later half of the first sequence, which nothing else may see, and everything else.
    half, end = len(rows[0]) // 2, len(rows[0])
    later = losses[half : end - 1].sum()
    seen = torch.autograd.grad(losses.sum() - later, embedded, retain_graph=True)[0][0].float()
    seen_later = torch.autograd.grad(later, embedded)[0][0].float()
    if seen[half:end].any() or seen_later[end:].any():
        raise NotImplementedError("a packed token sees later ones, or those of its neighbour")
    return Results(losses.detach(), seen + seen_later)


@torch.no_grad()
def _sharing_error(model: PreTrainedModel, rows: Sequence[Tensor]) -> float:
    """How far final states of two sequences that share their beginning are from those of each alone, relative.

    The first of the `rows` is the beginning; the second, in two parts, is what goes on from it.
    """
    stem, rest = (row[:most] for row, most in zip(rows[:2], SHARING_LENGTHS, strict=True))
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
    return relative(received.float(), expected.float())
