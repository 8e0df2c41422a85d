"""The tables of a calibration as plain text."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from gradinoc.claims.rules.finding import Status
from gradinoc.power.calibration.cases import ALPHA, POWER, Case
from gradinoc.power.calibration.tables import confusion, coverage, error_of, failures, gates, quick_look, rates
from gradinoc.power.scenarios import CLAIMS
from gradinoc.power.written import aligned

MARKS = "[not true there], {nothing may be said}, (true in some studies)"


def text(studies: pd.DataFrame, cases: Mapping[str, Case]) -> str:
    """The tables as aligned plain text."""
    count = int(studies.groupby("case").size().max())
    rate, cover = rates(studies, cases), coverage(studies)
    short = {effect: f"E{number}" for number, effect in enumerate(dict.fromkeys(cover["effect"]), 1)}
    covered = cover.assign(
        cell=[f"{100 * row.rate:.1f}{'' if row.passed else '*'}" for row in cover.itertuples()],
        effect=cover["effect"].map(short),
    ).pivot_table(index="case", columns="effect", values="cell", aggfunc="first", sort=False)
    verdicts = confusion(studies, cases)
    broken = failures(rate, cover)
    names = "\n".join(f"  {code}  {effect}" for effect, code in short.items())
    parts = [
        quick_look(count),
        f"{count} studies a world; Monte-Carlo error of 5 %: {100 * error_of(ALPHA, count):.1f} points, of 80 %: "
        f"{100 * error_of(POWER, count):.1f}, of 95 %: {100 * error_of(0.95, count):.1f}.",
        f"Supported / refuted, % of studies; {MARKS}\n" + _aligned(_by_claim(studies, cases)),
        "Verdicts, % of studies\n" + _aligned(_percent(verdicts.drop(columns="right")).assign(right=verdicts["right"])),
        "Gates that failed, % of studies\n" + _aligned(_percent(gates(studies))),
        f"Coverage of nominal 95 % intervals, % (* outside the bar)\n{names}\n" + _aligned(covered.fillna("")),
        "\n".join(["Bars that do not hold:", *broken]) if broken else "Every bar holds.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _by_claim(studies: pd.DataFrame, cases: Mapping[str, Case]) -> pd.DataFrame:
    """Share of studies in which each claim is supported and refuted, marked by what is true."""
    rows = {}
    for name, case in cases.items():
        mine, truth = studies[studies["case"] == name], case.scenario
        cells = {}
        for claim in CLAIMS:
            cell = "/".join(
                f"{100 * (mine[claim] == status).mean():.0f}" for status in (Status.SUPPORTED, Status.REFUTED)
            )
            marks = "{}" if claim in truth.untold else "()" if claim in truth.vary else "[]"
            cells[claim] = cell if claim in truth.holds else f"{marks[0]}{cell}{marks[1]}"
        rows[name] = cells
    return pd.DataFrame.from_dict(rows, orient="index")


def _percent(shares: pd.DataFrame) -> pd.DataFrame:
    found = shares.map(lambda share: f"{100 * share:.1f}" if share else ".")
    found.columns = [str(column).lower() for column in found.columns]
    return found


def _aligned(frame: pd.DataFrame) -> str:
    table = frame.astype(str).reset_index(names="world")
    return aligned([[str(name) for name in table.columns], *table.to_numpy().tolist()], right=True)
