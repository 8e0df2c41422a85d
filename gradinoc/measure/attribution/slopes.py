"""A behaviour of a model and its gradient with respect to an adapter's weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedModel

from gradinoc.errors import ModelError, NumericalError
from gradinoc.measure.behaviour.decisions import Decision, log_odds_of
from gradinoc.measure.fast import batched, fused_adapter, sharing_order
from gradinoc.measure.passes.batches import Batch
from gradinoc.measure.training.adapters import ensure_safetensors
from gradinoc.models.adapters import targets
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.machine.isolation import own_generators
from gradinoc.models.machine.memory import in_batches

Weights = Mapping[str, Tensor]  # an adapter's weights, or a step of them, by name; float64, on the CPU
Score = Callable[[nn.Module, Batch, Sequence[int]], Tensor]  # one number for each of the rows of a batch
ADAPTER = "default"


@dataclass(frozen=True)
class Slope:
    """A behaviour of a model, the mean over its rows of one number each, and what it depends on.

    Attributes:
        values: by row `[rows]` float64.
        gradient: of their mean, by name of the weight, float64 unless asked for otherwise.
        along: each row's own derivative along some steps of the weights, `[rows, steps]` float64.
    """

    values: Tensor
    gradient: Weights
    along: Tensor

    @property
    def value(self) -> float:
        """The mean over rows."""
        return float(self.values.mean())


@contextmanager
def adapted_for_gradients(base: PreTrainedModel, adapter: Path) -> Iterator[PeftModel]:
    """Inside the block `base` has the adapter, whose weights alone take gradients; no dropout.

    Raises:
        ModelError: it has other weights than two factors of a linear map.
    """
    ensure_safetensors(adapter)
    with own_generators():  # PEFT draws weights before it reads them
        model = PeftModel.from_pretrained(base, str(adapter), adapter_name=ADAPTER, is_trainable=True)
    try:
        other = [name for name, weight in model.named_parameters() if weight.requires_grad and "lora_" not in name]
        if other:
            raise ModelError(f"{adapter}: expected factors of linear maps alone, received {other[0]} as well")
        model.eval()
        with fused_adapter(model):
            yield model
    finally:
        model.unload()


@contextmanager
def whole_weights(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Inside the block the weights themselves take gradients, of all linear maps that an adapter would go beside."""
    weights = [model.get_submodule(name).weight for name in targets(model).adapted]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        yield model
    finally:
        for weight in weights:
            weight.requires_grad_(False)


def trained_weights(model: nn.Module) -> dict[str, torch.nn.Parameter]:
    """The weights that take gradients, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def read_weights(model: PeftModel, adapter: Path) -> dict[str, Tensor]:
    """Put a saved adapter of the same shape into the model, and return its weights.

    Raises:
        ModelError: its weights are others than those of the model's adapter.
    """
    ensure_safetensors(adapter)
    stored = load_peft_weights(str(adapter), device="cpu")
    loaded: Any = set_peft_model_state_dict(model, stored, adapter_name=ADAPTER)
    odd = loaded.unexpected_keys
    own = trained_weights(model)
    if odd or len(stored) != len(own):
        raise ModelError(f"{adapter}: {len(stored)} weights, of which {len(odd)} fit nowhere; expected {len(own)}")
    return {name: weight.detach().cpu().double() for name, weight in own.items()}


@torch.no_grad()
def put_weights(model: PeftModel, weights: Weights) -> None:
    """Give the adapter these weights, rounded to its dtype."""
    for name, weight in trained_weights(model).items():
        weight.copy_(weights[name])


def log_odds_score(decided: Sequence[Decision]) -> tuple[list[Encoded], Score]:
    """The examples of the decisions that have a place, and their decision log-odds (nats) as a score.

    Raises:
        ValueError: no decision has a place.
    """
    placed = [each for each in decided if each.places]
    if not placed:
        raise ValueError(f"Decision log-odds of {len(decided)} questions: expected one at least with a place")

    def score(model: nn.Module, batch: Batch, rows: Sequence[int]) -> Tensor:
        return log_odds_of(model, batch, [placed[row] for row in rows])

    return [each.encoded for each in placed], score


def log_odds_slope(
    model: nn.Module, decided: Sequence[Decision], pad: int, batch_size: int = 8, dtype: torch.dtype = torch.float64
) -> Slope:
    """Mean decision log-odds (nats) over the decisions that have a place, and its gradient; see `slope_of`.

    Args:
        model: with an adapter that takes gradients; see `adapted_for_gradients`.
        decided: of `gradinoc.measure.behaviour.decisions.decisions`, all under one evaluation prompt.
        pad: id of the padding token.
        batch_size: decisions at a time; a batch that does not fit into memory is halved.
        dtype: in which the gradient is added up.

    Raises:
        ValueError: no decision has a place.
        NumericalError: a number is not finite.
    """
    return slope_of(model, *log_odds_score(decided), pad, batch_size, dtype=dtype)


def slope_of(
    model: nn.Module,
    examples: Sequence[Encoded],
    score: Score,
    pad: int,
    batch_size: int = 8,
    along: Sequence[Weights] = (),
    dtype: torch.dtype = torch.float64,
) -> Slope:
    """The mean of `score` over the examples, and its gradient.

    `along` names steps of the weights along which each example's own derivative is wanted; examples then go through the
    model one by one. The gradient is added up in `dtype`, which of a whole model's weights decides how much memory it
    takes.

    Raises:
        NumericalError: a number is not finite.
    """
    weights = trained_weights(model)
    values = torch.zeros(len(examples), dtype=torch.float64)
    derivatives = torch.zeros(len(examples), len(along), dtype=torch.float64)
    gradient = {name: torch.zeros(weight.shape, dtype=dtype) for name, weight in weights.items()}

    def add(rows: Sequence[int]) -> None:
        batch = batched(model, [examples[row] for row in rows], pad)
        found = score(model, batch, rows)
        slopes = torch.autograd.grad(found.sum(), list(weights.values()), allow_unused=True)
        # Only now, when nothing more can fail for want of memory: a batch is tried again in halves.
        values[list(rows)] = found.detach().cpu().double()
        for (name, sum_), slope in zip(gradient.items(), slopes, strict=True):
            if slope is not None:
                exact = slope.cpu().to(dtype)
                sum_.add_(exact, alpha=1 / len(examples))
                for place, step in enumerate(along):
                    derivatives[rows[0], place] += float((exact * step[name]).sum())

    in_batches(sharing_order(model, [example.ids for example in examples]), 1 if along else batch_size, add)
    broken = [name for name, slope in gradient.items() if not bool(slope.isfinite().all())]
    if broken or not bool(values.isfinite().all()):
        raise NumericalError(
            f"A behaviour or its gradient is not finite ({broken[:1] or 'its value'}): the adapter is broken, or try "
            "float32"
        )
    return Slope(values, gradient, derivatives)


def inner(first: Weights, second: Weights) -> float:
    """Their inner product, added up weight by weight in float64."""
    return sum(float((value.double() * second[name]).sum()) for name, value in first.items())


def norm(weights: Weights) -> float:
    """The Euclidean norm of all together."""
    return math.sqrt(inner(weights, weights))
