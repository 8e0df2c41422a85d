"""Long tables set side by side: what was measured of several prompts or runs, a column each.

Cells are put in their places by number: studies are simulated by the ten thousand, and of a small table pandas' own
pivots take most of the time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.stats.effect import Array, finite
from gradinoc.study.prompts.family import Family

Derive = TypeVar("Derive", bound=Callable[..., Any])


def once(derive: Derive) -> Derive:
    """`derive`, once for each study and arguments: several claims rest on the same numbers, which nobody changes."""

    @functools.wraps(derive)
    def recall(evidence: Evidence, *given: Any, **named: Any) -> Any:
        key = (derive.__name__, given, tuple(sorted(named.items())))
        if key not in evidence.derived:
            evidence.derived[key] = derive(evidence, *given, **named)
        return evidence.derived[key]

    return cast("Derive", recall)


@once
def band_of(evidence: Evidence) -> list[int]:
    """`evidence.band`, looked up once."""
    return evidence.band


@once
def conditions_of(evidence: Evidence) -> tuple[str, ...]:
    """`evidence.conditions`, looked up once."""
    return evidence.conditions


def family_of(evidence: Evidence, family: Family, among: Iterable[Hashable]) -> list[str]:
    """`evidence.family` as a list, looked up once."""
    some = set(among)
    return [condition for condition in _members(evidence, family) if condition in some]


@once
def _members(evidence: Evidence, family: Family) -> tuple[str, ...]:
    return evidence.family(family, list(evidence.prompts["condition"]))


def band_rows(evidence: Evidence, table: str, column: str, strict: bool = True) -> pd.DataFrame:
    """The rows of a table at the band's layers, primary position.

    Raises:
        ValueError: no band, or `column` of a row that decides is not finite.
    """
    frame: pd.DataFrame = getattr(evidence, table)
    keep = frame["layer"].isin(band_of(evidence))
    if "position" in frame:
        keep &= frame["position"] == evidence.primary_position
    rows = frame[keep]
    if strict and not band_of(evidence):
        raise ValueError("Evidence table 'layers': no layer is in the band, so nothing can be decided")
    if strict:
        finite(rows[column].to_numpy(), f"Evidence table {table!r}, column {column!r} (band, primary position)")
    return rows


@dataclass(frozen=True)
class Cube:
    """Means of a column of a table by its keys: `cells` [a dimension a key] at `levels`; NaN where nothing is."""

    keys: tuple[str, ...]
    levels: tuple[npt.NDArray[Any], ...]
    cells: Array

    def at(self, level: Hashable) -> Cube:
        """The part at one level of the first key."""
        return Cube(self.keys[1:], self.levels[1:], self.cells[list(self.levels[0]).index(level)])


@once
def band_cube(evidence: Evidence, table: str, keys: tuple[str, ...], column: str, strict: bool = True) -> Cube:
    """Mean of `column` of a table over band layers (and rows of one cell), primary position.

    Raises:
        ValueError: as `band_rows`, or a cell that some of the band's layers lack.
    """
    band, (cube, counts) = band_of(evidence), cube_of(band_rows(evidence, table, column, strict), keys, column)
    uneven = int(np.count_nonzero(counts % max(1, len(band)))) if strict else 0
    if uneven:
        raise ValueError(
            f"Evidence table {table!r}: expected every {'/'.join(keys)} at each band layer {band}, received "
            f"{uneven} otherwise"
        )
    return cube


def cube_of(rows: pd.DataFrame, keys: Sequence[str], column: str) -> tuple[Cube, npt.NDArray[np.int64]]:
    """Means of `column` by `keys`, and how many rows are in each cell [cells]."""
    numbered = [_numbered(rows[key]) for key in keys]
    shape = tuple(len(levels) for levels, _ in numbered)
    place = np.ravel_multi_index([codes for _, codes in numbered], shape)
    counts, table = np.bincount(place, minlength=math.prod(shape)), np.full(math.prod(shape), np.nan)
    if counts.max(initial=0) <= 1:
        table[place] = rows[column].to_numpy(dtype=np.float64)
    else:  # both in the order of the cells
        table[np.flatnonzero(counts)] = rows.groupby(list(keys), observed=True)[column].mean().to_numpy()
    return Cube(tuple(keys), tuple(np.asarray(levels) for levels, _ in numbered), table.reshape(shape)), counts


def side_by_side(cube: Cube, table: str, columns: Sequence[str], strict: bool = True) -> pd.DataFrame:
    """Prompts, the second key of `cube`, as columns, with the rows that were measured under every one of them.

    Without `strict` those that were measured under any.

    Raises:
        ValueError: no row was.
    """
    index, names = cube.levels
    place = {name: number for number, name in enumerate(names)}
    values = np.column_stack([cube.cells, np.full(len(index), np.nan)])  # the last for prompts without a row
    values = np.take(values, [place.get(name, len(place)) for name in columns], axis=1)
    absent = np.isnan(values)
    keep = ~(absent.any(axis=1) if strict else absent.all(axis=1))
    if strict and not keep.any():
        missing = {name: int(count) for name, count in zip(columns, absent.sum(axis=0), strict=True) if count}
        raise ValueError(
            f"Evidence table {table!r}: expected {cube.keys[0]} that were measured under every prompt, received "
            f"none; missing {missing} of {len(index)}"
        )
    rows, kept = (values, index) if keep.all() else (values[keep], index[keep])
    return pd.DataFrame(rows, index=pd.Index(kept, name=cube.keys[0]), columns=_conditions(tuple(columns)), copy=False)


@functools.lru_cache(maxsize=64)
def _conditions(names: tuple[str, ...]) -> pd.Index:
    return pd.Index(names, name="condition")


def by_run(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """`column` of rows that each belong to a run: index example, a column a run (condition, seed) as they come.

    Raises:
        ValueError: a run answered a question twice.
    """
    conditions, condition = _numbered(rows["condition"])
    seeds, seed = _numbered(rows["seed"])
    examples, example = _numbered(rows["example"])
    run, runs = pd.factorize(condition * len(seeds) + seed)
    place = example * len(runs) + run
    if len(place) and np.bincount(place).max() > 1:
        raise ValueError(f"column {column!r}: expected one row an example and run, received several")
    table = np.full(len(examples) * len(runs), np.nan)
    table[place] = rows[column].to_numpy(dtype=np.float64)
    codes = np.divmod(runs, max(1, len(seeds)))
    columns = pd.MultiIndex(levels=[conditions, seeds], codes=codes, names=["condition", "seed"])
    index, shape = pd.Index(examples, name="example"), (len(examples), len(runs))
    return pd.DataFrame(table.reshape(shape), index=index, columns=columns, copy=False)


def less_base(wide: pd.DataFrame, base: pd.DataFrame, column: str) -> pd.DataFrame:
    """`wide`, a row an example, less `column` of the base model's rows; NaN for an example that they lack."""
    before = pd.Series(base[column].to_numpy(), index=base["example"]).reindex(wide.index)
    less = wide.to_numpy() - before.to_numpy()[:, None]
    return pd.DataFrame(less, index=wide.index, columns=wide.columns, copy=False)


def _numbered(column: pd.Series) -> tuple[Any, npt.NDArray[np.int64]]:
    """The values of a column in ascending order, and the number of each row's."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.categories, column.cat.codes.to_numpy().astype(np.int64)
    if pd.api.types.is_numeric_dtype(column):
        found, codes = np.unique(column.to_numpy(), return_inverse=True)
        return found, codes
    codes, names = pd.factorize(column, sort=True)
    return names, codes


def over_seeds(wide: pd.DataFrame) -> dict[str, Array]:
    """Condition -> mean over its runs [questions] of a table with a column a run (condition, seed).

    Sums are compensated. Source: Kahan, Commun. ACM 8 (1965).
    """
    table = wide.to_numpy(dtype=np.float64)
    runs: dict[str, list[int]] = {}
    for place, (condition, _) in enumerate(wide.columns):
        runs.setdefault(str(condition), []).append(place)
    return {condition: _compensated(table[:, places].T) for condition, places in runs.items()}


def _compensated(rows: Array) -> Array:
    """The mean of `rows` [n, questions], without what rounding adds up to."""
    total, lost = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for row in rows:
        added = row - lost
        raised = total + added
        total, lost = raised, raised - total - added
    return total / len(rows)
