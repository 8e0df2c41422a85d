"""What a study will cost, before anything is spent: tokens, floating-point operations, memory, and about how long."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from gradinoc.data.sources import source_path
from gradinoc.data.splits import split
from gradinoc.errors import DataError, ModelError, shown
from gradinoc.models.accepted import ensure_inert, ensure_unquantised
from gradinoc.models.chat.rendered import Rendered
from gradinoc.models.device import choose_device, choose_dtype, precision
from gradinoc.models.files import config_of, tokenizer_of
from gradinoc.models.isolation import undisturbed
from gradinoc.models.sources.locate import DESCRIPTION, described, is_gguf
from gradinoc.models.sources.packaged import BUNDLED
from gradinoc.pipeline.context import Bench
from gradinoc.pipeline.estimates.passes import Work
from gradinoc.pipeline.estimates.shapes import Shapes, shapes_of
from gradinoc.pipeline.estimates.speed import measure, rows_of, seconds
from gradinoc.pipeline.estimates.workload import BASE, DIRECTIONS, GRADIENTS, POOL, RUNS, UNRELATED_TRAITS, Workload
from gradinoc.study.description import Study

COLUMNS = ("stage", "steps", "tokens", "flops", "seconds")
ONCE = (DIRECTIONS, UNRELATED_TRAITS, POOL, BASE)  # stages of one step; the others have one a run, a condition, a seed
STARTING = 10.0  # seconds: libraries, the model in both dtypes, a trial of the kernels
# Of the estimate: what repeated measurements and the two studies whose true times are known leave room for.
LEAST, MOST = 0.6, 1.8
LIBRARIES = 600 * 2**20  # bytes of a process before it has loaded a model


@dataclass(frozen=True)
class Estimate:
    """What a study will cost.

    Attributes:
        stages: one row a stage, in order: `COLUMNS`; tokens that go through the model, forwards.
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


@undisturbed()
def estimate(study: Study) -> Estimate:
    """What `study` will cost on this machine. Nothing is downloaded, and no weights are loaded.

    Raises:
        DataError: the questions are not on this machine, or will not do.
        ModelError: configuration and tokenizer are not on this machine, or will not do.
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
    bench = Bench(study, split(study.data))
    works = list(Workload(bench, tokenizer).works())
    threads = study.model.threads or torch.get_num_threads()
    kinds = [(stage, work, found_in if work.extraction else dtype) for stage, work in works]
    speed = measure(shapes, {(each, rows_of(work)) for _, work, each in kinds}, device, threads)
    rows = [(stage, work.tokens, shapes.flops(work), seconds(work, shapes, speed, each)) for stage, work, each in kinds]
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "steps"])
    table = table.groupby("stage", sort=False, as_index=False).sum()
    table.insert(1, "steps", [_steps(stage, study) for stage in table["stage"]])
    return Estimate(
        stages=table,
        memory=_memory(shapes, [work for _, work in works], study, (dtype, found_in)),
        device=device.type,
        dtype=str(dtype).removeprefix("torch."),
        threads=threads,
        weights=shapes.weights,
        rendered=bench.rendered(tokenizer),
        adapted=shapes.adapted,
    )


def _described(study: Study) -> Path:
    """The folder with the model's configuration and tokenizer, if it is on this machine."""
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


def _steps(stage: str, study: Study) -> int:
    if stage in ONCE:
        return 1
    return {GRADIENTS: len(study.conditions), RUNS: len(study.runs)}.get(stage, len(study.seeds))


def _memory(shapes: Shapes, works: list[Work], study: Study, dtypes: tuple[torch.dtype, torch.dtype]) -> dict[str, int]:
    """What is held -> bytes: weights, their copy in the dtype of the directions, a training step, evaluation."""
    held, copy = (dtype.itemsize for dtype in dtypes)
    training, longest = (
        shapes.training,
        max((work.longest for work in works if work.trains), default=0),
    )
    token = training.checkpointed_token if study.training.gradient_checkpointing else training.token
    # A response's place in the cache of keys and values; `pairs` are the mean number of tokens that it has by then.
    new = study.drift.max_new_tokens
    cached = max(work.longest * (work.pairs // max(1, work.tokens) + new // 2) for work in works if work.writes)
    cache = cached * shapes.cache * shapes.layers * held
    found = {
        "weights": training.weights,
        "weights while directions are found": shapes.weights * copy if copy != held else 0,
        "adapter in training, with gradients and Adam": training.adapter,
        "activations of the longest training step": longest * token,
        "keys and values of the largest batch of responses": cache,
    }
    learning = training.weights + training.adapter + longest * token
    largest = max(learning, training.weights + cache, found["weights while directions are found"])
    return {**{what: size for what, size in found.items() if size}, "largest at a time, libraries included": (
        largest + LIBRARIES
    )}  # fmt: skip
