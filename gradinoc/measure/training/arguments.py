"""How Hugging Face's Trainer is set up for a run: on one device, in one process, in the model's own precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from gradinoc.errors import DeviceError
from gradinoc.measure.training.tracking import Tracking
from gradinoc.models.machine.isolation import own_generators, undisturbed
from gradinoc.study.settings import TrainingSettings

OPTIMIZERS = {"adamw": OptimizerNames.ADAMW_TORCH_FUSED, "sgd": OptimizerNames.SGD}  # Trainer's names


def training_arguments(
    settings: TrainingSettings, seed: int, output_dir: Path, device: torch.device, tracking: Tracking | None
) -> TrainingArguments:
    """Trainer's arguments for one run on `device`; Trainer is to write nothing itself.

    Raises:
        DeviceError: something in the environment asks for several processes, devices or another precision.
    """
    arguments = TrainingArguments(
        output_dir=str(tracking.folder if tracking else output_dir),
        seed=seed,
        use_cpu=device.type == "cpu",  # stay where the model is, whatever else the machine has
        max_steps=settings.steps or -1,
        num_train_epochs=1,  # the data set holds every epoch, in order
        per_device_train_batch_size=settings.batch_size,
        train_sampling_strategy="sequential",
        learning_rate=settings.lr,
        optim=OPTIMIZERS[settings.optimizer],
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
        report_to=tracking.report_to if tracking else "none",
        run_name=tracking.run if tracking else None,
        project=tracking.project if tracking else "gradinoc",
        disable_tqdm=True,
    )
    arguments.report_to = [tracking.report_to] if tracking else []  # a cluster's environment may add to it
    if arguments.n_gpu > 1:  # one run, one device: Trainer would split batches over all, and hooks with them
        arguments._n_gpu = 1
    _ensure_alone(arguments, device)
    return arguments


def _ensure_alone(arguments: TrainingArguments, device: torch.device) -> None:
    """Ensure that Trainer will train on `device`, in one process and in the model's own precision.

    Raises:
        DeviceError: it would not.
    """
    state: Any = arguments.distributed_state
    found = (state.distributed_type.value, state.num_processes, arguments.device.type, arguments.mixed_precision)
    wanted = (DistributedType.NO.value, 1, device.type, "no")
    if found != wanted:
        raise DeviceError(
            "Training: expected (kind of distribution, processes, device, mixed precision) "
            f"{wanted}, received {found} from accelerate; look for what in this environment asks for it "
            "(USE_TORCH_XLA=0 leaves torch_xla out), or run in another one"
        )


@undisturbed()
def ensure_trainable(device: torch.device) -> None:
    """Ensure, before anything is computed, that Trainer will run on `device` in this process alone.

    Raises:
        DeviceError: they would not.
    """
    with own_generators():
        training_arguments(TrainingSettings(), 0, Path(), device, None)
