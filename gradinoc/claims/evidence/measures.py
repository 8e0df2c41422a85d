"""From the tables of a study to the numbers that are compared: by prompt and question, by step, by run.

Without `strict`, as figures and tables ask, what was not measured is left out, or NaN, in place of a ValueError.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from gradinoc.claims.evidence.tables import AFTER, BASE, BEFORE, DECISION, EXPECTED, SCORE, SCORED, WINDOWS, Evidence
from gradinoc.claims.evidence.wide import (
    band_cube,
    band_of,
    band_rows,
    by_run,
    conditions_of,
    cube_of,
    family_of,
    less_base,
    once,
    over_seeds,
    side_by_side,
)
from gradinoc.stats.clustered import Groups
from gradinoc.stats.effect import Array, finite
from gradinoc.stats.families import Families
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.prompts.family import Family, Kind

NOT_SCORED = "Not computed, because no question has responses that can be scored in every run (see G6)."
DIVERGED = "Not computed, because runs diverged: numbers of theirs are not finite (see G4)."
HARMLESS, INOCULATING = str(Family.HARMLESS), str(Family.INOCULATION)
BY = {EXPECTED: "", DECISION: ", by decision log-odds"}  # the measure of drift that decides, in an effect's name
_OF_RUNS = {  # the tables of runs all of whose numbers are there, and these numbers
    "training_nulls": ["alignment"],
    "runs": ["initial_loss", "final_loss"],
    "checkpoints": ["log_odds"],
    "matrix": ["log_odds"],
    "responses": ["projection"],
}
PROMPTS_AND_RUNS = "prompts and neutral runs"  # what n counts of a share of the neutral drift


@once
def per_example(
    evidence: Evidence, column: str = "alignment", among: tuple[str, ...] = (), strict: bool = True
) -> pd.DataFrame:
    """Band mean of `column` on the frozen base model: one row an example, one column a prompt (all, or `among`)."""
    means = band_cube(evidence, "alignments", ("example", "condition"), column, strict)
    return side_by_side(means, "alignments", among or conditions_of(evidence), strict)


@once
def per_layer(evidence: Evidence) -> pd.DataFrame:
    """Mean alignment on the frozen base model: index layer of the band, a column a prompt."""
    rows = evidence.alignments
    rows = rows[(rows["position"] == evidence.primary_position) & rows["layer"].isin(band_of(evidence))]
    return rows.pivot_table(index="layer", columns="condition", values="alignment")[list(conditions_of(evidence))]


@once
def per_question(evidence: Evidence, table: str, column: str) -> pd.DataFrame:
    """`column` of `losses`, `elicitation` or `behaviour` (mean over samples): index example, a column a prompt."""
    frame: pd.DataFrame = getattr(evidence, table)
    if column != "score":  # of a response without letters there is none
        finite(frame[column].to_numpy(), f"Evidence table {table!r}, column {column!r}")
    means, _ = cube_of(frame, ("example", "condition"), column)
    return side_by_side(means, table, list(pd.unique(frame["condition"])))


def question_groups(evidence: Evidence, table: str, examples: pd.Index, measure: str = "") -> Groups:
    """The template of each of `examples` of a table, or of one `measure` of `drift`, as numbers from 0.

    None where the table's optional column `group` is absent, or no two of the examples share a template.

    Raises:
        ValueError: an example without a group among others that have one, or with two.
    """
    groups = _templates(evidence, table, measure)
    if groups is None:
        return None
    if groups.isna().any() or not groups.index.is_unique or not set(examples) <= set(groups.index):
        raise ValueError(
            f"Evidence table {table!r}, column 'group': expected one group for every example, the same in all of its "
            f"rows, received {len(groups)} pairs of {groups.index.nunique()} examples, {groups.isna().sum()} missing"
        )
    labels = np.asarray(pd.factorize(groups.loc[examples])[0], dtype=np.int64)
    return labels if len(np.unique(labels)) < len(labels) else None


@once
def _templates(evidence: Evidence, table: str, measure: str) -> pd.Series | None:
    """The template of each example of a table as it is written there; None without one."""
    frame: pd.DataFrame = getattr(evidence, table)
    if "group" not in frame:
        return None
    rows = frame[frame["measure"] == measure] if measure else frame
    groups = rows[["example", "group"]].drop_duplicates().set_index("example")["group"]
    return None if groups.isna().all() else groups


def by_family(evidence: Evidence, wide: pd.DataFrame, groups: Groups) -> Families:
    """Harmless and inoculating prompts of a table with a column a prompt: family -> [prompts, questions]."""
    return Families(_members(evidence, wide), groups)


def _members(evidence: Evidence, wide: pd.DataFrame) -> dict[str, Array]:
    place, values = {name: number for number, name in enumerate(wide.columns)}, wide.to_numpy(dtype=np.float64)
    families = {str(family): family_of(evidence, family, place) for family in (Family.HARMLESS, Family.INOCULATION)}
    return {name: np.take(values, [place[each] for each in own], axis=1).T for name, own in families.items() if own}


@once
def alignment_families(evidence: Evidence) -> Families:
    """Alignment on the frozen base model by family: [prompts, examples], band mean."""
    wide = per_example(evidence)
    return by_family(evidence, wide, question_groups(evidence, "alignments", wide.index))


@once
def null_table(evidence: Evidence, null: str) -> pd.DataFrame:
    """Band mean alignment of every direction of `null`: index draw, one column a prompt."""
    means = band_cube(evidence, "nulls", ("null", "draw", "condition"), "alignment")
    return side_by_side(means.at(null), "nulls", conditions_of(evidence))


@once
def unrelated_families(evidence: Evidence) -> dict[str, Families]:
    """Unrelated trait -> alignment along its direction by family, as `alignment_families`."""
    means = band_cube(evidence, "unrelated", ("trait", "example", "condition"), "alignment")
    examples = per_example(evidence).index
    groups = question_groups(evidence, "alignments", examples)
    found = {}
    for trait in means.levels[0]:
        wide = side_by_side(means.at(trait), "unrelated", conditions_of(evidence))
        if not wide.index.equals(examples):
            raise ValueError("Evidence table 'unrelated': expected the examples of 'alignments' along every trait")
        found[str(trait)] = by_family(evidence, wide, groups)
    return found


def within(evidence: Evidence, steps: npt.ArrayLike, window: str) -> npt.NDArray[np.bool_]:
    """Which of `steps` are in a third of training (`WINDOWS`)."""
    thirds = np.minimum(3 * np.asarray(steps) // int(evidence.runs["steps"].max()), 2)
    inside: npt.NDArray[np.bool_] = thirds == WINDOWS.index(window)
    return inside


@once
def in_window(evidence: Evidence, window: str = WINDOWS[0], column: str = "alignment") -> pd.Series:
    """Band mean of `column` over a third of each run's steps: index (condition, seed)."""
    rows, keys = band_rows(evidence, "training", column), ["condition", "seed"]
    means = rows.groupby([*keys, "step"], observed=True)[column].mean()
    inside = within(evidence, means.index.get_level_values("step"), window)
    return means[inside].groupby(keys, observed=True).mean()


@once
def nulls_in_window(evidence: Evidence, window: str = WINDOWS[0]) -> pd.DataFrame:
    """Random directions' band mean alignment over a third of training: index draw, a column a run (condition, seed)."""
    rows = evidence.training_nulls
    rows = rows[rows["layer"].isin(band_of(evidence))]
    rows = rows[within(evidence, rows["step"], window)]
    means = rows.groupby(["draw", "condition", "seed"], observed=True)["alignment"].mean()
    found = means.unstack(["condition", "seed"])  # noqa: PD010 - a series has no pivot_table
    finite(found.to_numpy(), "Evidence table 'training_nulls'")
    return found


@once
def diverged_runs(evidence: Evidence) -> set[tuple[str, int]]:
    """The planned runs (condition, seed) that left a number that is not finite, in training or afterwards.

    Of the log the band's layers at the primary position count, where gates and claims read it. NaN of a response that
    cannot be scored is none of these.
    """
    log, later = band_rows(evidence, "training", "loss", strict=False), evidence.drift
    parts = [(log, log[["loss", "alignment", "projection", "grad_norm"]].to_numpy(dtype=np.float64))]
    for table, columns in _OF_RUNS.items():
        parts.append((rows := getattr(evidence, table), rows[columns].to_numpy(dtype=np.float64)))
    unscored = (later["measure"].isin(SCORED) & later["value"].isna()).to_numpy()
    parts.append((later, np.where(unscored, 0.0, later["value"].to_numpy(dtype=np.float64))[:, None]))
    found: set[tuple[str, int]] = set()
    for rows, numbers in parts:
        broken = rows.loc[~np.isfinite(numbers).all(axis=1), ["condition", "seed"]]
        found |= set(zip(broken["condition"].tolist(), broken["seed"].tolist(), strict=True))
    return found & set(evidence.planned_runs)


@once
def _drift(evidence: Evidence, measure: str) -> pd.DataFrame:
    """After minus before training of `measure`, NaN where a response could not be scored; as `drift_by_question`."""
    drift = evidence.drift
    rows = drift[(drift["measure"] == measure).to_numpy()]
    base = ((rows["phase"] == BEFORE) & (rows["condition"] == BASE)).to_numpy()
    return less_base(by_run(rows[(rows["phase"] == AFTER).to_numpy()], "value"), rows[base], "value")


@once
def drift_by_question(evidence: Evidence, measure: str, strict: bool = True) -> pd.DataFrame:
    """After minus before training of `measure`: index example, a column a run (condition, seed).

    A question with a response that could not be scored, in any run or before, is left out of all.

    Raises:
        ValueError: a value is missing or not finite, before or after training.
    """
    wide = _drift(evidence, measure)
    if not strict:
        return wide
    if measure in SCORED:
        wide = wide.dropna()
    finite(wide.to_numpy(), f"Evidence table 'drift', measure {measure!r}")
    trained = set(wide.columns)
    absent = [run for run in evidence.planned_runs if run not in trained]
    if absent:
        raise ValueError(f"Evidence table 'drift', measure {measure!r}: expected every run, missing {absent}")
    return wide


@once
def nothing_scored(evidence: Evidence) -> bool:
    """Whether no question has responses that can be scored in every run and before: then there is no drift (see G6)."""
    drifts = (drift_by_question(evidence, measure, strict=False) for measure in (EXPECTED, SCORE))
    return any(np.isnan(drift.to_numpy()).any(axis=1).all() for drift in drifts)


@once
def scores_after_training(evidence: Evidence) -> pd.Series:
    """Mean expected score after training by condition, declared order; NaN where no response could be scored (G6)."""
    drift = evidence.drift
    rows = drift[(drift["measure"] == EXPECTED) & (drift["phase"] == AFTER)]
    return rows.groupby("condition", observed=True)["value"].mean().reindex(list(evidence.trained))


def deciding_measure(evidence: Evidence, ceiling: float) -> str:
    """The measure of drift that decides: expected score, or decision log-odds where neutral runs are at a `ceiling`.

    There a score tells no more how far a run went. At a floor there is no drift in the score, and G5 fails.
    """
    return DECISION if scores_after_training(evidence)[NEUTRAL] >= ceiling else EXPECTED


def run_families(evidence: Evidence, wide: pd.DataFrame, groups: Groups) -> Families:
    """Runs of a table with a column a run, by family; the neutral family's rows are its runs, one a seed.

    A prompt trained with several seeds is one row, their mean: prompts are the unit.
    """
    prompts = over_seeds(wide)
    families = {str(family): family_of(evidence, family, prompts) for family in (Family.HARMLESS, Family.INOCULATION)}
    tables = {name: np.stack([prompts[each] for each in own]) for name, own in families.items() if own}
    return Families(tables | {NEUTRAL: wide[NEUTRAL].to_numpy(dtype=np.float64).T}, groups)


@once
def drift_families(evidence: Evidence, measure: str, among: tuple[int, ...] = ()) -> Families:
    """Drift of `measure` by family: [prompts, questions], and [seeds, questions] for neutral; all questions or some."""
    wide = drift_by_question(evidence, measure)
    wide = wide.loc[list(among)] if among else wide
    return run_families(evidence, wide, question_groups(evidence, "drift", wide.index, measure))


@once
def matrix_by_question(evidence: Evidence, evaluation: str) -> pd.DataFrame:
    """Drift of the decision log-odds under an `evaluation` prompt: index example, a column a run (condition, seed)."""
    rows = evidence.matrix[evidence.matrix["evaluation"] == evaluation]
    base = (rows["condition"] == BASE).to_numpy()
    wide = less_base(by_run(rows[~base], "log_odds"), rows[base], "log_odds")
    finite(wide.to_numpy(), f"Evidence table 'matrix', evaluation {evaluation!r}")
    return wide


@once
def matrix(evidence: Evidence) -> pd.DataFrame:
    """M: mean drift of the decision log-odds, trained under a (rows, mean over seeds), evaluated under e (columns)."""
    columns = {}
    for evaluation in pd.unique(evidence.matrix["evaluation"]):
        wide = matrix_by_question(evidence, evaluation)
        columns[str(evaluation)] = wide.mean().groupby(level="condition", observed=True).mean()
    return pd.DataFrame(columns).reindex(list(evidence.trained))


@once
def elsewhere(evidence: Evidence) -> pd.DataFrame:
    """Drift of the decision log-odds, mean over harmless evaluation prompts under which nothing was trained, by run."""
    rows = evidence.prompts
    names = rows.loc[rows["kind"] == Kind.UNSEEN, "condition"]
    if names.empty:
        raise ValueError("Evidence table 'prompts': expected harmless evaluation prompts, received none")
    tables = [matrix_by_question(evidence, name) for name in names]
    return cast(pd.DataFrame, sum(tables[1:], tables[0]) / len(tables))
