"""Adapters of runs: fresh ones, their weights, and how they are saved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from gradinoc.errors import ModelError, NumericalError
from gradinoc.measure.fast import takes_several
from gradinoc.measure.passes.finite import broken_weights
from gradinoc.models.adapters import targets
from gradinoc.study.settings import TrainingSettings

MAPS = "target_modules"  # of an adapter's configuration


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


@contextmanager
def fresh_adapters(
    model: PreTrainedModel, seeds: Sequence[int], settings: TrainingSettings
) -> Iterator[tuple[PeftModel, list[str]]]:
    """Inside the block the model has an adapter for each of the seeds, which are all to be trained; and their names.

    An adapter's initial weights depend on its seed alone.

    Raises:
        ValueError: there are several, and the model takes one at a time.
    """
    config, names = lora_config(model, settings), ["default", *(f"run_{place}" for place in range(1, len(seeds)))]
    torch.manual_seed(seeds[0])  # PEFT draws from the global generator
    wrapped = cast(PeftModel, get_peft_model(model, deepcopy(config)))
    try:
        for name, seed in zip(names[1:], seeds[1:], strict=True):
            torch.manual_seed(seed)
            wrapped.add_adapter(name, deepcopy(config))
        if len(names) > 1:
            if not takes_several(wrapped):
                raise ValueError(f"{type(model).__name__}: its adapters are trained one at a time")
            layers: Any = wrapped.base_model
            layers.set_adapter(names)
        yield wrapped, names
    finally:
        wrapped.unload()


def weights_of(model: PeftModel, adapter: str) -> list[nn.Parameter]:
    """The trained weights of one of a model's adapters."""
    named = model.named_parameters()
    return [weight for name, weight in named if weight.requires_grad and adapter in name.split(".")]


def digest_of(model: PeftModel, adapter: str) -> str:
    """SHA-256 of an adapter's trained weights, in their order: two runs of one seed begin with the same."""
    found = hashlib.sha256()
    for weight in weights_of(model, adapter):
        found.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def ensure_safetensors(adapter: Path, advice: str = "") -> None:
    """Refuse an adapter in another form: PEFT would take a pickle in its place, or ask the hub.

    Raises:
        ModelError: there are no such weights; `advice` is the end of the message.
    """
    if not (adapter / SAFETENSORS_WEIGHTS_NAME).is_file():
        raise ModelError(
            f"{adapter}: an adapter without {SAFETENSORS_WEIGHTS_NAME}, and no other form of weights is read{advice}"
        )


def save_adapter(model: PeftModel, folder: Path, adapter: str = "default") -> None:
    """Write one of the adapters of `model` to `folder`.

    Raises:
        NumericalError: one of its weights is not finite.
    """
    if names := [name for name in broken_weights(model) if adapter in name.split(".")]:
        raise NumericalError(
            f"The adapter for {folder.name!r} is not finite in {len(names)} of its weights ({names[0]} first): "
            "the run diverged; lower training.lr"
        )
    # Left to itself, PEFT adds embedding and unembedding where a row for padding was added: no other base takes those.
    model.save_pretrained(str(folder), selected_adapters=[adapter], save_embedding_layers=False)
    own = folder / adapter  # where PEFT puts all but the one it calls "default"
    if own.is_dir():
        for file in own.iterdir():
            file.replace(folder / file.name)
        own.rmdir()
    _in_order(folder / CONFIG_NAME)


def _in_order(configured: Path) -> None:
    """Sort the names of maps in an adapter's configuration: PEFT has them in a set, whose order a process draws."""
    found = json.loads(configured.read_text(encoding="utf-8"))
    if isinstance(found.get(MAPS), list):
        found[MAPS] = sorted(found[MAPS])
        configured.write_text(json.dumps(found, indent=2, sort_keys=True), encoding="utf-8")
