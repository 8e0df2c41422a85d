"""What a design can decide at all, known before anything runs: the smallest p, the narrowest interval, dead ends.

A permutation or a place among directions counts, so its p has a floor; a t test has none, but a family of one prompt,
or one seed, has no interval. A claim whose floor is above `rules.alpha`, or whose gates cannot hold, ends undecided,
whatever the data say.
"""

from __future__ import annotations

from gradinoc.power.design.ends import DeadEnd, cautions, dead_ends, resting_on
from gradinoc.power.design.reach import Reach, floor, floors, opening, reach_table, reaches
from gradinoc.power.design.sizes import CLAIMS, Design, Directions, Prompts, design_of

__all__ = [
    "CLAIMS", "DeadEnd", "Design", "Directions", "Prompts", "Reach", "cautions", "dead_ends", "design_of", "floor",
    "floors", "opening", "reach_table", "reaches", "resting_on",
]  # fmt: skip
