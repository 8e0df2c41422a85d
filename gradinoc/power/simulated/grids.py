"""Long tables of simulated studies: every combination of their keys, made once for each design."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Grid = tuple[tuple[str, tuple[Any, ...]], ...]  # the levels of each index column of a table


@lru_cache(maxsize=64)
def rows_of(*grids: Grid) -> pd.DataFrame:
    """The index columns of a long frame: one row per cell of each grid, grids one below the other.

    Made once for each design: studies of one size differ in values only. Words are categories, which group faster.
    """
    codes = [np.indices([len(levels) for _, levels in grid]).reshape(len(grid), -1) for grid in grids]
    columns: dict[str, Any] = {}
    for place, (name, levels) in enumerate(grids[0]):
        if isinstance(levels[0], str):
            every = list(dict.fromkeys(level for grid in grids for level in grid[place][1]))
            numbers = [
                np.array([every.index(level) for level in grid[place][1]])[code[place]]
                for grid, code in zip(grids, codes, strict=True)
            ]
            columns[name] = pd.Categorical.from_codes(np.concatenate(numbers).tolist(), categories=every)
        else:
            parts = [np.asarray(grid[place][1])[code[place]] for grid, code in zip(grids, codes, strict=True)]
            columns[name] = np.concatenate(parts)
    return pd.DataFrame(columns)


def table_of(grid: Grid, **values: npt.NDArray[Any]) -> pd.DataFrame:
    """A long frame, one row per cell of the grid; each value broadcasts to the grid's shape."""
    shape = tuple(len(levels) for _, levels in grid)
    return rows_of(grid).assign(**{name: np.broadcast_to(value, shape).ravel() for name, value in values.items()})


def stacked(*parts: tuple[Grid, dict[str, npt.NDArray[Any]]]) -> pd.DataFrame:
    """Tables as `table_of` makes them, one below the other; each part is a grid and its values."""
    frame = rows_of(*(grid for grid, _ in parts))
    shapes = [tuple(len(levels) for _, levels in grid) for grid, _ in parts]
    columns = {
        name: np.concatenate(
            [np.broadcast_to(values[name], shape).ravel() for (_, values), shape in zip(parts, shapes, strict=True)]
        )
        for name in parts[0][1]
    }
    return frame.assign(**columns)
