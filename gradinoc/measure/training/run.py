"""LoRA runs with Hugging Face Trainer and PEFT, their gradients logged on the training backward pass itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from gradinoc.data.examples import read_examples
from gradinoc.errors import DataError
from gradinoc.measure.fast import batched, fused_adapter
from gradinoc.measure.gradients.alignment import GradientLogger, answer_losses
from gradinoc.measure.gradients.pooled import StepMeans
from gradinoc.measure.loading.load import load_model
from gradinoc.measure.training.adapters import digest_of, fresh_adapters, save_adapter
from gradinoc.measure.training.arguments import training_arguments
from gradinoc.measure.training.interventions import Arm, Intervention, in_stream, intervening
from gradinoc.measure.training.order import data_order, early_examples
from gradinoc.measure.training.tracking import ShowSteps, Tracking
from gradinoc.measure.training.trainer import GradientLoggingTrainer, OnStep, SaveAdapters
from gradinoc.models.chat.encoding import Encoded, encode
from gradinoc.models.machine.isolation import own_generators, undisturbed
from gradinoc.study.settings import TrainingSettings


@dataclass(frozen=True)
class RunLog:
    """What a run leaves.

    Attributes:
        table: step, example, layer, position, loss, alignment, projection, grad_norm; one row each.
        direction_means: mean alignment with every direction over all steps and examples at the primary
            position, `[layers, directions]` float64.
        steps: what each step showed along every direction; None where no gradients are logged.
        losses: nats/token by step, mean over the batch.
        initial_loss: mean over the examples of the first fifth of the steps, each as it was met, nats/token.
        final_loss: the same examples after training, the stream as it was in training. (Losses of different batches
            differ by more than a short run learns.)
        seconds: wall time.
        initial_adapter: SHA-256 of the adapter's weights before the first step.
    """

    table: pd.DataFrame
    direction_means: Tensor
    steps: StepMeans | None
    losses: tuple[float, ...]
    initial_loss: float
    final_loss: float
    seconds: float
    initial_adapter: str


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
    kept: int = 1  # of the directions, the first: logged at every position


@dataclass(frozen=True)
class Run:
    """One of the runs of `train_runs`: what it learns, in which order, and where its adapter goes.

    Attributes:
        examples: of which batches are made.
        seed: decides their order and the adapter's initial weights.
        adapter_dir: receives the adapter.
        checkpoints: number of steps -> where the adapter as it is after so many is saved too.
        interventions: what is done to its gradients or its stream in each step, each to the gradient that those before
            it leave; what is logged is what its weights learn from then, and `RunLog.losses` are those of the steps.
        counterpart: for `"restore"` the same examples, encoded under the prompt whose gradients have the components.
    """

    examples: Sequence[Encoded]
    seed: int
    adapter_dir: Path
    checkpoints: Mapping[int, Path] = field(default_factory=dict)
    interventions: Sequence[Intervention] = ()
    counterpart: Sequence[Encoded] | None = None


def train_run(
    model: PreTrainedModel,
    examples: Sequence[Encoded],
    recipe: Recipe,
    seed: int,
    adapter_dir: Path,
    on_step: OnStep | None = None,
    checkpoints: Mapping[int, Path] = MappingProxyType({}),
) -> RunLog:
    """Log of one run; see `train_runs`."""
    return train_runs(model, [Run(examples, seed, adapter_dir, checkpoints)], recipe, on_step)[0]


@undisturbed()
def train_runs(
    model: PreTrainedModel, runs: Sequence[Run], recipe: Recipe, on_step: OnStep | None = None
) -> list[RunLog]:
    """Logs of runs whose adapters are trained side by side; each is what it is alone, but for rounding.

    One pass through the frozen weights is made for all of them: batches lie side by side, and each adapter has its own
    part of them, its own loss, gradient clipping and optimiser's state. Adapters are saved, and the frozen `model` is
    handed back as it came. The order of examples and an adapter's initial weights depend on the seed alone, so that
    runs of one seed under different prompts are paired batch by batch. Adapter weights are float32 whatever the
    model's dtype. Runs may have interventions of their own, or none; those of a run do nothing to the others.

    Raises:
        ValueError: the runs differ in their number of examples, or several are tracked, or the model takes one adapter
            at a time (`takes_several`): then train each alone; or an intervention is not as it should be.
        NumericalError: a loss, gradient or weight is not finite; the message names step, examples and layer.
        OutOfMemoryError: memory does not suffice; the message says what would fit.
    """
    settings, tracking = recipe.settings, recipe.tracking
    began = time.perf_counter()
    orders = [data_order(len(run.examples), settings, run.seed) for run in runs]
    if len({len(run.examples) for run in runs}) != 1 or (len(runs) > 1 and tracking):
        raise ValueError("Runs are trained together if they have as many examples each, and are not tracked")
    seeds = [run.seed for run in runs]
    with own_generators(), _handed_back(model), fresh_adapters(model, seeds, settings) as (wrapped, names):
        began_as = [digest_of(wrapped, name) for name in names]
        logged = GradientLogger(wrapped, recipe.directions) if recipe.directions else nullcontext()
        shown = tracking.places() if tracking else nullcontext()
        named = zip(names, runs, strict=True)
        arms = [Arm(name, run.interventions, run.examples, run.counterpart) for name, run in named]
        in_place = fused_adapter(wrapped)
        with in_place as parts, logged as logger, shown, intervening(wrapped, arms, parts, recipe.pad) as around:
            trainer = GradientLoggingTrainer(
                wrapped,
                logger,
                on_step,
                parts=parts,
                args=training_arguments(settings, runs[0].seed, runs[0].adapter_dir, model.device, tracking),
                train_dataset=list(zip(*orders, strict=True)),
                data_collator=lambda items: _collate(wrapped, runs, items, recipe.pad),
                longest=max(len(example.ids) for run in runs for example in run.examples),
                kept=recipe.kept,
                around=around,
            )
            checkpoints = {name: run.checkpoints for name, run in zip(names, runs, strict=True)}
            trainer.add_callback(SaveAdapters(checkpoints, trainer.ensure_sound))
            if tracking:
                trainer.add_callback(ShowSteps(lambda: trainer.measured(recipe.band), trainer.log))
            trainer.run()
        logs = []
        for place, (name, run) in enumerate(zip(names, runs, strict=True)):
            wrapped.set_adapter(name)
            early = orders[place][: early_examples(len(trainer.losses), settings.batch_size)]
            with fused_adapter(wrapped), in_stream(wrapped, run.interventions):
                met = [run.examples[row] for row in early]
                final = answer_losses(wrapped.eval(), met, recipe.pad, settings.batch_size)
            save_adapter(wrapped, run.adapter_dir, name)
            seconds = (time.perf_counter() - began) / len(runs)
            logs.append(_log(trainer, place, len(early), float(final.mean()), (seconds, began_as[place])))
    return logs


def _log(trainer: GradientLoggingTrainer, run: int, early: int, final: float, about: tuple[float, str]) -> RunLog:
    """The log of a run; `about` is how long it took, and what its adapter began as."""
    losses = [batch[run] for batch in trainer.losses]
    return RunLog(
        trainer.table(run),
        trainer.direction_means(run),
        trainer.step_means(run),
        tuple(torch.stack([batch.mean() for batch in losses]).tolist()),
        float(torch.cat(losses).cpu().double().numpy()[:early].mean()),
        final,
        *about,
    )


def _collate(model: nn.Module, runs: Sequence[Run], steps: Sequence[tuple[int, ...]], pad: int) -> dict[str, Any]:
    """A batch of the rows `[batch, runs]` of the runs' examples, run by run."""
    rows = [[step[place] for step in steps] for place in range(len(runs))]
    examples = [run.examples[row] for run, own in zip(runs, rows, strict=True) for row in own]
    return {"batch": batched(model, examples, pad, len(runs)), "rows": [row for own in rows for row in own]}


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
