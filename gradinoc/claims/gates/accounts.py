"""G10: do a run's steps account for what came of them?"""

from __future__ import annotations

import numpy as np
from scipy import stats

from gradinoc.claims.evidence.measures import DIVERGED, diverged_runs
from gradinoc.claims.evidence.sources import points
from gradinoc.claims.evidence.tables import Evidence
from gradinoc.claims.rules.criteria import at_least, below
from gradinoc.claims.rules.finding import Claim, Measured, Outcome, held, refuted
from gradinoc.stats.effect import bare
from gradinoc.study.rules import Rules


def _accounting(evidence: Evidence, rules: Rules, *, secondary: bool = True) -> Measured:
    """Measured change of the log-odds on predicted, over runs, kept adapters, and neutral and own prompts."""
    if diverged_runs(evidence):
        return Measured({}, DIVERGED)
    found = points(evidence)
    if not np.ptp(found["predicted"]) or not np.ptp(found["measured"]):
        return Measured({}, "Not computed, because nothing changes.")
    line, count = stats.linregress(found["predicted"], found["measured"]), len(found)
    how = "least squares over runs, kept adapters and prompts"
    slope = bare("measured change of log-odds per nat accounted for", line.slope, count, "points", how)
    r2 = bare("R2 of measured on accounted change", line.rvalue**2, count, "points", how)
    statement = (
        f"Of {count} changes of log-odds the measured is {line.slope:.3f} times the accounted, R2 {r2.estimate:.3f}."
    )
    return Measured({"slope": slope, "r2": r2}, statement)


def _accounts(found: Measured, rules: Rules) -> Outcome:
    if not found.effects:
        return refuted(found.statement)
    low, high = rules.accounted
    rule = f"a slope of {low:g} to {high:g} and R2 of at least {rules.accounted_r2:g}"
    slope, r2 = found["slope"], found["r2"]
    return held(rule, at_least(slope, low), below(slope, high), at_least(r2, rules.accounted_r2))


G10 = Claim("G10", "A run's steps account for its drift.", _accounting, _accounts, needs="attribution")
