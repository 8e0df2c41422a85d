"""Long tables set side by side: what was measured of several prompts or runs, a column each.

Cells are put in their places by number. Studies are simulated by the ten thousand, and of a small table pandas' own
pivots take most of the time; means over several rows are pandas' to the last bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from gradinoc.claims.tables import Evidence
from gradinoc.stats.effect import Array, finite

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
def band_mean(evidence: Evidence, table: str, keys: tuple[str, ...], column: str, strict: bool = True) -> pd.Series:
    """Mean of `column` of a table over band layers (and rows of one key), primary position; index `keys`.

    Raises:
        ValueError: no band, or a row that decides is not finite, or a key that some of the band's layers lack.
    """
    frame: pd.DataFrame = getattr(evidence, table)
    keep = frame["layer"].isin(evidence.band)
    if "position" in frame:
        keep &= frame["position"] == evidence.primary_position
    rows = frame[keep]
    groups = rows.groupby(list(keys), observed=True)[column]
    if not strict:
        return groups.mean().dropna()
    if not evidence.band:
        raise ValueError("Evidence table 'layers': no layer is in the band, so nothing can be decided")
    finite(rows[column].to_numpy(), f"Evidence table {table!r}, column {column!r} (band, primary position)")
    uneven = int((groups.size() % len(evidence.band) != 0).sum()) if len(evidence.band) > 1 else 0
    if uneven:
        raise ValueError(
            f"Evidence table {table!r}: expected every {'/'.join(keys)} at each band layer {evidence.band}, received "
            f"{uneven} otherwise"
        )
    return groups.mean()


def side_by_side(means: pd.Series, table: str, columns: Sequence[str], strict: bool = True) -> pd.DataFrame:
    """Prompts as columns, with the rows that were measured under every one of them.

    Raises:
        ValueError: no row was.
    """
    wide = means.unstack("condition")  # noqa: PD010 - a series has no pivot_table
    place = {name: number for number, name in enumerate(wide.columns)}
    if all(name in place for name in columns):
        wide = wide.iloc[:, [place[name] for name in columns]].set_axis(_conditions(tuple(columns)), axis=1)
    else:
        wide = wide.reindex(columns=list(columns))
    if not strict:
        return wide
    whole = wide.dropna() if np.isnan(wide.to_numpy()).any() else wide
    if whole.empty:
        missing = wide.isna().sum()
        raise ValueError(
            f"Evidence table {table!r}: expected {wide.index.names} that were measured under every prompt, received "
            f"none; missing {missing[missing > 0].to_dict()} of {len(wide)}"
        )
    return whole


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
    table = _placed((example, run), (len(examples), len(runs)), rows[column])
    codes = np.divmod(runs, len(seeds)) if len(runs) else (runs, runs)
    columns = pd.MultiIndex(levels=[conditions, seeds], codes=codes, names=["condition", "seed"])
    return pd.DataFrame(table, index=pd.Index(examples, name="example"), columns=columns, copy=False)


def cube(rows: pd.DataFrame, keys: Sequence[str], column: str) -> tuple[list[npt.NDArray[Any]], Array]:
    """The levels of each of `keys`, ascending, and `column` [a dimension a key]; NaN where there is no row.

    Raises:
        ValueError: two rows of one cell.
    """
    numbered = [_numbered(rows[key]) for key in keys]
    levels = [np.asarray(found) for found, _ in numbered]
    return levels, _placed(tuple(code for _, code in numbered), tuple(map(len, levels)), rows[column])


def _numbered(column: pd.Series) -> tuple[Any, npt.NDArray[np.int64]]:
    """The values of a column in ascending order, and the number of each row's."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.categories, column.cat.codes.to_numpy().astype(np.int64)
    if pd.api.types.is_numeric_dtype(column):
        found, codes = np.unique(column.to_numpy(), return_inverse=True)
        return found, codes
    codes, names = pd.factorize(column, sort=True)
    return names, codes


def _placed(codes: tuple[npt.NDArray[np.int64], ...], shape: tuple[int, ...], values: pd.Series) -> Array:
    """`values` at these places of a table of that shape, NaN elsewhere."""
    place = np.ravel_multi_index(codes, shape) if len(values) else np.zeros(0, dtype=np.int64)
    if len(place) and np.bincount(place).max() > 1:
        raise ValueError(f"column {values.name!r}: expected one row a cell of {shape}, received several")
    table = np.full(int(np.prod(shape)), np.nan)
    table[place] = values.to_numpy(dtype=np.float64)
    return table.reshape(shape)


def over_seeds(wide: pd.DataFrame) -> dict[Hashable, Array]:
    """Condition -> mean over its runs [questions] of a table with a column a run (condition, seed).

    Sums are compensated, as pandas' means of groups are. Source: Kahan, Commun. ACM 8 (1965).
    """
    table = wide.to_numpy(dtype=np.float64)
    runs: dict[Hashable, list[int]] = {}
    for place, (condition, _) in enumerate(wide.columns):
        runs.setdefault(condition, []).append(place)
    return {condition: _compensated(table[:, places].T) for condition, places in runs.items()}


def _compensated(rows: Array) -> Array:
    """The mean of `rows` [n, questions], without what rounding adds up to."""
    total, lost = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    for row in rows:
        added = row - lost
        raised = total + added
        total, lost = raised, raised - total - added
    return total / len(rows)
