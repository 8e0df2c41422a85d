"""Shares of a study that can be computed apart, each into a store of its own: for job arrays and rented machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from gradinoc.pipeline.steps.step import LEARNED, Step, StepKey

RUN = "training"


def shard(steps: Mapping[StepKey, Step], number: int, count: int) -> list[StepKey]:
    """Return the steps of one share of `count` (`number` from 1), in the order of the plan.

    Runs that are measured together are of one share, with what is measured of them; steps that need no run are dealt
    out besides. All that a share needs is part of it: what several need, each computes, to the same bytes. What needs
    the runs of several is of none; it is computed when they are in one store.

    Raises:
        ValueError: there is no such share.
    """
    if not 1 <= number <= count:
        raise ValueError(f"share {number} of {count}: expected 1 to {count}")
    runs = _runs_below(steps)
    groups = sorted(_together(steps), key=len, reverse=True)
    dealt: list[set[StepKey]] = [set() for _ in range(count)]
    for group in groups:  # the largest first, each to the share that has the fewest
        min(dealt, key=len).update(group)
    own = dealt[number - 1]
    apart = [key for key in steps if not runs[key]]
    further = {need for step in steps.values() for need in step.needs}
    ends = [key for key in apart if key not in further]
    wanted = {key for key in steps if runs[key] and runs[key] <= own} | {*ends[number - 1 :: count]}
    for key in reversed([*steps]):
        if key in wanted:
            wanted.update(steps[key].needs)
    return [key for key in steps if key in wanted]


def left_over(steps: Mapping[StepKey, Step], count: int) -> list[StepKey]:
    """Return the steps that are of no share of `count`."""
    dealt = {key for number in range(1, count + 1) for key in shard(steps, number, count)}
    return [key for key in steps if key not in dealt]


def _runs_below(steps: Mapping[StepKey, Step]) -> dict[StepKey, set[StepKey]]:
    """Return, for each step, the runs that have to be there: itself, if it is one, and those it needs."""
    found: dict[StepKey, set[StepKey]] = {}
    for key, step in steps.items():
        found[key] = {key} if key.stage == RUN else set()
        found[key].update(chain.from_iterable(found[need] for need in step.needs))
    return found


def _together(steps: Mapping[StepKey, Step]) -> Iterator[Sequence[StepKey]]:
    """Yield the runs that some step reads together; what neutral runs learned is read of them by arms, not together."""
    home = {key: [key] for key in steps if key.stage == RUN}
    for key, step in steps.items():
        read = [need for need in step.needs if need.stage == RUN]
        if key == LEARNED or not read:
            continue
        joined = [*dict.fromkeys(chain.from_iterable(home[run] for run in read))]
        home |= dict.fromkeys(joined, joined)
    seen: set[StepKey] = set()
    for group in home.values():
        if group[0] not in seen:
            seen.update(group)
            yield group
