"""Hugging Face's Trainer on a PEFT model, nothing else: `python training_plain.py plain`, or `autocast`.

The same data in the same order, the same optimiser, schedule and clipping as ours; logits of every token.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from peft import get_peft_model
from reading import torch_dtype
from shapes import device, shaped_model
from stepping import MODEL, Task, serve_run
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PrinterCallback, Trainer, TrainingArguments

from gradinoc.measure.training.adapters import lora_config
from gradinoc.measure.training.order import data_order
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.sources.locate import locate


def load(shape: str, dtype: str) -> Any:
    """The model as Hugging Face has it, frozen; with a shape, random weights of it."""
    if shape:
        return shaped_model(shape, torch_dtype(dtype), device())
    folder = locate(MODEL)[0]
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch_dtype(dtype)).eval().requires_grad_(False)


def run(task: Task) -> list[float]:
    """One run to its end; the losses by step."""
    settings, losses = task.settings, []

    def mean_of_means(outputs: Any, labels: Tensor, **_: Any) -> Tensor:
        each = nn.functional.cross_entropy(
            outputs.logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="none"
        ).view(len(labels), -1)
        loss = (each.sum(-1) / (labels[:, 1:] != -100).sum(-1)).mean()
        losses.append(loss.detach())
        return loss

    torch.manual_seed(0)  # the adapter's first weights
    wrapped = get_peft_model(task.model, lora_config(task.model, settings))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, seed=0, use_cpu=task.model.device.type == "cpu", max_steps=settings.steps,
            bf16=sys.argv[1] == "autocast", per_device_train_batch_size=settings.batch_size,
            train_sampling_strategy="sequential", learning_rate=settings.lr,
            lr_scheduler_type="constant_with_warmup", warmup_steps=settings.warmup_steps, weight_decay=0.0,
            dataloader_pin_memory=False, remove_unused_columns=False, logging_strategy="no", save_strategy="no",
            report_to="none", disable_tqdm=True,
        )  # fmt: skip
        order = data_order(len(task.examples), settings, 0)
        trainer = Trainer(
            wrapped, args=arguments, train_dataset=[task.examples[row] for row in order],
            data_collator=partial(labelled, task.pad), compute_loss_func=mean_of_means,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [float(loss) for loss in losses]


def labelled(pad: int, examples: Sequence[Encoded]) -> dict[str, Tensor]:
    """A right-padded batch as Hugging Face's models take it."""
    rows = [torch.tensor(example.ids) for example in examples]
    labels = [row.clone() for row in rows]
    for label, example in zip(labels, examples, strict=True):
        label[: example.prompt_length] = -100
    padded = nn.utils.rnn.pad_sequence
    return {
        "input_ids": padded(rows, batch_first=True, padding_value=pad),
        "attention_mask": padded([torch.ones_like(row) for row in rows], batch_first=True),
        "labels": padded(labels, batch_first=True, padding_value=-100),
    }


if __name__ == "__main__":
    serve_run(load, run, list)
