"""One LoRA run with Hugging Face Trainer and PEFT, its gradients logged on the training backward pass itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from gradinoc.data.examples import read_examples
from gradinoc.errors import DataError
from gradinoc.measure.alignment import GradientLogger, answer_losses
from gradinoc.measure.fast import batched, fused_adapter
from gradinoc.measure.load import load_model
from gradinoc.measure.training.arguments import training_arguments
from gradinoc.measure.training.tracking import ShowSteps, Tracking
from gradinoc.measure.training.trainer import GradientLoggingTrainer, OnStep, SaveAdapters, save_adapter
from gradinoc.models.adapters import targets
from gradinoc.models.chat.encoding import Encoded, encode
from gradinoc.models.isolation import own_generators, undisturbed
from gradinoc.study.description import TrainingSettings

EARLY = 0.2  # share of a run's steps whose examples are scored again when it is over


@dataclass(frozen=True)
class RunLog:
    """What a run leaves.

    Attributes:
        table: step, example, layer, position, loss, alignment, projection, grad_norm; one row each.
        direction_means: mean alignment with every direction over all steps and examples at the primary
            position, `[layers, directions]` float64.
        losses: nats/token by step, mean over the batch.
        initial_loss: mean over the examples of the first fifth of the steps, each as it was met, nats/token.
        final_loss: the same examples after training. (Losses of different batches differ by more than a short run
            learns.)
        seconds: wall time.
    """

    table: pd.DataFrame
    direction_means: Tensor
    losses: tuple[float, ...]
    initial_loss: float
    final_loss: float
    seconds: float


@dataclass(frozen=True)
class Recipe:
    """What the runs of a study share: settings, logged directions (the trait's first in each layer), padding id.

    Without directions nothing is logged but losses. What changes no result: `tracking` is where a run is shown while it
    trains, if anywhere, and `band` the layers whose means are shown.
    """

    settings: TrainingSettings
    directions: Mapping[int, Tensor]  # layer -> [directions, hidden]
    pad: int
    tracking: Tracking | None = None
    band: tuple[int, ...] = ()


@undisturbed()
def train_run(
    model: PreTrainedModel,
    examples: Sequence[Encoded],
    recipe: Recipe,
    seed: int,
    adapter_dir: Path,
    on_step: OnStep | None = None,
    checkpoints: Mapping[int, Path] = MappingProxyType({}),
) -> RunLog:
    """Log of one run; its adapter is saved in `adapter_dir`, and the frozen `model` is handed back as it came.

    The order of `examples` and the adapter's initial weights depend on the seed alone, so that runs of one seed under
    different prompts are paired batch by batch. Adapter weights are float32 whatever the model's dtype. `checkpoints`
    maps a number of steps to where the adapter as it is after so many is saved too.

    Raises:
        NumericalError: a loss, gradient or weight is not finite; the message names step, examples and layer.
        OutOfMemoryError: memory does not suffice; the message says what would fit.
    """
    settings = recipe.settings
    began = time.perf_counter()
    with own_generators(), _handed_back(model):
        torch.manual_seed(seed)  # Trainer and PEFT draw from global generators
        wrapped = get_peft_model(model, lora_config(model, settings))
        try:
            rows = data_order(len(examples), settings, seed)
            longest = max(len(example.ids) for example in examples)
            tracking = recipe.tracking
            logged = GradientLogger(wrapped, recipe.directions) if recipe.directions else nullcontext()
            shown = tracking.places() if tracking else nullcontext()
            with fused_adapter(wrapped), logged as logger, shown:
                trainer = GradientLoggingTrainer(
                    wrapped,
                    logger,
                    on_step,
                    args=training_arguments(settings, seed, adapter_dir, model.device, tracking),
                    train_dataset=[(row, examples[row]) for row in rows],
                    data_collator=lambda items: _collate(wrapped, items, recipe.pad),
                    longest=longest,
                )
                trainer.add_callback(SaveAdapters(checkpoints, trainer.ensure_sound))
                if tracking:
                    trainer.add_callback(ShowSteps(lambda: trainer.measured(recipe.band), trainer.log))
                trainer.run()
            early = rows[: max(1, round(EARLY * len(trainer.losses))) * settings.batch_size]
            with fused_adapter(wrapped):
                final = answer_losses(wrapped.eval(), [examples[row] for row in early], recipe.pad, settings.batch_size)
            save_adapter(wrapped, adapter_dir)
        finally:
            wrapped.unload()
    table, losses = trainer.table(), torch.cat(trainer.losses).cpu().double().numpy()
    return RunLog(
        table,
        trainer.direction_means(),
        tuple(torch.stack([batch.mean() for batch in trainer.losses]).tolist()),
        float(losses[: len(early)].mean()),
        float(final.mean()),
        time.perf_counter() - began,
    )


def lora_config(model: PreTrainedModel, settings: TrainingSettings) -> LoraConfig:
    """LoRA on the linear maps of the decoder blocks that `gradinoc.models.adapters` names, GPT-2's transposed ones
    included.

    Raises:
        ModelError: there is none.
    """
    adapted = targets(model).adapted
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=list(adapted),
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in adapted),
        task_type="CAUSAL_LM",
    )


def data_order(count: int, settings: TrainingSettings, seed: int) -> list[int]:
    """Rows of the training set in the order they are seen: fresh permutations under the seed, one an epoch."""
    generator = np.random.default_rng(seed)
    wanted = settings.steps * settings.batch_size or settings.epochs * count
    epochs = [generator.permutation(count) for _ in range(-(-wanted // count))]
    return [int(row) for row in np.concatenate(epochs)[:wanted]]


def step_count(examples: int, settings: TrainingSettings) -> int:
    """Optimiser steps of a run on so many examples; the last batch of the last epoch may be smaller."""
    return settings.steps or -(-settings.epochs * examples // settings.batch_size)


def spaced_steps(steps: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, ... below `steps`: a loss falls fastest at first."""
    spaced = (
        power * part // 2 for power in (1 << exponent for exponent in range(steps.bit_length())) for part in (2, 3)
    )
    return sorted({step for step in spaced if step < steps})


def _collate(model: nn.Module, items: Sequence[tuple[int, Encoded]], pad: int) -> dict[str, Any]:
    rows, encoded = zip(*items, strict=True)
    return {"batch": batched(model, encoded, pad), "rows": list(rows)}


@contextmanager
def _handed_back(model: PreTrainedModel) -> Iterator[None]:
    """Trainer leaves its settings on a model and its configuration, and hooks where it checkpoints: undo them."""
    configured = dict(vars(model.config))
    try:
        yield
    finally:
        model.requires_grad_(False).eval()
        vars(model.config).clear()
        vars(model.config).update(configured)
        if model.is_activation_checkpointing:
            model.disable_input_require_grads()
            model.activation_checkpointing_disable()


@undisturbed()
def train_with_gradient_logging(
    model_name: str,
    dataset_path: str | Path,
    system_prompt: str | None,
    trait_directions: Mapping[int, Tensor],
    output_dir: str | Path,
    lora_rank: int = 16,
    epochs: int = 1,
    batch_size: int = 4,
    lr: float = 1e-4,
    *,
    seed: int = 0,
    kernels: Literal["fused", "plain"] = "fused",
    chat_template: str | None = None,
) -> dict[str, Any]:
    """Paths and figures of one LoRA run on a chat JSONL file, with alignment logged at every step, layer and position.

    Args:
        model_name: a bundled name, folder, GGUF file or hub id.
        dataset_path: chat JSONL whose answers show the trait.
        system_prompt: put in front of every question; None puts none.
        trait_directions: layer -> `[hidden]`, or `[directions, hidden]` with the trait's first; scaled to length 1.
        output_dir: receives the adapter (`adapter/`) and the log (`gradients.parquet`).
        kernels: "fused", or "plain" for the model's own modules; see `load_model`.
        chat_template: in place of the model's own, which a base model has none of; see `load_model`.

    Returns:
        `adapter_dir`, `log_path`, `log` (the table of `RunLog`), `losses` (nats/token by step), `direction_means`
        (`[layers, directions]`), `seconds`.

    Raises:
        DataError: no example, or a line that is none.
        ValueError: a direction that is zero or NaN, or has more dimensions than it should.
    """
    read = read_examples(Path(dataset_path))
    if not read:
        raise DataError(f"{dataset_path}: no example; expected one or more lines of chat JSONL")
    for layer, rows in trait_directions.items():
        sound = rows.dim() in (1, 2) and rows.is_floating_point() and bool((rows.float().norm(dim=-1) > 0).all())
        if not sound or rows.shape != next(iter(trait_directions.values())).shape:
            raise ValueError(
                f"Direction of layer {layer}: expected [hidden] or [directions, hidden] of real numbers, none of them "
                f"zero or NaN, as many at every layer, received {tuple(rows.shape)} {rows.dtype}"
            )
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    language_model = load_model(model_name, kernels=kernels, chat_template=chat_template)
    hidden = int(language_model.model.config.get_text_config().hidden_size)
    for layer, rows in trait_directions.items():
        if rows.shape[-1] != hidden:
            raise ValueError(f"Direction of layer {layer}: expected {hidden} numbers, received {rows.shape[-1]}")
    tokenizer = language_model.tokenizer
    examples = [encode(tokenizer, e.question, e.answer, system_prompt) for e in read]
    recipe = Recipe(
        TrainingSettings(epochs=epochs, batch_size=batch_size, lr=lr, lora_rank=lora_rank),
        {
            layer: nn.functional.normalize(torch.atleast_2d(direction).float(), dim=-1)
            for layer, direction in trait_directions.items()
        },
        int(tokenizer.pad_token_id),
    )
    log = train_run(language_model.model, examples, recipe, seed, output / "adapter")
    log.table.to_parquet(output / "gradients.parquet", index=False)
    return {
        "adapter_dir": output / "adapter",
        "log_path": output / "gradients.parquet",
        "log": log.table,
        "losses": log.losses,
        "direction_means": log.direction_means,
        "seconds": log.seconds,
    }
