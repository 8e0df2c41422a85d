"""The engine that is a Ray cluster: actors compute, each with the model loaded; this process alone writes the store.

Workers need no file system in common with it or with one another. What a step reads travels as bytes that are known by
their content, what it comes to travels back the same way, and is looked through before it is taken. Ray schedules: one
actor is one worker, with the processors, devices and memory that `engine` of the study asks for.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before it is imported: nothing is reported to anybody
import ray
from ray.exceptions import NodeDiedError, RayError
from ray.exceptions import OutOfMemoryError as WorkerOutOfMemoryError

from gradinoc.data.sources import source_path
from gradinoc.errors import EngineError, LostWorkerError, OutOfMemoryError
from gradinoc.pipeline.engines.engine import Job, together
from gradinoc.pipeline.engines.ray_cluster import KINDS, Register, Sent, nodes
from gradinoc.pipeline.engines.ray_worker import COMPUTE, TELL, Description, Failed, StepWorker
from gradinoc.pipeline.progress import IDLE, Progress
from gradinoc.pipeline.steps.step import StepKey
from gradinoc.pipeline.storage.store import Store
from gradinoc.pipeline.storage.transfer import Became, receive
from gradinoc.study.description import Study
from gradinoc.study.traits.registry import FUNCTIONS, find_trait
from gradinoc.study.traits.shipped import SHIPPED

TRIES = 4  # of a job whose worker dies, its node not, or whose result arrives damaged; of beginning a worker
NEWS_SECONDS = 1.0  # between questions to workers what they are at
LOOK_SECONDS = 5.0  # between looks at what the cluster has, and who else is there
LEAVING_SECONDS = 5.0
FILES = ("source", "everyday", "trait_answers")  # fields of `Study.data` that may name a file
# Ray says to nobody who gives an address that this may be why.
ASKS = "if it was begun by somebody who has a token, as Ray makes one for every user, set RAY_AUTH_MODE=token here too"
logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Worker:
    """An actor and what is asked of it."""

    actor: Any
    begun: Any  # that it is there
    name: str = ""  # once it is
    job: Job | None = None
    result: Any = None
    news: Any = None


class RayEngine:
    """Works on jobs with the actors of a Ray cluster (see `Engine`), which is joined, or begun, by the first of them.

    Args:
        study: what its workers compute.
        store: receives what they come to.
        address: of a cluster, as `ray.init` takes it; "local" begins one on this machine, which ends with this process.
        kind: class of its actors.
    """

    def __init__(self, study: Study, store: Store, address: str, kind: type = StepWorker) -> None:
        self._study, self._store, self._address, self._kind = study, store, address, kind
        self._workers: list[_Worker] = []
        self._again: list[Job] = []  # begun once, and lost
        self._lost: dict[Job, int] = {}
        self._ended: list[Progress] = []  # workers that wait again
        self._sent = Sent()
        self._slots, self._looked, self._asked = 1, 0.0, 0.0
        self._unborn = 0  # workers that could not be begun, in a row
        self._own, self._register = False, Register(study.name)

    in_one_go = False  # what can be is known from the model, which this process does not load

    @property
    def workers(self) -> int:
        """How many the cluster has room for, and this study a right to."""
        return max(1, self._slots)

    def room(self) -> int:
        """Return how many workers wait for a job that none of the lost ones is for."""
        self._look()
        return len(self._idle()) - len(self._again)

    def begin(self, job: Job) -> None:
        """Give a job to a worker that waits."""
        self._give(self._idle()[0], job)

    def finished(self, seconds: float) -> Iterator[tuple[Job, Exception | None]]:
        """Yield what has come back and been taken, or failed on its worker; jobs of lost workers begin again.

        Raises:
            EngineError: the cluster has no room for a single worker, or none can be begun.
        """
        self._look()
        waited = [worker.result or worker.begun for worker in self._workers if worker.result or not worker.name]
        if not waited:
            time.sleep(seconds)
            return
        done, _ = ray.wait(waited, num_returns=1, timeout=seconds)
        if done:
            done, _ = ray.wait(waited, num_returns=len(waited), timeout=0)
        for worker in [*self._workers]:
            if worker.result in done:
                yield from self._end(worker)
            elif not worker.name and worker.begun in done:
                self._greet(worker)
        for worker, job in zip(self._idle(), [*self._again], strict=False):
            self._again.remove(job)
            self._give(worker, job)

    def news(self) -> Iterator[Progress]:
        """Yield the last word of each worker that is at work; they are asked every second."""
        while self._ended:
            yield self._ended.pop()
        busy = [worker for worker in self._workers if worker.job is not None]
        if time.monotonic() - self._asked > NEWS_SECONDS:
            self._asked = time.monotonic()
            for worker in busy:
                worker.news = worker.news or worker.actor.news.remote()
        for worker in busy:
            if worker.news is not None and ray.wait([worker.news], timeout=0)[0]:
                told, worker.news = worker.news, None
                try:
                    event = ray.get(told)
                except RayError:
                    continue  # it is gone, which its job tells
                if event is not None:
                    yield event

    def close(self) -> None:
        """Send every worker away, and end the cluster if it was begun here."""
        self._again.clear()
        if not ray.is_initialized():
            return
        self._dismiss([*self._workers])
        self._register.leave()
        self._sent.objects.clear()
        self._looked = 0.0
        if self._own:
            ray.shutdown()
            self._own = False

    # --- workers

    def _idle(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.name and worker.job is None]

    def _look(self) -> None:
        """Look, every few seconds, how many workers there may be: more are begun, and some that wait dismissed."""
        self._join()
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        settings, room = self._study.engine, self._capacity()
        if room < 1:
            have = "; ".join(", ".join(f"{name} {each[name]:g}" for name in KINDS if name in each) for each in nodes())
            asked = ", ".join(f"{name} {amount:g}" for name, amount in self._resources().items())
            raise EngineError(
                f"no node of the cluster has what a worker is to have ({asked}); they have ({have or 'nothing'}); "
                "change [engine] of the study, or wait until there is such a node"
            )
        share = max(1, -(-room // self._register.studies()))
        self._slots = min(share, settings.workers or share)
        for _ in range(self._slots - len(self._workers)):
            self._workers.append(self._hire())
        over = len(self._workers) - self._slots
        if over > 0:
            self._dismiss([worker for worker in self._workers if worker.job is None][-over:])

    def _join(self) -> None:
        """Join the cluster, or begin one on this machine."""
        if ray.is_initialized():
            return
        local = self._address == "local"
        settings = self._study.engine
        cores = max(os.cpu_count() or 1, settings.workers * settings.cpus_per_worker) if settings.workers else None
        try:
            ray.init(
                address=self._address, namespace="gradinoc", include_dashboard=False if local else None,
                num_cpus=cores if local else None, log_to_driver=False, configure_logging=False,
            )  # fmt: skip
        except (RayError, ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            why = f"{error}" if "RAY_AUTH_MODE" in os.environ else f"{error}; {ASKS}"
            raise EngineError(f"no Ray cluster at {self._address!r}: {why}") from error
        self._own = True

    def _resources(self) -> dict[str, float]:
        settings = self._study.engine
        asked = (settings.cpus_per_worker, settings.gpus_per_worker, settings.memory_gb * 1e9)
        return {name: float(amount) for name, amount in zip(KINDS, asked, strict=True) if amount}

    def _capacity(self) -> int:
        """Return how many workers the nodes that are alive have room for, whoever else is there."""
        asked = self._resources()
        return sum(int(min(node.get(name, 0.0) / amount for name, amount in asked.items())) for node in nodes())

    def _hire(self) -> _Worker:
        """Have an actor begun; it is there when the cluster has room."""
        settings = self._study.engine
        threads = self._study.model.threads or settings.cpus_per_worker
        environment = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        made: Any = ray.remote
        actor = made(concurrency_groups={COMPUTE: 1, TELL: 1})(self._kind).options(
            num_cpus=settings.cpus_per_worker, num_gpus=settings.gpus_per_worker,
            memory=int(settings.memory_gb * 1e9) or None, max_restarts=0, max_task_retries=0,
            runtime_env={"env_vars": environment},
        ).remote(self._described(), threads)  # fmt: skip
        return _Worker(actor, actor.ready.remote())

    def _described(self) -> Description:
        data, files = self._study.data, dict[str, bytes]()
        for name in FILES:
            named = getattr(data, name)
            path = source_path(named) if named else None
            if path is not None:
                files[name] = path.read_bytes()
        trait = find_trait(self._study.trait)
        functions = [getattr(trait, name) for name in FUNCTIONS]
        own = isinstance(self._study.trait, str) and trait.name not in {shipped.name for shipped in SHIPPED}
        modules = sorted({function.__module__ for function in functions if function}) if own else []
        return Description(self._study.model_dump_json(), files, tuple(modules))

    def _greet(self, worker: _Worker) -> None:
        """Note where a worker is that has come; one that has not is replaced.

        Raises:
            EngineError: too many in a row have not.
        """
        try:
            worker.name, self._unborn = ray.get(worker.begun), 0
        except RayError as error:
            self._unborn += 1
            if self._unborn >= TRIES:
                raise EngineError(
                    f"no worker can be begun on the cluster, {TRIES} failed; the last: {error}"
                ) from error
            logger.warning("A worker could not be begun: %s", _first_line(error))
            self._workers.remove(worker)
            self._looked = 0.0

    def _dismiss(self, workers: list[_Worker]) -> None:
        leaving = [worker.actor.leave.remote() for worker in workers if worker.name]
        if leaving:
            ray.wait(leaving, num_returns=len(leaving), timeout=LEAVING_SECONDS)
        for worker in workers:
            self._workers.remove(worker)
            ray.kill(worker.actor)

    # --- jobs

    def _give(self, worker: _Worker, job: Job) -> None:
        """Give a job to a worker: what it is to compute, and where that which it reads is."""
        steps = {step.key: entry.inputs for step, entry in zip(job.steps, job.entries, strict=True)}
        needed: dict[StepKey, list[Any]] = {key: [self._sent.reference(entry)] for key, entry in job.needed.items()}
        worker.job, worker.result = job, worker.actor.compute.remote(steps, needed)

    def _end(self, worker: _Worker) -> Iterator[tuple[Job, Exception | None]]:
        """Take a worker's results; if it is gone, or one is damaged, the job is to begin again."""
        assert worker.job is not None
        job, result = worker.job, worker.result
        self._ended.append(Progress(IDLE, "", 0, 0, worker=worker.name))
        worker.job = worker.result = worker.news = None
        try:
            found = ray.get(result)
        except RayError as error:
            self._workers.remove(worker)
            self._looked = 0.0
            yield from self._begin_again(job, error)
            return
        if isinstance(found, Failed):
            yield job, found.error
            return
        arrivals = [receive(self._store, packed) for packed in found]
        damaged = next((each for each in arrivals if each.became is Became.DAMAGED), None)
        if damaged or [each.key for each in arrivals] != [entry.key for entry in job.entries]:
            yield from self._begin_again(job, RuntimeError(f"it arrived damaged: {damaged.what if damaged else ''}"))
        else:
            yield job, None

    def _begin_again(self, job: Job, error: Exception) -> Iterator[tuple[Job, Exception | None]]:
        label = together(job.steps)
        if not isinstance(error, NodeDiedError):
            self._lost[job] = self._lost.get(job, 0) + 1
        if self._lost.get(job, 0) < TRIES:
            logger.warning("%s is computed again: %s", label, _first_line(error))
            self._again.append(job)
            return
        kind = OutOfMemoryError if isinstance(error, WorkerOutOfMemoryError) else LostWorkerError
        yield job, kind(f"given up after {TRIES} workers; the last: {error}")


def _first_line(error: Exception) -> str:
    """Ray's errors go on for pages."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
