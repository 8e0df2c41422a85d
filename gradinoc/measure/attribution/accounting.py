"""Which steps of a run moved which behaviour: first-order accounting along its saved adapters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gradinoc.measure.attribution.slopes import (
    Slope,
    Weights,
    adapted_for_gradients,
    log_odds_slope,
    norm,
    put_weights,
    read_weights,
)
from gradinoc.measure.decisions import Decision
from gradinoc.models.isolation import undisturbed

UP = ".lora_B."  # in the names of the factors that are zero before the first step


@dataclass(frozen=True)
class Attribution:
    """What the steps of a run did to behaviours, to first order, and what came of it.

    Attributes:
        steps: a row for each behaviour and stretch between two saved adapters: `behaviour`, `stretch` (from 0), `last`
            (whether a saved adapter is at its end), `predicted` (nats, the step's inner product with the mean of the
            gradients at both ends), `step` and `slope` (norms of the two), `cosine` between them (NaN where one is
            zero).
        modules: `behaviour`, `stretch`, `weight`, `predicted`: the same by weight.
        values: `behaviour`, `point` (0 is the start), `value`: decision log-odds at both ends of every stretch, nats.
    """

    steps: pd.DataFrame
    modules: pd.DataFrame
    values: pd.DataFrame

    def predicted(self, behaviour: str) -> float:
        """The change over the whole run that the steps account for, nats: phi."""
        return float(self.steps.loc[self.steps["behaviour"] == behaviour, "predicted"].sum())

    def measured(self, behaviour: str) -> float:
        """The change over the whole run as it is, nats."""
        values = self.values.loc[self.values["behaviour"] == behaviour, "value"]
        return float(values.iloc[-1] - values.iloc[0])

    def transfer(self, behaviour: str, own: str) -> float:
        """How much of what is learned under the run's `own` prompt reaches another: T, a ratio of predicted changes.

        NaN where nothing was learned.
        """
        learned = self.predicted(own)
        return self.predicted(behaviour) / learned if learned else math.nan


@undisturbed()
def attribute(
    language_model: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    run: Sequence[str | Path],
    to: Mapping[str, Sequence[Decision]],
    *,
    initial: str | Path | None = None,
    between: int = 1,
    batch_size: int = 8,
) -> Attribution:
    """What the optimiser's own steps between a run's saved adapters did to behaviours.

    A behaviour is S, the mean decision log-odds of some questions under one system prompt. Between two adapters
    `<step, gradient of S>` is added up: the fundamental theorem of calculus, with the trapezoid rule. The steps are
    those that were taken, whatever the optimiser, its clipping and its schedule made of the gradients. How well it
    works out is seen by comparing `predicted` with `measured`. docs/tutorials/attribution.md is an example.

    Args:
        language_model: the frozen base model and its tokenizer.
        run: folders of the run's adapters in PEFT's format (LoRA on linear maps), in their order.
        to: behaviours by name, of `gradinoc.measure.decisions.decisions`.
        initial: the adapter before the first step. Without it the way begins where the first adapter's B is zero,
            which computes what the base model does, as every fresh LoRA adapter.
        between: so many further points on the straight line between two adapters, for a finer sum. Each point costs one
            backward pass over the questions of every behaviour.
        batch_size: questions at a time.

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
    steps, modules, values = [], [], []
    before: tuple[Weights, dict[str, Slope]] | None = None
    with adapted_for_gradients(base, folders[0]) as model:
        for point, (weights, saved) in enumerate(_way(model, folders, initial, between)):
            put_weights(model, weights)
            slopes = {name: log_odds_slope(model, decided, pad, batch_size) for name, decided in to.items()}
            values += [{"behaviour": name, "point": point, "value": slope.value} for name, slope in slopes.items()]
            if before is not None:
                step = {weight: value - before[0][weight] for weight, value in weights.items()}
                for name, slope in slopes.items():
                    at: dict[str, Any] = {"behaviour": name, "stretch": point - 1}
                    whole, parts = _stretch(step, before[1][name], slope)
                    steps.append({**at, "last": saved, **whole})
                    modules += [{**at, "weight": weight, "predicted": part} for weight, part in parts.items()]
            before = weights, slopes
    return Attribution(pd.DataFrame(steps), pd.DataFrame(modules), pd.DataFrame(values))


def _stretch(step: Weights, first: Slope, last: Slope) -> tuple[dict[str, float], dict[str, float]]:
    """What a step does by the mean of the slopes at both its ends: in all, and by weight."""
    mean = {weight: (value + last.gradient[weight]) / 2 for weight, value in first.gradient.items()}
    parts = {weight: float((value * mean[weight]).sum()) for weight, value in step.items()}
    predicted, length, slope = sum(parts.values()), norm(step), norm(mean)
    cosine = predicted / (length * slope) if length and slope else math.nan
    return {"predicted": predicted, "step": length, "slope": slope, "cosine": cosine}, parts


def _way(
    model: PeftModel, folders: Sequence[Path], initial: str | Path | None, between: int
) -> Iterator[tuple[Weights, bool]]:
    """Yield the weights on the way through a run's adapters, and whether they are saved ones."""
    saved = [read_weights(model, folder) for folder in folders]
    start = (
        read_weights(model, Path(initial))
        if initial is not None
        else {name: torch.zeros_like(value) if UP in name else value for name, value in saved[0].items()}
    )
    yield start, True
    for first, last in zip([start, *saved], saved, strict=False):
        for part in range(1, between + 1):
            share = part / (between + 1)
            yield {name: torch.lerp(value, last[name], share) for name, value in first.items()}, False
        yield last, True
