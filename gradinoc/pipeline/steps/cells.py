"""Cells of the specification curve: numbers by layer, as means over thirds of the layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from gradinoc.study.description import POSITIONS

THIRDS = 3


def cells(measures: Mapping[str, Tensor], ways: Sequence[str]) -> pd.DataFrame:
    """Return direction, position, third, measure, value of measure -> `[layers, positions, directions]`.

    A third of the layers, from the lowest, is 0, 1 or 2; of fewer than three layers some are left out.
    """
    frames = []
    for measure, values in measures.items():
        parts = np.array_split(values.double().numpy(), THIRDS)
        kept = [(third, part.mean(axis=0)) for third, part in enumerate(parts) if len(part)]
        table = np.stack([mean for _, mean in kept])  # (thirds, P, directions)
        third, position, way = (axis.ravel() for axis in np.indices(table.shape))
        frames.append(
            pd.DataFrame(
                {
                    "direction": np.asarray(ways)[way],
                    "position": np.asarray(POSITIONS)[position],
                    "third": np.asarray([number for number, _ in kept])[third],
                    "measure": measure,
                    "value": table.ravel(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)
