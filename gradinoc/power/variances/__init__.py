"""What varies by chance in a study that was run, and how large its effects were: what a plan of the next one rests on.

Everything is in the terms of simulated studies (`gradinoc.power.scenarios`), so that one can be simulated that looks
like it. Cosines are means over the band at the primary position: those of a simulated study of one layer.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.power.scenarios import Noise, Scenario
from gradinoc.power.variances.frozen import Measured, of_directions, of_elicitation, of_prompts
from gradinoc.power.variances.runs import of_runs
from gradinoc.study.loading import STUDIES
from gradinoc.study.rules import Rules

TINY = STUDIES / "tiny-variances.json"  # of the study `tiny`, for plans without a past study of their own


class Variances(BaseModel):
    """Variances and effects of a study, and how much they rest on.

    Attributes:
        study: whose evidence.
        seeds: of neutral runs.
        harmless: prompts measured of that family.
        inoculating: those of the other.
        scenario: the effects, and with `noise` the standard deviations, that a simulated study would need to look
            like this one. Which claims hold there is not known: `holds` and `verdicts` are empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    study: str
    seeds: int
    harmless: int
    inoculating: int
    scenario: Scenario


def estimate(evidence: Evidence, rules: Rules, study: str) -> Variances:
    """The variances and effects that `evidence` of `study` shows, by method of moments.

    Raises:
        ValueError: fewer than two seeds or prompts of a family, no neutral drift, diverged runs, or a missing table.
    """
    if len(evidence.seeds) < 2:
        raise ValueError(f"variances of {study}: one seed says nothing of how runs differ; two or more are needed")
    measured = Measured(evidence, rules)
    effects, spreads = of_prompts(measured)
    for more in (of_directions(measured), of_runs(measured)):
        effects |= more[0]
        spreads |= more[1]
    effects |= of_elicitation(measured)
    scenario = Scenario(**effects, noise=Noise(**spreads), holds=(), verdicts=())
    _ensure_finite(scenario, study)
    counts = {name: len(names) for name, names in measured.members.items()}
    harmless, inoculating = counts.values()
    return Variances(
        study=study, seeds=len(evidence.seeds), harmless=harmless, inoculating=inoculating, scenario=scenario
    )


def _ensure_finite(scenario: Scenario, study: str) -> None:
    """Refuse effects and spreads that are no numbers."""
    found = asdict(scenario)
    flat = {**found, **found.pop("noise")}
    flat |= flat.pop("nulls")
    broken = [name for name, value in flat.items() if isinstance(value, float) and math.isnan(value)]
    if broken:
        raise ValueError(f"variances of {study}: {', '.join(broken)} cannot be told from its tables")


def load_variances(path: Path) -> Variances:
    """The variances in a file that `Variances.model_dump_json` wrote.

    Raises:
        ValueError: not such a file.
        OSError: it cannot be read.
    """
    return Variances.model_validate(json.loads(path.read_text(encoding="utf-8")))
