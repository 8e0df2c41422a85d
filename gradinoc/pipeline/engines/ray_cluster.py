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
    """Return what is enough of an error, of a worker's that of its cause: Ray's go on for pages."""
    told = cause_of(error)
    return next(iter(str(told).strip().splitlines()), type(told).__name__)


def cause_of(error: Exception) -> Exception:
    """Return what was raised on a worker, of an error that is not Ray's own; otherwise the error."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error


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


def _register() -> type:
    """Return the class of an actor that knows which studies were heard of lately.

    It is made in here so that Ray sends it as it is: its process has no need of this project, nor of torch.
    """

    class Studies:
        def __init__(self) -> None:
            self._heard: dict[str, float] = {}

        def hear(self, study: str, silent: float) -> int:
            """Note a study, and return how many were heard of within so many seconds."""
            now = time.monotonic()
            self._heard[study] = now
            self._heard = {name: at for name, at in self._heard.items() if now - at < silent}
            return len(self._heard)

        def forget(self, study: str) -> None:
            """Note that a study is done."""
            self._heard.pop(study, None)

    return Studies


class Register:
    """A study's place among those of its cluster, in an actor that is gone with the study that came first: then another
    makes it anew.

    Args:
        study: its name.
    """

    def __init__(self, study: str) -> None:
        self._name = f"{study} {socket.gethostname()} {os.getpid()}"
        self._actor: Any = None  # held: without a handle its owner's actor ends
        self._asked: Any = None
        self._known, self._count, self._anew = False, 1, False

    def studies(self) -> int:
        """Return how many studies are on the cluster, with this one, by the last answer; the first is waited for."""
        try:
            if self._asked is None:
                self._ask()
            answered, _ = ray.wait([self._asked], timeout=0.0 if self._known else ANSWER_SECONDS)
            self._known = True
            if answered:
                found = int(ray.get(self._asked))
                # The others may not have been heard of by an actor that has just been made in the place of another.
                self._count, self._anew = self._count if self._anew else found, False
                self._ask()  # to be answered until the next look
        except (RayError, ValueError):  # its owner has just ended
            self._actor = self._asked = None
            self._anew = True
        return self._count

    def leave(self) -> None:
        """Note that this study is done."""
        if self._actor is not None:
            with suppress(RayError):
                ray.get(self._actor.forget.remote(self._name), timeout=ANSWER_SECONDS)
        self._actor = self._asked = None

    def _ask(self) -> None:
        if self._actor is None:
            kind: Any = ray.remote(_register())
            self._actor = kind.options(name=NAME, get_if_exists=True, num_cpus=0).remote()
        self._asked = self._actor.hear.remote(self._name, SILENT_SECONDS)
