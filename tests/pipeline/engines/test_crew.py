"""Workers of a cluster, and the engine that gives them jobs, without a cluster: who computes what, and what if not."""

from __future__ import annotations

import time

import pytest
import ray
from ray.exceptions import (
    ActorUnavailableError,
    ObjectStoreFullError,
    RayTaskError,
    WorkerCrashedError,
)

from gradinoc.errors import EngineError, LostWorkerError, OutOfMemoryError, StoreError
from gradinoc.pipeline.engines import ray_crew, ray_engine
from gradinoc.pipeline.engines.engine import Job
from gradinoc.pipeline.engines.ray_engine import RayEngine
from gradinoc.pipeline.engines.ray_worker import Unread
from gradinoc.pipeline.steps.step import StepKey, run_key
from gradinoc.pipeline.storage.store import Store
from gradinoc.pipeline.storage.transfer import Arrival, Became, differences, pack


class Actor:
    """Stands in for an actor: jobs that it is given."""

    def __init__(self):
        self.given = []
        self.compute = self

    def remote(self, steps, _needed):
        """A job."""
        self.given.append(steps)
        return object()


@pytest.fixture
def crew(alone, tmp_path, monkeypatch):
    """An engine with three workers that wait, on a cluster that is left in peace."""
    engine = RayEngine(alone.study, Store(tmp_path), "local")
    monkeypatch.setattr(engine._crew, "look", lambda: None)
    monkeypatch.setattr(ray, "kill", lambda _actor: None)
    engine._crew.workers = [ray_crew.Worker(Actor(), None, f"worker {place}", f"node {place}") for place in range(3)]
    engine._crew.slots = 3
    return engine


def job(alone):
    """A job whose step reads nothing."""
    key = StepKey("directions")
    return Job((alone.steps[key],), (alone.entries[key],), {})


def test_a_study_begins_no_more_than_its_share(crew, alone):
    """Another study has come: workers that end wait to be dismissed, and are given nothing."""
    assert crew.room() == 3
    crew._crew.slots = 2
    crew.begin(job(alone))
    assert crew.room() == 1
    crew.begin(job(alone))
    assert crew.room() == 0


def test_a_full_cluster_is_waited_for(crew, alone, monkeypatch, caplog):
    """The job is begun when there is room; nothing is kept there for later in the meantime."""
    full = [True]

    def reference(_entry):
        if full[0]:
            raise ObjectStoreFullError
        return "there"

    one = Job(job(alone).steps, job(alone).entries, {StepKey("directions"): alone.entries[StepKey("directions")]})
    monkeypatch.setattr(crew._sent, "reference", reference)
    crew.begin(one)
    assert [*crew.finished(0.0)] == []
    assert caplog.text.count("is begun later") == 1  # said once, and not at every look
    assert crew._waiting == [one]
    assert not any(worker.job for worker in crew._crew.workers)
    full[0] = False
    assert [*crew.finished(0.0)] == []
    assert [worker.job for worker in crew._crew.workers] == [one, None, None]


def test_what_will_never_fit_into_a_cluster_ends_the_study(crew, alone, monkeypatch):
    """Nobody works who would make room, for minutes; while somebody does, or after there was room, it is waited for."""
    full = [True]

    def reference(_entry):
        if full[0]:
            raise ObjectStoreFullError
        return "there"

    monkeypatch.setattr(crew._sent, "reference", reference)
    needed = {StepKey("directions"): alone.entries[StepKey("directions")]}
    crew.begin(Job(job(alone).steps, job(alone).entries, needed))
    assert [*crew.finished(0.0)] == []
    monkeypatch.setattr(ray_engine, "FULL_SECONDS", 0.0)
    crew._crew.workers[0].job = job(alone)
    monkeypatch.setattr(ray, "wait", lambda refs, **_: ([], refs))
    assert [*crew.finished(0.0)] == []
    crew._crew.workers[0].job = None
    with pytest.raises(EngineError, match=r"directions.*: what it reads does not fit into the cluster's memory"):
        [*crew.finished(0.01)]
    full[0] = False
    assert [*crew.finished(0.0)] == []
    assert crew._full_since == float("inf")


@pytest.fixture
def at_work(crew, alone, monkeypatch):
    """The engine with a job on each worker, begun so many seconds ago, of which the first has come back."""
    monkeypatch.setattr(ray, "wait", lambda refs, **_: (refs[:1], refs[1:]))
    monkeypatch.setattr(ray, "get", lambda _: [])
    taken = []
    monkeypatch.setattr(crew, "_end", lambda *given: taken.append([crew._crew.workers[0].job, *given]) or iter(()))

    def made(seconds):
        for worker in crew._crew.workers:
            crew.begin(job(alone))
            worker.job.began -= seconds
        return taken

    return made


@pytest.mark.parametrize(("seconds", "ahead"), [(0.1, ray_engine.AHEAD), (60.0, 0)])
def test_where_jobs_are_short_some_are_held_ready(crew, alone, at_work, seconds, ahead):
    """Of that kind, and none where they are long: another process may work on the same store."""
    at_work(seconds)
    (step,), other = crew._crew.workers[0].job.steps, alone.steps[run_key("neutral", 0)]
    assert crew.room(step) == 0
    assert [*crew.finished(0.0)] == []
    assert crew.room(step) == 1 + ahead
    assert crew.room() == crew.room(other) == 1  # of which nothing is known, or that they are long


def test_a_worker_has_its_next_job_before_its_results_are_taken(crew, alone, at_work):
    """Taking them takes longer than giving a job; when that was given is when it began."""
    taken = at_work(0.1)
    first, held = crew._crew.workers[0].job, job(alone)
    held.began = 0.0
    crew.begin(held)
    assert held.began == 0.0
    assert [*crew.finished(0.0)] == []
    assert taken == [[held, first, []]]
    assert time.monotonic() - held.began < 60


def test_a_worker_that_is_gone_is_given_nothing_more(crew, alone, at_work, monkeypatch):
    """What is held ready would be lost with it, and be taken for what it died of."""
    taken = at_work(0.1)
    gone, held, error = crew._crew.workers[0], job(alone), WorkerCrashedError()

    def fail(_result):
        raise error

    monkeypatch.setattr(ray, "get", fail)
    monkeypatch.setattr(ray_engine, "alive", lambda: {"node 0"})
    first = gone.job
    crew.begin(held)
    assert [*crew.finished(0.0)] == []
    assert [given[1:] for given in taken] == [[first, (error, 1.0)]]
    assert gone not in crew._crew.workers
    assert crew._waiting == [held]
    assert not crew._short  # it died early, which makes nothing of its kind short
    assert len(gone.actor.given) == 1


@pytest.mark.parametrize(
    ("error", "there", "tries"),
    [
        (WorkerCrashedError(), {"node 0"}, 4),
        (WorkerCrashedError(), set(), 40),  # its node is gone too
        (ActorUnavailableError("out of reach", b"0" * 16), {"node 0"}, 40),
        (RayTaskError("compute", "...", StoreError("no space")), {"node 0"}, 40),
        (RayTaskError("compute", "...", ValueError("of its own")), {"node 0"}, 4),
    ],
)
@pytest.mark.fault("Cluster", "nodes lost again and again")
def test_a_lost_node_hardly_speaks_against_a_step(crew, alone, monkeypatch, error, there, tries):
    """A step is given up after four workers that died of it, and after many more that were lost with their nodes."""
    monkeypatch.setattr(ray_engine, "alive", lambda: there)
    (worker, *_), one = crew._crew.workers, job(alone)
    count = 0
    while True:
        count += 1
        found = [*crew._begin_again(one, error, ray_engine._share_of(worker, error))]
        if found:
            break
    assert count == tries
    assert isinstance(found[0][1], LostWorkerError)


@pytest.mark.fault("Cluster", "a full disk of a node")
def test_a_node_whose_disk_is_full_is_given_nothing_for_a_while(crew, alone, at_work, monkeypatch, caplog):
    """The longer the more often in a row; what it was at waits for another; once it has computed something it is well.

    The warning has the worker's own words, not the head of Ray's pages.
    """
    error = RayTaskError("compute", "pages\nof it", StoreError("no space left in /tmp"))

    def fail(_result):
        raise error

    at_work(60.0)
    monkeypatch.setattr(ray_engine, "alive", lambda: {"node 0"})
    monkeypatch.setattr(ray, "get", fail)
    monkeypatch.setattr(crew, "_end", RayEngine._end.__get__(crew))
    full = crew._crew.workers[0]
    assert [*crew.finished(0.0)] == []
    assert "is computed again: no space left in /tmp" in caplog.text
    assert len(crew._waiting) == 1
    again = ray_crew.Worker(Actor(), None, "worker again", full.node)
    crew._crew.workers.insert(0, again)
    assert again not in crew._crew.idle()
    waits = []
    for _ in range(7):
        crew._crew.rest(full.node)
        waits.append(crew._crew._rests[full.node][1] - time.monotonic())
    assert waits == pytest.approx([4, 8, 16, 32, 60, 60, 60], abs=1)
    crew._crew.note_well(full.node)
    assert crew._crew.idle() == [again]


def test_workers_that_cannot_be_begun_do_not_end_a_study_at_work(crew, monkeypatch):
    """As when a node is lost on which they were to be: others work on, and the next are tried later and later."""

    def fail(_begun):
        raise WorkerCrashedError

    monkeypatch.setattr(ray, "get", fail)
    waits = []
    for _ in range(8):
        crew._crew.workers.append(unborn := ray_crew.Worker(Actor(), None))
        crew._crew.greet(unborn)
        waits.append(crew._crew._hiring - time.monotonic())
    assert waits == pytest.approx([2, 4, 8, 16, 32, 60, 60, 60], abs=1)
    assert len(crew._crew.workers) == 3
    crew._crew.workers.clear()
    crew._crew.workers.append(unborn)
    with pytest.raises(EngineError, match="no worker can be begun"):
        crew._crew.greet(unborn)


@pytest.mark.fault("Cluster", "workers out of memory")
def test_a_step_whose_workers_run_out_of_memory_says_so(crew, alone):
    """Ray kills a worker that takes too much: after four the step is given up, as one that needs more memory."""
    one = job(alone)
    ended = [
        [*crew._end(one, ray_engine._Lost(ray_engine.WorkerOutOfMemoryError("killed by the memory monitor"), 1.0))]
        for _ in range(ray_crew.TRIES)
    ]
    assert ended[:-1] == [[]] * (ray_crew.TRIES - 1)
    ((given_up, error),) = ended[-1]
    assert given_up is one
    assert isinstance(error, OutOfMemoryError)
    assert "given up after 4 workers" in str(error)
    assert "killed by the memory monitor" in str(error)


@pytest.mark.fault("Cluster", "an input that arrives damaged")
def test_an_input_that_arrived_damaged_is_sent_anew(crew, alone):
    """Its worker stays; after four times the step is given up."""
    one = job(alone)
    crew._sent.objects["key"] = object(), 1
    ended = [[*crew._end(one, Unread("directions arrived damaged: cut"))] for _ in range(ray_crew.TRIES)]
    assert crew._waiting == [one] * (ray_crew.TRIES - 1)
    assert len(crew._crew.workers) == 3
    assert not crew._sent.objects
    assert "directions arrived damaged: cut" in str(ended[-1][0][1])


@pytest.mark.fault("Cluster", "a result with other bytes")
def test_other_bytes_of_another_process_are_told(crew, alone, monkeypatch, caplog):
    """What is there stays, and whoever runs the study hears that two machines do not compute the same."""
    arrival = Arrival("directions", alone.entries[StepKey("directions")].key, Became.DIFFERENT, "a.parquet")
    monkeypatch.setattr(ray_engine, "receive", lambda *_: arrival)
    one = job(alone)
    assert [*crew._end(one, [b""])] == [(one, None)]
    assert "another process came to other bytes (a.parquet)" in caplog.text


@pytest.mark.fault("Cluster", "a result that arrives twice")
def test_a_result_that_arrives_twice_is_taken_once(crew, alone):
    """The second time it is known; either time its job is done, and the bytes are those of the first."""
    one = job(alone)
    (folder,) = alone.complete([StepKey("directions")])
    packed = pack(alone.entries[StepKey("directions")])
    for _ in range(2):
        assert [*crew._end(one, [packed])] == [(one, None)]
        (taken,) = crew._store.stored()
        assert [*differences(folder, taken)] == []
