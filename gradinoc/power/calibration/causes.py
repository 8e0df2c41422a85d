"""The worlds of C5: what removing the component along the direction does, and what that could be taken for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gradinoc.power.calibration.cases import DESIGN, Case
from gradinoc.power.scenarios import REMOVED, SCENARIOS, Noise, Scenario

ARMED = replace(DESIGN, seeds=5, matched=39, steps=24)  # steps: losses on the way are compared
GRANTED = ("C1", "C2", "C3", "C4", "C6")


def _of(**changes: Any) -> Scenario:
    return replace(SCENARIOS["effect"], **changes)


def causes() -> dict[str, Case]:
    """Each world by name; C5 and its gates alone are judged.

    Inoculation leaves half of the drift, and more or less of it by chance of its prompt.
    """
    own: dict[str, Any] = {"core": 0.6, "verdicts": ("CONSISTENT",)}
    pronounced = {**own, "verdicts": ("SUPPORTED", "CONSISTENT")}
    worlds = {
        "caused": _of(**pronounced),
        "caused, heavy tails": _of(**{**pronounced, "noise": Noise(degrees=3)}),
        "caused, seeds differ": _of(**{**pronounced, "noise": Noise(seed_drift=0.08)}),
        "caused, the bar": _of(**own, caused=REMOVED),
        "caused, just above the bar": _of(**pronounced, caused=REMOVED + 0.001),
        "caused, nothing": _of(**own, caused=0.0),
        # v is one more of the directions matched to it, of which most cause more than the bar, either way.
        "caused, one of many": _of(**own, by_chance=("caused",), noise=Noise(matched=0.6)),
        # Other claims, which are granted here, are as they were of what inoculation would remove.
        "caused, none to remove": replace(
            SCENARIOS["no_effect"], core=0.6, holds=GRANTED, vary=("C7b",), verdicts=("CONSISTENT",)
        ),
        "caused, not restored": _of(**own, restored=0.0, untold=("C5",)),
        # Runs without the component learn 15 % less, and drift by as much less.
        "caused, learns less": _of(**pronounced, learns=0.85),
        "caused, the bar, learns less": _of(**own, caused=REMOVED, learns=0.85),
        "caused, nothing, learns less": _of(**own, caused=0.0, learns=0.85),
        "G11 false": _of(**own, cut=0.6, untold=("C5",)),
        "G11, no shift": _of(**own, moved=0.0, untold=("C5",)),
    }  # fmt: skip
    found = {name: Case(scenario, ARMED, judged=("C5",)) for name, scenario in worlds.items()}
    for seeds, matched in ((3, 19), (3, 39), (5, 19)):
        for name in ("caused", "caused, the bar"):
            sizes = replace(ARMED, seeds=seeds, matched=matched)
            found[f"{name}, {seeds} seeds, {matched} directions"] = Case(worlds[name], sizes, judged=("C5",))
    return found
