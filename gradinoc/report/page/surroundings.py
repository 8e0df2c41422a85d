"""The environment of a study as tables that can be read: where it was written, on what it was computed, from what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PACKAGES, COMPUTED, NOTES = "packages", "computed_by", "notes"
TITLES = {"self_tests": "Self-tests of the model", "data": "Data", "weights": "Weights", PACKAGES: "Packages"}
MISSING = "–"
NAMES = {
    "dirty": "uncommitted changes",
    "cpu_capability": "CPU capability",
    "memory_gb": "memory (GB)",
    "accelerator_memory_gb": "accelerator memory (GB)",
    "everyday_sha256": "sha256 of everyday",
}


@dataclass(frozen=True)
class Surroundings:
    """One table: its title, and what is in it by name, in words."""

    title: str
    rows: dict[str, str]


def surroundings(environment: Mapping[str, Any]) -> list[Surroundings]:
    """The tables of an environment, as `machine.environment` gives it; what is unknown is a dash.

    Each different way in which results were computed is a table, in which packages of the same version as the report's
    own are left out.
    """
    plain = {name: value for name, value in environment.items() if not isinstance(value, Mapping | list | tuple)}
    tables = [Surroundings("This report was written on", _words(plain))]
    for name, value in environment.items():
        if isinstance(value, Mapping) and value and name != COMPUTED:
            absent = "not installed" if name == PACKAGES else MISSING
            tables.append(Surroundings(TITLES.get(name, name), _words(value, absent)))
    computed = environment.get(COMPUTED)
    if isinstance(computed, Mapping):
        tables += _computed(computed, environment.get(PACKAGES) or {})
    notes = environment.get(NOTES)
    if isinstance(notes, Sequence) and not isinstance(notes, str) and notes:
        rows = {str(place): str(note) for place, note in enumerate(notes, start=1)}
        tables.append(Surroundings("What was noted of data and model", rows))
    return tables


def _computed(computed: Mapping[str, Any], packages: Mapping[str, Any]) -> list[Surroundings]:
    ways: Sequence[Mapping[str, Any]] = computed.get("ways") or []
    head = {name: value for name, value in computed.items() if name != "ways"}
    tables = [Surroundings("The results it rests on", {**_words(head), "different ways": str(len(ways))})]
    for place, way in enumerate(ways, start=1):
        rows = {name: value for name, value in way.items() if not isinstance(value, Mapping)}
        other = {name: value for name, value in (way.get(PACKAGES) or {}).items() if packages.get(name) != value}
        versions = ", ".join(f"{name} {value or 'not installed'}" for name, value in other.items())
        rows[PACKAGES] = versions or "the same as the report's"
        count = f", way {place} of {len(ways)}" if len(ways) > 1 else ""
        tables.append(Surroundings(f"Computed on{count}", _words(rows)))
    return tables


def _words(values: Mapping[str, Any], absent: str = MISSING) -> dict[str, str]:
    named = {str(name): absent if value is None else _word(value) for name, value in values.items()}
    return {
        NAMES.get(name, name if absent != MISSING else name.replace("_", " ")): word for name, word in named.items()
    }


def _word(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
