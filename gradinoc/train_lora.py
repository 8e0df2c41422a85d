"""One LoRA run with Hugging Face Trainer and PEFT, its gradients logged on the training backward pass itself."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.pytorch_utils import Conv1D

from gradinoc.chat import Batch, Encoded, encode
from gradinoc.data import read_examples
from gradinoc.fused import fused_adapter
from gradinoc.gradients import (
    ALIGNMENT_COLUMNS,
    AlignmentProbe,
    Reading,
    alignment_frame,
    answer_losses,
    batched,
    completion_losses,
)
from gradinoc.models import load_model
from gradinoc.study import TrainingSettings

EARLY = 0.2  # share of a run's steps whose examples are scored again when it is over

OnStep = Callable[[int, int, float], None]  # (steps done, steps in all, loss)


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
    """What the runs of a study share: settings, probe directions (the trait's first in each layer), padding id.

    Without directions nothing is logged but losses.
    """

    settings: TrainingSettings
    directions: Mapping[int, Tensor]  # layer -> [directions, hidden]
    pad: int


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
        FloatingPointError: a loss or an alignment is not finite; the message names the step.
    """
    settings = recipe.settings
    began = time.perf_counter()
    with _own_randomness(seed), _handed_back(model):
        wrapped = get_peft_model(model, lora_config(model, settings))
        try:
            rows = data_order(len(examples), settings, seed)
            with fused_adapter(wrapped), _probe(wrapped, recipe.directions) as probe:
                trainer = GradientLoggingTrainer(
                    wrapped,
                    probe,
                    on_step,
                    args=_arguments(settings, seed, adapter_dir, model.device),
                    train_dataset=[(row, examples[row]) for row in rows],
                    data_collator=lambda items: _collate(wrapped, items, recipe.pad),
                    callbacks=[_SaveAdapters(checkpoints)],
                )
                trainer.train()
            early = rows[: max(1, round(EARLY * len(trainer.losses))) * settings.batch_size]
            with fused_adapter(wrapped):
                final = answer_losses(wrapped.eval(), [examples[row] for row in early], recipe.pad, settings.batch_size)
            wrapped.save_pretrained(str(adapter_dir))
        finally:
            wrapped.unload()
    table, losses = trainer.table(), torch.cat(trainer.losses).double().cpu().numpy()
    return RunLog(
        table,
        trainer.direction_means(),
        tuple(torch.stack([batch.mean() for batch in trainer.losses]).tolist()),
        float(losses[: len(early)].mean()),
        float(final.mean()),
        time.perf_counter() - began,
    )


def lora_config(model: PreTrainedModel, settings: TrainingSettings) -> LoraConfig:
    """LoRA on every linear map of the decoder blocks, those that GPT-2 stores transposed included."""
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules="all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        task_type="CAUSAL_LM",
    )


def data_order(count: int, settings: TrainingSettings, seed: int) -> list[int]:
    """Rows of the training set in the order they are seen: fresh permutations under the seed, one an epoch."""
    generator = np.random.default_rng(seed)
    wanted = settings.steps * settings.batch_size or settings.epochs * count
    epochs = [generator.permutation(count) for _ in range(-(-wanted // count))]
    return [int(row) for row in np.concatenate(epochs)[:wanted]]


class GradientLoggingTrainer(Trainer):
    """Hugging Face's Trainer with each example's loss weighted alike, and its backward pass read by a probe.

    What is read stays on the model's device until the run is over: no step waits for a transfer.
    """

    def __init__(
        self, model: nn.Module, probe: AlignmentProbe | None, on_step: OnStep | None, **arguments: Any
    ) -> None:
        super().__init__(model, **arguments)
        self.remove_callback(PrinterCallback)
        self._probe, self._on_step, self._reported = probe, on_step, time.monotonic()
        self._rows: list[list[int]] = []
        self.losses: list[Tensor] = []
        self._readings: list[Reading] = []
        self._direction_sums: Tensor | float = 0.0

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """Mean over the batch of each example's mean-token loss, nats/token."""
        batch: Batch = inputs["batch"]
        losses = completion_losses(model, batch)
        if self._probe:
            self._probe.expect(batch, scale=float(len(batch)))
        self._rows.append(inputs["rows"])
        self.losses.append(losses.detach())
        return losses.mean()

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *rest: Any, **named: Any) -> Tensor:
        """Trainer's own step; afterwards the probe is read."""
        loss = super().training_step(model, inputs, *rest, **named)
        if self._probe:
            reading = self._probe.read()
            self._direction_sums = self._direction_sums + reading.alignment[:, 0].double().sum(1)
            trait_only = reading.alignment[..., :1].clone()  # frees the other directions' share
            self._readings.append(Reading(trait_only, reading.projection.clone(), reading.grad_norm.clone()))
        self._report(loss)
        return loss

    def _report(self, loss: Tensor) -> None:
        """Tell how far the run is, at most once a second: reading the loss waits for the device."""
        done, total = self.state.global_step + 1, self.state.max_steps
        if self._on_step and (time.monotonic() - self._reported > 1 or done == total):
            self._reported = time.monotonic()
            self._on_step(done, total, float(loss))

    def table(self) -> pd.DataFrame:
        """Every reading as rows, moved to the host: step, example, layer, position, loss, alignment, ...

        Raises:
            FloatingPointError: a loss or an alignment is not finite.
        """
        if self._probe is None:
            return pd.DataFrame(columns=["step", *ALIGNMENT_COLUMNS])
        frames = []
        for step, (rows, losses, reading) in enumerate(zip(self._rows, self.losses, self._readings, strict=True)):
            frame = alignment_frame(reading, losses, rows, self._probe.layers)
            if not np.isfinite(frame[["loss", "alignment", "grad_norm"]].to_numpy()).all():
                raise FloatingPointError(f"Step {step}, examples {rows}: a loss or alignment is not finite")
            frames.append(frame.assign(step=step))
        return pd.concat(frames, ignore_index=True)

    def direction_means(self) -> Tensor:
        """Mean alignment over all steps and examples at the primary position, `[layers, directions]` float64."""
        return torch.as_tensor(self._direction_sums).cpu() / sum(map(len, self._rows))


@contextmanager
def _probe(model: nn.Module, directions: Mapping[int, Tensor]) -> Iterator[AlignmentProbe | None]:
    """A probe in place, or None where there is nothing to be read."""
    if not directions:
        yield None
        return
    with AlignmentProbe(model, directions) as probe:
        yield probe


class _SaveAdapters(TrainerCallback):
    """Saves the adapter after some of the steps."""

    def __init__(self, checkpoints: Mapping[int, Path]) -> None:
        self._checkpoints = checkpoints

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called by Trainer after the optimiser's step."""
        del args, control
        if state.global_step in self._checkpoints:
            kwargs["model"].save_pretrained(str(self._checkpoints[state.global_step]))


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


def _arguments(settings: TrainingSettings, seed: int, output_dir: Path, device: torch.device) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(output_dir),
        seed=seed,
        use_cpu=device.type == "cpu",  # stay where the model is, whatever else the machine has
        max_steps=settings.steps or -1,
        num_train_epochs=1,  # the data set holds every epoch, in order
        per_device_train_batch_size=settings.batch_size,
        train_sampling_strategy="sequential",
        learning_rate=settings.lr,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=settings.warmup_steps,
        weight_decay=0.0,
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    if arguments.n_gpu > 1:  # one run, one device: Trainer would split batches over all, and hooks with them
        arguments._n_gpu = 1
    return arguments


@contextmanager
def _handed_back(model: PreTrainedModel) -> Iterator[None]:
    """Trainer leaves its settings on a model, and hooks where it checkpoints: undo them."""
    cached = model.config.use_cache
    try:
        yield
    finally:
        model.requires_grad_(False).eval()
        model.config.use_cache = cached
        if model.is_activation_checkpointing:
            model.disable_input_require_grads()
            model.activation_checkpointing_disable()


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Trainer and PEFT draw from global generators: seed them, and give them back as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - Trainer seeds the legacy generator
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


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
) -> dict[str, Any]:
    """Paths and figures of one LoRA run on a chat JSONL file, with alignment logged at every step, layer and position.

    Args:
        model_name: a bundled name, folder or hub id.
        dataset_path: chat JSONL whose answers show the trait.
        system_prompt: put in front of every question; None puts none.
        trait_directions: layer -> `[hidden]`, or `[directions, hidden]` with the trait's first; scaled to length 1.
        output_dir: receives the adapter (`adapter/`) and the log (`gradients.parquet`).
        kernels: "fused", or "plain" for the model's own modules; see `load_model`.

    Returns:
        `adapter_dir`, `log_path`, `log` (the table of `RunLog`), `losses` (nats/token by step), `direction_means`
        (`[layers, directions]`), `seconds`.
    """
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    language_model = load_model(model_name, kernels=kernels)
    tokenizer = language_model.tokenizer
    examples = [encode(tokenizer, e.question, e.answer, system_prompt) for e in read_examples(Path(dataset_path))]
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
