"""The workers of a study on a Ray cluster: it is joined, or begun, they are hired, greeted and dismissed."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from gradinoc.errors import EngineError
from gradinoc.pipeline.engines.engine import Job
from gradinoc.pipeline.engines.ray_cluster import KINDS, Register, first_line, nodes
from gradinoc.pipeline.engines.ray_worker import COMPUTE, TELL, described
from gradinoc.study.description import Study

TRIES = 4  # of a job whose workers die of it, or whose results arrive damaged; of beginning a worker
LOOK_SECONDS = 5.0  # between looks at what the cluster has, and who else is there
LEAVING_SECONDS = 5.0
SAID_SECONDS = 60.0  # between two words on the same
GONE_SECONDS = 300.0  # that the last node may be gone before a study ends: another takes its place by then
WAIT_SECONDS = 60.0  # at most, before another worker is begun where some could not be
# Ray says to nobody who gives an address that this may be why.
ASKS = "if it was begun by somebody who has a token, as Ray makes one for every user, set RAY_AUTH_MODE=token here too"
logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Worker:
    """An actor and what is asked of it."""

    actor: Any
    begun: Any  # that it is there
    name: str = ""  # once it is
    node: str = ""
    job: Job | None = None
    result: Any = None
    news: Any = None


class Crew:
    """As many workers as the cluster has room for, and this study a right to.

    Attributes:
        workers: that were hired and are not gone.
        slots: how many there may be.

    Args:
        study: what its workers compute.
        address: of a cluster, as `ray.init` takes it; "local" begins one on this machine, which ends with this process.
        kind: class of its actors.
    """

    def __init__(self, study: Study, address: str, kind: type) -> None:
        self._study, self._address, self._kind = study, address, kind
        self.workers: list[Worker] = []
        self.slots, self._looked = 1, 0.0
        self._had = False  # whether there ever was a worker
        self._unborn, self._hiring = 0, 0.0  # workers that could not be begun, in a row; when the next may be
        self._own, self._register = False, Register(study.name)
        self._rests: dict[str, tuple[int, float]] = {}  # node -> how often in a row it was full; until when it rests
        self._there = self._said = time.monotonic()  # when there was a worker last, and when it was said that none is

    def idle(self) -> list[Worker]:
        """Return those that wait for a job and may have one: others may have a right to the rest by now."""
        now = time.monotonic()
        waiting = [
            worker
            for worker in self.workers
            if worker.name and worker.job is None and self._rests.get(worker.node, (0, now))[1] <= now
        ]
        return waiting[: max(0, self.slots - sum(worker.job is not None for worker in self.workers))]

    def look(self) -> None:
        """Look, every few seconds, how many workers there may be: more are begun, and some that wait dismissed.

        Raises:
            EngineError: the cluster has no room for a single worker, or is not reached.
        """
        self._join()
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        settings, room = self._study.engine, self._capacity()
        self._ensure_workers(room)
        if room < 1:
            return
        share = max(1, -(-room // self._register.studies()))
        self.slots = min(share, settings.workers or share)
        if time.monotonic() >= self._hiring:
            self.workers.extend(self._hire() for _ in range(self.slots - len(self.workers)))
        over = len(self.workers) - self.slots
        if over > 0:
            self.dismiss([worker for worker in self.workers if worker.job is None][-over:])

    def rest(self, node: str) -> None:
        """Give a node nothing to do for a while, the longer the more often in a row its disk or memory was full."""
        often = self._rests.get(node, (0, 0.0))[0] + 1
        self._rests[node] = often, time.monotonic() + min(2.0**often, WAIT_SECONDS)

    def note_well(self, node: str) -> None:
        """Note that a node has computed what it was to."""
        self._rests.pop(node, None)

    def _ensure_workers(self, room: int) -> None:
        """Raise where the cluster has no room for a worker, and will have none; say so, once a minute, where it may.

        Raises:
            EngineError: it never had any, or has had none for `GONE_SECONDS`; or all would be on one device.
        """
        now = time.monotonic()
        if any(worker.name for worker in self.workers):
            self._there, self._had = now, True
        asked = ", ".join(f"{name} {amount:g}" for name, amount in self._resources().items())
        if room < 1 and (not self._had or now - self._there > GONE_SECONDS):
            have = "; ".join(", ".join(f"{name} {each[name]:g}" for name in KINDS if name in each) for each in nodes())
            raise EngineError(
                f"no node of the cluster has what a worker is to have ({asked}); they have ({have or 'nothing'}); "
                "change [engine] of the study, or wait until there is such a node"
            )
        devices = any(each.get("GPU") for each in nodes())
        if devices and self._study.model.device != "cpu" and not self._study.engine.gpus_per_worker:
            raise EngineError(
                "nodes of the cluster have GPUs, and engine.gpus_per_worker is 0, so that all workers of a node would "
                "be on its first; set it to 1, or to 0.25 where four are to share one, or model.device to cpu"
            )
        if now - max(self._there, self._said) > SAID_SECONDS:
            self._said = now
            why = "it is begun, or others use all" if room else "no node has what it is to have, and it is waited for"
            logger.warning("there has been no worker for %.0f s (%s): %s", now - self._there, asked, why)

    def greet(self, worker: Worker) -> None:
        """Note where a worker is that has come; one that has not is replaced, the longer after the more have not.

        Raises:
            EngineError: too many in a row have not, and there is no other.
        """
        try:
            (worker.name, worker.node), self._unborn = ray.get(worker.begun), 0
        except RayError as error:
            self.drop(worker)
            self._unborn += 1
            if self._unborn >= TRIES and not any(each.name for each in self.workers):
                raise EngineError(
                    f"no worker can be begun on the cluster, {self._unborn} failed; the last: {error}"
                ) from error
            wait = min(2.0**self._unborn, WAIT_SECONDS)
            self._hiring = time.monotonic() + wait
            logger.warning("A worker could not be begun, the next is in %.0f s: %s", wait, first_line(error))

    def drop(self, worker: Worker) -> None:
        """Do without a worker that is gone, or not to be trusted; the next look hires another."""
        self.workers.remove(worker)
        ray.kill(worker.actor)  # it may be out of reach only, and go on
        self._looked = 0.0

    def dismiss(self, workers: list[Worker]) -> None:
        """Send workers away."""
        leaving = [worker.actor.leave.remote() for worker in workers if worker.name]
        if leaving:
            ray.wait(leaving, num_returns=len(leaving), timeout=LEAVING_SECONDS)
        for worker in workers:
            self.workers.remove(worker)
            ray.kill(worker.actor)

    def close(self) -> None:
        """Send every worker away, and end the cluster if it was begun here."""
        if not ray.is_initialized():
            return
        self.dismiss([*self.workers])
        self._register.leave()
        self._looked = 0.0
        if self._own:
            ray.shutdown()
            self._own = False

    def _join(self) -> None:
        """Join the cluster, or begin one on this machine."""
        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
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

    def _hire(self) -> Worker:
        """Have an actor begun; it is there when the cluster has room."""
        settings = self._study.engine
        threads = self._study.model.threads or settings.cpus_per_worker
        environment = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        made: Any = ray.remote
        actor = made(concurrency_groups={COMPUTE: 1, TELL: 1})(self._kind).options(
            num_cpus=settings.cpus_per_worker, num_gpus=settings.gpus_per_worker,
            memory=int(settings.memory_gb * 1e9) or None, max_restarts=0, max_task_retries=0,
            runtime_env={"env_vars": environment},
        ).remote(described(self._study), threads)  # fmt: skip
        return Worker(actor, actor.ready.remote())
