"""What would have changed C4: runs whose alignment goes with their drift, or drift that inoculation lowers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

from gradinoc.claims.c4 import PRIMARY, runs_of
from gradinoc.claims.counterfactuals.turns import DRIFT, Otherwise, Turn, above_zero, half_width, named, reach
from gradinoc.claims.design import smallest_p
from gradinoc.claims.gates import Finding, Status
from gradinoc.claims.measures import drift_by_run, early_alignment
from gradinoc.claims.tables import Evidence
from gradinoc.stats.effect import Array, Effect
from gradinoc.study.prompts import INOCULATION, NEUTRAL
from gradinoc.study.rules import Rules

CORRELATION = f"early alignment and drift in {PRIMARY}"
DIFFERENCE = f"drift in {PRIMARY}, {NEUTRAL} - {INOCULATION}"
MOST = 50_000  # arrangements of runs: more are not listed


def alignment_with_drift(finding: Finding, evidence: Evidence, rules: Rules) -> Otherwise:
    """What the correlation and the drift difference lack, or have to spare; and what refutes, if anything does."""
    if not finding.effects:
        return Otherwise("It would have been computed had every number that runs logged been finite.")
    if smallest_p(len(evidence.trained), len(evidence.seeds), draws=1)["C4"] > rules.alpha:
        return Otherwise("No number would have: it takes more seeds, or more conditions, to reach such a p.")
    pearson, difference = (named(finding.effects, name) for name in (CORRELATION, DIFFERENCE))
    follows = pearson.estimate > 0 and pearson.p <= rules.alpha
    strength = _strength(pearson, evidence, rules)
    ends = above_zero(difference, "nats/token")
    if finding.status is Status.SUPPORTED:
        flat = named(finding.effects, f"{CORRELATION}, equivalence").p <= rules.alpha
        turn = Turn(DRIFT, -difference.low, Status.REFUTED if flat else Status.UNDECIDED)
        text = "No longer supported with a weaker r, or a drift difference whose interval reaches zero:"
        return Otherwise(text, (turn,), (strength, ends))
    lacking = [*([] if follows else [strength]), *([] if difference.low > 0 else [ends])]
    lacks = "To be supported it lacks:"
    turns = (Turn(DRIFT, -difference.low, Status.SUPPORTED),) if follows and math.isfinite(difference.low) else ()
    if finding.status is Status.REFUTED:
        against = _against(finding.effects, evidence, follows, rules)
        return Otherwise(f"Undecided without {' and without '.join(against)}. {lacks}", turns, tuple(lacking))
    bar = f"Refuted had inoculated runs been shown not to drift less (an estimate of {-half_width(difference):+.3g}). "
    return Otherwise(f"{bar if math.isfinite(difference.high) else ''}{lacks}", turns, tuple(lacking))


def _strength(pearson: Effect, evidence: Evidence, rules: Rules) -> str:
    """The p of r, and the r that it takes among the arrangements of these runs."""
    least, arrangements = correlation_bar(evidence, rules)
    words = f"correlation: r {pearson.estimate:+.2f} with p {pearson.p:.2g}; it takes p of at most {rules.alpha:g}"
    if not math.isfinite(least):
        return words
    return f"{words} (r of {least:+.2f} or more, among the {arrangements:,} ways to pair these runs within seeds)"


def _against(effects: tuple[Effect, ...], evidence: Evidence, follows: bool, rules: Rules) -> list[str]:
    """What refutes, each with what it would have to lose (see `prediction.disconnected`)."""
    difference = named(effects, DIFFERENCE)
    found, exceed = [], f", which would have to exceed {rules.alpha:g})"
    if difference.high <= 0:
        half, level = half_width(difference), float(drift_by_run(evidence, PRIMARY)[NEUTRAL].mean())
        # Around zero it may be equivalent to it, which refutes as well.
        around = level > 0 and not follows and reach(difference, rules.null_margin * level, rules.alpha) >= half
        bar = half if around else -half
        found.append(f"a drift difference at or below zero (it takes an estimate above {bar:+.3g})")
    opposite = named(effects, f"{CORRELATION}, opposite")
    if opposite.estimate < 0 and opposite.p <= rules.alpha:
        found.append(f"a correlation shown to be below zero (its p for that is {opposite.p:.2g}{exceed}")
    same = [effect for effect in effects if effect.name == f"{DIFFERENCE}, equivalence"]
    flat = named(effects, f"{CORRELATION}, equivalence")
    if flat.p <= rules.alpha:
        found.append(f"an r equivalent to zero (p {flat.p:.2g}{exceed}")
    if same and same[0].p <= rules.alpha and not difference.low > 0 and not follows:
        found.append(f"a drift difference equivalent to zero (p {same[0].p:.2g}{exceed}")
    return found


def correlation_bar(evidence: Evidence, rules: Rules) -> tuple[float, int]:
    """The least r above zero whose permutation p is at most alpha, and of how many arrangements of drift among runs.

    A permutation p depends on every run and not on r alone; among the arrangements that it counts, r and p go together.
    NaN where no r has such a p, where one side does not vary, or where there are more than `MOST` arrangements.
    """
    runs = runs_of(early_alignment(evidence, rules.early_fraction), drift_by_run(evidence, PRIMARY))
    x, y = runs.x - runs.x.mean(), runs.y - runs.y.mean()
    strata = [runs.seed == seed for seed in np.unique(runs.seed)]
    count = math.prod(math.factorial(int(rows.sum())) for rows in strata)
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    if count > MOST or scale == 0:
        return math.nan, count
    sums = _sums_of_products(x, y, strata)
    found = np.unique(sums[sums > 0])
    tails = np.array([np.mean(sums >= value - 1e-9 * scale) for value in found])
    enough = found[tails <= rules.alpha]
    return float(enough[0]) / scale if len(enough) else math.nan, count


def _sums_of_products(x: Array, y: Array, strata: list[npt.NDArray[np.bool_]]) -> Array:
    """The sum of products under every arrangement of `y` within strata."""
    sums = np.zeros(1)
    for rows in strata:
        a, b = x[rows], y[rows]
        options = np.array([a @ b[list(order)] for order in itertools.permutations(range(len(b)))])
        sums = np.add.outer(sums, options).ravel()
    return sums
