"""Studies of a Ray cluster know of each other, whoever came first, and wait for nobody's answer."""

from __future__ import annotations

import time

import pytest
import ray
from ray.exceptions import WorkerCrashedError

from benchmarks.sleeping import SleepingWorker
from gradinoc.pipeline.engines import ray_cluster, ray_crew
from gradinoc.pipeline.engines.ray_cluster import NAME, Register
from gradinoc.pipeline.engines.ray_crew import Crew
from gradinoc.study.loading import load_study

PATIENCE = 30.0  # seconds, of a busy machine


@pytest.fixture(scope="module")
def cluster():
    """A cluster of this machine that nobody else is on."""
    context = ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, namespace="gradinoc")
    yield context
    ray.shutdown()


def come_to(count: int, *registers: Register) -> bool:
    """Whether each of these studies, which look by turns, soon hears of so many."""
    until = time.monotonic() + PATIENCE
    while (found := {each.studies() for each in registers}) != {count} and time.monotonic() < until:
        time.sleep(0.05)
    return found == {count}


def actor() -> str:
    """The register that there is, as Ray calls it."""
    return str(ray.get_actor(NAME, namespace="gradinoc")._actor_id)


@pytest.mark.usefixtures("cluster")
def test_studies_know_of_each_other_until_they_leave():
    """One register, for as long as one of them is there."""
    one, other = Register("one"), Register("other")
    assert come_to(1, one)
    first = actor()
    assert come_to(2, other)
    assert come_to(2, one)
    assert actor() == first
    other.leave()
    assert come_to(1, one)
    one.leave()


@pytest.mark.usefixtures("cluster")
def test_register_that_is_gone_is_made_anew():
    """As when the study that came first has ended, or its machine has: no error, and soon they are counted again."""
    one, other = Register("one"), Register("other")
    assert come_to(1, one)
    assert come_to(2, other)
    first = actor()
    ray.kill(ray.get_actor(NAME, namespace="gradinoc"))
    assert come_to(1, other)
    assert come_to(2, one, other)
    assert actor() != first
    for each in (one, other):
        each.leave()


@pytest.mark.usefixtures("cluster")
def test_study_that_is_silent_is_taken_to_be_gone(monkeypatch):
    """Its process may have died without a word."""
    monkeypatch.setattr(ray_cluster, "SILENT_SECONDS", 1.0)
    one, other = Register("one"), Register("other")
    assert come_to(1, other)
    assert come_to(2, one)
    assert come_to(1, one)
    one.leave()
    other.leave()


@pytest.mark.usefixtures("cluster")
def test_only_the_first_answer_is_waited_for(monkeypatch):
    """A driver that waits hands out nothing: later looks take what has been answered by then."""
    waits, wait = [], ray.wait
    monkeypatch.setattr(ray, "wait", lambda asked, timeout: waits.append(timeout) or wait(asked, timeout=timeout))
    one = Register("one")
    for _ in range(3):
        one.studies()
    assert waits == [ray_cluster.ANSWER_SECONDS, 0.0, 0.0]
    one.leave()


@pytest.mark.usefixtures("cluster")
def test_study_that_comes_gets_its_share_and_leaves_it(monkeypatch):
    """Workers themselves: both are the first study's, one each when there are two, and both the first's again."""
    monkeypatch.setattr(ray_crew, "LOOK_SECONDS", 0.1)
    one, other = (Crew(load_study("tiny", [f"name={name}"]), "local", SleepingWorker) for name in ("one", "other"))

    def come_to_have(*counts: int) -> bool:
        until, crews = time.monotonic() + 3 * PATIENCE, (one, other)[: len(counts)]
        while time.monotonic() < until:
            for crew in crews:
                crew.look()
                for worker in [*crew.workers]:
                    if not worker.name and ray.wait([worker.begun], timeout=0)[0]:
                        crew.greet(worker)
            if tuple(sum(bool(worker.name) for worker in crew.workers) for crew in crews) == counts:
                return True
            time.sleep(0.05)
        return False

    assert come_to_have(2)
    assert come_to_have(1, 1)
    other.close()
    assert come_to_have(2)
    one.close()


def test_register_that_is_made_anew_is_not_believed_at_once(monkeypatch):
    """Others may not have asked it yet: the share stays as it was, and nobody takes what is theirs for a while."""
    answers = iter([3, WorkerCrashedError(), 1, 2])

    def answer(_asked):
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(Register, "_ask", lambda self: setattr(self, "_asked", object()))
    monkeypatch.setattr(ray, "wait", lambda asked, **_: (asked, []))
    monkeypatch.setattr(ray, "get", answer)
    one = Register("one")
    assert [one.studies() for _ in range(4)] == [3, 3, 3, 2]
