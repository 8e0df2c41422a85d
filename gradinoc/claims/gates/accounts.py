"""G10: do a run's steps account for what came of them?"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats

from gradinoc.claims.evidence.measures import DIVERGED, diverged_runs
from gradinoc.claims.evidence.sources import OF_RUN, points, stretches
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.criteria import at_least, below
from gradinoc.claims.rules.finding import Claim, Measured, Outcome, held, refuted
from gradinoc.stats.effect import Effect, bare
from gradinoc.study.prompts import NEUTRAL
from gradinoc.study.rules import Rules


def _accounting(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """Measured change of the log-odds on predicted, over runs, kept adapters, and neutral and own prompts.

    Beside it the same at the last kept adapter, over runs, under either prompt, where no point holds another; and over
    what is between two kept adapters.
    """
    if diverged_runs(evidence):
        return Measured({}, DIVERGED)
    found = points(evidence)
    if not np.ptp(found["predicted"]) or not np.ptp(found["measured"]):
        return Measured({}, "Not computed, because nothing changes.")
    effects = _line(found, "", "runs, kept adapters and prompts")
    intercept = float(found["measured"].mean() - effects["slope"].estimate * found["predicted"].mean())
    statement = (
        f"Of {len(found)} changes of log-odds the measured is {effects['slope'].estimate:.3f} times the accounted, "
        f"R2 {effects['r2'].estimate:.3f}, with an intercept that is free ({intercept:+.3f} nats)."
    )
    if secondary:
        last = found[found["step"] == found.groupby(OF_RUN, observed=True)["step"].transform("max")]
        conditions, under = (last[column].astype(str) for column in ("condition", "evaluation"))
        own = (under == conditions) & (conditions != NEUTRAL)
        effects |= _line(last[under == NEUTRAL], "last.neutral.", "runs at their last adapter, neutral prompt")
        effects |= _line(last[own], "last.own.", "runs at their last adapter, own prompt")
        effects |= _line(stretches(evidence), "increments.", "runs, prompts and stretches between kept adapters")
    return Measured(effects, statement)


def _line(found: pd.DataFrame, key: str, over: str) -> dict[str, Effect]:
    """Slope and R2 of measured on predicted changes; NaN of fewer than three points, or where nothing changes."""
    changes, count = found[["predicted", "measured"]].to_numpy(dtype=np.float64), len(found)
    how, slope, r2 = f"least squares over {over}, intercept free", math.nan, math.nan
    if count < 3 or not np.ptp(changes, axis=0).all():
        how = f"no line through {count} points over {over}"
    else:
        line = stats.linregress(*changes.T)
        slope, r2 = float(line.slope), float(line.rvalue**2)
    beside = f", {over}" if key else ""
    return {
        f"{key}slope": bare(f"measured change of log-odds per nat accounted for{beside}", slope, count, "points", how),
        f"{key}r2": bare(f"R2 of measured on accounted change{beside}", r2, count, "points", how),
    }


def _accounts(found: Measured, rules: Rules) -> Outcome:
    if not found.effects:
        return refuted(found.statement)
    low, high = rules.accounted
    rule = f"a slope of {low:g} to {high:g} and R2 of at least {rules.accounted_r2:g}"
    slope, r2 = found["slope"], found["r2"]
    return held(rule, at_least(slope, low), below(slope, high), at_least(r2, rules.accounted_r2))


G10 = Claim("G10", "A run's steps account for its drift.", _accounting, _accounts, needs=("attribution",))
