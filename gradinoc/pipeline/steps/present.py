"""Which results of a study are in the store, as far as was looked: other processes add to it at any time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from gradinoc.pipeline.steps.step import Step, StepKey
from gradinoc.pipeline.storage.store import Entry

LOOKING = 0.1  # of the time, at most, goes into looks at everything: of ten thousand steps one look takes a second


class Present:
    """Steps that are known to be in the store.

    Args:
        entries: each step's place there.
    """

    def __init__(self, entries: Mapping[StepKey, Entry]) -> None:
        self._entries = entries
        self._known: set[StepKey] = set()
        self._next_look = 0.0

    def __contains__(self, key: StepKey) -> bool:
        """Whether a step was found or noted."""
        return key in self._known

    def forget(self) -> None:
        """Look at every step anew."""
        self._known.clear()
        self._next_look = 0.0

    def note(self, keys: Iterable[StepKey]) -> None:
        """Note steps that have just been stored."""
        self._known.update(keys)

    def found(self, key: StepKey) -> bool:
        """Return whether a step is there now."""
        if key not in self._known and self._entries[key].complete():
            self._known.add(key)
        return key in self._known

    def missing(self, steps: Iterable[Step], *, at_once: bool = False) -> list[Step]:
        """Return the steps that are not there: by a look `at_once`, or by one before, if looks would take the time.

        A step that was there is not looked at again.
        """
        began = time.monotonic()
        if not at_once and began < self._next_look:
            return [step for step in steps if step.key not in self._known]
        missing = [step for step in steps if not self.found(step.key)]
        now = time.monotonic()
        self._next_look = now + (now - began) / LOOKING
        return missing
