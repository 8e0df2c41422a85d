"""One part of the GPU check, `python -m benchmarks.gpu PART DEVICE`, as lines of JSON; see gpu.sh."""

from __future__ import annotations

import gc
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import accelerate
import cuda
import peft
import torch
import training_ours
import training_plain
import transformers
from shapes import shaped_model
from stepping import Task
from torch.optim.optimizer import register_optimizer_step_post_hook

from gradinoc.measure.directions.nulls import isotropic_directions
from gradinoc.measure.training.run import Recipe, Run, train_runs
from gradinoc.study.settings import TrainingSettings

BATCH, WARM, STEPS, RUNS = 4, 3, 12, 9
TOKENS = {"cuda": 512, "cpu": 48}
SHAPES = {"cuda": ("qwen3-0.6b", "qwen2.5-7b"), "cpu": ("rehearsal", "rehearsal")}
Line = tuple[str, Any]


def environment(device: str) -> Iterator[Line]:
    """Where it runs."""
    yield "python", platform.python_version()
    for library in (torch, transformers, peft, accelerate):
        yield library.__name__, library.__version__
    yield "device", torch.cuda.get_device_name() if device == "cuda" else platform.processor()


def exact(device: str) -> Iterator[Line]:
    """Alignments at three positions and losses, from the plain float32 ones of a CPU; float32 and bfloat16."""
    for shape in SHAPES[device]:
        for name, away in cuda.deviations(shape, device).items():
            yield f"{shape}, {name}", away


def waits(device: str) -> Iterator[Line]:
    """How often the host waits for the device in a step: 0 is wanted."""
    if device == "cuda":
        yield "synchronisations a step", cuda.waits(SHAPES[device][0]) / 6


def memory(device: str) -> Iterator[Line]:
    """Bytes of a training step of the larger model: as computed, and at its peak."""
    shape = SHAPES[device][1]
    computed = sum(cuda.needed(shape, TOKENS[device], BATCH).values())
    yield f"{shape}, computed", computed
    if device == "cuda":
        model = _fused(shape, device)
        torch.cuda.reset_peak_memory_stats()
        _run("ours", model, 2)
        yield f"{shape}, at its peak", torch.cuda.max_memory_allocated()
        yield f"{shape}, peak / computed", torch.cuda.max_memory_allocated() / computed


def small(device: str) -> Iterator[Line]:
    """Seconds a step of the smaller model, logged and not, and of Trainer with PEFT alone, by turns."""
    yield from _compared(SHAPES[device][0], device, ("plain", "autocast", "ours", "unlogged"))


def large(device: str) -> Iterator[Line]:
    """The same of the larger model, without the slower of Trainer's two ways."""
    yield from _compared(SHAPES[device][1], device, ("plain", "ours", "unlogged"))


def together(device: str) -> Iterator[Line]:
    """Seconds a step of nine runs of the smaller model in one pass, and of one of them alone, by turns; its losses."""
    shape = SHAPES[device][0]
    model, steps = _fused(shape, device), WARM + STEPS // 2
    texts = cuda.examples(BATCH * steps, TOKENS[device] // 4, model.config.vocab_size)
    settings = TrainingSettings(steps=steps, batch_size=BATCH, lr=2e-4, lora_rank=16, lora_alpha=32)
    along = isotropic_directions(101, model.config.hidden_size, 0)
    recipe = Recipe(settings, {layer: along.clone() for layer in range(model.config.num_hidden_layers)}, 0)
    seconds: dict[int, list[float]] = {1: [], RUNS: []}
    losses = {}
    for count in (RUNS, 1, 1, RUNS):
        with tempfile.TemporaryDirectory() as folder, _timed_steps(model) as ends:
            runs = [Run(texts, seed, Path(folder) / str(seed)) for seed in range(count)]
            losses[count] = torch.tensor(train_runs(model, runs, recipe)[0].losses)
        seconds[count] += [end - begin for begin, end in pairwise(ends)][WARM:]
    for count, each in seconds.items():
        yield f"{shape}, {count} at once, seconds a step", statistics.median(each)
    each_alone = RUNS * statistics.median(seconds[1])
    yield f"{shape}, {RUNS} one after another / together", each_alone / statistics.median(seconds[RUNS])
    yield f"{shape}, losses apart, relative, bfloat16", float((losses[RUNS] / losses[1] - 1).abs().max())


def _compared(shape: str, device: str, ways: tuple[str, ...]) -> Iterator[Line]:
    """Each way twice, there and back, so that none has the warmer device; medians over the steps of both."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for way in (*ways, *reversed(ways)):
        model = _fused(shape, device) if way in ("ours", "unlogged") else shaped_model(shape, torch.bfloat16, device)
        seconds[way] += _run(way, model, WARM + STEPS // 2)[WARM:]
        del model
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    middle = {way: statistics.median(each) for way, each in seconds.items()}
    for way, each in seconds.items():
        yield f"{shape}, {way}, seconds a step", {"median": middle[way], "least": min(each), "most": max(each)}
    fastest = min(middle[way] for way in ways if way in ("plain", "autocast"))
    yield f"{shape}, ours / the faster Trainer", middle["ours"] / fastest
    yield f"{shape}, logged / unlogged", middle["ours"] / middle["unlogged"]


def _fused(shape: str, device: str) -> Any:
    model = shaped_model(shape, torch.bfloat16, device)
    cuda.fuse_packed(model, shape)
    return model


def _run(way: str, model: Any, steps: int) -> list[float]:
    """Seconds of each step of a run but its first, whose beginning is not seen."""
    settings = TrainingSettings(steps=steps, batch_size=BATCH, lr=2e-4, lora_rank=16, lora_alpha=32)
    examples = cuda.examples(BATCH * steps, TOKENS[model.device.type], model.config.vocab_size)
    along = isotropic_directions(101, model.config.hidden_size, 0).to(model.device)
    task = Task(model, examples, settings, {layer: along.clone() for layer in range(model.config.num_hidden_layers)}, 0)
    sys.argv[1] = way  # what the sides of the training job are asked for
    with _timed_steps(model) as ends:
        (training_ours if way in ("ours", "unlogged") else training_plain).run(task)
    return [end - begin for begin, end in pairwise(ends)]


@contextmanager
def _timed_steps(model: Any) -> Iterator[list[float]]:
    """When each of the optimiser's steps inside the block ended."""
    ends: list[float] = []

    def note(*_: Any) -> None:
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    handle = register_optimizer_step_post_hook(note)
    try:
        yield ends
    finally:
        handle.remove()


PARTS: dict[str, Callable[[str], Iterator[Line]]] = {
    each.__name__: each for each in (environment, exact, waits, memory, small, large, together)
}

if __name__ == "__main__":
    part, where = sys.argv[1:3]
    for name, value in PARTS[part](where):
        sys.stdout.write(json.dumps({"part": part, "name": name, "value": value}) + "\n")
        sys.stdout.flush()
