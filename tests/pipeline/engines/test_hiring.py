"""How many workers a cluster is asked for: where it has none, none any more, others, or devices."""

from __future__ import annotations

import time

import pytest
import ray

from gradinoc.errors import EngineError
from gradinoc.pipeline.engines import ray_crew
from gradinoc.pipeline.engines.ray_worker import StepWorker


@pytest.fixture
def hiring(alone, monkeypatch):
    """A crew that looks at a cluster of so many nodes, whose workers are begun and do not come by themselves."""
    crew, nodes = ray_crew.Crew(alone.study, "local", StepWorker), [{"CPU": 1.0}]
    monkeypatch.setattr(crew, "_join", lambda: None)
    monkeypatch.setattr(crew._register, "studies", lambda: 1)
    monkeypatch.setattr(crew, "_hire", lambda: ray_crew.Worker(object(), None))
    monkeypatch.setattr(ray_crew, "nodes", lambda: nodes)
    monkeypatch.setattr(ray_crew, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(ray, "kill", lambda _actor: None)
    return crew, nodes


@pytest.mark.fault("Cluster", "the last node gone")
def test_the_last_node_may_be_gone_for_a_while(hiring, monkeypatch, caplog):
    """Another takes its place, and the study goes on; where none does in minutes, or there never was any, it ends."""
    crew, nodes = hiring
    crew.look()
    crew.workers[0].name = "worker"
    crew.look()
    node = nodes.pop()
    crew.drop(crew.workers[0])
    monkeypatch.setattr(ray_crew, "SAID_SECONDS", 0.0)
    crew.look()
    assert "no node has what it is to have, and it is waited for" in caplog.text
    assert crew.workers == []
    nodes.append(node)
    crew.look()
    assert len(crew.workers) == 1
    nodes.clear()
    monkeypatch.setattr(ray_crew, "GONE_SECONDS", 0.0)
    with pytest.raises(EngineError, match=r"no node of the cluster has what a worker is to have \(CPU 1\)"):
        crew.look()


def test_waiting_for_a_worker_is_told(hiring, monkeypatch, caplog):
    """Others use what there is: once a minute the study says that it waits, and for what."""
    crew, _ = hiring
    crew.look()
    assert caplog.text == ""
    crew._there = crew._said = time.monotonic() - 61
    for _ in range(2):
        crew.look()
    assert caplog.text.count("there has been no worker for 61 s (CPU 1): it is begun, or others use all") == 1


def test_workers_do_not_share_a_device_unasked(hiring, alone, monkeypatch):
    """Ray hides no device from whom none was promised: all would be on the first."""
    crew, nodes = hiring
    nodes[0]["GPU"] = 1.0
    with pytest.raises(EngineError, match=r"set it to 1, or to 0\.25 where four are to share one, or model\.device"):
        crew.look()
    for part, name, value in (("engine", "gpus_per_worker", 0.25), ("model", "device", "cpu")):
        section = getattr(alone.study, part).model_copy(update={name: value})
        monkeypatch.setattr(crew, "_study", alone.study.model_copy(update={part: section}))
        crew.look()
