"""From the tables of a study with arms to what its causal claim compares: runs with an intervention and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.measures import drift_by_question, question_groups
from gradinoc.claims.evidence.tables import PROJECTION, Evidence
from gradinoc.claims.evidence.wide import band_rows, once
from gradinoc.stats.effect import Array, finite
from gradinoc.stats.families import Families
from gradinoc.study.arms import FULL, ITSELF, PROJECT, RESTORE, TRAIT
from gradinoc.study.prompts import INOCULATION, NEUTRAL

REMOVED, RESTORED = "removed", "restored"  # families of runs, beside `NEUTRAL` and `INOCULATION`


@dataclass(frozen=True)
class Chosen:
    """Kinds of runs with one intervention: its arm's own direction, at any strength, and directions matched to it.

    Attributes:
        own: strength -> condition.
        drawn: conditions at full strength, in the order of their draws.
    """

    own: dict[float, str]
    drawn: tuple[str, ...]


def whole(evidence: Evidence) -> Evidence:
    """The evidence of all runs, those with an intervention among them."""
    return evidence.with_arms or evidence


def arms_of(evidence: Evidence, intervention: str, direction: str = TRAIT) -> Chosen:
    """The arms with an intervention along a direction, projected under the neutral prompt, restored under another."""
    table = evidence.arms
    under = table["prompt"] == (INOCULATION if intervention == RESTORE else NEUTRAL)
    rows = table[(table["intervention"] == intervention) & (table["direction"] == direction) & under]
    own, drawn = rows[rows["draw"] == ITSELF], rows[(rows["draw"] != ITSELF) & (rows["strength"] == FULL)]
    strengths = dict(zip(own["strength"].astype(float), own["condition"].astype(str), strict=True))
    return Chosen(strengths, tuple(drawn.sort_values("draw")["condition"].astype(str)))


def arm_families(evidence: Evidence, measure: str, direction: str = TRAIT) -> Families:
    """Drift by question, rows are runs, one a seed: neutral, inoculation, and the arms at full strength."""
    everything = whole(evidence)
    wide = drift_by_question(everything, measure)
    members = {NEUTRAL: NEUTRAL, INOCULATION: INOCULATION}
    for family, intervention in ((REMOVED, PROJECT), (RESTORED, RESTORE)):
        if own := arms_of(evidence, intervention, direction).own.get(FULL):
            members[family] = own
    tables = {family: wide[condition].to_numpy(dtype=np.float64).T for family, condition in members.items()}
    return Families(tables, question_groups(everything, "drift", wide.index, measure))


@once
def mean_drift(evidence: Evidence, measure: str) -> pd.Series:
    """Mean drift of every run, those with an intervention among them: index (condition, seed)."""
    return drift_by_question(whole(evidence), measure).mean()


def less_twin(evidence: Evidence, measure: str, conditions: Sequence[str], twin: str) -> Array:
    """Mean drift of the runs of some conditions less that of the run of `twin` of the same seed, [runs]."""
    means = mean_drift(evidence, measure)
    runs = [run for run in means.index if run[0] in conditions]
    runs.sort(key=lambda run: (list(conditions).index(run[0]), run[1]))
    differences = np.array([means[run] - means[twin, run[1]] for run in runs])
    return finite(differences, f"drift of {', '.join(conditions)} less that of {twin}")


def by_strength(evidence: Evidence, measure: str, direction: str = TRAIT) -> pd.DataFrame:
    """Mean drift by run over strengths of projecting, neutral runs at 0: columns strength, seed, drift."""
    means = mean_drift(evidence, measure)
    strengths = {NEUTRAL: 0.0} | {
        name: strength for strength, name in arms_of(evidence, PROJECT, direction).own.items()
    }
    rows = [(strengths[name], seed, drift) for (name, seed), drift in means.items() if name in strengths]
    return pd.DataFrame(rows, columns=["strength", "seed", "drift"]).sort_values(["strength", "seed"])


def largest_alignment(evidence: Evidence, conditions: Sequence[str]) -> float:
    """Largest |cos(-g, v)| that training logged at the band and primary position, over some runs with interventions."""
    rows = band_rows(whole(evidence), "training", "alignment")
    return float(rows.loc[rows["condition"].isin(conditions), "alignment"].abs().max())


def mean_alignment(evidence: Evidence, condition: str) -> float:
    """Mean |cos(-g, v)| that training logged at the band and primary position, over the runs of a condition."""
    rows = band_rows(whole(evidence), "training", "alignment")
    return float(rows.loc[rows["condition"] == condition, "alignment"].abs().mean())


def shift(evidence: Evidence, condition: str) -> float:
    """Mean movement of the residual stream along v by training, band mean, hidden-state units."""
    return float(mean_drift(evidence, PROJECTION)[condition].mean())


def learned(evidence: Evidence, condition: str) -> float:
    """By how much the training loss of a condition's runs fell, nats/token."""
    rows = whole(evidence).runs
    rows = rows[rows["condition"] == condition]
    return float((rows["initial_loss"] - rows["final_loss"]).mean())


def moved(evidence: Evidence, condition: str) -> float:
    """Norm of the change of the adapter's weights, mean over a condition's runs."""
    rows = whole(evidence).weights
    return float(rows.loc[rows["condition"] == condition, "moved"].mean())


def leak(evidence: Evidence, condition: str) -> float:
    """Share of what maps into the stream learned that points along v, mean over band and runs of a condition."""
    rows = whole(evidence).weights
    return float(rows.loc[rows["condition"] == condition, "leak"].mean())
