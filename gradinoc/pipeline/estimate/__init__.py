"""Estimate a study's cost before it runs: tokens, floating-point operations, memory and time."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from peft import get_peft_model
from torch import nn
from transformers import PreTrainedConfig

from gradinoc.data.sources import source_path
from gradinoc.data.splits import split
from gradinoc.errors import DataError, ModelError, shown
from gradinoc.measure.training.adapters import lora_config
from gradinoc.models.adapters import map_shapes, targets
from gradinoc.models.blocks import decoder_blocks, layer_configs
from gradinoc.models.chat.rendered import Rendered
from gradinoc.models.files import config_of, skeleton, tokenizer_of
from gradinoc.models.machine.device import choose_device, choose_dtype, precision
from gradinoc.models.machine.isolation import undisturbed
from gradinoc.models.machine.memory import OF_ADAPTER, TrainingMemory, training_memory
from gradinoc.models.sources.accepted import ensure_inert, ensure_unquantised
from gradinoc.models.sources.locate import DESCRIPTION, described, is_gguf
from gradinoc.models.sources.packaged import BUNDLED
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.estimate.footprint import footprint
from gradinoc.pipeline.steps.plan import plan
from gradinoc.pipeline.steps.step import DIRECTIONS, UNRELATED, StepKey
from gradinoc.pipeline.steps.work import LEARN, READ, TRAIN, Counting, Work
from gradinoc.study.description import Study
from gradinoc.study.settings import TrainingSettings

STARTING = 10.0  # seconds: libraries, the model in both dtypes, a trial of the kernels
LEAST, MOST = 0.6, 1.8  # of the estimate: the range of repeated measurements, and of two studies whose times are known
BUDGET = 0.2  # seconds of each measurement, which has at least three repetitions
COPIES_BYTES, COPIES = 200_000_000, 6  # of a block's weights, used in turn: a model does not stay in a cache
LONGEST = 512  # rows of the products that are timed: longer ones are as fast (to 5 % from 256 on) and take seconds
ELEMENTS = 2**20  # of the pass over memory that is timed
# Besides matrix products: passes over the outputs of a block's linear maps, calls of operations in a block, and calls
# around each pass through the model. Measured with SmolLM2-135M (bfloat16 and float32) and the obedient model, one and
# two threads of a Xeon with AMX: true times are 0.6 to 1.8 of what these give.
PASSES = {READ: 7, LEARN: 18, TRAIN: 28}
CALLS = {READ: 500, LEARN: 1500, TRAIN: 1500}
AROUND = {READ: 6_000, LEARN: 20_000, TRAIN: 20_000}


@dataclass(frozen=True)
class Estimate:
    """A study's cost.

    Attributes:
        stages: one row a kind of step, in order: stage, steps, tokens (forwards), flops, seconds.
        memory: what is held -> bytes, the largest at a time last.
        device: where it was measured and would be computed.
        dtype: of everything but the directions.
        threads: of the CPU.
        weights: numbers in the model.
        rendered: its prompts, and an example.
        adapted: where the adapters go, and where not, in a sentence.
    """

    stages: pd.DataFrame
    memory: dict[str, int]
    device: str
    dtype: str
    threads: int
    weights: int
    rendered: Rendered
    adapted: str

    @property
    def seconds(self) -> tuple[float, float]:
        """The least and the most that one process should take, with the machine to itself."""
        total = STARTING + float(self.stages["seconds"].sum())
        return LEAST * total, MOST * total


@dataclass(frozen=True)
class Shapes:
    """The sizes of a decoder-only model, from its configuration alone.

    Attributes:
        block: (in, out) of each linear map of one decoder block, of the most frequent kind.
        layers: decoder blocks, taken to be alike.
        cache: numbers that a block keeps of a token while it generates, keys and values.
        head: weights of the map to the vocabulary.
        weights: all weights, the embedding's once where it is shared.
        adapted: where the adapters are, and where not, in a sentence.
        training: bytes of a training step, in the dtype that the model is held in.
        width: numbers in a hidden state.
    """

    block: tuple[tuple[int, int], ...]
    layers: int
    cache: int
    head: int
    weights: int
    adapted: str
    training: TrainingMemory
    width: int

    def flops(self, work: Work) -> float:
        """Return the floating-point operations of `work`, attention left out: a few percent at a study's lengths.

        A pass takes 2 a weight and token, as much again back to the states; adapters take 6. Source: Kaplan et al.
        2020, section 2.1, https://arxiv.org/abs/2001.08361, less the gradients of frozen weights.
        """
        of_block = sum(into * out for into, out in self.block)
        forward = 2 * (self.layers * of_block * work.tokens + self.head * work.logits)
        adapter = 6 * self.training.adapter / OF_ADAPTER * work.tokens if work.backward == TRAIN else 0
        return float(forward if work.backward == READ else 2 * forward + adapter)


def shapes_of(config: PreTrainedConfig, dtype: torch.dtype, settings: TrainingSettings, fused: bool) -> Shapes:
    """Return the sizes of the model that `config` describes, held in `dtype`, with adapters as the study trains them.

    No weight is read or made. `fused` says whether the study's own kernels will be used, which hold no copies.
    """
    with torch.device("meta"):
        model = skeleton(config, dtype)
        model.requires_grad_(False)
        text: Any = model.config.get_text_config()
        blocks, found = decoder_blocks(model), targets(model)
        kinds = [map_shapes(block, text) for block in blocks]
        maps = Counter(kinds).most_common(1)[0][0]
        each = layer_configs(text)
        usual: Any = each[kinds.index(maps) % len(each)]  # the configuration of a block of the commonest kind
        weights = sum(parameter.numel() for parameter in model.parameters())
        heads = int(getattr(usual, "num_attention_heads", None) or 0)  # a model without attention has none
        head = int(getattr(usual, "head_dim", None) or text.hidden_size // max(1, heads))
        pairs = int(getattr(usual, "num_key_value_heads", None) or heads)
        training = training_memory(get_peft_model(model, lora_config(model, settings)), fused)
    output = int(text.hidden_size) * int(text.vocab_size)
    return Shapes(maps, len(blocks), 2 * pairs * head, output, weights, str(found), training, int(text.hidden_size))


@undisturbed()
def estimate(study: Study) -> Estimate:
    """Return what `study` will cost on this machine. Nothing is downloaded, and no weights are loaded.

    Raises:
        DataError: the questions are not on this machine, or cannot be used.
        ModelError: configuration and tokenizer are not on this machine, or cannot be used.
        DeviceError: no such device or dtype.
    """
    if source_path(study.data.source) is None:
        raise DataError(
            f"data.source {shown(study.data.source)} is no file on this machine, and nothing is fetched for a plan; "
            "give the path of a downloaded JSONL file"
        )
    folder = _described(study)
    ensure_inert(folder)
    ensure_unquantised(folder)
    device = choose_device(study.model.device)
    dtype = precision(study.model.dtype, device, lambda: folder)
    extraction = study.model.extraction_dtype
    found_in = dtype if extraction == "auto" else choose_dtype(extraction, device)
    shapes = shapes_of(config_of(folder), dtype, study.training, study.model.kernels == "fused")
    tokenizer = tokenizer_of(folder, study.model.chat_template, study.model.date)
    context, threads = StudyContext(study, split(study.data)), study.model.threads or torch.get_num_threads()
    counting, rows, works = Counting(context, tokenizer), [], dict[tuple[StepKey, int], tuple[list[Work], float]]()
    torch.set_num_threads(threads)
    stopwatch = Stopwatch(shapes, device)
    for key, step in plan(context).items():
        alike = replace(key, seed=None), len(step.needs)  # steps of other seeds with as many runs take as long
        used = found_in if key in (DIRECTIONS, UNRELATED) else dtype
        if alike not in works:
            began = time.process_time()
            works[alike] = list(step.works(counting)), time.process_time() - began
        found, tokenising = works[alike]  # which the step does as well
        flops = sum(shapes.flops(work) for work in found)
        seconds = tokenising + sum(stopwatch.seconds(work, used) for work in found)
        rows.append((step.kind, 1, sum(work.tokens for work in found), flops, seconds))
    table = pd.DataFrame(rows, columns=["stage", "steps", "tokens", "flops", "seconds"])
    return Estimate(
        stages=table.groupby("stage", sort=False, as_index=False).sum(),
        memory=footprint(shapes, [work for found, _ in works.values() for work in found], study, (dtype, found_in)),
        device=device.type,
        dtype=str(dtype).removeprefix("torch."),
        threads=threads,
        weights=shapes.weights,
        rendered=context.rendered(tokenizer),
        adapted=shapes.adapted,
    )


class Stopwatch:
    """How long a device takes for work, from the speeds of its parts, each measured once."""

    def __init__(self, shapes: Shapes, device: torch.device) -> None:
        self._shapes, self._device = shapes, device
        self._products: dict[tuple[torch.dtype, int], float] = {}  # operations a second in matrix products
        self._element: dict[torch.dtype, float] = {}  # seconds for each number of a pass over memory
        few = torch.ones(8, 8, device=device)
        self._call = self._timed(lambda: [few * few for _ in range(100)]) / 100

    def seconds(self, work: Work, dtype: torch.dtype) -> float:
        """Return how long `work` would take one process, with the machine to itself."""
        tokens = min(LONGEST, max(1, work.tokens // max(1, work.passes)))  # of a pass
        rows = 1 << (tokens - 1).bit_length()  # a power of two
        if (dtype, rows) not in self._products:
            self._products[dtype, rows] = self._speed(dtype, rows)
        if dtype not in self._element:
            states = torch.ones(ELEMENTS, dtype=dtype, device=self._device)
            self._element[dtype] = self._timed(lambda: nn.functional.silu(states)) / ELEMENTS
        elements = work.tokens * self._shapes.layers * sum(out for _, out in self._shapes.block)
        calls = work.passes * (self._shapes.layers * CALLS[work.backward] + AROUND[work.backward])
        products = self._shapes.flops(work) / self._products[dtype, rows]
        return products + elements * PASSES[work.backward] * self._element[dtype] + calls * self._call

    def _speed(self, dtype: torch.dtype, rows: int) -> float:
        """Measure the operations a second in the matrix products of a block."""
        shapes, ones = self._shapes.block, partial(torch.ones, dtype=dtype, device=self._device)
        numbers = sum(into * out for into, out in shapes)
        copies = max(1, min(COPIES, COPIES_BYTES // (numbers * dtype.itemsize)))
        weights = [[ones(out, into) for into, out in shapes] for _ in range(copies)]
        inputs = [ones(rows, into) for into, _ in shapes]

        def multiply() -> None:
            for copy in weights:
                for states, weight in zip(inputs, copy, strict=True):
                    nn.functional.linear(states, weight)

        return 2 * rows * numbers * copies / self._timed(multiply)

    @torch.inference_mode()
    def _timed(self, work: Callable[[], object]) -> float:
        """Return the least seconds of several calls: other processes only make it slower."""
        took: list[float] = []
        began = time.perf_counter()
        while len(took) < 4 or time.perf_counter() - began < BUDGET:
            start = time.perf_counter()
            work()
            if self._device.type != "cpu":
                getattr(torch, self._device.type).synchronize()
            took.append(time.perf_counter() - start)
        return min(took[1:])


def _described(study: Study) -> Path:
    """Return the folder with the model's configuration and tokenizer, if it is on this machine."""
    name, revision = study.model.id, study.model.revision
    on_a_hub = name.count("/") < 2 and not name.startswith((".", "~", "/")) and not is_gguf(name)
    if name in BUNDLED or not on_a_hub or os.path.isdir(name):  # noqa: PTH112 - Path's own raises for a long name
        return described(name, revision)[0]
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True, **DESCRIPTION))
    except (LocalEntryNotFoundError, ValueError) as error:
        raise ModelError(
            f"model.id {shown(name)} is not in the cache of the hub, and nothing is fetched for a plan; with a hub "
            f"within reach: hf download {name} --include '*.json' '*.jinja' '*.txt' '*.model'"
        ) from error
