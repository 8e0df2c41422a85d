"""Error rates, power, coverage and verdicts of simulated studies, and whether each meets its bar."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from gradinoc.claims.finding import Status
from gradinoc.claims.verdict import Verdict
from gradinoc.power.calibration.cases import ALPHA, POWER, Case, truths
from gradinoc.power.calibration.studies import COVERED, ESTIMATE
from gradinoc.power.scenarios import CLAIMS

COVERAGE = (0.93, 0.97)  # of nominal 95 % intervals
ERRORS = 2.0  # Monte-Carlo standard errors by which a rate may miss its bar
FALSE_POSITIVE, POWERFUL, RIGHT = "false positive", "power", "right verdict"
WRONG = "wrong"  # the row of verdicts that are neither right nor UNDECIDED


def error_of(rate: float, count: int) -> float:
    """The Monte-Carlo standard error of a rate of `count` studies."""
    return math.sqrt(max(rate * (1 - rate), 0.0) / count) if count else math.nan


def at_most(bar: float, count: int) -> float:
    """The highest rate of `count` studies that a true rate of `bar` explains: two standard errors above."""
    return bar + ERRORS * error_of(bar, count)


def at_least(bar: float, count: int) -> float:
    """The lowest rate of `count` studies that a true rate of `bar` explains: two standard errors below."""
    return bar - ERRORS * error_of(bar, count)


def rates(studies: pd.DataFrame, cases: Mapping[str, Case]) -> pd.DataFrame:
    """One row a case and claim, one for the verdict SUPPORTED and one for any wrong verdict.

    Columns: case, claim, true (here), n, rate (supported), error (Monte-Carlo), refuted, kind of bar ("" none), bar
    (with two errors), passed (NaN without a bar).
    """
    rows = []
    for name, case in cases.items():
        mine = studies[studies["case"] == name]
        for claim in CLAIMS:
            true = claim in case.scenario.holds
            kind = POWERFUL if claim in case.power else FALSE_POSITIVE if not true and not case.limit else ""
            refuted = float((mine[claim] == Status.REFUTED).mean())
            rows.append(_rate(name, claim, true, mine[claim] == Status.SUPPORTED, kind) | {"refuted": refuted})
        supported = Verdict.SUPPORTED.name
        right = supported in case.scenario.verdicts
        kind = "" if right or case.limit else FALSE_POSITIVE
        rows.append(_rate(name, supported, right, mine["verdict"] == supported, kind) | {"refuted": math.nan})
        passable = {*case.scenario.verdicts, Verdict.UNDECIDED.name}
        kind = "" if case.limit else FALSE_POSITIVE
        rows.append(_rate(name, WRONG, False, ~mine["verdict"].isin(passable), kind))
        if case.typical:
            rows.append(_rate(name, case.scenario.verdict, True, mine["verdict"] == case.scenario.verdict, RIGHT))
    return pd.DataFrame(rows)


def _rate(name: str, claim: str, true: bool, hits: pd.Series, kind: str) -> dict[str, object]:
    count, rate = len(hits), float(hits.mean())
    bar, passed = math.nan, math.nan
    if kind == FALSE_POSITIVE:
        bar = at_most(ALPHA, count)
        passed = float(rate <= bar)
    elif kind:
        bar = at_least(POWER, count)
        passed = float(rate >= bar)
    return {
        "case": name, "claim": claim, "true": true, "n": count, "rate": rate, "error": error_of(rate, count),
        "kind": kind, "bar": bar, "passed": passed,
    }  # fmt: skip


def coverage(studies: pd.DataFrame, cases: Mapping[str, Case]) -> pd.DataFrame:
    """One row a case and effect with a known truth.

    Columns: case, effect, truth, n, rate (of 95 % intervals that cover the truth), error (Monte-Carlo), bias (mean
    estimate minus truth), low and high (the bar: 93 to 97 %, each edge two of its Monte-Carlo errors farther out),
    passed.
    """
    rows = []
    for name, case in cases.items():
        mine = studies[studies["case"] == name]
        for effect, truth in truths(case).items():
            hits = mine[f"{COVERED}{effect}"].to_numpy(dtype=np.float64)
            count, rate = len(hits), float(hits.mean())
            low, high = at_least(COVERAGE[0], count), at_most(COVERAGE[1], count)
            rows.append(
                {
                    "case": name, "effect": effect, "truth": truth, "n": count, "rate": rate,
                    "error": error_of(rate, count), "bias": float(mine[f"{ESTIMATE}{effect}"].mean()) - truth,
                    "low": low, "high": high, "passed": low <= rate <= high,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def confusion(studies: pd.DataFrame, cases: Mapping[str, Case]) -> pd.DataFrame:
    """Share of each verdict by case: index case, a column a verdict, and the right ones in `right`, best first."""
    counts = pd.crosstab(studies["case"], studies["verdict"], normalize="index")
    shares = counts.reindex(index=list(cases), columns=[verdict.name for verdict in Verdict], fill_value=0.0)
    shares.columns.name = None
    return shares.assign(right=[" or ".join(case.scenario.verdicts) for case in cases.values()])


def failures(rate: pd.DataFrame, cover: pd.DataFrame) -> list[str]:
    """Every bar that does not hold, in words."""
    found = [
        f"{row.case}: {row.claim}, {row.kind} {row.rate:.3f} (Monte-Carlo error {row.error:.3f}), bar {row.bar:.3f}"
        for row in rate[rate["passed"] == 0].itertuples()
    ]
    return found + [
        f"{row.case}: {row.effect}, coverage {row.rate:.3f} (Monte-Carlo error {row.error:.3f}), "
        f"bar {row.low:.3f} to {row.high:.3f}"
        for row in cover[~cover["passed"].astype(bool)].itertuples()
    ]


def text(rate: pd.DataFrame, cover: pd.DataFrame, verdicts: pd.DataFrame) -> str:
    """The tables as aligned plain text; a star marks a bar that does not hold, brackets a claim that is false there."""
    cells = rate[rate["kind"] != RIGHT].assign(cell=[_cell(row) for row in rate[rate["kind"] != RIGHT].itertuples()])
    by_claim = cells.pivot_table(index="case", columns="claim", values="cell", aggfunc="first", sort=False)
    short = {effect: f"E{number}" for number, effect in enumerate(dict.fromkeys(cover["effect"]), 1)}
    covered = cover.assign(
        cell=[f"{100 * row.rate:.1f}{'' if row.passed else '*'}" for row in cover.itertuples()],
        effect=cover["effect"].map(short),
    )
    by_effect = covered.pivot_table(index="case", columns="effect", values="cell", aggfunc="first", sort=False)
    shares = verdicts.drop(columns="right").map(lambda share: f"{100 * share:.1f}" if share else ".")
    shares.columns = [str(column).lower() for column in shares.columns]
    names = "\n".join(f"  {code}  {effect}" for effect, code in short.items())
    count = int(rate["n"].max())
    parts = [
        f"{count} studies a scenario; Monte-Carlo error of 5 %: {100 * error_of(ALPHA, count):.1f} points, of 80 %: "
        f"{100 * error_of(POWER, count):.1f}, of 95 %: {100 * error_of(0.95, count):.1f}.",
        "Supported, % of studies; [in brackets] where the claim, or the verdict, is not right\n" + _aligned(by_claim),
        f"Coverage of nominal 95 % intervals, %\n{names}\n" + _aligned(by_effect.fillna("")),
        "Verdicts, % of studies\n" + _aligned(shares.assign(right=verdicts["right"].str.lower())),
    ]
    broken = failures(rate, cover)
    parts.append("\n".join(["Bars that do not hold:", *broken]) if broken else "Every bar holds.")
    return "\n\n".join(parts) + "\n"


def _cell(row: object) -> str:
    value = f"{100 * row.rate:.1f}{'*' if row.passed == 0 else ''}"  # type: ignore[attr-defined]
    return value if row.true else f"[{value}]"  # type: ignore[attr-defined]


def _aligned(frame: pd.DataFrame) -> str:
    table = frame.astype(str).reset_index(names="scenario")
    widths = [max(len(str(name)), *(len(value) for value in table[name])) for name in table.columns]
    lines = [list(map(str, table.columns)), *table.to_numpy().tolist()]
    rows = [
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    return "\n".join(row.rstrip() for row in rows)
