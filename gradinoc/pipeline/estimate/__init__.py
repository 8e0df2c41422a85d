"""Estimate a study's cost before it runs: tokens, floating-point operations, memory and time."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from transformers import PreTrainedTokenizerBase

from gradinoc.data.sources import source_path
from gradinoc.data.splits import split
from gradinoc.errors import DataError, ModelError, shown
from gradinoc.models.chat.rendered import Rendered
from gradinoc.models.files import config_of, tokenizer_of
from gradinoc.models.machine.device import choose_device, choose_dtype, precision
from gradinoc.models.machine.isolation import undisturbed
from gradinoc.models.machine.memory import capacity
from gradinoc.models.sources.accepted import ensure_inert, ensure_unquantised
from gradinoc.models.sources.locate import DESCRIPTION, described, is_gguf
from gradinoc.models.sources.packaged import BUNDLED
from gradinoc.pipeline.context import StudyContext
from gradinoc.pipeline.estimate.footprint import TOTAL, footprint
from gradinoc.pipeline.estimate.shapes import shapes_of
from gradinoc.pipeline.estimate.stopwatch import Stopwatch
from gradinoc.pipeline.estimate.workers import Timed, makespan, with_runs
from gradinoc.pipeline.steps.plan import plan
from gradinoc.pipeline.steps.step import Step, StepKey
from gradinoc.pipeline.steps.work import Counting, Work
from gradinoc.study.description import Study

STARTING = 10.0  # seconds: libraries, the model in both dtypes, a trial of the kernels
LEAST, MOST = 0.6, 1.8  # of the estimate: the range of repeated measurements, and of two studies whose times are known
RUNS = (100, 1_000, 10_000)  # of larger studies of the same kind


@dataclass(frozen=True)
class Estimate:
    """A study's cost.

    Attributes:
        stages: one row a kind of step, in order: stage, steps, tokens (forwards), flops, seconds.
        memory: what is held -> bytes, the largest at a time last.
        device: where it was measured and would be computed.
        dtype: of everything but what is computed in `model.extraction_dtype`.
        threads: of the CPU.
        weights: numbers in the model.
        rendered: its prompts, and an example.
        adapted: where the adapters go, and where not, in a sentence.
        capacity: bytes of the device, for one process.
        on_workers: one row for each number of runs, by more seeds: runs, steps, seconds of so many `workers N`, and the
            `shortest` that any number would take; empty unless asked for.
    """

    stages: pd.DataFrame
    memory: dict[str, int]
    device: str
    dtype: str
    threads: int
    weights: int
    rendered: Rendered
    adapted: str
    capacity: int
    on_workers: pd.DataFrame

    @property
    def needed(self) -> int:
        """Bytes that one process needs at a time."""
        return self.memory[TOTAL]

    @property
    def seconds(self) -> tuple[float, float]:
        """The least and the most that one process should take, with the machine to itself."""
        total = STARTING + float(self.stages["seconds"].sum())
        return LEAST * total, MOST * total


@undisturbed()
def estimate(study: Study, workers: Sequence[int] = ()) -> Estimate:
    """Return what `study` will cost on this machine. Nothing is downloaded, and no weights are loaded.

    With numbers of `workers`, also how long so many of an engine's would take for it, and for as many runs as `RUNS`.

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
    torch.set_num_threads(threads)
    costs = _Costs(context, tokenizer, Stopwatch(shapes, device), (dtype, found_in))
    own = costs.of(study)
    table = pd.DataFrame(
        [(cost.kind, 1, cost.tokens, cost.flops, cost.timed.seconds) for cost in own.values()],
        columns=["stage", "steps", "tokens", "flops", "seconds"],
    )
    sizes = [size for size in RUNS if size > len(study.runs)] if workers else []
    dealt = [_dealt(costs, each, workers) for each in (study, *(with_runs(study, size) for size in sizes))]
    return Estimate(
        stages=table.groupby("stage", sort=False, as_index=False).sum(),
        memory=footprint(shapes, costs.works, study, (dtype, found_in), device),
        device=device.type,
        dtype=str(dtype).removeprefix("torch."),
        threads=threads,
        weights=shapes.weights,
        rendered=context.rendered(tokenizer),
        adapted=shapes.adapted,
        capacity=capacity(device),
        on_workers=pd.DataFrame(dealt if workers else []),
    )


@dataclass(frozen=True)
class _Cost:
    """What a step takes."""

    kind: str
    tokens: int
    flops: float
    timed: Timed


class _Costs:
    """What steps take, of a study and of others that differ from it in their seeds; each kind is looked at once."""

    def __init__(
        self,
        context: StudyContext,
        tokenizer: PreTrainedTokenizerBase,
        stopwatch: Stopwatch,
        dtypes: tuple[torch.dtype, torch.dtype],
    ) -> None:
        self._counting, self._splits = Counting(context, tokenizer), context.splits
        self._stopwatch, self._dtypes = stopwatch, dtypes
        self._found: dict[tuple[StepKey, int], tuple[list[Work], float, torch.dtype]] = {}

    @property
    def works(self) -> dict[torch.dtype, list[Work]]:
        """By dtype, of every kind of step that was looked at."""
        found: dict[torch.dtype, list[Work]] = {dtype: [] for dtype in self._dtypes}
        for works, _, used in self._found.values():
            found[used].extend(works)
        return found

    def of(self, study: Study) -> dict[StepKey, _Cost]:
        """Return what each step takes, in the order of the plan."""
        return {key: self._of(step) for key, step in plan(StudyContext(study, self._splits)).items()}

    def _of(self, step: Step) -> _Cost:
        alike = replace(step.key, seed=None), len(step.needs)  # steps of other seeds with as many runs take as long
        if alike not in self._found:
            began = time.process_time()
            works, used = list(step.works(self._counting)), self._dtypes["extraction_dtype" in step.inputs]
            self._found[alike] = works, time.process_time() - began, used
        works, tokenising, used = self._found[alike]  # tokens are made by the step as well
        seconds = tokenising + sum(self._stopwatch.seconds(work, used) for work in works)
        flops = sum(self._stopwatch.shapes.flops(work) for work in works)
        return _Cost(step.kind, sum(work.tokens for work in works), flops, Timed(step.needs, seconds))


def _dealt(costs: _Costs, study: Study, workers: Sequence[int]) -> dict[str, float]:
    """Return how long so many workers take for a study, in seconds: one row of the table of engines."""
    steps = {key: cost.timed for key, cost in costs.of(study).items()}
    return {
        "runs": len(study.runs),
        "steps": len(steps),
        **{f"workers {count}": STARTING + makespan(steps, count) for count in workers},
        "shortest": STARTING + makespan(steps),
    }


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
