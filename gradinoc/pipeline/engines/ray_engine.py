"""The engine that is a Ray cluster: actors compute, each with the model loaded; this process alone writes the store.

Workers need no file system in common with it or with one another. What a step reads travels as bytes that are known by
their content, what it comes to travels back the same way, and is looked through before it is taken. Ray schedules: one
actor is one worker, with the processors, devices and memory that `engine` of the study asks for.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import ray
from ray.exceptions import ActorUnavailableError, NodeDiedError, ObjectStoreFullError, OutOfDiskError, RayError
from ray.exceptions import OutOfMemoryError as WorkerOutOfMemoryError

from gradinoc.errors import EngineError, LostWorkerError, OutOfMemoryError, StoreError
from gradinoc.pipeline.engines.engine import Job, together
from gradinoc.pipeline.engines.ray_cluster import Sent, alive, cause_of, first_line
from gradinoc.pipeline.engines.ray_crew import SAID_SECONDS, TRIES, Crew, Worker
from gradinoc.pipeline.engines.ray_worker import Failed, StepWorker, Unread
from gradinoc.pipeline.progress import IDLE, Progress
from gradinoc.pipeline.steps.step import Step, StepKey
from gradinoc.pipeline.storage.store import Store
from gradinoc.pipeline.storage.transfer import Became, receive
from gradinoc.study.description import Study

NODE_ERRORS = (StoreError, ObjectStoreFullError, OutOfDiskError)  # a full disk: no fault of the job
OF_A_NODE = 0.1  # what a lost node speaks against a job, a worker that died by itself being 1
SHORT_SECONDS, AHEAD = 2.0, 4  # a job that takes no longer; how many are held ready then, for workers not to wait
FULL_SECONDS = 300.0  # that a cluster may be full while nobody works, which is what would make room
NEWS_SECONDS = 1.0  # between questions to workers what they are at
logger = logging.getLogger(__name__)


class _Lost(NamedTuple):
    """What a worker that is gone leaves: why, and how far that speaks against its job."""

    error: Exception
    share: float


class RayEngine:
    """Works on jobs with the actors of a Ray cluster (see `Engine`), which is joined, or begun, by the first of them.

    Args:
        study: what its workers compute.
        store: receives what they come to.
        address: of a cluster, as `ray.init` takes it; "local" begins one on this machine, which ends with this process.
        kind: class of its actors.
    """

    def __init__(self, study: Study, store: Store, address: str, kind: type = StepWorker) -> None:
        self._store, self._crew = store, Crew(study, address, kind)
        self._waiting: list[Job] = []  # for a worker: begun once and lost, or held ready
        self._short = dict[str, bool]()  # kind of step -> whether the last of them was
        self._lost: dict[Job, list[float]] = {}  # of each worker that was lost at it, how far it was the job's fault
        self._ended: list[Progress] = []  # workers that wait again
        self._sent, self._asked = Sent(), 0.0
        self._told_full = -math.inf  # when it was last said that the cluster's memory is full
        self._full_since = math.inf  # the first job that found it so, of those that nothing was sent after

    in_one_go = False  # what can be is known from the model, which this process does not load

    @property
    def workers(self) -> int:
        """How many the cluster has room for, and this study a right to."""
        return max(1, self._crew.slots)

    def room(self, step: Step | None = None) -> int:
        """Return how many workers wait for a job that is not there yet; and, of short steps, how many more are."""
        self._crew.look()
        ahead = AHEAD if step is not None and self._short.get(step.kind) else 0
        return len(self._crew.idle()) + ahead - len(self._waiting)

    def begin(self, job: Job) -> None:
        """Give a job to a worker that waits, or hold it ready for the next that will."""
        self._waiting.append(job)
        self._give_waiting()

    def finished(self, seconds: float) -> Iterator[tuple[Job, Exception | None]]:
        """Yield what has come back and been taken, or failed on its worker; jobs of lost workers begin again.

        Raises:
            EngineError: the cluster has no room for a single worker or for what a step reads, or none can be begun.
        """
        self._crew.look()
        workers = self._crew.workers
        waited = [worker.result or worker.begun for worker in workers if worker.result or not worker.name]
        done: list[Any] = []
        if waited:
            done, _ = ray.wait(waited, num_returns=1, timeout=seconds)
        else:
            time.sleep(seconds)
        if done:
            done, _ = ray.wait(waited, num_returns=len(waited), timeout=0)
        ended = [self._released(worker) for worker in [*workers] if worker.result in done]
        for worker in [*workers]:
            if not worker.name and worker.begun in done:
                self._crew.greet(worker)
        self._give_waiting()  # first: what follows takes a while, and they would wait for it
        for job, found in ended:
            yield from self._end(job, found)
        self._give_waiting()
        self._ensure_room()

    def news(self) -> Iterator[Progress]:
        """Yield the last word of each worker that is at work; they are asked every second."""
        while self._ended:
            yield self._ended.pop()
        busy = [worker for worker in self._crew.workers if worker.job is not None]
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
        self._waiting.clear()
        self._sent.objects.clear()
        self._crew.close()

    def _give_waiting(self) -> None:
        """Give the jobs that wait to workers that do."""
        for worker, job in zip(self._crew.idle(), [*self._waiting], strict=False):
            self._waiting.remove(job)
            self._give(worker, job)

    def _give(self, worker: Worker, job: Job) -> None:
        """Give a job to a worker: what it is to compute, and where that which it reads is.

        Where the cluster's memory and disks are full it is begun again later, when others have read their inputs.
        """
        steps = {step.key: entry.inputs for step, entry in zip(job.steps, job.entries, strict=True)}
        try:
            needed: dict[StepKey, list[Any]] = {key: [self._sent.reference(entry)] for key, entry in job.needed.items()}
        except (ObjectStoreFullError, OutOfDiskError) as error:
            now = time.monotonic()
            self._full_since = min(now, self._full_since)
            if now - self._told_full > SAID_SECONDS:
                logger.warning("%s is begun later: %s", together(job.steps), first_line(error))
                self._told_full = now
            self._sent.objects.clear()
            self._waiting.append(job)
            return
        job.began, self._full_since = time.monotonic(), math.inf
        worker.job, worker.result = job, worker.actor.compute.remote(steps, needed)

    def _ensure_room(self) -> None:
        """Raise where a job that waits can never be sent: the cluster is full, and nobody works who would make room."""
        busy = any(worker.job is not None for worker in self._crew.workers)
        if self._waiting and not busy and time.monotonic() - self._full_since > FULL_SECONDS:
            raise EngineError(
                f"{together(self._waiting[0].steps)}: what it reads does not fit into the cluster's memory and disks, "
                "and nobody works who would make room; begin the cluster with more (--object-store-memory of ray start)"
            )

    def _released(self, worker: Worker) -> tuple[Job, Any]:
        """Return the job of a worker that has ended it, and what came back; that waits for another job, or is gone."""
        assert worker.job is not None
        job, result = worker.job, worker.result
        self._ended.append(Progress(IDLE, "", 0, 0, worker=worker.name))
        worker.job = worker.result = worker.news = None
        try:
            found = ray.get(result)
            self._crew.note_well(worker.node)
            self._short[job.steps[0].kind] = time.monotonic() - job.began < SHORT_SECONDS
            return job, found
        except RayError as error:
            share = _share_of(worker, error)
            if isinstance(cause_of(error), NODE_ERRORS):
                self._crew.rest(worker.node)
            self._crew.drop(worker)
            return job, _Lost(error, share)

    def _end(self, job: Job, found: Any) -> Iterator[tuple[Job, Exception | None]]:
        """Take the results of a job; if its worker is gone, or one is damaged, it is to begin again."""
        if isinstance(found, _Lost):
            yield from self._begin_again(job, *found)
            return
        if isinstance(found, Failed):
            yield job, found.error
            return
        if isinstance(found, Unread):
            self._sent.objects.clear()  # it is sent anew
            yield from self._begin_again(job, RuntimeError(found.what))
            return
        arrivals = [receive(self._store, packed) for packed in found]
        for each in arrivals:
            if each.became is Became.DIFFERENT:
                logger.warning("%s/%s: another process came to other bytes (%s)", each.stage, each.key, each.what)
        damaged = next((each for each in arrivals if each.became is Became.DAMAGED), None)
        if damaged or [each.key for each in arrivals] != [entry.key for entry in job.entries]:
            yield from self._begin_again(job, RuntimeError(f"it arrived damaged: {damaged.what if damaged else ''}"))
        else:
            yield job, None

    def _begin_again(self, job: Job, error: Exception, share: float = 1.0) -> Iterator[tuple[Job, Exception | None]]:
        """Have a job begun again, unless it has been often enough; `share` of it is the job's own fault."""
        shares = self._lost.setdefault(job, [])
        shares.append(share)
        if math.fsum(shares) < TRIES:
            logger.warning("%s is computed again: %s", together(job.steps), first_line(error))
            self._waiting.append(job)
            return
        kind = OutOfMemoryError if isinstance(error, WorkerOutOfMemoryError) else LostWorkerError
        yield job, kind(f"given up after {len(shares)} workers; the last: {error}")


def _share_of(worker: Worker, error: RayError) -> float:
    """Return how far a lost worker speaks against its job: little where its node, disk or network was at fault."""
    lost = isinstance(error, NodeDiedError | ActorUnavailableError) or worker.node not in alive()
    return OF_A_NODE if lost or isinstance(cause_of(error), NODE_ERRORS) else 1.0
