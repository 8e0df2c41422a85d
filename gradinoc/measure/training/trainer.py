"""Hugging Face's Trainer with its backward pass logged, and stopped where a number is not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn.utils import get_total_norm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from gradinoc.errors import NumericalError, OutOfMemoryError
from gradinoc.measure.fast import Parts, completion_losses
from gradinoc.measure.gradients.alignment import (
    ALIGNMENT_COLUMNS,
    GradientLogger,
    Reading,
    alignment_frame,
    fault_in,
    wide,
)
from gradinoc.measure.gradients.pooled import PRIMARY, Pooled, StepMeans
from gradinoc.measure.passes.batches import Batch
from gradinoc.measure.passes.finite import fault_in_losses, named, origin
from gradinoc.measure.training.adapters import save_adapter, weights_of
from gradinoc.models.machine.memory import is_out_of_memory, release, what_would_fit

EVERY_SECONDS = 1.0  # between looks at numbers that are on another device
AT_ONCE = ("cpu",)  # devices on which numbers can be looked at in every step: nothing has to be waited for
# (steps done, steps in all, loss, the trait's mean alignment so far at the primary position, `[layers]`, if any)
OnStep = Callable[[int, int, float, Tensor | None], None]


class GradientLoggingTrainer(Trainer):
    """Hugging Face's Trainer with each example's loss weighted alike, and its backward pass logged.

    Several runs may be trained at once, each an adapter of its own: a batch holds the examples of all, run by run, as
    many of each. What is read stays on the model's device until the runs are over: no step waits for a transfer.
    `around`, of the numbers of a batch's examples and of the batch, is what a step's passes are made in.
    """

    def __init__(
        self,
        model: PeftModel,
        logger: GradientLogger | None,
        on_step: OnStep | None,
        parts: Parts,
        longest: int,
        kept: int = 1,
        around: Callable[[Sequence[int], Batch], AbstractContextManager[None]] = lambda _rows, _batch: nullcontext(),
        **arguments: Any,
    ) -> None:
        super().__init__(model, **arguments)
        self._trained = model
        self._weights = [weights_of(model, name) for name in model.peft_config]
        self._batch: Batch | None = None
        self.remove_callback(PrinterCallback)
        self._logger, self._on_step, self._parts = logger, on_step, parts
        self._longest, self._reported = longest, time.monotonic()
        self._rows: list[list[int]] = []
        self.losses: list[Tensor] = []
        self._readings: list[Reading] = []
        self._norms: list[Tensor] = []
        self._directions_sound: list[Tensor] = []
        self._looked = 0  # at so many steps, for numbers that are not finite
        self._rate = math.nan  # the last step's learning rate
        self._direction_sums: Tensor | float = 0.0
        self._steps: list[tuple[Tensor, ...]] = []  # as `StepMeans` has them, of all runs
        self._kept, self._around = kept, around

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """Mean over a run's batch of each example's mean-token loss, nats/token; the sum over the runs."""
        batch: Batch = inputs["batch"]
        self._batch, self._parts.sizes = batch, batch.parts
        losses = completion_losses(model, batch).view(self.runs, -1)
        if self._logger:
            self._logger.expect(batch, float(losses.shape[1]), self.runs)
        self._rows.append(inputs["rows"])
        self.losses.append(losses.detach())
        return losses.mean(1).sum()

    @property
    def runs(self) -> int:
        """How many runs are trained at once."""
        return len(self._weights)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *rest: Any, **named: Any) -> Tensor:
        """Trainer's own step; afterwards the gradients are read."""
        with self._around(inputs["rows"], inputs["batch"]):
            loss = super().training_step(model, inputs, *rest, **named)
        if self.optimizer is not None:
            self._rate = float(self.optimizer.param_groups[0]["lr"])
        self._norms.append(torch.stack([get_total_norm(_gradients(weights)) for weights in self._weights]))
        if self._logger:
            reading = self._logger.read()
            by_run = wide(reading.alignment[:, 0]).unflatten(1, (self.runs, -1))  # (L, runs, B, directions)
            self._direction_sums = self._direction_sums + by_run.sum(2)
            self._directions_sound.append(reading.alignment.isfinite().all())
            descent = self._logger.summed() / by_run.shape[2]  # (L, P, runs, hidden)
            projections = reading.alignment[:, 0] * reading.grad_norm[:, 0, :, None]
            push = projections.unflatten(1, (self.runs, -1)).mean(2)  # (L, runs, directions)
            first = reading.alignment[..., : self._kept]
            at_positions = torch.stack([first, first * reading.grad_norm[..., None]])
            by_position = at_positions.unflatten(3, (self.runs, -1)).mean(4)  # (2, L, P, runs, kept)
            self._steps.append((by_run.mean(2).float(), push, vector_norm(descent, dim=-1), by_position))
            trait_only = reading.alignment[..., :1].clone()  # frees the other directions' share
            self._readings.append(Reading(trait_only, reading.projection.clone(), reading.grad_norm.clone()))
        self._report(loss)
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        """Each run's gradient by itself, as Trainer has it."""
        del model
        clip = self.accelerator.clip_grad_norm_
        return torch.stack([torch.as_tensor(clip(each, self.args.max_grad_norm)) for each in self._weights]).max()

    def run(self) -> None:
        """Train to the end.

        Raises:
            NumericalError: a number was not finite.
            OutOfMemoryError: a step does not fit; the message is the arithmetic of what would.
        """
        try:
            self.train()
            self.ensure_sound()
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        release()  # here, where no error holds what the step had
        lengths, fused = (self._batch.lengths, self._batch.packed) if self._batch else ((self._longest,), False)
        raise OutOfMemoryError(
            f"Out of memory in step {self.state.global_step + 1} of {self.state.max_steps}: "
            f"{what_would_fit(self._trained, lengths, self._longest, fused)}"
        )

    def _report(self, loss: Tensor) -> None:
        """Check the numbers and report progress, but not in every step where that waits for the device."""
        done, total = self.state.global_step + 1, self.state.max_steps
        if loss.device.type in AT_ONCE:
            self.ensure_sound()
        if time.monotonic() - self._reported > EVERY_SECONDS or done == total:
            self.ensure_sound()
            self._reported = time.monotonic()
            if self._on_step:
                so_far = self._trait_so_far() if self._logger else None
                self._on_step(done, total, float(loss) / self.runs, so_far)

    def ensure_sound(self) -> None:
        """Stop at the first step, of those not looked at before, in which a number was not finite.

        Raises:
            NumericalError: there is one.
        """
        steps = range(self._looked, len(self._norms))
        if steps and not bool(torch.stack([self._sound(step) for step in steps]).all()):  # one wait for all steps
            step, fault = next((step, fault) for step in steps if (fault := self._fault(step)))
            raise NumericalError(self._told(step, fault))
        self._looked = len(self._norms)

    def _sound(self, step: int) -> Tensor:
        """Whether every number of a step is finite, on the model's device; a zero gradient's alignment, 0/0, is not."""
        numbers = [self.losses[step], self._norms[step]]
        if self._logger:
            reading = self._readings[step]
            numbers += [reading.grad_norm, reading.alignment]
        sound = [number.isfinite().all() for number in numbers] + self._directions_sound[step : step + 1]
        return torch.stack(sound).all()

    def _fault(self, step: int) -> str | None:
        losses, rows = self.losses[step].flatten(), self._rows[step]
        fault = fault_in_losses(losses, rows)
        if fault is None and self._logger:
            fault = fault_in(losses, self._readings[step], self._logger.layers, rows)
        if fault is None and not bool(self._norms[step].isfinite().all()):
            fault = f"the gradient of the adapter's weights after {named(rows)} is not finite"
        if fault is None and self._logger and not bool(self._directions_sound[step]):
            fault = "an alignment with a random one is not finite, nor is the direction"
        return fault

    def _told(self, step: int, fault: str) -> str:
        """A fault in words: when, where, how the loss came there, and what to do."""
        at = f"Step {step + 1} of {self.state.max_steps}: {fault}"
        if fault.startswith("the loss") and self._batch is not None and step == len(self.losses) - 1:
            model, batch = self._trained, self._batch
            at += f", {origin(model, lambda: completion_losses(model, batch))}"
        if step == 0:
            return (
                f"{at}; no weight had changed yet: look at these examples and the model's weights, or try "
                "model.dtype=float32"
            )
        first, last = (float(self.losses[place].mean()) for place in (0, step - 1))
        return (
            f"{at}; the run diverged (loss {first:.3g} in its first step, {last:.3g} in step {step}): lower "
            f"training.lr ({self.args.learning_rate:g}) or raise training.warmup_steps ({self.args.warmup_steps})"
        )

    def measured(self, band: Sequence[int]) -> dict[str, float]:
        """The last step in numbers, for trackers; on a device this waits for the step to end.

        `loss` (nats/token), `grad_norm` (of the adapter's weights, as Trainer has it) and `learning_rate`; and, where
        gradients are logged, means over `band` and batch at the primary position: `band_alignment`,
        `band_projection`, `band_grad_norm`.
        """
        numbers = {
            "loss": float(self.losses[-1].mean()),
            "grad_norm": float(self._norms[-1].mean()),
            "learning_rate": self._rate,
        }
        if self._logger and band:
            reading = self._readings[-1]
            layers = [self._logger.layers.index(layer) for layer in band]
            for name in ("alignment", "projection", "grad_norm"):
                values: Tensor = getattr(reading, name)[layers, PRIMARY]
                numbers[f"band_{name}"] = float(values.cpu().double().mean())
        return numbers

    def table(self, run: int = 0) -> pd.DataFrame:
        """Every reading of a run as rows, moved to the host: step, example, layer, position, loss, alignment, ..."""
        if self._logger is None:
            return pd.DataFrame(columns=["step", *ALIGNMENT_COLUMNS])
        frames = []
        for step, (rows, losses, reading) in enumerate(zip(self._rows, self.losses, self._readings, strict=True)):
            size = losses.shape[1]
            at = slice(run * size, (run + 1) * size)
            own = Reading(reading.alignment[:, :, at], reading.projection[:, :, at], reading.grad_norm[:, :, at])
            frames.append(alignment_frame(own, losses[run], rows[at], self._logger.layers).assign(step=step))
        return pd.concat(frames, ignore_index=True)

    def direction_means(self, run: int = 0) -> Tensor:
        """Mean alignment over all steps and examples at the primary position, `[layers, directions]` float64."""
        if self._logger is None:
            return torch.zeros((), dtype=torch.float64)
        return torch.as_tensor(self._direction_sums)[:, run].cpu().double() / self._seen()

    def step_means(self, run: int = 0) -> StepMeans | None:
        """Means over the batch of each step of a run; None if no gradients are logged."""
        if not self._steps:
            return None
        alignment, push, norm, at = (torch.stack(each).cpu() for each in zip(*self._steps, strict=True))
        at_positions = Pooled(*at[..., run, :].unbind(1))
        return StepMeans(alignment[:, :, run].clone(), push[:, :, run].clone(), norm[..., run].clone(), at_positions)

    def _trait_so_far(self) -> Tensor:
        """The trait's part of `direction_means`, `[layers]`, mean over runs: no more is moved than is shown."""
        return torch.as_tensor(self._direction_sums)[..., 0].mean(1).cpu().double() / self._seen()

    def _seen(self) -> int:
        """Examples of a run so far."""
        return sum(losses.shape[1] for losses in self.losses)


def _gradients(weights: Sequence[nn.Parameter]) -> list[Tensor]:
    return [weight.grad for weight in weights if weight.grad is not None]


class SaveAdapters(TrainerCallback):
    """Saves adapters after some of the steps, once `ensure_sound` has found nothing amiss in them.

    `checkpoints` says for each adapter after how many steps it is saved, and where.
    """

    def __init__(self, checkpoints: Mapping[str, Mapping[int, Path]], ensure_sound: Callable[[], None]) -> None:
        self._checkpoints, self._ensure_sound = checkpoints, ensure_sound

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called by Trainer after the optimiser's step."""
        del args, control
        for adapter, steps in self._checkpoints.items():
            if state.global_step in steps:
                self._ensure_sound()
                save_adapter(kwargs["model"], steps[state.global_step], adapter)
