"""A step of a study: its key, inputs, needs, computation and cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from gradinoc.pipeline.steps.work import Counting, Work


@dataclass(frozen=True)
class StepKey:
    """Identifies a step: its stage (a module under this package), condition, seed and phase."""

    stage: str
    condition: str = ""
    seed: int | None = None
    phase: str = ""  # of drift: before or after training


DIRECTIONS, UNRELATED = StepKey("directions"), StepKey("unrelated")
LEARNED, MATCHED = StepKey("learned"), StepKey("matched")  # those that neutral runs moved along; drawn ones


def run_key(condition: str, seed: int) -> StepKey:
    """Return the key of the run of a condition and seed."""
    return StepKey("training", condition, seed)


class Callback(Protocol):
    """Reports progress within a step: its present part, and how many of the part's units are done.

    A run adds its last loss (nats/token) and the band's mean alignment so far.
    """

    def __call__(
        self, part: str, done: int = 0, total: int = 0, *, loss: float | None = None, alignment: float | None = None
    ) -> None:
        """Report."""


Folders = Mapping[StepKey, Path]  # results of the steps that a step needs
Compute = Callable[[Folders, Path, Callback], None]  # writes a step's result into a folder


class Share(NamedTuple):
    """What is computed of one step where several are computed in one go."""

    key: StepKey
    needed: Folders
    folder: Path


ComputeAll = Callable[[Sequence[Share], Callback], None]


@dataclass(frozen=True)
class Step:
    """A step of a study.

    Attributes:
        key: identifies it.
        label: its name in messages.
        kind: name of the steps that take about as long.
        compute: writes its result into a folder.
        works: counts the passes through the model, for a plan.
        inputs: what determines its result, besides what determines every step's.
        needs: steps whose results it reads.
        compute_all: writes its result and those of others of its stage in one go, if it can.
        most: says how many may be computed in one go; asked when the step is about to be computed.
    """

    key: StepKey
    label: str
    kind: str
    compute: Compute
    works: Callable[[Counting], Iterable[Work]]
    inputs: Mapping[str, Any]
    needs: tuple[StepKey, ...] = ()
    compute_all: ComputeAll | None = None
    most: Callable[[], int] = lambda: 1
