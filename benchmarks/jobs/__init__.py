"""The jobs by name; each is a module with `run(setting, outcome)`, which fills the outcome it is given."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from benchmarks.inputs import Setting
from benchmarks.outcome import Outcome

JOBS = ("alignment", "directions", "training", "growth", "evaluation", "cuda")

Run = Callable[[Setting, Outcome], None]


def present() -> list[str]:
    """The jobs that there are, in order."""
    return [name for name in JOBS if find_spec(f"{__name__}.{name}") is not None]


def find(name: str) -> Run:
    """What runs the job called `name`.

    Raises:
        KeyError: no such job; the message lists those there are.
    """
    if name not in present():
        raise KeyError(f"No job {name!r}; there are {present()}")
    run: Run = import_module(f"{__name__}.{name}").run
    return run
