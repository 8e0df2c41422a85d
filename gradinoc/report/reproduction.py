"""Whether a study that was computed again agrees with the tables of the first time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradinoc.errors import StudyError, reason

CLAIMS, RUNS, MATRIX = "claims.csv", "runs.csv", "matrix.csv"
KEYS = {CLAIMS: ["claim", "key"], RUNS: ["condition", "seed"], MATRIX: ["condition", "evaluation"]}
NUMBERS = {CLAIMS: ["estimate", "low", "high", "p", "n"], RUNS: [], MATRIX: ["drift", "low", "high"]}
COLUMNS = ("table", "row", "quantity", "banked", "low", "high", "fresh", "agreement")
ROUNDING, NOTHING = 1e-6, 1e-12  # two numbers that differ by less are equal: relative, and beside zero
SPREADS = 2.0  # standard deviations between runs of a prompt with several seeds, that a run may be off
NOT_COMPARED = ("seconds", "initial_adapter")  # columns of runs: how long one took, and a digest


class Agreement(StrEnum):
    """What a fresh number is to a banked one.

    Within noise is what lies in the banked interval, or, of a single run, within two standard deviations between seeds.
    Of a number that has neither nothing can be said, nor of one that was not published.
    """

    EQUAL = "equal"
    NOISE = "within noise"
    UNTOLD = "no interval"
    NEW = "not published"
    DIFFERENT = "different"


def reproduction(banked: Mapping[str, pd.DataFrame], fresh: Path) -> pd.DataFrame:
    """Compare tables, as `read_banked` has them, with those in a folder.

    Returns:
        `COLUMNS`, a row each: every claim's status, every effect's estimate, every number of a run, every cell of the
        matrix. `low` and `high` are what a fresh number is within noise in; `banked` and `fresh` are missing where only
        the other has the row.

    Raises:
        StudyError: a table is not there or not to be read.
    """
    rows: list[dict[str, Any]] = []
    for name, table in banked.items():
        rows += ({"table": name, **row} for row in COMPARED[name](table, _read(fresh, name)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def read_banked(folder: Path) -> dict[str, pd.DataFrame]:
    """Return the tables of a folder that can be compared, by the name of their file.

    Raises:
        StudyError: there is no `claims.csv`, or a table is not to be read.
    """
    return {name: _read(folder, name) for name in KEYS if name == CLAIMS or (folder / name).is_file()}


def agrees(table: pd.DataFrame) -> bool:
    """Whether every status is the same and no effect of a claim different.

    Effects without an interval do not count, nor those that only the fresh tables have.
    """
    claims = table[table["table"] == CLAIMS]
    return not bool((claims["agreement"] == Agreement.DIFFERENT).any())


def _read(folder: Path, name: str) -> pd.DataFrame:
    path, keys = folder / name, KEYS[name]
    try:
        table = pd.read_csv(path)
        for column in NUMBERS[name]:
            table[column] = pd.to_numeric(table[column])
        if "seed" in keys:
            table["seed"] = pd.to_numeric(table["seed"]).astype("Int64")
        table[keys] = table[keys].astype("string").fillna("")
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({reason(error)}); expected the tables of a report") from error
    except (ValueError, TypeError, KeyError) as error:
        raise StudyError(f"{path}: damaged, or of another version ({reason(error)})") from error
    return table.drop_duplicates(keys).set_index(keys)


def _claims(banked: pd.DataFrame, fresh: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The status of each gate and claim, and its effects; another n makes an effect different."""
    before, after = (table.groupby(level="claim", sort=False)["status"].first() for table in (banked, fresh))
    for claim in dict.fromkeys([*before.index, *after.index]):
        one, other = before.get(claim), after.get(claim)
        same = Agreement.NEW if one is None else Agreement.EQUAL if one == other else Agreement.DIFFERENT
        yield {"row": claim, "quantity": "status", "banked": one, "fresh": other, "agreement": same}
    numbers = NUMBERS[CLAIMS]
    banked, fresh = (table.dropna(subset=["effect"])[numbers] for table in (banked, fresh))
    for (claim, key), old, new in _both(banked, fresh):
        row = {"row": claim, "quantity": key}
        if old is None or new is None:
            yield _alone(row, old, new, "estimate")
            continue
        found = _agreement(old["estimate"], new["estimate"], old["low"], old["high"])
        if not _equal(old["n"], new["n"]):
            found, row["quantity"] = Agreement.DIFFERENT, f"{key} (n {old['n']:g}, now {new['n']:g})"
        elif found is Agreement.EQUAL and not all(_equal(old[name], new[name]) for name in numbers):
            found = Agreement.NOISE  # its interval or p alone
        yield _row(row, old["estimate"], new["estimate"], old["low"], old["high"], found)


def _runs(banked: pd.DataFrame, fresh: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Every number of every run; noise is what differs between seeds of the prompts that have several."""
    shared = (name for name in banked.select_dtypes("number") if name not in NOT_COMPARED)
    columns = [name for name in shared if name not in fresh or pd.api.types.is_numeric_dtype(fresh[name])]
    of_prompts = banked[columns].groupby(level="condition")
    several = (of_prompts.count() - 1).clip(lower=0).sum()  # degrees of freedom
    sums = ((banked[columns] - of_prompts.transform("mean")) ** 2).sum()
    spreads = np.sqrt(sums / several.where(several > 0))
    rounding = ROUNDING * banked[columns].abs().max()
    spreads = spreads.where(spreads > rounding)  # what no seed changes has no noise to tell
    for (condition, seed), old, new in _both(banked[columns], fresh.reindex(columns=columns)):
        for name in columns:
            row = {"row": f"{condition}/{seed}", "quantity": name}
            if old is None or new is None:
                yield _alone(row, old, new, name)
                continue
            off = SPREADS * float(spreads[name])
            low, high = old[name] - off, old[name] + off
            yield _row(row, old[name], new[name], low, high, _agreement(old[name], new[name], low, high))


def _matrix(banked: pd.DataFrame, fresh: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Every cell: drift under a prompt of runs that were trained under another."""
    numbers = NUMBERS[MATRIX]
    for (condition, evaluation), old, new in _both(banked[numbers], fresh[numbers]):
        row = {"row": f"{condition} under {evaluation}", "quantity": "drift"}
        if old is None or new is None:
            yield _alone(row, old, new, "drift")
        else:
            found = _agreement(old["drift"], new["drift"], old["low"], old["high"])
            yield _row(row, old["drift"], new["drift"], old["low"], old["high"], found)


def _both(
    banked: pd.DataFrame, fresh: pd.DataFrame
) -> Iterator[tuple[tuple[str, str], pd.Series | None, pd.Series | None]]:
    """Each key of either, with its numbers in both; None where it is not."""
    for key in dict.fromkeys([*banked.index, *fresh.index]):
        yield key, *(table.loc[key].astype(float) if key in table.index else None for table in (banked, fresh))


def _alone(row: dict[str, Any], old: pd.Series | None, new: pd.Series | None, name: str) -> dict[str, Any]:
    one, other = (np.nan if each is None else float(each[name]) for each in (old, new))
    return _row(row, one, other, np.nan, np.nan, Agreement.NEW if old is None else Agreement.DIFFERENT)


def _row(
    row: dict[str, Any], banked: float, fresh: float, low: float, high: float, agreement: Agreement
) -> dict[str, Any]:
    return {**row, "banked": banked, "low": low, "high": high, "fresh": fresh, "agreement": agreement}


def _agreement(banked: float, fresh: float, low: float, high: float) -> Agreement:
    if _equal(banked, fresh):
        return Agreement.EQUAL
    if np.isnan(banked) or np.isnan(fresh):
        return Agreement.DIFFERENT
    if not np.isfinite([low, high]).all():
        return Agreement.UNTOLD
    return Agreement.NOISE if low <= fresh <= high else Agreement.DIFFERENT


def _equal(one: float, other: float) -> bool:
    return bool(np.isclose(one, other, rtol=ROUNDING, atol=NOTHING, equal_nan=True))


COMPARED = {CLAIMS: _claims, RUNS: _runs, MATRIX: _matrix}
