"""From the tables of a study with arms to what its causal claim compares: runs with an intervention and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from gradinoc.claims.evidence.measures import drift_by_question, question_groups
from gradinoc.claims.evidence.tables import ARMS, EXPECTED, PROJECTION, Evidence
from gradinoc.claims.evidence.wide import band_rows, once
from gradinoc.stats.effect import Array, Effect, finite
from gradinoc.stats.families import Families, contrast
from gradinoc.study.arms import FULL, ITSELF, PROJECT, RESTORE, TRAIT
from gradinoc.study.prompts import INOCULATION, NEUTRAL

REMOVED = "removed"  # a family of runs, beside `NEUTRAL` and `INOCULATION`


@dataclass(frozen=True)
class Chosen:
    """Kinds of runs with one intervention: its arm's own direction, at any strength, and directions matched to it.

    Attributes:
        own: strength -> condition.
        drawn: conditions at full strength, in the order of their draws.
    """

    own: dict[float, str]
    drawn: tuple[str, ...]


@once
def whole(evidence: Evidence) -> Evidence:
    """The evidence of all runs, those with an intervention among them, its other runs' tables as they are here."""
    if evidence.with_arms is None:
        return evidence
    names, tables = set(evidence.arms["condition"]), dict(evidence.tables)
    for name, table in evidence.with_arms.tables.items():
        if name != ARMS and "condition" in table:
            tables[name] = pd.concat([tables[name], table[table["condition"].isin(names)]], ignore_index=True)
    further = tuple(run for run in evidence.with_arms.planned_runs if run[0] in names)
    return replace(evidence, **tables, planned_runs=(*evidence.planned_runs, *further), with_arms=None)


@once
def compared(evidence: Evidence, direction: str = TRAIT) -> Evidence:
    """The evidence of all runs but those with an intervention other than projecting or restoring along a direction.

    Gates and claims rest on those of the trait's direction. Another arm, one that diverged or whose responses cannot
    be scored, is not to take runs or questions from what they compare.
    """
    arms = evidence.arms
    kept = arms["intervention"].isin((PROJECT, RESTORE)) & (arms["direction"] == direction)
    return whole(replace(evidence, arms=arms[kept].reset_index(drop=True)))


def removes(evidence: Evidence) -> bool:
    """Whether a study has runs without the gradient's component along the trait's direction."""
    return FULL in arms_of(evidence, PROJECT).own


def arms_of(evidence: Evidence, intervention: str, direction: str = TRAIT) -> Chosen:
    """The arms with an intervention along a direction, projected under the neutral prompt, restored under another."""
    table = evidence.arms
    under = table["prompt"] == (INOCULATION if intervention == RESTORE else NEUTRAL)
    rows = table[(table["intervention"] == intervention) & (table["direction"] == direction) & under]
    own, drawn = rows[rows["draw"] == ITSELF], rows[(rows["draw"] != ITSELF) & (rows["strength"] == FULL)]
    strengths = dict(zip(own["strength"].astype(float), own["condition"].astype(str), strict=True))
    return Chosen(strengths, tuple(drawn.sort_values("draw")["condition"].astype(str)))


def arm_families(evidence: Evidence, measure: str, direction: str = TRAIT) -> Families:
    """Drift by question, rows are runs, one a seed: neutral, inoculation, and removed at full strength."""
    everything = compared(evidence, direction)
    wide = drift_by_question(everything, measure)
    members = {NEUTRAL: NEUTRAL, INOCULATION: INOCULATION, REMOVED: arms_of(evidence, PROJECT, direction).own[FULL]}
    tables = {family: wide[condition].to_numpy(dtype=np.float64).T for family, condition in members.items()}
    return Families(tables, question_groups(everything, "drift", wide.index, measure))


@once
def mean_drift(evidence: Evidence, measure: str) -> pd.Series:
    """Mean drift of every run, those with an intervention among them: index (condition, seed).

    Over the questions that all `compared` runs have; of another, over those of them that it has, NaN where it has none.
    """
    wide = drift_by_question(compared(evidence), measure)
    everyone = drift_by_question(whole(evidence), measure, strict=False)
    others = everyone.loc[wide.index, ~everyone.columns.isin(wide.columns)]
    return pd.concat([wide.mean(), others.mean()])[everyone.columns]


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
    """Largest |cos(-g, v)| that training logged at the band and primary position, over some `compared` runs."""
    rows = band_rows(compared(evidence), "training", "alignment")
    return float(rows.loc[rows["condition"].isin(conditions), "alignment"].abs().max())


def mean_alignment(evidence: Evidence, condition: str) -> float:
    """Mean |cos(-g, v)| that training logged at the band and primary position, over a condition's `compared` runs."""
    rows = band_rows(compared(evidence), "training", "alignment")
    return float(rows.loc[rows["condition"] == condition, "alignment"].abs().mean())


def shift(evidence: Evidence, condition: str) -> float:
    """Mean movement of the residual stream along v by training, band mean, hidden-state units."""
    return float(mean_drift(evidence, PROJECTION)[condition].mean())


def learned(evidence: Evidence, condition: str, twin: str) -> float:
    """How far the training loss of a condition's runs fell, in units of that of `twin`'s runs of the same seeds."""
    rows = whole(evidence).runs
    falls = rows.set_index(["condition", "seed"])
    return _to_twin(falls["initial_loss"] - falls["final_loss"], condition, twin)


def moved(evidence: Evidence, condition: str, twin: str) -> float:
    """Norm of the change of a condition's adapters, in units of that of `twin`'s of the same seeds."""
    means = whole(evidence).weights.groupby(["condition", "seed"], observed=True)["moved"].mean()
    return _to_twin(means, condition, twin)


def _to_twin(by_run: pd.Series, condition: str, twin: str) -> float:
    """Mean over a condition's runs, divided by the mean over `twin`'s runs of the same seeds: seeds differ in both."""
    own = by_run[condition]
    others = float(by_run[twin].reindex(own.index).mean())
    return float(own.mean()) / others if others else float("nan")


@once
def moves(evidence: Evidence, level: float) -> Effect:
    """Movement of the residual stream along v by the neutral runs, band mean, runs and questions as error."""
    everything = compared(evidence)
    wide = drift_by_question(everything, PROJECTION)
    tables = {NEUTRAL: wide[NEUTRAL].to_numpy(dtype=np.float64).T}
    families = Families(tables, question_groups(everything, "drift", wide.index, PROJECTION))
    name = "shift along v of neutral runs, hidden-state units"
    return contrast(families, {NEUTRAL: 1.0}, name, level, "runs")


@dataclass(frozen=True)
class Sound:
    """What gates ask of every run, of the runs with an intervention.

    Attributes:
        runs: how many there are.
        failed: how many of them did not learn, or began with another adapter than the neutral run of their seed.
        unscorable: share of their responses that cannot be scored, of greedy ones or of questions none of whose sampled
            ones can, whichever is larger.
    """

    runs: int
    failed: int
    unscorable: float


def soundness(evidence: Evidence) -> Sound:
    """Whether the runs that are projected or restored along v, or along directions matched to it, are sound.

    That their loss falls is asked of projected ones: a gradient that is given another prompt's component is no descent.
    """
    everything, kinds = whole(evidence), dict[str, str]()
    for kind in (PROJECT, RESTORE):
        chosen = arms_of(evidence, kind)
        kinds |= dict.fromkeys((*chosen.own.values(), *chosen.drawn), kind)
    names = set(kinds)
    runs = everything.runs[everything.runs["condition"].isin(names)]
    neutral = everything.runs[everything.runs["condition"] == NEUTRAL].set_index("seed")["initial_adapter"]
    other = runs["initial_adapter"].to_numpy() != neutral.reindex(runs["seed"]).to_numpy()
    descends = (runs["condition"].astype(str).map(kinds) == PROJECT).to_numpy()
    failed = (descends & ~(runs["final_loss"] < runs["initial_loss"]).to_numpy()) | other
    responses, drift = everything.responses, everything.drift
    texts = responses.loc[responses["condition"].isin(names), "response"]
    sampled = drift.loc[drift["condition"].isin(names) & (drift["measure"] == EXPECTED), "value"].isna()
    lost = [float((~texts.map(everything.trait.scorable).astype(bool)).mean()), float(sampled.mean())]
    return Sound(len(runs), int(failed.sum()), max(lost))


def leak(evidence: Evidence, condition: str) -> float:
    """Share of what maps into the stream learned that points along v, mean over band and runs of a condition."""
    rows = whole(evidence).weights
    return float(rows.loc[rows["condition"] == condition, "leak"].mean())
