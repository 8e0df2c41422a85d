"""What a report says beside the figures of C2 and C3: the places of T(v) among other directions, the loss audit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from gradinoc.claims.c2 import UNRELATED, null_tails
from gradinoc.claims.c3 import loss_audit, loss_gaps
from gradinoc.claims.measures import inoculation_contrast, per_example
from gradinoc.claims.tables import CANDIDATE, Evidence
from gradinoc.report.figures.prompt_pool import candidates, pool_losses
from gradinoc.report.figures.trait_against_random import LABELS, null_places
from gradinoc.report.wording import shown
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules


@dataclass(frozen=True)
class NullRow:
    """One kind of direction without the trait: how many there are, p, and p with sampling error."""

    kind: str
    n: int
    p: float
    p_with_error: float


@dataclass(frozen=True)
class NullTable:
    """T(v) of one contrast, `other` minus inoculation, against every kind of direction."""

    other: str
    effect: float
    rows: tuple[NullRow, ...]


def null_tables(evidence: Evidence, rules: Rules) -> list[NullTable]:
    """One table a contrast, neutral's first; what was not measured has n 0, and NaN for p."""
    tables = []
    for places in null_places(evidence):
        observed = inoculation_contrast(evidence, rules, places.other)
        rows = [
            NullRow(
                LABELS[kind],
                len(draws),
                places.p[kind],
                null_tails(observed, draws, kind)[1].p if len(draws) else math.nan,
            )
            for kind, draws in places.draws.items()
        ]
        # The paired test of unrelated traits has the sampling error in it: there is no p without.
        rows.append(NullRow(UNRELATED, len(places.unrelated), math.nan, places.p[UNRELATED]))
        tables.append(NullTable(places.other, observed.estimate, tuple(rows)))
    return tables


@dataclass(frozen=True)
class Audit:
    """How near inoculation's loss the controls come, in sentences; `prompt` is the pool's choice, if there is one."""

    controls: tuple[str, ...]
    prompt: str | None
    pool: str
    checkpoints: tuple[str, ...]


def audit_losses(evidence: Evidence, rules: Rules) -> Audit:
    """The loss audit of a study: its controls, the chosen prompt of the pool, and the matched checkpoints."""
    others = [name for name in evidence.conditions if name not in (NEUTRAL, INOCULATION)]
    controls = tuple(loss_audit(evidence, rules, name)[1] for name in others)
    prompt, pool = _chosen_prompt(evidence)
    return Audit(controls, prompt, pool, tuple(_checkpoints(evidence)))


def _chosen_prompt(evidence: Evidence) -> tuple[str | None, str]:
    """The prompt of the pool that was chosen, and its gaps on calibration questions and measured examples."""
    pool = pool_losses(evidence)
    chosen = pool[pool["chosen"]]
    if chosen.empty or chosen["gap"].isna().any():
        return None, "No harmless prompt was chosen by its loss."
    row = chosen.iloc[0]
    neutral = pool.loc[pool["role"] == NEUTRAL, "gap"].abs().max()
    share = f", {100 * abs(row['gap']) / neutral:.0f} % of neutral's there" if neutral > 0 else ""
    spread = f" (95 % interval {row['low']:+.3g} to {row['high']:+.3g})" if math.isfinite(row["low"]) else ""
    words = (
        f"the one of {candidates(evidence)} harmless prompts whose mean loss on "
        f"{evidence.pool['example'].nunique()} calibration questions is closest to inoculation's. "
        f"Its gap on them is {row['gap']:+.3g} nats/token{spread}{share}"
    )
    if row["role"] == CANDIDATE:
        return row["prompt"], f"{words}. No condition has it, so it was not measured on the examples."
    losses = per_example(evidence, "loss", strict=False).mean()
    gap, left = losses[row["role"]] - losses[INOCULATION], loss_gaps(losses)[row["role"]]
    there = f"; on the measured examples, as condition {shown(row['role'])}, it is {gap:+.3g} nats/token"
    return row["prompt"], f"{words}{there}, {100 * left:.0f} % of neutral's." if math.isfinite(
        left
    ) else f"{words}{there}."


def _checkpoints(evidence: Evidence) -> list[str]:
    """One sentence a seed: the neutral run's step nearest inoculation's loss, and the gap that is left."""
    steps = evidence.matched_steps
    chosen = steps[steps["chosen"].astype(bool)].sort_values("seed")
    looked = steps.groupby("seed")["step"].nunique()
    losses = per_example(evidence, "loss", strict=False).mean()
    distance = abs(losses[NEUTRAL] - losses[INOCULATION])
    return [_checkpoint(row, int(looked[row["seed"]]), distance) for _, row in chosen.iterrows()]


def _checkpoint(row: pd.Series, looked: int, distance: float) -> str:
    gap = row["loss"] - row["target"]
    share = f", {100 * abs(gap) / distance:.0f} % of neutral's" if distance > 0 else ""
    return (
        f"Seed {row['seed']:.0f}: step {row['step']:.0f}, the nearest of {looked} checkpoints looked at, with a loss "
        f"of {row['loss']:.3f} for inoculation's {row['target']:.3f} nats/token (gap {gap:+.3g}{share})."
    )
