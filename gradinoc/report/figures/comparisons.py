"""What stands beside the main contrast, as numbers: equal losses, the prompt pool, unrelated traits' directions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradinoc.claims.c2 import UNRELATED, unrelated_tail
from gradinoc.claims.tables import CANDIDATE, NULLS, Evidence
from gradinoc.report.figures.summaries import (
    Array,
    Mean,
    contrasts,
    exceedance,
    in_band,
    mean_interval,
    null_effects,
    paired_losses,
    template_of,
)  # fmt: skip
from gradinoc.stats.effect import Effect, overlap
from gradinoc.stats.equal_loss import Paired, ancova, binned, raw_contrast, within_example
from gradinoc.study.prompts import INOCULATION, LOSS_MATCHED, NEUTRAL
from gradinoc.study.rules import Rules

CHECKPOINT = "matched checkpoint"


@dataclass(frozen=True)
class Places:
    """Where the trait's T(v) stands, for the contrast `other` minus inoculation.

    `draws` holds the T(u) of each kind of random direction, `unrelated` those of unrelated traits, by trait, and `p`
    the p of each kind and of all unrelated traits together (key `UNRELATED`), NaN where it was not measured.
    """

    other: str
    effect: float
    draws: dict[str, Array]
    unrelated: pd.Series
    p: dict[str, float]


def null_places(evidence: Evidence) -> list[Places]:
    """The trait's place against neutral, which decides, and against loss_matched."""
    effects, nulls, unrelated = contrasts(evidence).mean(), null_effects(evidence), unrelated_effects(evidence)
    found = []
    for other in (NEUTRAL, LOSS_MATCHED):
        draws = {kind: nulls.loc[nulls["null"] == kind, other].dropna().to_numpy(dtype=float) for kind in NULLS}
        p = {kind: exceedance(float(effects[other]), values) for kind, values in draws.items()}
        p[UNRELATED] = unrelated_p(evidence, other)
        found.append(Places(other, float(effects[other]), draws, unrelated[other], p))
    return found


def unrelated_effects(evidence: Evidence) -> pd.DataFrame:
    """T(u) along each unrelated trait's direction, band mean: index trait, a column for each other condition."""
    frame = evidence.unrelated[evidence.unrelated["layer"].isin(evidence.band)]
    wide = frame.pivot_table(index="trait", columns="condition", values="alignment", sort=False)
    wide = wide.reindex(columns=list(evidence.conditions)).astype(float)
    return wide.drop(columns=INOCULATION).sub(wide[INOCULATION], axis=0).dropna()


def unrelated_p(evidence: Evidence, other: str) -> float:
    """The p of "the trait's effect exceeds every unrelated trait's" (see `unrelated_tail`); NaN if not measured."""
    try:
        return unrelated_tail(evidence, other).p
    except ValueError:  # a table is empty or has holes: a figure says so, a claim fails
        return math.nan


def loss_gaps(losses: pd.Series) -> pd.Series:
    """By condition, how far its mean loss is from inoculation's, as a share of neutral's distance."""
    distance = abs(losses[NEUTRAL] - losses[INOCULATION])
    gaps: pd.Series = (losses - losses[INOCULATION]).abs() / (distance if distance > 0 else math.nan)
    return gaps


def pool_losses(evidence: Evidence) -> pd.DataFrame:
    """One row a prompt of the pool: role, prompt, chosen, loss, gap, low, high, sorted by loss.

    `loss` is the mean over calibration questions, `gap` its difference to inoculation's, paired by question, with
    the 95 % t interval `low` to `high`. A prompt that is also a condition's own is that condition's row; so is the
    chosen one where a single condition has no row, since that is the one whose prompt was to be chosen.
    """
    columns = ["role", "prompt", "chosen", "loss", "gap", "low", "high"]
    pool = evidence.pool.assign(prompt=evidence.pool["prompt"].fillna("")).dropna(subset=["loss"])
    left = [name for name in evidence.conditions if name not in set(pool["role"])]
    if len(left) == 1:
        pool["role"] = pool["role"].where(~pool["chosen"].astype(bool), left[0])
    target = pool[pool["role"] == INOCULATION].set_index("example")["loss"].astype(float)
    rows = []
    for (role, prompt), group in pool.groupby(["role", "prompt"], sort=False):
        losses = group.set_index("example")["loss"].astype(float)
        gap = mean_interval(losses - target.reindex(losses.index))
        rows.append((role, prompt, bool(group["chosen"].any()), losses.mean(), gap.estimate, gap.low, gap.high))
    table = pd.DataFrame(rows, columns=columns)
    table["chosen"] = table.groupby("prompt")["chosen"].transform("any") if len(table) else table["chosen"]
    own = table["role"] != CANDIDATE
    table = table[own | ~table["prompt"].isin(table.loc[own, "prompt"])]
    return table.sort_values("loss", ignore_index=True, kind="stable")


def overlap_with_inoculation(evidence: Evidence) -> dict[str, float]:
    """Other condition -> the overlap coefficient of its losses with inoculation's, where both were measured."""
    losses = paired_losses(evidence).dropna(how="all")
    complete = [name for name in losses if len(losses) and losses[name].notna().all()]
    if INOCULATION not in complete:
        return {}
    return {name: overlap(losses[name], losses[INOCULATION]) for name in complete if name != INOCULATION}


def pairs_with_loss(evidence: Evidence) -> Paired | None:
    """Alignment and loss of every example under neutral and inoculation; None where losses have no common range."""
    means = in_band(evidence, "alignments", ["condition", "example"])
    alignment = means.pivot_table(index="example", columns="condition", values="alignment")
    columns = [NEUTRAL, INOCULATION]
    alignment, losses = alignment.reindex(columns=columns), paired_losses(evidence).reindex(columns=columns)
    both = alignment.join(losses.add_suffix("_loss"), how="inner").dropna().astype(float)
    if both.empty:
        return None
    groups = template_of(evidence, both.index)
    labels = None if groups is None else np.asarray(pd.factorize(groups)[0], dtype=np.int64)
    pairs = Paired(both[columns].to_numpy(), both[[f"{name}_loss" for name in columns]].to_numpy(), labels)
    return pairs if pairs.common.any(axis=0).all() else None


def ancova_lines(pairs: Paired) -> tuple[Array, Array]:
    """The lines of alignment on loss that `ancova` compares: losses [2] and heights [2, 2], (neutral, inoculation).

    One slope for both conditions; the lines run over the common range of losses.
    """
    keep = pairs.common
    columns = np.nonzero(keep)[1]
    value, loss = pairs.value[keep], pairs.loss[keep]
    centre = np.array([[values[columns == column].mean() for column in (0, 1)] for values in (value, loss)])
    rest = loss - centre[1][columns]
    slope = float(rest @ (value - centre[0][columns]) / (rest @ rest)) if (rest != 0).any() else math.nan
    ends = np.array([loss.min(), loss.max()])
    return ends, centre[0][:, None] + slope * (ends[None] - centre[1][:, None])


def at_equal_loss(evidence: Evidence, rules: Rules) -> dict[str, Mean]:
    """Alignment, neutral minus inoculation, among common losses: unadjusted, and at equal loss in three ways."""
    pairs = pairs_with_loss(evidence)
    if pairs is None:
        return {}
    effects: dict[str, Effect] = {
        "unadjusted": raw_contrast(pairs, "unadjusted"),
        "regression": ancova(pairs, "regression"),
        "loss bins": binned(pairs, "loss bins", rules.bins),
        "within examples": within_example(pairs, "within examples"),
    }
    found = {name: Mean(each.estimate, each.low, each.high, each.n) for name, each in effects.items()}
    return {name: each for name, each in found.items() if math.isfinite(each.estimate)}


def control_contrasts(evidence: Evidence) -> dict[str, tuple[Mean, float]]:
    """Further condition -> its alignment minus inoculation's, and its loss gap as a share of neutral's."""
    differences = contrasts(evidence)
    shares = loss_gaps(paired_losses(evidence).mean())
    others = [str(name) for name in differences if name != NEUTRAL]
    means = {name: mean_interval(differences[name], template_of(evidence, differences.index)) for name in others}
    return {name: (mean, float(shares[name])) for name, mean in means.items() if mean.n}


def checkpoint_contrast(evidence: Evidence) -> tuple[Mean, float]:
    """Alignment of neutral runs' matched checkpoints minus inoculation's on the base model; and the loss gap left.

    Mean over seeds by example, then over examples. The gap is in mean losses, a share of neutral's on the base model.
    """
    rows = evidence.matched
    rows = rows[rows["layer"].isin(evidence.band) & (rows["position"] == evidence.primary_position)]
    at = rows.groupby("example")[["alignment", "loss"]].mean().astype(float)
    means = in_band(evidence, "alignments", ["condition", "example"])
    inoculated = means[means["condition"] == INOCULATION].set_index("example")["alignment"].astype(float)
    difference = (at["alignment"] - inoculated).dropna()
    losses = paired_losses(evidence).mean()
    gaps = loss_gaps(pd.concat([losses, pd.Series({CHECKPOINT: at["loss"].mean()})]))
    return mean_interval(difference, template_of(evidence, difference.index)), float(gaps[CHECKPOINT])
