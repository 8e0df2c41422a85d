"""What the sides of the training, growth and CUDA jobs share, all in this project's environment: the work, and its
steps one at a time.

A run's steps are handed out one by one, so that sides take turns step by step on the same batches: the run waits after
each step of its optimiser. A step's time is from one such wait to the next: the whole cycle of Trainer.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from greenlet import getcurrent, greenlet
from serving import Handler, peak_memory, serve
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import AutoTokenizer

from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.models.chat.encoding import Encoded
from gradinoc.models.sources.locate import locate
from gradinoc.study.settings import TrainingSettings

MODEL = "smollm2-135m-instruct"

Load = Callable[[str, str], Any]  # (shape or "", dtype) -> the frozen model


@dataclass(frozen=True)
class Task:
    """A training run to come: the frozen model, the examples, layer -> directions `[count, hidden]`."""

    model: Any
    examples: list[Encoded]
    settings: TrainingSettings
    directions: dict[int, Tensor]
    pad: int


held: dict[str, Any] = {}


def task() -> Task:
    """What was prepared last."""
    prepared: Task = held["task"]
    return prepared


def serve_steps(load: Load, repeat: Handler, **further: Handler) -> None:
    """Serve a side whose `repeat` makes the next step of the task."""
    serve({"prepare": partial(prepare, load), "memory": peak_memory, "held": held_bytes, "repeat": repeat, **further})


def serve_run(load: Load, run: Callable[[Task], Any], losses: Callable[[Any], list[float]], **further: Handler) -> None:
    """Serve a side whose `run` trains to the end; from what it returns `losses` takes the losses by step."""

    def repeat() -> None:
        if "steps" not in held:
            held["steps"] = Steps(lambda: run(task()))
        held["steps"].step()

    serve_steps(load, repeat, losses=lambda: losses(run(task())), **further)


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


def prepare(
    load: Load,
    dtype: str,
    steps: int,
    batch_size: int,
    work: str = "",
    tokens: int = 0,
    layers: int = 0,
    directions: int = 101,
    shape: str = "",
) -> None:
    """Load the model (once) and set up a run of `steps`; with a `shape`, a model of that shape instead of SmolLM2.

    The examples are those in the file `work`, or made up, of `tokens` tokens, half of them completion. `layers` are
    logged (0: all), spread evenly, along `directions` directions each.
    """
    if "steps" in held:
        held.pop("steps").stop()
    if held.get("loaded") != (shape, dtype):
        held.update(model=load(shape, dtype), pad=0 if shape else _pad(), loaded=(shape, dtype))
    if work:
        described = json.loads(Path(work).read_text(encoding="utf-8"))
        examples = [Encoded(tuple(ids), prompt) for ids, prompt in described["examples"]]
    else:
        examples = _made_up(tokens, batch_size * steps)
    settings = TrainingSettings(steps=steps, batch_size=batch_size, lr=2e-4, lora_rank=16, lora_alpha=32)
    chosen = _directions(held["model"].config, layers, directions)
    held["task"] = Task(held["model"], examples, settings, chosen, held["pad"])


def held_bytes() -> int:
    """Bytes of every tensor that Python can reach between two steps, each storage once."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (Tensor, nn.Parameter):
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(storages.values())


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
