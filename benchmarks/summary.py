"""Comparisons judged: ratios of medians with their spread, as a table and as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.jobs import JOBS
from benchmarks.outcome import Outcome, seconds
from gradinoc.disk import write_atomically

COLUMNS = ("job", "setting", "ours", "against", "unit", "ours_median", "theirs_median", "ratio", "low", "high", "n",
           "goal", "met", "note")  # fmt: skip
CHECKED, MISSING, STOPPED = "checked", "missing", "stopped"


def measurements(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Every figure, tidy: job, setting, side, quantity, repetition (NaN where there is one figure), value."""
    rows = [
        {"job": o.job, "setting": s.setting, "side": s.side, "quantity": "seconds", "repetition": s.repetition,
         "value": s.seconds}
        for o in outcomes for s in o.samples
    ] + [
        {"job": o.job, "setting": v.setting, "side": v.side, "quantity": v.name, "repetition": np.nan, "value": v.value}
        for o in outcomes for v in o.figures
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["job", "setting", "side", "quantity", "repetition", "value"])


def summarised(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """One row a comparison: both medians, their ratio ours / theirs, and how far it spreads over the repetitions.

    `low` and `high` are the least and the largest ratio of one repetition, in which the sides ran one after the other.
    `met` is 1, 0, or NaN where there is no goal.
    """
    figures = measurements(outcomes)
    rows = []
    for outcome in outcomes:
        for comparison in outcome.comparisons:
            quantity = comparison.value or "seconds"
            ours, theirs = (
                _of(figures, outcome.job, side, comparison.setting, quantity)
                for side in (comparison.ours, comparison.theirs)
            )
            ratio, each = float(np.median(ours) / np.median(theirs)), ours / theirs
            goal = np.nan if comparison.goal is None else comparison.goal
            rows.append(
                {
                    "job": outcome.job, "setting": comparison.setting, "ours": comparison.ours,
                    "against": comparison.theirs, "unit": "bytes" if comparison.value else "seconds",
                    "ours_median": float(np.median(ours)), "theirs_median": float(np.median(theirs)), "ratio": ratio,
                    "low": float(each.min()), "high": float(each.max()), "n": len(ours), "goal": goal,
                    "met": np.nan if comparison.goal is None else float(ratio <= goal), "note": comparison.note,
                }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _of(figures: pd.DataFrame, job: str, side: str, setting: str, quantity: str) -> NDArray[np.float64]:
    chosen = (figures["job"] == job) & (figures["side"] == side) & (figures["setting"] == setting)
    mine = figures[chosen & (figures["quantity"] == quantity)].sort_values("repetition", kind="stable")
    if mine.empty:
        raise ValueError(f"{job}: nothing measured of {quantity} of {side} in setting {setting!r}")
    return np.asarray(mine["value"], dtype=np.float64)


def remarks(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """Notes on each job: columns job, kind (`CHECKED`, `MISSING`, `STOPPED`), side (of
    a missing one), text.
    """
    rows = [
        remark
        for o in outcomes
        for remark in [
            *({"job": o.job, "kind": CHECKED, "side": "", "text": check} for check in o.checks),
            *({"job": o.job, "kind": MISSING, "side": name, "text": why} for name, why in o.missing.items()),
            *([{"job": o.job, "kind": STOPPED, "side": "", "text": o.failure}] if o.failure else []),
        ]
    ]
    return pd.DataFrame(rows, columns=["job", "kind", "side", "text"])


def merged(new: pd.DataFrame, path: Path, jobs: Sequence[str]) -> pd.DataFrame:
    """`new`, with the rows in the file `path` of jobs that did not run this time; in the order of `JOBS`."""
    if not path.is_file():
        return new
    # Empty text is no missing number: a job without settings has "" there.
    texts = {"job", "setting", "side", "quantity", "ours", "against", "unit", "note", "kind", "text"}
    numbers = [column for column in new.columns if column not in texts]
    old = pd.read_csv(path, keep_default_na=False, na_values={column: [""] for column in numbers})
    parts = [part for part in (old[~old["job"].isin(jobs)], new) if len(part)]
    both = pd.concat(parts, ignore_index=True) if parts else new
    return both.sort_values("job", key=lambda names: names.map(_place), kind="stable", ignore_index=True)


def _place(job: str) -> int:
    return JOBS.index(job) if job in JOBS else len(JOBS)


def write(table: pd.DataFrame, path: Path) -> None:
    """Write `table` as CSV, atomically."""
    write_atomically(path, table.to_csv(index=False, float_format="%.6g").encode())


def text(summary: pd.DataFrame, remarks: pd.DataFrame) -> str:
    """The one table, then what was checked, and what is missing or was stopped; of what the two frames hold."""
    header = ["job", "ours", "against", "ours s", "theirs s", "ratio (spread)", "goal", "met?"]
    rows = [_cells(row) for row in summary.to_dict("records")]
    by_kind = {kind: [row for row in remarks.itertuples() if row.kind == kind] for kind in (CHECKED, MISSING, STOPPED)}
    rows += [[row.job, "", row.side, "", "", "not measured", "", ""] for row in by_kind[MISSING]]
    rows += [[row.job, "", "", "", "", "stopped", "", "no"] for row in by_kind[STOPPED]]
    rows.sort(key=lambda row: _place(row[0].partition(":")[0]))
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    lines = []
    for line in [header, *rows]:
        cells = [cell.ljust(width) if at < 3 else cell.rjust(width) for at, (cell, width) in _numbered(line, widths)]
        lines.append("  ".join(cells).rstrip())
    parts = ["\n".join(lines)]
    parts.append(
        "Ratios of medians, ours / theirs; in brackets the least and the largest of a repetition. The sides of a job "
        "took turns in one run."
    )
    for job in dict.fromkeys(row.job for row in by_kind[CHECKED]):
        passed = [f"  {row.text}" for row in by_kind[CHECKED] if row.job == job]
        parts += ["\n".join([f"Checked before timing, {job}:", *passed])]
    notes = dict.fromkeys(f"  {row.job}, {row.against}: {row.note}" for row in summary.itertuples() if row.note)
    parts += ["Notes:\n" + "\n".join(notes)] if notes else []
    parts += [f"Not measured: {row.job}, {row.side}: {row.text}" for row in by_kind[MISSING]]
    parts += [f"Stopped: {row.job}: {row.text}" for row in by_kind[STOPPED]]
    return "\n\n".join(parts) + "\n"


def _numbered(line: Sequence[str], widths: Sequence[int]) -> enumerate[tuple[str, int]]:
    return enumerate(zip(line, widths, strict=True))


def _cells(row: dict[str, object]) -> list[str]:
    many = f" ({row['low']:.2f}..{row['high']:.2f})" if int(str(row["n"])) > 1 else ""
    goal, met = float(str(row["goal"])), float(str(row["met"]))
    job = f"{row['job']}: {row['setting']}" if row["setting"] else str(row["job"])
    return [
        job, str(row["ours"]), str(row["against"]), _amount(row["ours_median"], row["unit"]),
        _amount(row["theirs_median"], row["unit"]), f"{_short(float(str(row['ratio'])))}{many}",
        "" if np.isnan(goal) else f"<= {_short(goal)}", "" if np.isnan(met) else ("yes" if met else "no"),
    ]  # fmt: skip


def _amount(value: object, unit: object) -> str:
    number = float(str(value))
    return f"{number / 2**20:.0f} MiB" if unit == "bytes" else seconds(number)


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.3f}"


def failed(summary: pd.DataFrame, outcomes: Sequence[Outcome]) -> bool:
    """Whether a goal was missed or a job stopped."""
    return bool((summary["met"] == 0).any() or any(outcome.failure for outcome in outcomes))
