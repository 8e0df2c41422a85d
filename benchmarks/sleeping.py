"""A worker that sleeps in place of computing: scheduling alone is left to be measured."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import tarfile
import time
from collections.abc import Mapping
from typing import Any

import ray

COMPUTE, TELL = "compute", "tell"
CONTENT = b"0" * 10_000


class SleepingWorker:
    """As `gradinoc.pipeline.engines.ray_worker.StepWorker`, but for what it does, and without torch."""

    def __init__(self, _described: Any, _threads: int) -> None:
        self._name = f"{socket.gethostname()}/{os.getpid()}"

    @ray.method(concurrency_group=TELL)
    def ready(self) -> tuple[str, str]:
        """Where it is."""
        return self._name, ray.get_runtime_context().get_node_id()

    @ray.method(concurrency_group=TELL)
    def news(self) -> None:
        """Nothing."""

    @ray.method(concurrency_group=TELL)
    def leave(self) -> None:
        """Nothing is left."""

    @ray.method(concurrency_group=COMPUTE)
    def compute(self, steps: Mapping[Any, Mapping[str, Any]], _needed: Any) -> list[bytes]:
        """A file of ten kilobytes a step, after as long as it is to take."""
        time.sleep(sum(inputs["seconds"] for inputs in steps.values()))
        return [packed_result(key.stage, inputs, CONTENT) for key, inputs in steps.items()]


def packed_result(stage: str, inputs: Mapping[str, Any], content: bytes) -> bytes:
    """A result as it travels, its one file of this content."""
    files = {"content": {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
    manifest = json.dumps({"stage": stage, "inputs": inputs, "files": files, "provenance": {}}).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, held in (("content", content), ("manifest.json", manifest)):
            member = tarfile.TarInfo(name)
            member.size = len(held)
            tar.addfile(member, io.BytesIO(held))
    return packed.getvalue()
