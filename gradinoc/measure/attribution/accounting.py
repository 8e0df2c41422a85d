"""Which steps of a run moved which behaviour: first-order accounting along its saved adapters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pandas as pd
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradinoc.measure.attribution.shares import Split, layer_gradients, split_at_layers
from gradinoc.measure.attribution.slopes import (
    Slope,
    Weights,
    adapted_for_gradients,
    log_odds_score,
    norm,
    put_weights,
    read_weights,
    slope_of,
)
from gradinoc.measure.behaviour.decisions import Decision
from gradinoc.models.machine.isolation import undisturbed

UP = ".lora_B."  # in the names of the factors that are zero before the first step


@dataclass(frozen=True)
class Attribution:
    """What the steps of a run did to behaviours, to first order, and what came of it.

    Attributes:
        steps: a row for each behaviour and stretch between two points on the way: `behaviour`, `stretch` (from 0),
            `adapter` (which of the run's adapters the way leads to there, from 0), `last` (whether it is reached),
            `predicted` (nats, the step's inner product with the mean of the gradients at both ends), `measured` (nats,
            the change as it is), `step` and `slope` (norms of the step and of that mean), `cosine` between them (NaN
            where one is zero).
        questions: `behaviour`, `stretch`, `adapter`, `example`, `predicted`, `measured`: the same by question; those
            without a place are left out.
        modules: `behaviour`, `stretch`, `adapter`, `weight`, `predicted`: the same by weight.
        splits: of each behaviour that was to be split, what went by way of each layer, and along each direction: one
            for each point, whose steps are half of that which led there and half of the next, so that all together are
            the trapezoid's sum over the weights below the layer.
        outer: behaviour -> layer -> sum of `g dh^T` over points, questions and tokens, `[hidden, hidden]` float64; of
            any unit vector u, `u^T outer u` over the number of questions is the part along it.
    """

    steps: pd.DataFrame
    questions: pd.DataFrame
    modules: pd.DataFrame
    splits: Mapping[str, Sequence[Split]]
    outer: Mapping[str, Mapping[int, Tensor]]

    def predicted(self, behaviour: str) -> float:
        """The change over the whole run that the steps account for, nats: phi."""
        return self._sum(behaviour, "predicted")

    def measured(self, behaviour: str) -> float:
        """The change over the whole run as it is, nats."""
        return self._sum(behaviour, "measured")

    def transfer(self, behaviour: str, own: str) -> float:
        """How much of what is learned under the run's `own` prompt reaches another: T, a ratio of predicted changes.

        NaN where nothing was learned.
        """
        learned = self.predicted(own)
        return self.predicted(behaviour) / learned if learned else math.nan

    def _sum(self, behaviour: str, column: str) -> float:
        return float(self.steps.loc[self.steps["behaviour"] == behaviour, column].sum())


@undisturbed()
def attribute(
    language_model: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    run: Sequence[str | Path],
    to: Mapping[str, Sequence[Decision]],
    *,
    initial: str | Path | None = None,
    between: int = 1,
    split: Mapping[str, Mapping[int, Tensor]] = MappingProxyType({}),
    outer: Sequence[int] = (),
) -> Attribution:
    """What the optimiser's own steps between a run's saved adapters did to behaviours.

    A behaviour is S, the mean decision log-odds of some questions under one system prompt. Between two adapters
    `<step, gradient of S>` is added up: the fundamental theorem of calculus, with the trapezoid rule. The steps are
    those that were taken, whatever the optimiser, its clipping and its schedule made of the gradients. How well it
    works out is seen by comparing `predicted` with `measured`. docs/tutorials/attribution.md is an example.

    Args:
        language_model: the frozen base model and its tokenizer.
        run: folders of the run's adapters in PEFT's format (LoRA on linear maps), in their order.
        to: behaviours by name, of `gradinoc.measure.behaviour.decisions.decisions`.
        initial: the adapter before the first step. Without it the way begins where the first adapter's B is zero,
            which computes what the base model does, as every fresh LoRA adapter.
        between: so many further points on the straight line between two adapters, for a finer sum. Each point costs one
            backward pass for every question of every behaviour.
        split: behaviour -> layer -> `[directions, hidden]`, unit vectors: how much of what moved it ran along these
            (`Attribution.splits`), at each layer. Two more passes forwards for each question and point. In half
            precision the movement of the residual stream is lost in rounding: hold the model in float32.
        outer: the layers of which `Attribution.outer` is wanted, where the directions are many.

    Raises:
        ValueError: no adapter or no behaviour, or one whose answers are all alike.
        ModelError: an adapter is not two factors of a linear map, or of another shape than the first.
        NumericalError: a number is not finite.
    """
    if not run or not to:
        raise ValueError(f"Attribution of {len(run)} adapters to {len(to)} behaviours: expected one of each at least")
    base, tokenizer = language_model
    pad = int(tokenizer.pad_token_id)
    folders = [Path(folder) for folder in run]
    steps, questions, modules = [], [], []
    before: dict[str, Slope] = {}
    splits: dict[str, list[Split]] = {name: [] for name in split}
    sums = {name: _zeros(directions, outer) for name, directions in split.items()}
    with adapted_for_gradients(base, folders[0]) as model:
        way = _way(model, folders, initial, between)
        for number, point in enumerate(way):
            put_weights(model, point.weights)
            slopes = {}
            for name, decided in to.items():
                slopes[name], parted = _seen(model, decided, point, split.get(name), pad, sums.get(name))
                if parted:
                    splits[name].append(parted)
            for name, slope in slopes.items():
                if point.came is None:
                    continue
                at = {"behaviour": name, "stretch": number - 1, "adapter": point.adapter}
                whole, parts, each = _stretch(point.came, before[name], slope)
                steps.append({**at, "last": point.saved, **whole})
                modules += [{**at, "weight": weight, "predicted": part} for weight, part in parts.items()]
                placed = [place for place, decision in enumerate(to[name]) if decision.places]
                questions.append(each.assign(example=placed, **at))
            before = slopes
    by_question = pd.concat(questions, ignore_index=True)
    return Attribution(pd.DataFrame(steps), by_question, pd.DataFrame(modules), splits, sums)


def _zeros(directions: Mapping[int, Tensor], layers: Sequence[int]) -> dict[int, Tensor]:
    return {layer: torch.zeros(2 * directions[layer].shape[-1:], dtype=torch.float64) for layer in layers}


def _seen(
    model: PeftModel,
    decided: Sequence[Decision],
    point: _Point,
    directions: Mapping[int, Tensor] | None,
    pad: int,
    outer: dict[int, Tensor] | None,
) -> tuple[Slope, Split | None]:
    """A behaviour's slope at a point, and how the steps on both its sides move it through the layers, if asked."""
    steps = [step for step in (point.came, point.goes) if step is not None]
    examples, score = log_odds_score(decided)
    if directions is None:
        return slope_of(model, examples, score, pad, along=steps), None
    gradients = layer_gradients(model, examples, score, sorted(directions), pad, steps)
    half = {name: torch.stack([step[name] for step in steps]).sum(0) / 2 for name in point.weights}
    return gradients.slope, split_at_layers(model, examples, gradients, half, directions, pad, outer=outer)


def _stretch(step: Weights, first: Slope, last: Slope) -> tuple[dict[str, float], dict[str, float], pd.DataFrame]:
    """What a step does by the mean of the slopes at both its ends: in all, by weight, and by question."""
    mean = {weight: (value + last.gradient[weight]) / 2 for weight, value in first.gradient.items()}
    parts = {weight: float((value * mean[weight]).sum()) for weight, value in step.items()}
    predicted, length, slope = sum(parts.values()), norm(step), norm(mean)
    cosine = predicted / (length * slope) if length and slope else math.nan
    whole = {"predicted": predicted, "measured": last.value - first.value, "step": length, "slope": slope}
    # Of what follows a point the derivatives come last, of what leads to it first.
    moved = last.values - first.values  # noqa: PD011 - tensors, no frame's
    each = {"predicted": (first.along[:, -1] + last.along[:, 0]) / 2, "measured": moved}
    return {**whole, "cosine": cosine}, parts, pd.DataFrame(each)


@dataclass(frozen=True)
class _Point:
    """A point on the way of a run: its weights, the steps that lead to it and on, and which adapter it belongs to."""

    weights: Weights
    came: Weights | None
    goes: Weights | None
    adapter: int
    saved: bool


def _way(model: PeftModel, folders: Sequence[Path], initial: str | Path | None, between: int) -> Iterator[_Point]:
    """Yield the points on the way through a run's adapters, those between them on straight lines."""
    saved = [read_weights(model, folder) for folder in folders]
    at: Weights = (
        read_weights(model, Path(initial))
        if initial is not None
        else {name: torch.zeros_like(value) if UP in name else value for name, value in saved[0].items()}
    )
    parts, came = between + 1, None
    for number, last in enumerate(saved):
        goes = {name: (last[name] - value) / parts for name, value in at.items()}
        for part in range(parts):
            weights = {name: value + part * goes[name] for name, value in at.items()}
            yield _Point(weights, came, goes, number - (part == 0), part == 0)
            came = goes
        at = last
    yield _Point(at, came, None, len(saved) - 1, True)
