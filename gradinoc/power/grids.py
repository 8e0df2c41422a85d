"""Long tables of simulated studies: every combination of their keys, made once for each design."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Grid = tuple[tuple[str, tuple[Any, ...]], ...]  # the levels of each index column of a table
DOMAINS = {"score": "in_distribution", "score_ood": "everyday"}


@lru_cache(maxsize=64)
def rows_of(*grids: Grid) -> pd.DataFrame:
    """The index columns of a long frame: one row per cell of each grid, grids one below the other.

    Made once for each design: studies of one size differ in values only.
    """
    frames = []
    for grid in grids:
        codes = np.indices([len(levels) for _, levels in grid]).reshape(len(grid), -1)
        frames.append(
            pd.DataFrame({name: np.asarray(levels)[code] for (name, levels), code in zip(grid, codes, strict=True)})
        )
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


@lru_cache(maxsize=8)
def answered(*grids: Grid) -> pd.DataFrame:
    """The index columns of responses, from those of their scores."""
    frame = rows_of(*grids)
    domain = frame["measure"].map(DOMAINS)
    question = domain + " question " + frame["example"].astype(str) + "?"
    return frame.drop(columns="measure").assign(domain=domain, question=question)


def table_of(grid: Grid, **values: npt.NDArray[Any]) -> pd.DataFrame:
    """A long frame, one row per cell of the grid; each value broadcasts to the grid's shape."""
    shape = tuple(len(levels) for _, levels in grid)
    return rows_of(grid).assign(**{name: np.broadcast_to(value, shape).ravel() for name, value in values.items()})
