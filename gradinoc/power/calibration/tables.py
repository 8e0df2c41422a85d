"""Error rates, power, coverage and verdicts of simulated studies, and whether each meets its bar."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from gradinoc.claims.rules.finding import Status
from gradinoc.claims.rules.verdict import Verdict
from gradinoc.power.calibration.cases import ALPHA, POWER, Case
from gradinoc.power.calibration.studies import COVERED, ESTIMATE, EVERY
from gradinoc.power.scenarios import CLAIMS

COVERAGE = (0.93, 0.97)  # of nominal 95 % intervals
ERRORS = 2.0  # Monte-Carlo standard errors by which a rate may miss its bar
ENOUGH = 1000  # studies of a world, by whose Monte-Carlo error a bar is judged; fewer are a quick look
SUPPORT, REFUTATION, POWERFUL, RIGHT = "false support", "false refutation", "power", "right verdict"
WRONG = "wrong verdict"  # of any kind: neither right nor UNDECIDED
ANY_VERDICT = "verdict"  # in place of a claim


def error_of(rate: float, count: int) -> float:
    """The Monte-Carlo standard error of a rate of `count` studies."""
    return math.sqrt(max(rate * (1 - rate), 0.0) / count) if count else math.nan


def at_most(bar: float, count: int) -> float:
    """The highest rate that passes a `bar`: two errors of `count` studies above it, or of `ENOUGH` if those are more.

    A quick look is no laxer than a full run: by chance alone more of its bars fail.
    """
    return bar + ERRORS * error_of(bar, max(count, ENOUGH))


def at_least(bar: float, count: int) -> float:
    """The lowest rate that passes a `bar`, as `at_most`."""
    return bar - ERRORS * error_of(bar, max(count, ENOUGH))


def rates(studies: pd.DataFrame, cases: Mapping[str, Case]) -> pd.DataFrame:
    """One row a case and a way to be wrong or right: of each claim, of all claims together, of the verdict.

    Columns: case, claim ("verdict" for that), kind of rate, n, rate, error (Monte-Carlo), bar (two errors included),
    passed.
    """
    rows = []
    for name, case in cases.items():
        mine = studies[studies["case"] == name]
        for claim, kind, hits in _counted(mine, case):
            rate, count = float(hits.mean()), len(hits)
            upwards = kind in (POWERFUL, RIGHT)
            bar = at_least(POWER, count) if upwards else at_most(ALPHA, count)
            passed = rate >= bar if upwards else rate <= bar
            error = error_of(rate, count)
            rows.append(
                {
                    "case": name, "claim": claim, "kind": kind, "n": count, "rate": rate, "error": error, "bar": bar,
                    "passed": passed,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _counted(mine: pd.DataFrame, case: Case) -> Iterator[tuple[str, str, pd.Series]]:
    """The claim, the kind of rate, and in which of the studies it was so."""
    truth = case.scenario
    for claim in CLAIMS:
        if claim in truth.vary:
            continue
        if claim not in truth.holds:
            yield claim, SUPPORT, mine[claim] == Status.SUPPORTED
        if claim in (*truth.holds, *truth.untold):
            yield claim, REFUTATION, mine[claim] == Status.REFUTED
        if claim in case.power:
            yield claim, POWERFUL, mine[claim] == Status.SUPPORTED
    if not set(CLAIMS) <= {*truth.holds, *truth.vary}:
        yield EVERY, SUPPORT, mine[EVERY].astype(bool)
    yield ANY_VERDICT, WRONG, ~mine["verdict"].isin([*truth.verdicts, Verdict.UNDECIDED.name])
    if case.typical:
        yield ANY_VERDICT, RIGHT, mine["verdict"] == case.typical


def coverage(studies: pd.DataFrame) -> pd.DataFrame:
    """One row a case and effect with a known truth.

    Columns: case, effect, n (intervals), rate (of 95 % intervals that cover the truth), error (Monte-Carlo), bias (mean
    of estimate less truth), low and high (the bar: 93 to 97 %, each edge two Monte-Carlo errors farther out), passed.
    """
    rows = []
    for name, mine in studies.groupby("case", sort=False):
        for column in (each for each in mine if str(each).startswith(COVERED)):
            hits = mine[column].dropna().to_numpy(dtype=np.float64)
            if not hits.size:
                continue
            effect, count, rate = str(column).removeprefix(COVERED), hits.size, float(hits.mean())
            low, high = at_least(COVERAGE[0], count), at_most(COVERAGE[1], count)
            rows.append(
                {
                    "case": name, "effect": effect, "n": count, "rate": rate, "error": error_of(rate, count),
                    "bias": float(mine[f"{ESTIMATE}{effect}"].mean()), "low": low, "high": high,
                    "passed": low <= rate <= high,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def confusion(studies: pd.DataFrame, cases: Mapping[str, Case]) -> pd.DataFrame:
    """Share of each verdict by case: index case, a column a verdict, and those that are right there in `right`."""
    counts = pd.crosstab(studies["case"], studies["verdict"], normalize="index")
    shares = counts.reindex(index=list(cases), columns=[verdict.name for verdict in Verdict], fill_value=0.0)
    shares.columns.name = None
    right = [" or ".join((*case.scenario.verdicts, Verdict.UNDECIDED.name)) for case in cases.values()]
    return shares.assign(right=right)


def gates(studies: pd.DataFrame) -> pd.DataFrame:
    """Share of studies in which each gate failed: index case, a column a gate that failed anywhere."""
    failed = studies["failed"].str.get_dummies(sep=" ")
    return failed.groupby(studies["case"], sort=False).mean()


def failures(rate: pd.DataFrame, cover: pd.DataFrame) -> list[str]:
    """Every bar that does not hold, in words."""
    found = [
        f"{row.case}: {row.claim}, {row.kind} {row.rate:.3f} (Monte-Carlo error {row.error:.3f}), bar {row.bar:.3f}"
        for row in rate[~rate["passed"].astype(bool)].itertuples()
    ]
    return found + [
        f"{row.case}: {row.effect}, coverage {row.rate:.3f} (Monte-Carlo error {row.error:.3f}), "
        f"bar {row.low:.3f} to {row.high:.3f}"
        for row in cover[~cover["passed"].astype(bool)].itertuples()
    ]


def quick_look(count: int) -> str:
    """What so few studies are, in words; empty where they are enough."""
    if count >= ENOUGH:
        return ""
    return (
        f"A quick look: {count} studies a world, bars as for {ENOUGH:,}. A bar that does not hold here may hold "
        "there, and the other way round."
    )
