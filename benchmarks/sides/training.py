"""Sides of the training and growth jobs: ours, plain Trainer with PEFT, and the products no step can avoid.

A run's steps are handed out one at a time, so that sides take turns step by step on the same batches: the run waits
after each step of its optimiser. A step's time is from one such wait to the next: the whole cycle of Trainer.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from greenlet import getcurrent, greenlet
from peft import get_peft_model
from reading import torch_dtype
from serving import peak_memory, serve
from shapes import shaped_model
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, Trainer, TrainingArguments

from gradinoc.chat import Encoded
from gradinoc.directions import isotropic_directions
from gradinoc.fused import fuse
from gradinoc.models import load_model
from gradinoc.sources import locate
from gradinoc.study import TrainingSettings
from gradinoc.train_lora import Recipe, data_order, lora_config, train_run

MODEL = "smollm2-135m-instruct"
OURS = ("ours", "unlogged")
held: dict[str, Any] = {}


class Steps:
    """A training run whose optimiser steps are handed out one by one.

    The run is a greenlet: it stays in the main thread, whose memory and OpenMP threads are those of any other run.
    """

    def __init__(self, run: Callable[[], Any]) -> None:
        self._run = greenlet(run)
        self._handle = register_optimizer_step_post_hook(lambda *_: self._run.parent.switch())

    def step(self) -> None:
        """Let one more step happen; the first includes the set-up of the run."""
        self._run.parent = getcurrent()
        self._run.switch()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if self._run.dead:
            raise RuntimeError("The run has no more steps")

    def stop(self) -> None:
        """End the run where it is."""
        self._handle.remove()
        if self._run:
            self._run.throw()  # GreenletExit, inside the run


# --- the work


def prepare(
    dtype: str,
    steps: int,
    batch_size: int,
    work: str = "",
    tokens: int = 0,
    layers: int = 0,
    directions: int = 101,
    shape: str = "",
) -> None:
    """Load the model (once) and set up a run of `steps`; with a `shape`, a model of that shape on the CUDA device.

    The examples are those in the file `work`, or made up, of `tokens` tokens, half of them completion. `layers` are
    logged (0: all), spread evenly, along `directions` directions each.
    """
    if "steps" in held:
        held.pop("steps").stop()
    if held.get("dtype") != dtype:
        held.update(model=_shaped(shape, dtype) if shape else _loaded(dtype), pad=0 if shape else _pad(), dtype=dtype)
    if work:
        described = json.loads(Path(work).read_text(encoding="utf-8"))
        examples = [Encoded(tuple(ids), prompt) for ids, prompt in described["examples"]]
    else:
        examples = _made_up(tokens, batch_size * steps)
    settings = TrainingSettings(steps=steps, batch_size=batch_size, lr=2e-4, lora_rank=16, lora_alpha=32)
    held.update(
        examples=examples, settings=settings, batch=0,
        directions=_directions(held["model"].config, layers, directions),
    )  # fmt: skip


def _loaded(dtype: str) -> Any:
    """The frozen model: as a study loads it for our sides, as Hugging Face has it for the others."""
    if sys.argv[1] in OURS:
        return load_model(MODEL, device="cpu", dtype=dtype).model
    folder = locate(MODEL)[0]
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch_dtype(dtype)).eval().requires_grad_(False)


def _shaped(shape: str, dtype: str) -> Any:
    """A model with random weights on the CUDA device."""
    model = shaped_model(shape, torch_dtype(dtype), "cuda")
    if sys.argv[1] in OURS and not fuse(model)[0].endswith("packed"):
        raise RuntimeError(f"A model of the shape of {shape} was not fused")
    return model


def _pad() -> int:
    return int(AutoTokenizer.from_pretrained(locate(MODEL)[0]).pad_token_id)


def _made_up(tokens: int, count: int) -> list[Encoded]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(100, 40_000, (count, tokens), generator=generator).tolist()
    return [Encoded(tuple(row), tokens // 2) for row in rows]


def _directions(config: Any, layers: int, count: int) -> dict[int, Tensor]:
    """Layer -> unit rows `[count, hidden]`, a tensor of its own each, as in a study."""
    depth = config.num_hidden_layers
    count_of_layers = layers or depth
    chosen = [(at + 1) * depth // count_of_layers - 1 for at in range(count_of_layers)]
    random = isotropic_directions(count, config.hidden_size, 0)
    return {layer: random.clone() for layer in chosen}


# --- ours


def run_ours(logged: bool) -> Any:
    """One run of ours to its end; its log."""
    recipe = Recipe(held["settings"], held["directions"] if logged else {}, held["pad"])
    with tempfile.TemporaryDirectory() as folder:
        return train_run(held["model"], held["examples"], recipe, 0, Path(folder))


# --- plain Trainer and PEFT


def run_plain(autocast: bool) -> list[float]:
    """Hugging Face's Trainer on a PEFT model, nothing else; the losses by step.

    The same data in the same order, the same optimiser, schedule and clipping as ours; logits of every token.
    """
    settings, model = held["settings"], held["model"]
    losses: list[Tensor] = []

    def mean_of_means(outputs: Any, labels: Tensor, **_: Any) -> Tensor:
        each = nn.functional.cross_entropy(
            outputs.logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="none"
        ).view(len(labels), -1)
        loss = (each.sum(-1) / (labels[:, 1:] != -100).sum(-1)).mean()
        losses.append(loss.detach())
        return loss

    torch.manual_seed(0)  # the adapter's first weights
    wrapped = get_peft_model(model, lora_config(model, settings))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, seed=0, use_cpu=model.device.type == "cpu", max_steps=settings.steps, bf16=autocast,
            per_device_train_batch_size=settings.batch_size, train_sampling_strategy="sequential",
            learning_rate=settings.lr, lr_scheduler_type="constant_with_warmup", warmup_steps=settings.warmup_steps,
            weight_decay=0.0, dataloader_pin_memory=False, remove_unused_columns=False, logging_strategy="no",
            save_strategy="no", report_to="none", disable_tqdm=True,
        )  # fmt: skip
        order = data_order(len(held["examples"]), settings, 0)
        trainer = Trainer(
            wrapped, args=arguments, train_dataset=[held["examples"][row] for row in order], data_collator=_labelled,
            compute_loss_func=mean_of_means,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [float(loss) for loss in losses]


def _labelled(examples: Sequence[Encoded]) -> dict[str, Tensor]:
    """A right-padded batch as Hugging Face's models take it."""
    rows = [torch.tensor(example.ids) for example in examples]
    labels = [row.clone() for row in rows]
    for label, example in zip(labels, examples, strict=True):
        label[: example.prompt_length] = -100
    padded = nn.utils.rnn.pad_sequence
    return {
        "input_ids": padded(rows, batch_first=True, padding_value=held["pad"]),
        "attention_mask": padded([torch.ones_like(row) for row in rows], batch_first=True),
        "labels": padded(labels, batch_first=True, padding_value=-100),
    }


# --- the floor


class Products:
    """The matrix products of one step, bare: bf16, preallocated, no autograd, nothing between them.

    For every linear map of the blocks, forward and the gradient of its input; for LoRA's two factors also the gradients
    of their weights; for attention, per example and head, two products forward and four backward; for labelled tokens
    the logits and the gradient of their hidden states.
    """

    def __init__(self, config: Any, rank: int, tokens: int) -> None:
        hidden, inner, self.layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
        self.heads = config.num_attention_heads
        self.size = hidden // self.heads
        kept = self.size * config.num_key_value_heads
        shapes = [(hidden, hidden), (hidden, kept), (hidden, kept), (hidden, hidden)]
        self.shapes = [*shapes, (hidden, inner), (hidden, inner), (inner, hidden)]
        widths = {width for shape in self.shapes for width in shape} | {rank, config.vocab_size}
        self.rank, self.vocabulary, self.hidden = rank, config.vocab_size, hidden
        self.weights = [[_random(out, into) for into, out in self.shapes] for _ in range(self.layers)]
        self.factors = [[(_random(rank, into), _random(out, rank)) for into, out in self.shapes]] * self.layers
        self.head = _random(config.vocab_size, hidden)
        self.states = {width: _random(tokens, width) for width in widths - {config.vocab_size}}
        self.results = {width: _random(tokens, width) for width in widths - {config.vocab_size}}

    def run(self, lengths: Sequence[int], labelled: int) -> None:
        """The products of a batch of examples with so many tokens each, `labelled` of them in all with a label."""
        tokens = sum(lengths)
        for layer in range(self.layers):
            for weight, (into, out) in zip(self.weights[layer], self.factors[layer], strict=True):
                self._linear(weight, tokens)
                self._linear(into, tokens, trained=True)
                self._linear(out, tokens, trained=True)
            for length in lengths:
                self._attention(length)
        logits = self.states[self.hidden][:labelled] @ self.head.T
        torch.mm(logits, self.head, out=self.results[self.hidden][:labelled])

    def _linear(self, weight: Tensor, tokens: int, trained: bool = False) -> None:
        out, into = weight.shape
        torch.mm(self.states[into][:tokens], weight.T, out=self.results[out][:tokens])
        torch.mm(self.states[out][:tokens], weight, out=self.results[into][:tokens])
        if trained:
            torch.mm(self.states[out][:tokens].T, self.states[into][:tokens])

    def _attention(self, length: int) -> None:
        queries = self.states[self.hidden][:length].view(length, self.heads, self.size).transpose(0, 1)  # (H, n, d)
        keys = queries.transpose(1, 2)
        scores = torch.bmm(queries, keys)  # Q K^T
        torch.bmm(scores, queries)  # P V
        torch.bmm(scores.transpose(1, 2), queries)  # gradient of V
        torch.bmm(queries, keys)  # gradient of P
        torch.bmm(scores, queries)  # gradient of Q
        torch.bmm(scores.transpose(1, 2), queries)  # gradient of K


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, device=held["model"].device, dtype=torch.bfloat16)


@torch.no_grad()
def step_floor() -> None:
    """The products of the next batch."""
    settings, examples = held["settings"], held["examples"]
    if "products" not in held:
        most = settings.batch_size * max(len(example.ids) for example in examples)
        held["products"] = Products(held["model"].config, settings.lora_rank, most)
        held["order"] = data_order(len(examples), settings, 0)
    start = held["batch"] * settings.batch_size
    held["batch"] += 1
    batch = [examples[row] for row in held["order"][start : start + settings.batch_size]]
    held["products"].run([len(e.ids) for e in batch], sum(len(e.ids) - e.prompt_length for e in batch))
    if torch.cuda.is_available():
        torch.cuda.synchronize()


# --- requests


def repeat(run: Callable[[], Any]) -> None:
    """The next step of the run."""
    if "steps" not in held:
        held["steps"] = Steps(run)
    held["steps"].step()


def held_bytes() -> int:
    """Bytes of every tensor that Python can reach between two steps, each storage once."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (Tensor, nn.Parameter):
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(storages.values())


RUNS: dict[str, Callable[[], Any]] = {
    "ours": lambda: run_ours(logged=True),
    "unlogged": lambda: run_ours(logged=False),
    "plain": lambda: run_plain(autocast=False),
    "autocast": lambda: run_plain(autocast=True),
}


def main(name: str) -> None:
    """Serve the side called `name`."""
    handlers: dict[str, Any] = {"prepare": prepare, "memory": peak_memory, "held": held_bytes}
    if name == "floor":
        serve({**handlers, "repeat": step_floor})
        return
    run = RUNS[name]
    losses = (lambda: list(run().losses)) if name in OURS else run
    serve({**handlers, "repeat": lambda: repeat(run), "losses": losses})


if __name__ == "__main__":
    main(sys.argv[1])
