"""The jobs by name; each is a module with `run(setting, outcome)`, which fills the outcome it is given."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from benchmarks.inputs import Setting
from benchmarks.outcome import Outcome

JOBS = (
    "alignment",
    "directions",
    "training",
    "arms",
    "growth",
    "evaluation",
    "attribution",
    "together",
    "memory",
    "study",
    "cuda",
)

Run = Callable[[Setting, Outcome], None]


def find(name: str) -> Run:
    """What runs the job called `name`.

    Raises:
        KeyError: no such job; the message lists those there are.
    """
    if name not in JOBS:
        raise KeyError(f"No job {name!r}; there are {', '.join(JOBS)}")
    run: Run = import_module(f"{__name__}.{name}").run
    return run
