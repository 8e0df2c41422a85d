"""From the tables of a study to the numbers that are compared: per example, per step, per run.

Without `strict`, as figures and tables ask, what was not measured is left out, or NaN, in place of a ValueError.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd

from gradinoc.claims.tables import AFTER, BASE, BEFORE, SCORED, Evidence
from gradinoc.stats.clustered import Groups, grouped_pairs
from gradinoc.stats.effect import Array, Effect, finite, tost
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.rules import Rules

COMPARED = ["alignment", "loss"]  # at a matched checkpoint
CONTROLS = (NEUTRAL, LOSS_MATCHED)

Derive = TypeVar("Derive", bound=Callable[..., Any])


def _once(derive: Derive) -> Derive:
    """`derive`, once for each study and arguments: several claims rest on the same numbers, which nobody changes."""

    @functools.wraps(derive)
    def recall(evidence: Evidence, *given: Any, **named: Any) -> Any:
        key = (derive.__name__, given, tuple(sorted(named.items())))
        if key not in evidence.derived:
            evidence.derived[key] = derive(evidence, *given, **named)
        return evidence.derived[key]

    return cast("Derive", recall)


def _mean_over_band(evidence: Evidence, table: str, keys: list[str], column: str, strict: bool = True) -> pd.Series:
    """Mean of `column` of a table over band layers (and rows of one key), primary position; index `keys`.

    Raises:
        ValueError: no band, or a row that decides is not finite.
    """
    if strict:
        return _mean_over(evidence, table, keys, column, len(evidence.band))
    return _band_rows(evidence, table).groupby(keys)[column].mean().dropna()


def _mean_over(evidence: Evidence, table: str, keys: list[str], column: str, layers: int) -> pd.Series:
    """The same, where each of `keys` has so many of the band's layers."""
    if not evidence.band:
        raise ValueError("Evidence table 'layers': no layer is in the band, so nothing can be decided")
    rows = _band_rows(evidence, table)
    finite(rows[column].to_numpy(), f"Evidence table {table!r}, column {column!r} (band, primary position)")
    groups = rows.groupby(keys)[column]
    uneven = groups.size() % layers if table == "training" else groups.size() != layers
    if uneven.any():
        raise ValueError(
            f"Evidence table {table!r}: expected every {'/'.join(keys)} once at each band layer "
            f"{evidence.band}, received {int((uneven != 0).sum())} otherwise"
        )
    return groups.mean()


def _band_rows(evidence: Evidence, table: str) -> pd.DataFrame:
    """The rows of a table at band layers and, where it has positions, the primary one."""
    frame: pd.DataFrame = getattr(evidence, table)
    keep = frame["layer"].isin(evidence.band)
    if "position" in frame:
        keep &= frame["position"] == evidence.primary_position
    return frame[keep]


def _side_by_side(means: pd.Series, table: str, conditions: tuple[str, ...], strict: bool = True) -> pd.DataFrame:
    """Conditions as columns; every row must have been measured under every one.

    Raises:
        ValueError: a condition or a row of one is missing.
    """
    wide = means.unstack("condition")  # noqa: PD010 - a series has no pivot_table
    wide = wide.reindex(columns=list(conditions))
    if strict and wide.isna().any(axis=None):
        missing = wide.isna().sum()
        raise ValueError(
            f"Evidence table {table!r}: expected the same {wide.index.names} under every condition, "
            f"missing {missing[missing > 0].to_dict()} of {len(wide)}"
        )
    return wide


@_once
def per_example(evidence: Evidence, column: str = "alignment", strict: bool = True) -> pd.DataFrame:
    """Band mean of `column` on the frozen base model: one row an example, one column a condition."""
    means = _mean_over_band(evidence, "alignments", ["example", "condition"], column, strict)
    return _side_by_side(means, "alignments", evidence.conditions, strict)


def minus_inoculation(wide: pd.DataFrame) -> pd.DataFrame:
    """Every other column of a table with a column a condition, less inoculation's."""
    return wide.drop(columns=INOCULATION).sub(wide[INOCULATION], axis=0)


@_once
def per_layer(evidence: Evidence, other: str) -> pd.DataFrame:
    """Alignment on the frozen base model, `other` minus inoculation: index example, a column a layer of the band."""
    means = _mean_over(evidence, "alignments", ["example", "layer", "condition"], "alignment", 1)
    wide = _side_by_side(means, "alignments", evidence.conditions)
    return (wide[other] - wide[INOCULATION]).unstack("layer")  # noqa: PD010 - a series has no pivot_table


def example_groups(evidence: Evidence, table: str, examples: pd.Index, measure: str = "") -> Groups:
    """The group of each of `examples` of `alignments`, or of one `measure` of `drift`, as numbers from 0.

    Questions of one group come from one template. None where the table's optional column `group` is absent, or
    no two of the examples share a group.

    Raises:
        ValueError: an example without a group among others that have one, or with two.
    """
    frame: pd.DataFrame = getattr(evidence, table)
    if "group" not in frame:
        return None
    rows = frame[frame["measure"] == measure] if measure else frame
    groups = rows[["example", "group"]].drop_duplicates().set_index("example")["group"]
    if groups.isna().all():
        return None
    if groups.isna().any() or not groups.index.is_unique or not set(examples) <= set(groups.index):
        raise ValueError(
            f"Evidence table {table!r}, column 'group': expected one group for every example, the same in all of its "
            f"rows, received {len(groups)} pairs of {groups.index.nunique()} examples, {groups.isna().sum()} missing"
        )
    labels = np.asarray(pd.factorize(groups.loc[examples])[0], dtype=np.int64)
    return labels if len(np.unique(labels)) < len(labels) else None


@_once
def per_step(evidence: Evidence, column: str = "alignment", strict: bool = True) -> pd.DataFrame:
    """Band mean of `column` over a training step's examples: index (seed, step), a column a condition."""
    means = _mean_over_band(evidence, "training", ["seed", "step", "condition"], column, strict)
    return _side_by_side(means, "training", evidence.trained, strict)


@_once
def null_contrasts(evidence: Evidence, null: str, other: str) -> Array:
    """T(u) of every direction [draws] of `null`: mean alignment, `other` minus inoculation, band mean."""
    wide = _by_draw(evidence).loc[null]
    return np.asarray(wide[other] - wide[INOCULATION], dtype=np.float64)


@_once
def _by_draw(evidence: Evidence) -> pd.DataFrame:
    """Band mean alignment of every null direction: index (null, draw), one column a condition."""
    means = _mean_over_band(evidence, "nulls", ["null", "draw", "condition"], "alignment")
    return _side_by_side(means, "nulls", evidence.conditions)


@_once
def unrelated_contrasts(evidence: Evidence, other: str) -> pd.DataFrame:
    """`other` minus inoculation along each unrelated trait's direction, band mean: index example, a column a trait.

    Raises:
        ValueError: no trait, or an example that was not measured under both conditions, along every trait.
    """
    wide = _by_trait(evidence)
    by_trait = (wide[other] - wide[INOCULATION]).unstack("trait")  # noqa: PD010 - a series has no pivot_table
    if by_trait.isna().any(axis=None):
        raise ValueError("Evidence table 'unrelated': expected every example along every trait")
    return by_trait


@_once
def _by_trait(evidence: Evidence) -> pd.DataFrame:
    """Band mean alignment along unrelated traits: index (trait, example), one column a condition."""
    means = _mean_over_band(evidence, "unrelated", ["trait", "example", "condition"], "alignment")
    return _side_by_side(means, "unrelated", evidence.conditions)


@_once
def matched_checkpoint(evidence: Evidence) -> pd.DataFrame:
    """What neutral checkpoints at inoculation's first loss show: index (seed, example), columns alignment, loss.

    Band means at the primary position, under the neutral prompt, on the examples of `alignments`.

    Raises:
        ValueError: a seed is missing, or other examples were measured.
    """
    means = {column: _mean_over_band(evidence, "matched", ["seed", "example"], column) for column in COMPARED}
    found = pd.DataFrame(means)
    examples = set(evidence.alignments["example"])
    for seed in evidence.seeds:
        if seed not in found.index or set(found.loc[seed].index) != examples:
            raise ValueError(f"Evidence table 'matched': expected the {len(examples)} measured examples of seed {seed}")
    return found


@_once
def training_null_contrasts(evidence: Evidence, other: str) -> Array:
    """Random directions' alignment in training [draws], `other` minus inoculation: band mean, mean over seeds."""
    means = _mean_over_band(evidence, "training_nulls", ["draw", "seed", "condition"], "alignment")
    wide = _side_by_side(means, "training_nulls", evidence.trained)
    return np.asarray((wide[other] - wide[INOCULATION]).groupby("draw").mean(), dtype=np.float64)


@_once
def diverged_runs(evidence: Evidence) -> set[tuple[str, int]]:
    """The runs (condition, seed) with a log that is not finite (band layers, primary position)."""
    rows = evidence.training
    rows = rows[rows["layer"].isin(evidence.band) & (rows["position"] == evidence.primary_position)]
    logged = rows[["loss", "alignment", "projection", "grad_norm"]].to_numpy(dtype=np.float64)
    broken = rows[~np.isfinite(logged).all(axis=1)]
    return set(zip(broken["condition"].tolist(), broken["seed"].tolist(), strict=True))


@_once
def early_alignment(evidence: Evidence, fraction: float, strict: bool = True) -> pd.DataFrame:
    """Mean band alignment over a run's first `fraction` of steps: index seed, one column a condition."""
    steps = per_step(evidence, strict=strict)
    number = steps.index.get_level_values("step")
    last = pd.Series(number, index=steps.index).groupby("seed").transform("max")
    early = steps[number < (fraction * (last + 1)).map(lambda share: max(1, math.ceil(share - 1e-9)))]
    means = early.groupby("seed").mean()
    return _all_runs(means, "training", evidence) if strict else means


@_once
def before_and_after(
    evidence: Evidence, measure: str, phase: str = AFTER, strict: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`measure` before training and at `phase` by evaluation example: index (seed, example), one column a condition.

    An example with a response that could not be scored, in any run or before, is left out of all: pairs stay pairs.
    Not strictly, it is left out of that run alone, on both sides.

    Raises:
        ValueError: a value is missing or not finite, before or after training.
    """
    drift = evidence.drift
    rows = drift[(drift["measure"] == measure) & drift["phase"].isin([BEFORE, phase])]
    if strict and measure in SCORED:
        scored = rows["value"].notna().groupby(rows["example"]).transform("all")
        rows = rows[scored]
    if strict:
        finite(rows["value"].to_numpy(), f"Evidence table 'drift', measure {measure!r}")
    before = rows[(rows["phase"] == BEFORE) & (rows["condition"] == BASE)].set_index("example")["value"]
    after = rows[rows["phase"] == phase].set_index(["seed", "example", "condition"])["value"]
    wide = _side_by_side(after.dropna(), f"drift ({measure}, {phase})", evidence.trained, strict)
    examples = wide.index.get_level_values("example")
    if strict and (set(examples) != set(before.index) or not before.index.is_unique):
        raise ValueError(
            f"Evidence table 'drift', measure {measure!r}: expected the base model's 'pre' rows on the same examples "
            f"as the runs' {phase!r} rows, received {len(before)} and {examples.nunique()}"
        )
    levels = np.broadcast_to(before.reindex(examples).to_numpy()[:, None], wide.shape)
    base = wide.where(wide.isna(), levels)
    return base, wide.where(base.notna())


@_once
def drift_by_example(evidence: Evidence, measure: str, phase: str = AFTER, strict: bool = True) -> pd.DataFrame:
    """`phase` minus pre of `measure` by evaluation example (see `before_and_after`)."""
    before, after = before_and_after(evidence, measure, phase, strict)
    return after - before


@_once
def drift_by_run(
    evidence: Evidence, measure: str = "log_odds", phase: str = AFTER, strict: bool = True
) -> pd.DataFrame:
    """`phase` minus pre of `measure`, mean over examples: index seed, one column a condition."""
    means = drift_by_example(evidence, measure, phase, strict).groupby("seed").mean()
    return _all_runs(means, "drift", evidence) if strict else means


def _all_runs(wide: pd.DataFrame, table: str, evidence: Evidence) -> pd.DataFrame:
    if sorted(wide.index) != sorted(evidence.seeds):
        raise ValueError(f"Evidence table {table!r}: expected seeds {evidence.seeds}, received {tuple(wide.index)}")
    return wide


def inoculation_contrast(evidence: Evidence, rules: Rules, other: str) -> Effect:
    """Mean D = alignment(other) - alignment(inoculation), frozen model: paired by example, clustered by template."""
    means = per_example(evidence)
    name = f"alignment, {other} - inoculation"
    groups = example_groups(evidence, "alignments", means.index)
    return grouped_pairs(means[other], means[INOCULATION], groups, name, 1 - rules.alpha)


def cosine_margin(evidence: Evidence, rules: Rules) -> float:
    """The change of alignment that counts as none: `rules.equivalence` of the neutral alignment."""
    return rules.equivalence * abs(float(per_example(evidence)[NEUTRAL].mean()))


def cosine_change(evidence: Evidence, rules: Rules, other: str = NEUTRAL) -> Effect:
    """Mean D tested for equivalence to zero within `cosine_margin`."""
    return tost(inoculation_contrast(evidence, rules, other), cosine_margin(evidence, rules), rules.alpha)
