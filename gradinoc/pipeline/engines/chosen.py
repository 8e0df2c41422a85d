"""The engine that is asked for by name: "local", "ray", or a cluster's address."""

from __future__ import annotations

import os
from importlib.util import find_spec

from gradinoc.errors import EngineError
from gradinoc.pipeline.engines.engine import Engine
from gradinoc.pipeline.storage.store import Store
from gradinoc.study.description import Study

LOCAL, RAY = "local", "ray"
ADDRESS = "RAY_ADDRESS"  # of the cluster that is taken where "ray" says no more


def engine_for(asked: str, study: Study, store: Store) -> Engine | None:
    """Return the engine that is asked for; None for this process.

    "ray" is the cluster that `RAY_ADDRESS` names, or one on this machine; "ray://HOST:PORT" one that is joined from
    outside, "ray:HOST:PORT" one that this machine is a node of.

    Raises:
        EngineError: there is no such engine, or Ray is not installed.
    """
    if asked == LOCAL:
        return None
    if asked != RAY and not asked.startswith(f"{RAY}:"):
        raise EngineError(f"engine {asked!r}: expected local, ray, ray://HOST:PORT or ray:HOST:PORT")
    if find_spec("ray") is None:
        raise EngineError(f"engine {asked!r}: Ray is not installed; pip install 'gradinoc[ray]'")
    from gradinoc.pipeline.engines.ray_engine import RayEngine  # here: it takes a second

    named = asked if asked.startswith(f"{RAY}://") else asked.removeprefix(RAY).removeprefix(":")
    return RayEngine(study, store, named or os.environ.get(ADDRESS) or LOCAL)
