"""A worker of a Ray cluster: an actor that keeps a model loaded, and computes one job after the other."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import traceback
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import RayError

from gradinoc.data.sources import source_path
from gradinoc.errors import EngineError, GradinocError, StoreError, shown
from gradinoc.pipeline.progress import Progress
from gradinoc.pipeline.run import STEP_ERRORS, Pipeline
from gradinoc.pipeline.steps.step import StepKey
from gradinoc.pipeline.storage.store import Entry, Store
from gradinoc.pipeline.storage.transfer import Became, pack, receive
from gradinoc.study.description import Study
from gradinoc.study.settings import DATA_FILES
from gradinoc.study.traits.registry import FUNCTIONS, find_trait
from gradinoc.study.traits.shipped import SHIPPED

FOLDERS = "gradinoc-worker-"  # of workers on their nodes; behind it the machine and the process that it belongs to
KEPT_BYTES = 2**30  # of inputs and results on a worker's disk, besides those it is at
COMPUTE, TELL = "compute", "tell"  # what an actor does side by side


@dataclass(frozen=True)
class Description:
    """A study as it travels: nothing in it is a path of the machine that it comes from.

    Attributes:
        study: the description, as JSON.
        files: field of `Study.data` -> content of the file that it names.
        modules: what to import first: modules that register the trait, where it does not come with the project.
    """

    study: str
    files: Mapping[str, bytes]
    modules: tuple[str, ...]


def described(study: Study) -> Description:
    """Return a study as it travels to workers."""
    files = dict[str, bytes]()
    for name in DATA_FILES:
        named = getattr(study.data, name)
        path = source_path(named) if named else None
        if path is not None:
            files[name] = path.read_bytes()
    trait = find_trait(study.trait)
    functions = [getattr(trait, name) for name in FUNCTIONS]
    own = isinstance(study.trait, str) and trait.name not in {shipped.name for shipped in SHIPPED}
    modules = sorted({function.__module__ for function in functions if function}) if own else []
    return Description(study.model_dump_json(), files, tuple(modules))


@dataclass(frozen=True)
class Failed:
    """What went wrong in place of a result."""

    error: Exception


@dataclass(frozen=True)
class Unread:
    """What was wrong with something that a step reads, as it arrived."""

    what: str


class StepWorker:
    """Computes steps as any process does, in a store of its own, which is gone when it is.

    Args:
        described: the study.
        threads: of its processor.
    """

    def __init__(self, described: Description, threads: int) -> None:
        _clear_after_the_dead()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{FOLDERS}{socket.gethostname()}-{os.getpid()}-"))
        self._described, self._threads = described, threads
        self._told: Progress | None = None
        self._kept: OrderedDict[StepKey, int] = OrderedDict()  # bytes in its store, what was used last at the end

    @ray.method(concurrency_group=TELL)
    def ready(self) -> tuple[str, str]:
        """Return where it is: host and process; and its node, as Ray calls it."""
        return here(), ray.get_runtime_context().get_node_id()

    @ray.method(concurrency_group=TELL)
    def news(self) -> Progress | None:
        """Return what it told last; None where that has been asked for already."""
        told, self._told = self._told, None
        return told

    @ray.method(concurrency_group=TELL)
    def leave(self) -> None:
        """Remove what it has on disk."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @ray.method(concurrency_group=COMPUTE)
    def compute(
        self, steps: Mapping[StepKey, Mapping[str, Any]], needed: Mapping[StepKey, Sequence[Any]]
    ) -> list[bytes] | Failed | Unread:
        """Return the results of steps, packed, in their order; or why there are none.

        Args:
            steps: key -> inputs, as the driver has them: what would not be the same thing here is not computed.
            needed: key -> what the steps read, packed; it is fetched where this worker has not got it yet.
        """
        try:
            entries, labelled = self._pipeline.entries, self._pipeline.steps
            for key, inputs in steps.items():
                ensure_same(entries[key], inputs)
                absent = [labelled[need].label for need in labelled[key].needs if need not in needed]
                if absent:
                    raise EngineError(f"{labelled[key].label} reads what was not sent: {', '.join(absent)}")
            if fault := self._fetch(needed):
                return Unread(fault)
            self._pipeline.complete([*steps], with_needs=False)
            results = [pack(entries[key]) for key in steps]
            self._keep(zip(steps, map(len, results), strict=True))
            return results
        except (RayError, StoreError):  # of this node, not of the step: another worker is to try
            raise
        except GradinocError as error:
            where = "" if isinstance(error, STEP_ERRORS) else f"worker {here()}: "  # which alone may have the fault
            return Failed(type(error)(f"{where}{error}"))
        except Exception as error:  # of any kind: what it was is told where it can be read
            told = RuntimeError(f"{type(error).__name__}: {error}")
            told.add_note(f"On worker {here()}:\n{traceback.format_exc()}")
            return Failed(told)

    def _fetch(self, needed: Mapping[StepKey, Sequence[Any]]) -> str | None:
        """Take what steps read into the store; return what is wrong with it, if something is."""
        entries, labelled = self._pipeline.entries, self._pipeline.steps
        for key, (packed,) in needed.items():
            if not entries[key].complete():
                content = ray.get(packed)
                arrival = receive(self._store, content)
                if arrival.became is Became.DAMAGED:
                    return f"{labelled[key].label} arrived damaged: {arrival.what}"
                if arrival.became is not Became.TAKEN or arrival.key != entries[key].key:
                    raise EngineError(f"{labelled[key].label}: arrived {arrival.became} {arrival.what}")
                self._kept[key] = len(content)
            if key in self._kept:
                self._kept.move_to_end(key)
        return None

    def _keep(self, made: Iterable[tuple[StepKey, int]]) -> None:
        """Note how large results are; those that were used last stay, as far as there is room for them."""
        for key, size in made:
            self._kept[key] = size
        while len(self._kept) > 1 and sum(self._kept.values()) > KEPT_BYTES:
            key, _ = self._kept.popitem(last=False)
            self._pipeline.entries[key].discard()

    @cached_property
    def _store(self) -> Store:
        return Store(self._folder / "store")

    @cached_property
    def _pipeline(self) -> Pipeline:
        """Opened where it computes: how many threads torch has is a matter of the thread that asks."""
        described = self._described
        for module in described.modules:
            import_module(module)
        plain = Study.model_validate_json(described.study)
        placed = {}
        for field, content in described.files.items():
            path = self._folder / f"{field}.jsonl"
            path.write_bytes(content)
            placed[field] = str(path)
        threads = plain.model.threads or self._threads
        study = plain.model_copy(
            update={
                "data": plain.data.model_copy(update=placed),
                "model": plain.model.model_copy(update={"threads": threads}),
            }
        )
        return Pipeline(study, self._store, self._tell)

    def _tell(self, event: Progress) -> None:
        self._told = replace(event, worker=here())


def here() -> str:
    """Return the name of this worker: host and process."""
    return f"{socket.gethostname()}/{os.getpid()}"


def ensure_same(entry: Entry, inputs: Mapping[str, Any]) -> None:
    """Raise unless what this worker would compute is what was asked for.

    Raises:
        EngineError: code, libraries, model or data differ; the message names them.
    """
    differing = sorted(name for name in {*entry.inputs, *inputs} if entry.inputs.get(name) != inputs.get(name))
    if differing:
        told = "; ".join(
            f"{name}: {shown(inputs.get(name))}, here {shown(entry.inputs.get(name))}" for name in differing
        )
        raise EngineError(
            f"would compute another thing than was asked for ({told}); "
            "install there what is installed here, and the same model"
        )


def _clear_after_the_dead() -> None:
    """Remove what workers that were killed have left on this node."""
    for folder, process in folders_here():
        if not psutil.pid_exists(process):
            with suppress(OSError):
                shutil.rmtree(folder)


def folders_here() -> Iterator[tuple[Path, int]]:
    """Yield what workers have on disk and their processes: this machine's, for others may have the same disk."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDERS}*"):
        machine, _, process = folder.name.removeprefix(FOLDERS).rpartition("-")[0].rpartition("-")
        if machine == socket.gethostname() and process.isdigit():
            yield folder, int(process)
