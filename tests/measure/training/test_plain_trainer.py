"""Training against a plain Trainer with PEFT as the oracle: logging changes nothing."""

from __future__ import annotations

import numpy as np
import torch
from peft import get_peft_model
from transformers import Trainer, TrainingArguments

from fixtures.trained import COUNT, SETTINGS, adapter, encode_all, load_obedient, run, same_weights
from gradinoc.measure.fast import batched, completion_losses, fused_adapter
from gradinoc.measure.training.adapters import lora_config
from gradinoc.measure.training.order import data_order
from gradinoc.models.blocks import decoder_blocks


class Bare(Trainer):
    """Hugging Face's Trainer that notes each loss; `loss` is how it is computed, the model's own if None."""

    def __init__(self, model, args, rows, collator, loss=None):
        super().__init__(model, args, train_dataset=rows, data_collator=collator)
        self.model_accepts_loss_kwargs = False  # accumulated micro-batches are averaged, not pooled by tokens
        self.loss, self.noted = loss, []

    def compute_loss(self, model, inputs, *_, **__):
        """The loss, noted."""
        loss = self.loss(model, inputs) if self.loss else super().compute_loss(model, inputs)
        self.noted.append(float(loss.detach()))
        return loss


def train_bare(language_model, folder, collator, loss=None, **batching):
    """The noted losses and the adapter of a run without a line of gradinoc's trainer."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=SETTINGS.steps,
        learning_rate=SETTINGS.lr,
        lr_scheduler_type="constant",
        train_sampling_strategy="sequential",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=0,
        **batching,
    )
    examples = encode_all(language_model)
    rows = [examples[row] for row in data_order(COUNT, SETTINGS, 0)]
    torch.manual_seed(0)
    wrapped = get_peft_model(language_model.model, lora_config(language_model.model, SETTINGS))
    trainer = Bare(wrapped, arguments, rows, collator, loss)
    with fused_adapter(wrapped):
        trainer.train()
    wrapped.save_pretrained(str(folder))
    return trainer.noted, adapter(folder)


def test_losses_are_those_of_a_plain_trainer(plain, tmp_path):
    """Hugging Face's own loss from labels, one unpadded example at a time, averaged over accumulated micro-batches.

    Nothing here shares code with the run: not the loss, not the batches, not the packing, not the kernels.
    """

    def as_labels(items):
        (item,) = items
        ids = torch.tensor([item.ids])
        labels = ids.clone()
        labels[:, : item.prompt_length] = -100
        return {"input_ids": ids, "labels": labels}

    batching = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": SETTINGS.batch_size}
    noted, weights = train_bare(load_obedient(kernels="plain"), tmp_path, as_labels, **batching)
    log, folder = plain
    curve = np.reshape(noted, (SETTINGS.steps, SETTINGS.batch_size)).mean(1)
    np.testing.assert_allclose(log.losses, curve, atol=1e-5)
    for name, weight in adapter(folder).items():
        torch.testing.assert_close(weight, weights[name], atol=2e-4, rtol=1e-2)


def test_logging_changes_nothing(plain, tmp_path):
    """Without hooks or readings, the same batches give the same adapter bit for bit."""
    language_model = load_obedient()
    pad = language_model.tokenizer.pad_token_id
    noted, weights = train_bare(
        language_model,
        tmp_path,
        lambda items: {"batch": batched(language_model.model, items, pad)},
        lambda model, inputs: completion_losses(model, inputs["batch"]).mean(),
        per_device_train_batch_size=SETTINGS.batch_size,
    )
    log, folder = plain
    assert list(log.losses) == noted
    assert same_weights(adapter(folder), weights)


def test_each_step_is_one_forward_and_one_backward_pass(obedient, tmp_path, monkeypatch):
    """The gradients that are logged are those of the training step itself."""
    backward, gradient, passes = torch.autograd.backward, torch.autograd.grad, []
    monkeypatch.setattr(torch.autograd, "backward", lambda *a, **k: (passes.append("back"), backward(*a, **k))[1])
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: (passes.append("grad"), gradient(*a, **k))[1])
    handle = decoder_blocks(obedient.model)[0].register_forward_hook(
        lambda *_: passes.append("forward") if torch.is_grad_enabled() else None
    )
    run(obedient, tmp_path, steps=3)
    handle.remove()
    assert passes == ["forward", "back"] * 3


def test_plain_gradient_descent_takes_the_gradient_itself(obedient, tmp_path):
    """With `optimizer` "sgd" a step is learning rate x gradient, clipped to length 1, weight by weight."""
    run(obedient, tmp_path, steps=1, optimizer="sgd")
    torch.manual_seed(0)
    wrapped = get_peft_model(load_obedient(kernels="plain").model, lora_config(obedient.model, SETTINGS))
    weights = {name: weight for name, weight in wrapped.named_parameters() if weight.requires_grad}
    examples, pad = encode_all(obedient), obedient.tokenizer.pad_token_id
    first = [examples[row] for row in data_order(COUNT, SETTINGS, 0)[: SETTINGS.batch_size]]
    gradients = torch.autograd.grad(
        completion_losses(wrapped, batched(wrapped, first, pad)).mean(), list(weights.values())
    )
    length = torch.stack([each.norm() for each in gradients]).norm()
    taken = adapter(tmp_path)
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        step = SETTINGS.lr * gradient / max(1.0, float(length))
        torch.testing.assert_close(taken[name.replace(".default", "")], weight.detach() - step, atol=1e-7, rtol=1e-4)
