"""A point a prompt: markers by family, and names of a few points where they cover nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from gradinoc.claims.evidence.tables import Evidence
from gradinoc.report.figures.lettering import drawable, fitted, within
from gradinoc.report.figures.prompts.families import PLANNED, SMALL, family_of, in_order, is_rephrased, look
from gradinoc.report.figures.style import PANEL
from gradinoc.report.wording import shown
from gradinoc.stats.effect import Array
from gradinoc.study.prompts.family import Family

Box = tuple[float, float, float, float]  # left, low, right, high, in inches of the figure
MARKER, CLEAR = 0.08, 0.17  # inches: half a marker, and how far a name keeps from points that it does not name
FAR = 14  # points from a point to its name, from which on a line joins them
NEIGHBOURS = (
    (8, 7), (8, -7), (-8, 7), (-8, -7), (0, 13), (0, -13), (11, 0), (-11, 0), (18, 20), (-18, -20), (18, -20),
    (-18, 20), (30, 0), (-30, 0), (24, 36), (24, -36), (-24, 36), (-24, -36),
)  # fmt: skip  # points, places for a name, the best first


def draw_prompts(
    axes: Axes, evidence: Evidence, x: Mapping[str, float], y: Mapping[str, float], hollow: Any = ()
) -> None:
    """A point a prompt in its family's colour and marker; hollow those of `hollow` and rephrased ones."""
    for name in in_order(evidence, [name for name in x if name in y]):
        if not np.isfinite([x[name], y[name]]).all():
            continue
        style, empty = look(evidence, name), name in hollow or is_rephrased(evidence, name)
        axes.plot(
            [x[name]], [y[name]], linestyle="", marker=style.marker, markersize=10,
            zorder=5 if family_of(evidence, name) is Family.NEUTRAL else 4, label="_" + name,
            markerfacecolor="white" if empty else style.colour, markeredgecolor=style.colour if empty else "white",
            markeredgewidth=1.8 if empty else 0.8,
        )  # fmt: skip


def name_points(
    axes: Axes, evidence: Evidence, x: Mapping[str, float], y: Mapping[str, float], names: Sequence[str]
) -> None:
    """Name a few points where a name covers no point and no other name; one that has no such place is left out."""
    figure = axes.get_figure(root=True)
    if figure is None:
        return
    figure.draw_without_rendering()  # the layout, which places depend on, comes only then
    inches = figure.dpi_scale_trans.inverted()
    drawn = [name for name in x if name in y and np.isfinite([x[name], y[name]]).all()]
    points = np.array([(axes.transData + inches).transform((x[name], y[name])) for name in drawn]).reshape(-1, 2)
    frame, taken = axes.get_window_extent().transformed(inches), list[Box]()
    for name in dict.fromkeys(names):
        if name not in drawn:
            continue
        text = fitted(drawable(shown(name)), within(PANEL / 2, SMALL), 1)
        own = drawn.index(name)
        point, others = points[own], np.delete(points, own, axis=0)
        for clear, offset in product((True, False) if name in PLANNED else (True,), NEIGHBOURS):
            box = _box(point, offset, *_size(text))
            inside = frame.x0 <= box[0] and box[2] <= frame.x1 and frame.y0 <= box[1] and box[3] <= frame.y1
            free = not _covers(box, points, MARKER) and not (clear and _could_be_of(point, box, offset, others))
            if inside and free and not any(_meet(box, other) for other in taken):
                taken.append(box)
                _write(axes, text, (x[name], y[name]), offset, look(evidence, name).ink)
                break


def _box(point: Array, offset: tuple[int, int], width: float, height: float) -> Box:
    """Where a name would stand, `offset` in points from its point."""
    left, middle = (float(each) for each in point + np.array(offset) / 72)
    left -= width * (offset[0] < 0) + width / 2 * (offset[0] == 0)
    return left, middle - height / 2, left + width, middle + height / 2


def _write(axes: Axes, text: str, point: tuple[float, float], offset: tuple[int, int], ink: str) -> None:
    """A small name beside its point, on white so that no line beneath spoils it; far from it with a thin line."""
    line = {"arrowstyle": "-", "color": ink, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4}
    far: Any = {**line, "relpos": (float(offset[0] < 0), 0.5)}
    axes.annotate(
        text, point, offset, textcoords="offset points", fontsize=SMALL, va="center", color=ink, zorder=6,
        ha="left" if offset[0] > 0 else "right" if offset[0] < 0 else "center",
        arrowprops=far if max(map(abs, offset)) > FAR else None,
        bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.6},
    )  # fmt: skip


def _size(text: str) -> tuple[float, float]:
    """About the width and height in inches of a small name."""
    step = 0.05
    wide = next((step * n for n in range(1, 200) if within(step * n, SMALL)(text)), 10.0)
    return wide, 0.17


def _covers(box: Box, points: Array, near: float) -> bool:
    inside = (points[:, 0] > box[0] - near) & (points[:, 0] < box[2] + near)
    return bool((inside & (points[:, 1] > box[1] - near) & (points[:, 1] < box[3] + near)).any())


def _could_be_of(point: Array, box: Box, offset: tuple[int, int], others: Array) -> bool:
    """Whether a name stands as near to another point as to its own, or the line that joins them runs over one."""
    end = np.array([box[0] if offset[0] > 0 else box[2], (box[1] + box[3]) / 2])
    along = np.linspace(point, end, 20)[:, None] - others
    return _covers(box, others, CLEAR) or bool((np.linalg.norm(along, axis=-1) < MARKER).any())


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def extremes(values: Mapping[str, float]) -> list[str]:
    """The prompts of the largest and of the smallest value."""
    known = {name: value for name, value in values.items() if np.isfinite(value)}
    return [max(known, key=lambda name: known[name]), min(known, key=lambda name: known[name])] if known else []
