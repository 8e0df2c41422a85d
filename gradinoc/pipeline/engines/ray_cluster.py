"""What a Ray cluster has: its nodes, who else uses it, and the inputs that are in its memory."""

from __future__ import annotations

import os
import socket
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from gradinoc.pipeline.storage.store import Entry
from gradinoc.pipeline.storage.transfer import pack

NAME = "gradinoc-studies"
SILENT_SECONDS = 30.0  # after which a study is taken to be gone
ANSWER_SECONDS = 5.0
KEPT_BYTES = 2**28  # of inputs that are kept in the cluster's memory for the next worker
KINDS = ("CPU", "GPU", "memory")  # of resources, as Ray calls them


def nodes() -> list[dict[str, float]]:
    """Return what each node that is alive has, whether somebody uses it or not."""
    cluster: Any = ray
    return [node["Resources"] for node in cluster.nodes() if node["Alive"]]


def alive() -> set[str]:
    """Return the nodes that are alive, as Ray calls them."""
    cluster: Any = ray
    return {node["NodeID"] for node in cluster.nodes() if node["Alive"]}


def first_line(error: Exception) -> str:
    """Return what is enough of an error: Ray's go on for pages."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@dataclass
class Sent:
    """Inputs in the cluster's memory, the one used last at the end."""

    objects: OrderedDict[str, tuple[Any, int]] = field(default_factory=OrderedDict)

    def reference(self, entry: Entry) -> Any:
        """Return where a result is in the cluster; it is put there if it is not."""
        if entry.key not in self.objects:
            packed = pack(entry)
            self.objects[entry.key] = ray.put(packed), len(packed)
        self.objects.move_to_end(entry.key)
        while len(self.objects) > 1 and sum(size for _, size in self.objects.values()) > KEPT_BYTES:
            self.objects.popitem(last=False)  # gone once no worker waits for it
        return self.objects[entry.key][0]


class _Studies:
    """An actor that knows which studies were heard of lately."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}

    def hear(self, study: str) -> int:
        """Note a study, and return how many there are."""
        now = time.monotonic()
        self._heard[study] = now
        self._heard = {name: at for name, at in self._heard.items() if now - at < SILENT_SECONDS}
        return len(self._heard)

    def forget(self, study: str) -> None:
        """Note that a study is done."""
        self._heard.pop(study, None)


class Register:
    """A study's place among those of its cluster. It belongs to whoever came first, and is made anew when that is gone.

    Args:
        study: its name.
    """

    def __init__(self, study: str) -> None:
        self._name = f"{study} {socket.gethostname()} {os.getpid()}"

    def studies(self) -> int:
        """Return how many studies are on the cluster, this one included."""
        try:
            return int(ray.get(self._actor().hear.remote(self._name), timeout=ANSWER_SECONDS))
        except (RayError, ValueError):  # its process has just ended, or nobody answers
            return 1

    def leave(self) -> None:
        """Note that this study is done."""
        with suppress(RayError, ValueError):
            ray.get(self._actor().forget.remote(self._name), timeout=ANSWER_SECONDS)

    @staticmethod
    def _actor() -> Any:
        kind: Any = ray.remote(_Studies)
        return kind.options(name=NAME, get_if_exists=True, num_cpus=0).remote()
